# SPDX-License-Identifier: Apache-2.0
"""Peer sets in parts, so that a block more in ten thousand does not make all of them something else.

A peer set is named by its expression: a policy that is edited asks for another set, of nearly the same networks. Were
atoms sets of peer sets, each of these networks would be of another atom. So the networks of a large set are cut into
*parts* which are named by the networks in them, and atoms are sets of parts. Where a part ends, its last network alone
tells: what comes before or after does not move the cuts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.compiler.compile_peers import digest
from ringfence.compiler.flat import PartId
from ringfence.compiler.program import PeerSet
from ringfence.model.addresses import Network

UNDIVIDED = 512
"""A peer set of no more networks than this is one part, together with its addresses."""
PART = 128
"""So many networks a part has on average: as many change their atom where one comes or goes. Each ruleset that asks for
the set is paired with each part, so fewer would not make it less work."""
_MASK = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Networks of a peer set; they have been given in order."""

    id: PartId
    networks: tuple[Network, ...]


class Cutter:
    """Cuts peer sets into parts; what it has cut it knows again by the identity of the networks."""

    def __init__(self) -> None:
        # All networks whose identity is a key are kept alive by the parts.
        self._known: dict[tuple[int, ...], Part] = {}
        self._ends: dict[int, bool] = {}

    def parts(self, peer_set: PeerSet) -> tuple[Part, ...]:
        """Return the parts of a set; the first has its name, and its addresses count as in it."""
        if len(peer_set.networks) <= UNDIVIDED:
            return (Part(PartId(peer_set.id), peer_set.networks),)
        parts = [Part(PartId(peer_set.id), ())]
        start = 0
        ends = self._ends
        for at, network in enumerate(peer_set.networks, start=1):
            end = ends.get(id(network))
            if _ends_part(network) if end is None else end:
                parts.append(self._part(peer_set.networks[start:at]))
                start = at
        if start < len(peer_set.networks):
            parts.append(self._part(peer_set.networks[start:]))
        return tuple(parts)

    def keep(self, parts: Iterable[Part]) -> None:
        """Forget all parts but these."""
        kept = list(parts)
        self._known.clear()
        self._ends.clear()
        for part in kept:
            self._remember(part)

    @property
    def size(self) -> int:
        """How many networks it knows again."""
        return len(self._ends)

    def _part(self, networks: tuple[Network, ...]) -> Part:
        known = self._known.get(tuple(map(id, networks)))
        if known is None:
            known = Part(PartId(digest(("part", tuple(map(_numbers, networks))))), networks)
            self._remember(known)
        return known

    def _remember(self, part: Part) -> None:
        self._known[tuple(map(id, part.networks))] = part
        self._ends.update((id(network), _ends_part(network)) for network in part.networks)


def _ends_part(network: Network) -> bool:
    """Tell a few networks from the others, such that those of a regular plan of addresses are spread evenly."""
    # The finish of splitmix64 (Steele, Lea, Flood 2014): each bit of the number is in each bit of the result.
    first = int(network.network_address)
    mixed = (first ^ (first >> 64) ^ (network.prefixlen << 56)) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return (mixed >> 31) % PART == 0


def _numbers(network: Network) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen
