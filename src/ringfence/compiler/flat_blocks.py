# SPDX-License-Identifier: Apache-2.0
"""The networks of all parts, and what covers each of them: kept up as parts come and go.

What covers a network is what covers the networks around it as well: a network that changes changes all in it, and
nothing else. These lie side by side where networks are sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from ringfence.compiler.flat import AtomId, Covering, PartId
from ringfence.compiler.flat_atoms import Atoms, union
from ringfence.compiler.longest_prefix import LongestPrefix
from ringfence.compiler.ordered import Ordered
from ringfence.model.addresses import Address, Network


class Stretch(NamedTuple):
    """Addresses as numbers, the first and the last: of one network."""

    version: int
    first: int
    last: int


@dataclass(slots=True, eq=False)
class _Known:
    """A network: the parts that it is in itself, all that cover it, and its atom if it is a block of its own."""

    network: Network
    version: int
    first: int
    last: int
    own: Covering = ()
    covering: Covering = ()
    atom: AtomId | None = None


class KeptBlocks:
    """Networks by the parts that they are in, and the blocks of a flattened program."""

    def __init__(self, atoms: Atoms) -> None:
        self._atoms = atoms
        self._known: dict[Network, _Known] = {}
        self._lookup: LongestPrefix[_Known] = LongestPrefix()
        self._sorted: dict[int, Ordered[_Known, tuple[int, int]]] = {4: Ordered(_order), 6: Ordered(_order)}
        self._blocks: dict[Network, AtomId] = {}
        self._change: dict[Network, AtomId | None] = {}
        self.blocks: Mapping[Network, AtomId] = MappingProxyType(self._blocks)

    def around(self, address: Address) -> Covering:
        """Return the parts of whose networks some contains an address."""
        found = self._lookup.find(address)
        return () if found is None else found.covering

    def change(self, gone: Iterable[tuple[Network, PartId]], come: Iterable[tuple[Network, PartId]]) -> list[Stretch]:
        """Take networks out of parts, and put others in; returns where addresses may be covered by others now."""
        stretches: list[Stretch] = []
        for known in sorted(self._change_own(gone, come), key=_whole_order):
            if not stretches or (known.version, known.first) > (stretches[-1].version, stretches[-1].last):
                stretches.append(Stretch(known.version, known.first, known.last))
                self._look_again(known)
        return stretches

    def take(self) -> dict[Network, AtomId | None]:
        """Return the blocks that have become other ones since this was last asked: None for those that are gone."""
        taken, self._change = self._change, {}
        return taken

    def _change_own(
        self, gone: Iterable[tuple[Network, PartId]], come: Iterable[tuple[Network, PartId]]
    ) -> list[_Known]:
        """Change what networks are parts of; returns those that are other parts' now."""
        before: dict[_Known, Covering] = {}
        for network, part in gone:
            known = self._known[network]
            before.setdefault(known, known.own)
            known.own = tuple([each for each in known.own if each != part])
        for network, part in come:
            found = self._known.get(network)
            if found is None:
                found = self._known[network] = _Known(network, network.version, *_ends(network))
            before.setdefault(found, found.own)
            found.own = union(found.own, (part,))
        added = [known for known, own in before.items() if not own]
        removed = [known for known in before if not known.own]
        for known in added:
            self._lookup.put(known.network, known)
        for known in removed:
            self._name(known, None)
            self._lookup.drop(known.network)
            del self._known[known.network]
        for version, ordered in self._sorted.items():
            ordered.add([known for known in added if known.version == version])
            ordered.remove([known for known in removed if known.version == version])
        return [known for known, own in before.items() if known.own != own]

    def _look_again(self, outermost: _Known) -> None:
        """Find anew what covers the networks in a network, itself included if it is still there."""
        above: list[_Known] = []  # the networks around the present one, the largest first
        outside = self._lookup.above(outermost.network)
        outside_covering = () if outside is None else outside.covering
        inside = self._sorted[outermost.version].between(_order(outermost), (outermost.last, 1))
        for known in inside:
            while above and above[-1].last < known.first:
                above.pop()
            around = above[-1].covering if above else outside_covering
            above.append(known)
            known.covering = union(around, known.own)
            self._name(known, None if known.covering == around else self._atoms.id(known.covering))

    def _name(self, known: _Known, atom: AtomId | None) -> None:
        """Make a network a block of an atom; None if it says no more than the one around it, or is gone."""
        old = known.atom
        if atom == old:
            return
        known.atom = self._change[known.network] = atom
        if old is not None:
            self._atoms.release(old)
        if atom is None:
            del self._blocks[known.network]
        else:
            self._atoms.use(atom)
            self._blocks[known.network] = atom


def _ends(network: Network) -> tuple[int, int]:
    first = int(network.network_address)
    return first, first + (1 << (network.max_prefixlen - network.prefixlen)) - 1


def _order(known: _Known) -> tuple[int, int]:
    """Sort a network before all that lie in it."""
    return known.first, -known.last


def _whole_order(known: _Known) -> tuple[int, int, int]:
    return known.version, known.first, -known.last
