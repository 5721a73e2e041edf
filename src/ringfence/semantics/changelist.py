# SPDX-License-Identifier: Apache-2.0
"""Differences as text and as Markdown: what is lost and gained, said once for all parties that it is true of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ringfence.semantics.differences import Change, Differences
from ringfence.semantics.parties import Party
from ringfence.semantics.tables import names


@dataclass(frozen=True, slots=True)
class Line:
    """Changes that are alike but for their ends: every source here to every destination here."""

    gained: bool
    sources: str
    destinations: str
    traffic: str
    because: tuple[str, ...]

    def __str__(self) -> str:
        return f"{'+' if self.gained else '-'} {self.sources} -> {self.destinations} {self.traffic}"


def lines(found: Differences, everyone: Sequence[Party]) -> list[Line]:
    """Return the differences, lost ones first; exactly what they are, however many share a line."""
    pods = [party for party in everyone if party.is_pods]
    to: dict[tuple[bool, str, tuple[str, ...], str], list[Change]] = defaultdict(list)
    for change in found.changes:
        to[change.gained, found.text(change), change.because, change.exchange.destination.name].append(change)
    alike: dict[tuple[bool, str, tuple[str, ...], tuple[Party, ...]], list[Party]] = defaultdict(list)
    for (gained, text, because, _), changes in to.items():
        destination = changes[0].exchange.destination
        sources = _with_itself([change.exchange.source for change in changes], destination, pods)
        alike[gained, text, because, sources].append(destination)
    made = [
        Line(gained, names(sources, pods), names(destinations, pods), text, because)
        for (gained, text, because, sources), destinations in alike.items()
    ]
    return sorted(made, key=lambda line: (line.gained, line.sources, line.destinations, line.traffic))


def _with_itself(sources: list[Party], destination: Party, pods: Sequence[Party]) -> tuple[Party, ...]:
    """Return sources, with the destination if they are all others of its namespace: "shop/*" then names them all.

    A pod's traffic to itself never changes, so nothing is said of it that is not so.
    """
    others = {party for party in pods if party.namespace == destination.namespace and party is not destination}
    if len(destination.pods) == 1 and len(others) > 1 and others <= set(sources):
        sources = [party for party in pods if party in sources or party is destination] + [
            party for party in sources if not party.is_pods
        ]
    return tuple(sources)


def summary(found: Differences) -> str:
    """Say how many pairs of ends gain and lose something."""
    gained = sum(change.gained for change in found.changes)
    lost = len(found.changes) - gained
    if not found.changes:
        return "No connection is gained or lost."
    return f"{_count(lost)} lost, {_count(gained)} gained."


def _count(number: int) -> str:
    return f"{number} connection{'' if number == 1 else 's'}"


def markdown(found: Differences, everyone: Sequence[Party]) -> str:
    """Return the differences as a comment for a pull request."""
    return "\n".join(_markdown(found, everyone))


def _markdown(found: Differences, everyone: Sequence[Party]) -> Iterator[str]:
    yield "### Network policies: what changes"
    yield ""
    yield summary(found)
    if found.changes:
        yield ""
        yield "| | from | to | traffic | because |"
        yield "|---|---|---|---|---|"
        for line in lines(found, everyone):
            cells = (line.sources, line.destinations, line.traffic, "; ".join(line.because))
            yield f"| {'gained' if line.gained else 'lost'} | {' | '.join(map(_escaped, cells))} |"
    if found.notes:
        yield ""
        yield from (f"- {_escaped(note)}" for note in found.notes)


def _escaped(text: str) -> str:
    """Escape what Markdown or HTML would take for markup."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#" else c for c in text)
