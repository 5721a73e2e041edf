# SPDX-License-Identifier: Apache-2.0
"""A flattened program kept up with its program: what did not change is neither looked at nor written down anew.

``compiler.flatten`` says what a flattened program is. This arrives at an equal one by keeping what that builds and
exchanging in it what has changed, which it finds by identity (``compiler.program``): a pod that comes is a few
look-ups, whatever the number of pods and policies. It tells what it has changed, so that nobody has to search for it.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import compress
from typing import TypeVar

from ringfence.compiler.flat import FlatProgram, PartId
from ringfence.compiler.flat_atoms import Atoms
from ringfence.compiler.flat_blocks import KeptBlocks, Stretch
from ringfence.compiler.flat_change import FlatChange
from ringfence.compiler.flat_pairs import KeptPairs
from ringfence.compiler.flat_parts import Cutter, Part
from ringfence.compiler.flat_views import KeptViews
from ringfence.compiler.flatten import refuse_passes
from ringfence.compiler.program import PeerSet, PeerSetId, Program, empty_program
from ringfence.model.addresses import Network

T = TypeVar("T")

LEAST_FORGOTTEN = 1000
"""So many networks of peer sets that are gone are kept before it is worth while to forget how they were cut."""


class KeptFlat:
    """The flattened program of one node, and all that is needed to change it; at first that of an empty program.

    ``flat`` is a view of what is kept: its maps show the present state also to those that took it earlier.
    """

    def __init__(self, node: str, dataplane: str) -> None:
        self._dataplane = dataplane
        self._program = empty_program(node)
        self._atoms = Atoms()
        self._blocks = KeptBlocks(self._atoms)
        self._views = KeptViews(self._atoms, self._blocks)
        self._pairs = KeptPairs()
        self._cutter = Cutter()
        self._cut_at_most = LEAST_FORGOTTEN
        self._parts: dict[PeerSetId, tuple[Part, ...]] = {}
        self._owners: dict[PartId, set[PeerSetId]] = defaultdict(set)
        self.flat = FlatProgram(
            node=node,
            settings=self._program.settings,
            views=self._views.views,
            blocks=self._blocks.blocks,
            atoms=self._atoms.atoms.now,
            pairs=self._pairs.pairs.now,
            profiles=self._pairs.profiles.now,
            rules=self._pairs.rules.now,
        )

    def change(self, program: Program) -> FlatChange:
        """Take in the next program of the node; returns what is different in ``flat`` from what it was.

        Raises ``Unsupported`` as ``flatten`` does; everything is as before then.
        """
        gone, come = _exchanged(self._program.rulesets, program.rulesets)
        refuse_passes(come, self._dataplane)
        old, self._program = self._program, program
        same = {ruleset.id for ruleset in gone} & {ruleset.id for ruleset in come}
        self._pairs.drop_rulesets((ruleset.id for ruleset in gone if ruleset.id not in same), self._parts)
        self._views.change_endpoints(*_exchanged(old.endpoints, program.endpoints))
        self._views.change_node(program.node_addresses)
        views = self._views.settle(self._change_peer_sets(old.peer_sets, program.peer_sets))
        self._atoms.settle()
        atoms = self._atoms.atoms.take()
        self._pairs.change_atoms(atoms, self._owners)
        self._pairs.add_rulesets((each for each in come if each.id not in same), self._parts, self._owners)
        if program.settings != old.settings:
            self.flat = replace(self.flat, settings=program.settings)
        return FlatChange(
            settings=program.settings if program.settings != old.settings else None,
            views=views,
            blocks=self._blocks.take(),
            atoms=atoms,
            pairs=self._pairs.pairs.take(),
            profiles=self._pairs.profiles.take(),
            rules=self._pairs.rules.take(),
        )

    def _change_peer_sets(self, old: tuple[PeerSet, ...], new: tuple[PeerSet, ...]) -> list[Stretch]:
        """Exchange peer sets; returns where other blocks may cover addresses now."""
        gone, come = _exchanged(old, new)
        before, after = ({peer_set.id: peer_set for peer_set in each} for each in (gone, come))
        networks_come: list[tuple[Network, PartId]] = []
        networks_gone: list[tuple[Network, PartId]] = []
        # What comes is first, so that parts that an old and a new set share stay as they are.
        for set_id, peer_set in after.items():
            had = before[set_id].addresses if set_id in before else frozenset()
            self._views.change_direct(PartId(set_id), had - peer_set.addresses, peer_set.addresses - had)
            if set_id not in before:  # one of the same name has the same networks: they are in the expression
                networks_come += self._own(peer_set)
        for set_id in before.keys() - after.keys():
            self._views.change_direct(PartId(set_id), before[set_id].addresses, ())
            networks_gone += self._disown(set_id)
        self._forget_cuts()
        return self._blocks.change(networks_gone, networks_come)

    def _own(self, peer_set: PeerSet) -> Iterator[tuple[Network, PartId]]:
        """Take in the parts of a peer set; yields the networks of those that no other set has."""
        self._parts[peer_set.id] = self._cutter.parts(peer_set)
        for part in self._parts[peer_set.id]:
            if part.id not in self._owners:
                yield from ((network, part.id) for network in part.networks)
            self._owners[part.id].add(peer_set.id)

    def _disown(self, peer_set: PeerSetId) -> Iterator[tuple[Network, PartId]]:
        """Let the parts of a peer set go; yields the networks of those that no other set has."""
        for part in self._parts.pop(peer_set):
            self._owners[part.id].discard(peer_set)
            if not self._owners[part.id]:
                del self._owners[part.id]
                yield from ((network, part.id) for network in part.networks)

    def _forget_cuts(self) -> None:
        """Let go of what was cut of peer sets that are gone: of more than there are, so this pays for itself."""
        if self._cutter.size > self._cut_at_most:
            self._cutter.keep(part for parts in self._parts.values() if len(parts) > 1 for part in parts)
            self._cut_at_most = LEAST_FORGOTTEN + 2 * self._cutter.size


def _exchanged(old: tuple[T, ...], new: tuple[T, ...]) -> tuple[list[T], list[T]]:
    """Return the objects that are in the first only, and those that are in the second only."""
    if old is new:
        return [], []
    if len(old) == len(new):
        differing = list(map(operator.is_not, old, new))
        old, new = tuple(compress(old, differing)), tuple(compress(new, differing))
    were, are = set(map(id, old)), set(map(id, new))
    return [each for each in old if id(each) not in are], [each for each in new if id(each) not in were]
