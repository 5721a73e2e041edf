# SPDX-License-Identifier: Apache-2.0
"""Who reaches whom as text: a matrix where it fits a terminal, else a list.

The list says for each source what it may send and to whom. Workloads that no policy tells apart share a line, and all
workloads of a namespace, or all there are, have one name; so it grows with the policies, not with the cluster.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ringfence.semantics.parties import Party
from ringfence.semantics.reachability import Reachability

_ITSELF = "."
_FEW = 8
Row = tuple[str, ...]


def matrix(reached: Reachability) -> list[str]:
    """Return a table: sources down, destinations across."""
    rows = [("FROM \\ TO", *(party.name for party in reached.destinations))]
    for source in reached.sources:
        cells = (reached.by_ends.get((source.name, destination.name)) for destination in reached.destinations)
        rows.append((source.name, *(_ITSELF if each is None else _cell(reached.text(each)) for each in cells)))
    return columns(rows)


def width(lines: Iterable[str]) -> int:
    """Return how wide a table is."""
    return max(map(len, lines), default=0)


def _cell(text: str) -> str:
    return "-" if text == "none" else text


def listing(reached: Reachability) -> list[str]:
    """Return a list: source, what it may send, and to whom. What is not listed is denied."""
    rows: list[Row] = [("FROM", "TRAFFIC", "TO")]
    everyone = [party for party in reached.destinations if party.is_pods]
    for group in _alike(reached.sources):
        found: dict[str, dict[str, Party]] = defaultdict(dict)
        for source in group:
            for destination in reached.destinations:
                each = reached.by_ends.get((source.name, destination.name))
                if each is not None and each.ever:
                    found[reached.text(each)][destination.name] = destination
        name = names(group, [party for party in reached.sources if party.is_pods], most=_FEW)
        rows += (
            (name, traffic, names(list(to.values()), everyone, most=_FEW)) for traffic, to in sorted(found.items())
        )
        if not found:
            rows.append((name, "none", "-"))
    return columns(rows)


def pairs(reached: Reachability) -> list[str]:
    """Return each pair on a line, denied ones too, with what decides in each direction."""
    rows: list[Row] = [("FROM", "TO", "TRAFFIC", "EGRESS", "INGRESS")]
    rows += ((e.source.name, e.destination.name, reached.text(e), *reached.because(e)) for e in reached.exchanges)
    return columns(rows)


def _alike(parties: Sequence[Party]) -> Iterator[list[Party]]:
    """Yield parties together that no policy tells apart: their addresses are of the same classes."""
    groups: dict[object, list[Party]] = defaultdict(list)
    for party in parties:
        groups[frozenset(each.number for each, _ in party.parts), party.kind if not party.is_pods else None].append(
            party
        )
    yield from groups.values()


def names(chosen: Sequence[Party], everyone: Sequence[Party], *, most: int | None = None) -> str:
    """Name parties in short: "all pods", "bank/* (12)", or each by its name; of pods at most so many names."""
    pods = [party for party in chosen if party.is_pods]
    if pods and len(pods) == len(everyone) > 1:
        words = [f"all pods ({len(pods)})"]
    else:
        words = list(_by_namespace(pods, everyone))
    if most is not None and len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return ", ".join((*words, *(party.name for party in chosen if not party.is_pods)))


def _by_namespace(pods: Sequence[Party], everyone: Sequence[Party]) -> Iterator[str]:
    there = Counter(party.namespace for party in everyone)
    for namespace in dict.fromkeys(party.namespace for party in pods):
        mine = [party.name for party in pods if party.namespace == namespace]
        if len(mine) == there[namespace] > 2:
            yield f"{namespace}/* ({len(mine)})"
        else:
            yield from mine


def columns(rows: Sequence[Row]) -> list[str]:
    """Return rows as lines with aligned columns."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return ["   ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
