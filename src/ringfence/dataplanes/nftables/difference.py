# SPDX-License-Identifier: Apache-2.0
"""How two tables with the same hooks differ: which pods are judged by other chains, and which sets by other elements.

The dispatch, who is isolated and who is who are told apart from sets of peers by their names. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ringfence.dataplanes.nftables.elements import Element, covered, merged_spans, spans_of, spans_of_prefixes
from ringfence.dataplanes.nftables.layout import Key, Set, Table, VerdictMap, live
from ringfence.dataplanes.nftables.peers import prefix_of
from ringfence.model.addresses import Address

DISPATCH, ISOLATED, SELF = "dispatch-", "isolated-", "self"


@dataclass(frozen=True, slots=True)
class Moved:
    """A pod's address that is judged by another chain than before, in the dispatch of one direction and family.

    ``dispatch`` and ``key`` are the map's; ``old`` and ``new`` are names of chains, None where no chain judges it.
    """

    dispatch: str
    key: str
    address: Element
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Reset:
    """A set that has other elements than before: ``plus`` and not ``minus``."""

    set: Set
    plus: frozenset[Element]
    minus: frozenset[Element]

    def growing(self) -> tuple[frozenset[Element], frozenset[Element]]:
        """Return what goes and what comes so that the set covers the old and the new. Spans may not overlap."""
        return self.minus - self._together(), self._together() - self.minus

    def shrinking(self) -> tuple[frozenset[Element], frozenset[Element]]:
        """Return what goes and what comes afterwards, so that it covers the new alone."""
        return self._together() - self.plus, self.plus - self._together()

    def covered(self, elements: frozenset[Element], pods: frozenset[Address]) -> AbstractSet[Address]:
        """Return which pods elements of the set mean."""
        length = prefix_of(self.set.name)
        return covered(elements if length is None else spans_of_prefixes(elements, length), pods)

    def concerns_others(self, address: Element) -> bool:
        """Tell whether more has changed than whether one address is in the set."""
        changed = self.plus | self.minus
        return bool(changed if prefix_of(self.set.name) is not None else changed - {address})

    def _together(self) -> frozenset[Element]:
        changed = self.plus | self.minus
        # What stays touches neither the old spans nor the new ones, or it would have been merged with them.
        return merged_spans(spans_of(changed)) if self.set.interval else changed


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that can change in place. ``peers`` are the sets that rules ask; ``idle`` those that none asks yet."""

    moved: tuple[Moved, ...]
    isolated: tuple[Reset, ...]
    selves: tuple[Reset, ...]
    peers: tuple[Reset, ...]
    idle: tuple[Reset, ...]


def difference(there: Table, wanted: Table, *, tidy: bool) -> Difference:
    """Return how the objects that both tables have differ. ``tidy``: packets meet all that is there."""
    resets = list(_resets(there, wanted))
    idle = frozenset[Key]() if tidy or not resets else there.objects().keys() - live(there)
    peers = [reset for reset in resets if not reset.set.name.startswith((ISOLATED, SELF))]
    return Difference(
        moved=tuple(_moved(there, wanted)),
        isolated=tuple(r for r in resets if r.set.name.startswith(ISOLATED)),
        selves=tuple(r for r in resets if r.set.name.startswith(SELF)),
        peers=tuple(r for r in peers if ("set", r.set.name) not in idle),
        idle=tuple(r for r in peers if ("set", r.set.name) in idle),
    )


def _moved(there: Table, wanted: Table) -> Iterator[Moved]:
    for name, goal in wanted.maps.items():
        now = there.maps.get(name)
        if now is None or now is goal or not name.startswith(DISPATCH):
            continue
        old, new = _chains(now), _chains(goal)
        for address in old.keys() | new.keys():
            if old.get(address) != new.get(address):
                yield Moved(name, goal.key, address, old.get(address), new.get(address))


def _chains(dispatch: VerdictMap) -> Mapping[Element, str]:
    return {address: verdict.partition(" ")[2] for address, verdict in dispatch.elements.items()}


def _resets(there: Table, wanted: Table) -> Iterator[Reset]:
    for name, goal in wanted.sets.items():
        now = there.sets.get(name)
        if now is not None and now.elements is not goal.elements and now.elements != goal.elements:
            plus, minus = goal.elements - now.elements, now.elements - goal.elements
            yield Reset(goal, frozenset(plus), frozenset(minus))
