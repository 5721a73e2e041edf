# SPDX-License-Identifier: Apache-2.0
"""The networks of all parts, and what covers each of them: kept up as parts come and go.

What covers a network is what covers the networks around it as well: a network that changes changes all in it, and
nothing else. These lie side by side where networks are sorted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ringfence.compiler.flat import AtomId, Covering, PartId
from ringfence.compiler.flat_atoms import Atoms, union
from ringfence.compiler.flat_change import Changing
from ringfence.compiler.longest_prefix import LongestPrefix
from ringfence.compiler.ordered import Ordered
from ringfence.model.addresses import Address, Network, network_order


class Stretch(NamedTuple):
    """Addresses as numbers, the first and the last: of one network."""

    version: int
    first: int
    last: int


class KeptBlocks:
    """Networks by the parts that they are in, and the blocks of a flattened program."""

    def __init__(self, atoms: Atoms) -> None:
        self._atoms = atoms
        self._own: dict[Network, Covering] = {}
        self._covered: LongestPrefix[Covering] = LongestPrefix()
        self._sorted: dict[int, Ordered[Network, tuple[int, int]]] = {4: Ordered(_order), 6: Ordered(_order)}
        self.blocks: Changing[Network, AtomId] = Changing()

    def around(self, address: Address) -> Covering:
        """Return the parts of whose networks some contains an address."""
        return self._covered.find(address) or ()

    def change(self, gone: Iterable[tuple[Network, PartId]], come: Iterable[tuple[Network, PartId]]) -> list[Stretch]:
        """Take networks out of parts, and put others in; returns where addresses may be covered by others now."""
        touched = self._change_own(gone, come)
        stretches: list[Stretch] = []
        for network in sorted(touched, key=network_order):
            stretch = _stretch(network)
            if not stretches or not _within(stretch, stretches[-1]):
                stretches.append(stretch)
                self._look_again(network, stretch)
        return stretches

    def _change_own(
        self, gone: Iterable[tuple[Network, PartId]], come: Iterable[tuple[Network, PartId]]
    ) -> set[Network]:
        before: dict[Network, Covering] = {}
        own = self._own
        for network, part in gone:
            parts = own[network]
            before.setdefault(network, parts)
            own[network] = tuple([each for each in parts if each != part])
        for network, part in come:
            parts = own.get(network, ())
            before.setdefault(network, parts)
            own[network] = union(parts, (part,))
        touched = {network for network, parts in before.items() if own[network] != parts}
        for version, known in self._sorted.items():
            known.add([each for each in touched if each.version == version and not before[each]])
        for network in [network for network in before if not own[network]]:
            del own[network]
            if before[network]:
                self._forget(network)
        for version, known in self._sorted.items():
            known.remove([each for each in touched if each.version == version and each not in own])
        return touched

    def _forget(self, network: Network) -> None:
        self._covered.drop(network)
        atom = self.blocks.now.get(network)
        if atom is not None:
            self._atoms.release(atom)
            self.blocks.drop(network)

    def _look_again(self, outermost: Network, stretch: Stretch) -> None:
        """Find anew what covers the networks in a network, itself included if it is still there."""
        above: list[tuple[int, Covering]] = []  # last address and covering of the networks around, the largest first
        outside = self._covered.above(outermost) or ()
        known = self._sorted[stretch.version]
        for network in known.between((stretch.first, outermost.prefixlen), (stretch.last + 1, 0)):
            first, last = _ends(network)
            while above and above[-1][0] < first:
                above.pop()
            around = above[-1][1] if above else outside
            covering = union(around, self._own[network])
            above.append((last, covering))
            self._covered.put(network, covering)
            self._name(network, None if covering == around else covering)

    def _name(self, network: Network, covering: Covering | None) -> None:
        """Make a network a block, or none if it says no more than the one around it."""
        new = None if covering is None else self._atoms.id(covering)
        old = self.blocks.now.get(network)
        if new == old:
            return
        if old is not None:
            self._atoms.release(old)
        if new is None:
            self.blocks.drop(network)
        else:
            self._atoms.use(new)
            self.blocks.put(network, new)


def _stretch(network: Network) -> Stretch:
    return Stretch(network.version, *_ends(network))


def _within(stretch: Stretch, other: Stretch) -> bool:
    """Tell whether a stretch lies in another that does not begin after it: networks never overlap otherwise."""
    return stretch.version == other.version and stretch.first <= other.last


def _ends(network: Network) -> tuple[int, int]:
    first = int(network.network_address)
    return first, first + (1 << (network.max_prefixlen - network.prefixlen)) - 1


def _order(network: Network) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen
