# SPDX-License-Identifier: Apache-2.0
"""Peer sets: the addresses that each distinct peer expression covers at this moment.

A set is named by its *expression*, not by its content: pods that come and go change the content and leave every rule
that refers to the set alone. Rules that say the same in another order share one set.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from ringfence.compiler.compile_index import Matching, PodChange, PodIndex, PortKey
from ringfence.compiler.expressions import Expressions, Written, melted
from ringfence.compiler.program import PeerSet, PeerSetId
from ringfence.model.addresses import Address, Block
from ringfence.model.persistent import PersistentSet
from ringfence.model.policy import AnyPeer, BlockPeer, Peers, PodPeer
from ringfence.model.ports import Protocol


@dataclass(frozen=True, slots=True)
class PortName:
    """A named port, and the number that it has on some pods: what narrows a peer expression to those pods."""

    name: str
    protocol: Protocol
    number: int

    def __str__(self) -> str:
        return f'pods with port "{self.name}" {self.protocol.value}/{self.number}'


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What a set is made of: the members of an expression (None: any peer), narrowed to pods with a port or not."""

    members: tuple[Written, ...] | None
    pods: tuple[Matching, ...]
    blocks: tuple[Block, ...]
    port: PortName | None

    @property
    def is_open(self) -> bool:
        """Tell whether it covers pods that no selector tells: all, or those in blocks."""
        return self.members is None or bool(self.blocks)

    def covers(self, address: Address) -> bool:
        """Tell whether it covers a pod's address, as far as a port does not narrow it."""
        if self.members is None or any(address in each.addresses for each in self.pods):
            return True
        return any(block.contains(address) for block in self.blocks)


def digest(value: object) -> str:
    """Return 16 hexadecimal digits that stand for a value made of tuples, strings, numbers and None."""
    # repr tells all such values apart, and for these it is cheap.
    return hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class PeerSets:
    """Makes peer sets on demand, each expression once, and remembers those that were asked for."""

    def __init__(self, pods: PodIndex) -> None:
        self._pods = pods
        self._expressions = Expressions()
        self._sets: dict[PeerSetId, PeerSet] = {}
        self._plain_ids: dict[int, PeerSetId] = {}
        self._recipes: dict[PeerSetId, _Recipe] = {}
        self._by_peer: dict[Matching, set[PeerSetId]] = defaultdict(set)
        self._by_port: dict[PortKey, set[PeerSetId]] = defaultdict(set)  # of those that are open

    def __getitem__(self, set_id: PeerSetId) -> PeerSet:
        return self._sets[set_id]

    def plain(self, peers: Peers) -> PeerSetId:
        """Return the set of the addresses that peers cover."""
        # By the identity of the peers, which the policies keep alive: hashing them costs as much as writing them.
        known = self._plain_ids.get(id(peers))
        if known is None:
            members = self._expressions.write(peers)
            known = PeerSetId(digest(("peers", tuple([each.key for each in members]))))
            self._plain_ids[id(peers)] = known
            self._ask(known, self._recipe(members, None))
        return known

    def with_port(self, peers: AnyPeer | Peers, port: PortName) -> PeerSetId:
        """Return the set of the pod addresses that peers cover and on which a port name has a number.

        A block covers pods by their address here: "A named egress port never matches an address that is not a pod"
        (SEMANTICS 10).
        """
        members = None if isinstance(peers, AnyPeer) else self._expressions.write(peers)
        written = None if members is None else tuple([each.key for each in members])
        set_id = PeerSetId(digest(("peers with port", written, port.name, port.protocol.value, port.number)))
        self._ask(set_id, self._recipe(members, port))
        return set_id

    def made(self) -> tuple[PeerSet, ...]:
        """Return every set that was asked for, sorted by id."""
        return tuple(self._sets[set_id] for set_id in sorted(self._sets))

    def refresh(self, change: PodChange) -> bool:
        """Make the sets anew whose pods have changed, and no others; tell whether there were any."""
        asked = [self._by_peer.get(peer, set()) for peer in change.peers]
        asked += [self._by_port.get(port, set()) for port in change.ports]
        changed = False
        for set_id in set().union(*asked):
            old = self._sets[set_id]
            addresses = self._exchanged(self._recipes[set_id], old.addresses, change.addresses)
            if addresses is not old.addresses:
                self._sets[set_id] = replace(old, addresses=addresses)
                changed = True
        return changed

    def keep(self, set_ids: AbstractSet[PeerSetId]) -> frozenset[Matching]:
        """Forget all sets but these, and who asked for which; returns the answers that they are made of."""
        self._plain_ids.clear()
        self._sets = {set_id: self._sets[set_id] for set_id in set_ids}
        self._recipes = {set_id: self._recipes[set_id] for set_id in set_ids}
        self._expressions.keep(each for recipe in self._recipes.values() for each in recipe.members or ())
        self._by_peer.clear()
        self._by_port.clear()
        for set_id, recipe in self._recipes.items():
            self._file(set_id, recipe)
        return frozenset(self._by_peer)

    def _ask(self, set_id: PeerSetId, recipe: _Recipe) -> None:
        if set_id in self._sets:
            return
        self._recipes[set_id] = recipe
        self._file(set_id, recipe)
        members, port = recipe.members or (), recipe.port
        text = " or ".join([each.text for each in members])
        if port is not None:
            text = f"({text}) and {port}" if members else str(port)
        networks = () if port is not None else melted([spread for each in members for spread in each.spreads])
        selects = port is not None or bool(recipe.pods)
        self._sets[set_id] = PeerSet(set_id, text, self._addresses(recipe), networks, selects)

    def _recipe(self, members: tuple[Written, ...] | None, port: PortName | None) -> _Recipe:
        peers = [each.member for each in members or ()]
        pods = tuple([self._pods.matching(peer) for peer in peers if isinstance(peer, PodPeer)])
        return _Recipe(members, pods, tuple([peer.block for peer in peers if isinstance(peer, BlockPeer)]), port)

    def _file(self, set_id: PeerSetId, recipe: _Recipe) -> None:
        for matching in recipe.pods:
            self._by_peer[matching].add(set_id)
        if recipe.port is not None and recipe.is_open:
            self._by_port[recipe.port.name, recipe.port.protocol].add(set_id)

    def _addresses(self, recipe: _Recipe) -> PersistentSet[Address]:
        pods = PersistentSet.union([each.addresses for each in recipe.pods])
        if recipe.port is None:
            return pods
        having = self._having(recipe.port)
        return PersistentSet({each for each in having if recipe.covers(each)} if recipe.is_open else pods & having)

    def _exchanged(
        self, recipe: _Recipe, addresses: AbstractSet[Address], changed: AbstractSet[Address]
    ) -> AbstractSet[Address]:
        """Return what a set is now whose recipe covers others only among some changed addresses."""
        if recipe.port is None and len(recipe.pods) == 1:
            return recipe.pods[0].addresses
        assert isinstance(addresses, PersistentSet)
        among = changed if recipe.port is None else changed & self._having(recipe.port)
        if recipe.port is None:
            come = {address for address in among if any(address in each.addresses for each in recipe.pods)}
        else:
            come = {address for address in among if recipe.covers(address)}
        return addresses.exchanged(changed - come, come)

    def _having(self, port: PortName) -> AbstractSet[Address]:
        return self._pods.having_port(port.name, port.protocol, port.number)
