# SPDX-License-Identifier: Apache-2.0
"""The addresses that are known by themselves, and their views: kept up as pods, nodes and blocks change."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from ringfence.compiler.flat import AtomId, Covering, PartId, View
from ringfence.compiler.flat_atoms import Atoms, union
from ringfence.compiler.flat_blocks import KeptBlocks, Stretch
from ringfence.compiler.flat_change import Changing
from ringfence.compiler.flatten import view
from ringfence.compiler.ordered import Ordered
from ringfence.compiler.program import EndpointEntry
from ringfence.model.addresses import Address


class KeptViews:
    """Addresses with the parts that name them, and the views of a flattened program."""

    def __init__(self, atoms: Atoms, blocks: KeptBlocks) -> None:
        self._atoms = atoms
        self._blocks = blocks
        self._direct: dict[Address, Covering] = {}
        self._entries: dict[Address, EndpointEntry] = {}
        self._own_node: AbstractSet[Address] = frozenset()
        self._sorted: dict[int, Ordered[Address, int]] = {4: Ordered(int), 6: Ordered(int)}
        self._known: set[Address] = set()
        self._touched: set[Address] = set()
        self.views: Changing[Address, View] = Changing()

    def change_endpoints(self, gone: Iterable[EndpointEntry], come: Iterable[EndpointEntry]) -> None:
        """Exchange local pods' entries."""
        for entry in gone:
            del self._entries[entry.address]
            self._touched.add(entry.address)
        for entry in come:
            self._entries[entry.address] = entry
            self._touched.add(entry.address)

    def change_node(self, addresses: AbstractSet[Address]) -> None:
        """Take in the node's own addresses."""
        self._touched |= self._own_node ^ addresses
        self._own_node = addresses

    def change_direct(self, part: PartId, gone: Iterable[Address], come: Iterable[Address]) -> None:
        """Take addresses out of a part, and put others in."""
        direct, touched = self._direct, self._touched
        made: dict[Covering, Covering] = {}  # equal ones are one object
        for address in gone:
            touched.add(address)
            old = direct[address]
            if old not in made:
                made[old] = tuple([each for each in old if each != part])
            direct[address] = made[old]
        made.clear()
        for address in come:
            touched.add(address)
            old = direct.get(address, ())
            if old not in made:
                made[old] = union(old, (part,))
            direct[address] = made[old]

    def settle(self, stretches: Iterable[Stretch]) -> None:
        """Find anew what is known of all that was touched, and of the addresses in stretches whose blocks changed."""
        self._sort()
        for stretch in stretches:
            self._touched.update(self._sorted[stretch.version].between(stretch.first, stretch.last + 1))
        made: dict[tuple[Covering, Covering], AtomId] = {}
        views, atoms = self.views.now, self._atoms
        for address in self._touched:
            new = self._view(address, made)
            old = views.get(address)
            if new is old or new == old:
                continue
            if new is None:
                self.views.drop(address)
            else:
                atoms.use(new.atom)
                self.views.put(address, new)
            if old is not None:
                atoms.release(old.atom)
        self._touched = set()

    def _view(self, address: Address, made: dict[tuple[Covering, Covering], AtomId]) -> View | None:
        """Return what is known of an address by itself, None if that is no more than what is known of its block."""
        direct, around = self._direct.get(address, ()), self._blocks.around(address)
        both = direct, around
        if both not in made:
            made[both] = self._atoms.id(union(direct, around))
        atom = made[both]
        entry, own_node = self._entries.get(address), address in self._own_node
        if entry is not None or own_node:
            return view(entry, atom, own_node=own_node)
        return None if atom == self._atoms.id(around) else self._atoms.bare(atom)

    def _sort(self) -> None:
        """Put the touched addresses that are known now among the known, and take out those that are not."""
        for address in self._touched:
            if address in self._direct and not self._direct[address]:
                del self._direct[address]
        known = {each for each in self._touched if each in self._direct or each in self._entries}
        known |= self._touched & self._own_node
        come, gone = known - self._known, (self._touched - known) & self._known
        for version, ordered in self._sorted.items():
            ordered.add([address for address in come if address.version == version])
            ordered.remove([address for address in gone if address.version == version])
        self._known |= come
        self._known -= gone
