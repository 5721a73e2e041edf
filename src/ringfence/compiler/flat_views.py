# SPDX-License-Identifier: Apache-2.0
"""The addresses that are known by themselves, and their views: kept up as pods, nodes and blocks change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType

from ringfence.compiler.flat import Covering, PartId, View
from ringfence.compiler.flat_atoms import Atoms, union
from ringfence.compiler.flat_blocks import KeptBlocks, Stretch
from ringfence.compiler.flatten import view
from ringfence.compiler.ordered import Ordered
from ringfence.compiler.program import EndpointEntry
from ringfence.model.addresses import Address


@dataclass(slots=True, eq=False)
class _Known:
    """What is known of an address, found by one look-up: hashing an address costs more than most of what is done."""

    address: Address
    direct: Covering = ()
    entry: EndpointEntry | None = None
    own_node: bool = False
    view: View | None = None
    touched: bool = True
    sorted: bool = False


class KeptViews:
    """Addresses with the parts that name them, and the views of a flattened program."""

    def __init__(self, atoms: Atoms, blocks: KeptBlocks) -> None:
        self._atoms = atoms
        self._blocks = blocks
        self._known: dict[Address, _Known] = {}
        self._own_node: AbstractSet[Address] = frozenset()
        self._sorted: dict[int, Ordered[_Known, int]] = {4: Ordered(_number), 6: Ordered(_number)}
        self._touched: list[_Known] = []
        self._views: dict[Address, View] = {}
        self.views: Mapping[Address, View] = MappingProxyType(self._views)

    def change_endpoints(self, gone: Iterable[EndpointEntry], come: Iterable[EndpointEntry]) -> None:
        """Exchange local pods' entries."""
        for entry in gone:
            self._touch(entry.address).entry = None
        for entry in come:
            self._touch(entry.address).entry = entry

    def change_node(self, addresses: AbstractSet[Address]) -> None:
        """Take in the node's own addresses."""
        for address in self._own_node ^ addresses:
            self._touch(address).own_node = address in addresses
        self._own_node = addresses

    def change_direct(self, part: PartId, gone: Iterable[Address], come: Iterable[Address]) -> None:
        """Take addresses out of a part, and put others in."""
        made: dict[Covering, Covering] = {}  # equal ones are one object
        for address in gone:
            known = self._touch(address)
            if known.direct not in made:
                made[known.direct] = tuple([each for each in known.direct if each != part])
            known.direct = made[known.direct]
        made.clear()
        for address in come:
            known = self._touch(address)
            if known.direct not in made:
                made[known.direct] = union(known.direct, (part,))
            known.direct = made[known.direct]

    def settle(self, stretches: Iterable[Stretch]) -> dict[Address, View | None]:
        """Find anew what is known of all that was touched, and of the addresses in stretches whose blocks changed.

        Returns the views that are other ones now: None for those that are gone.
        """
        self._sort()
        for stretch in stretches:
            for known in self._sorted[stretch.version].between(stretch.first, stretch.last + 1):
                if not known.touched:
                    known.touched = True
                    self._touched.append(known)
        made: dict[tuple[Covering, Covering], View | None] = {}
        change: dict[Address, View | None] = {}
        for known in self._touched:
            known.touched = False
            new, old = self._view(known, made), known.view
            if new is old or new == old:
                continue
            known.view = change[known.address] = new
            if new is None:
                del self._views[known.address]
            else:
                self._atoms.use(new.atom)
                self._views[known.address] = new
            if old is not None:
                self._atoms.release(old.atom)
        self._touched.clear()
        return change

    def _touch(self, address: Address) -> _Known:
        known = self._known.get(address)
        if known is None:
            known = self._known[address] = _Known(address)
            self._touched.append(known)
        elif not known.touched:
            known.touched = True
            self._touched.append(known)
        return known

    def _view(self, known: _Known, made: dict[tuple[Covering, Covering], View | None]) -> View | None:
        """Return what is known of an address by itself, None if that is no more than what is known of its block."""
        around = self._blocks.around(known.address)
        if known.entry is not None or known.own_node:
            return view(known.entry, self._atoms.id(union(known.direct, around)), own_node=known.own_node)
        both = known.direct, around
        if both not in made:
            covering = union(*both)
            made[both] = None if covering == around else self._atoms.bare(self._atoms.id(covering))
        return made[both]

    def _sort(self) -> None:
        """Put the touched addresses that are known now among the sorted, and take out those that are not."""
        come: dict[int, list[_Known]] = {4: [], 6: []}
        gone: dict[int, list[_Known]] = {4: [], 6: []}
        for known in self._touched:
            is_known = bool(known.direct) or known.entry is not None or known.own_node
            if not is_known:
                del self._known[known.address]
            if is_known != known.sorted:
                known.sorted = is_known
                (come if is_known else gone)[known.address.version].append(known)
        for version, ordered in self._sorted.items():
            ordered.add(come[version])
            ordered.remove(gone[version])


def _number(known: _Known) -> int:
    return int(known.address)
