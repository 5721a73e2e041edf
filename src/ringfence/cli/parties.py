# SPDX-License-Identifier: Apache-2.0
"""Which parties a user means, and what they should know about them: for the commands that show many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ringfence.errors import UsageError

if TYPE_CHECKING:
    from ringfence.semantics.parties import Party
    from ringfence.semantics.space import Space


def choose(
    everyone: Sequence[Party], *, namespace: str | None, sources: Sequence[str], destinations: Sequence[str]
) -> Callable[[Party, Party], bool]:
    """Return which pairs are shown: between what was named, and with an end in the namespace; no name is any."""
    if namespace is not None and not any(party.namespace == namespace for party in everyone):
        known = ", ".join(sorted({party.namespace for party in everyone if party.namespace})) or "none"
        raise UsageError(f"no pod with an address in namespace {namespace} (there are pods in: {known})")
    wanted_from = _named(everyone, sources, namespace) if sources else None
    wanted_to = _named(everyone, destinations, namespace) if destinations else None

    def chosen(source: Party, destination: Party) -> bool:
        return (
            (namespace is None or namespace in (source.namespace, destination.namespace))
            and (wanted_from is None or source.name in wanted_from)
            and (wanted_to is None or destination.name in wanted_to)
        )

    return chosen


def _named(everyone: Sequence[Party], patterns: Sequence[str], namespace: str | None) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matching = {party.name for party in everyone if _matches(party, pattern, namespace)}
        if not matching:
            few = ", ".join(party.name for party in everyone[:8])
            raise UsageError(f"nobody is called {pattern!r}: names are as in {few}")
        found |= matching
    return found


def _matches(party: Party, pattern: str, namespace: str | None) -> bool:
    patterns = (pattern, f"{namespace or '*'}/{pattern}") if "/" not in pattern else (pattern,)
    names = (party.name, *map(str, party.pods))
    return any(fnmatchcase(name, each) for name in names for each in patterns)


def notes(objects: Iterable[Mapping[str, Any]], space: Space) -> list[str]:
    """Return sentences on what is easily overlooked: made-up addresses, and pods on the node's network."""
    from ringfence.model.cluster import PodKey

    given = {
        PodKey(obj["metadata"].get("namespace") or "default", obj["metadata"].get("name", ""))
        for obj in objects
        if obj.get("kind") == "Pod" and (obj.get("status") or {}).get("podIP")
    }
    pods = [each for each in space.cluster.endpoints.values() if not each.host_network]
    made_up = [each for each in pods if each.key not in given]
    found = []
    if made_up and space.questions.has_blocks:
        found.append(
            f"{len(made_up)} of {len(pods)} pods have no known address; ipBlock rules are judged for them on "
            "made-up ones of 198.18.0.0/15 and 2001:db8:198:18::/64"
        )
    host = sorted(str(each.key) for each in space.cluster.endpoints.values() if each.host_network)
    if host:
        more = f" and {len(host) - 3} more" if len(host) > 3 else ""
        found.append(f"pods with hostNetwork are their nodes, and no policy isolates them: {', '.join(host[:3])}{more}")
    return found
