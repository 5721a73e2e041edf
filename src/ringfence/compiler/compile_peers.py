# SPDX-License-Identifier: Apache-2.0
"""Peer sets: the addresses that each distinct peer expression covers at this moment.

A set is named by its *expression*, not by its content: pods that come and go change the content and leave every rule
that refers to the set alone. Rules that say the same in another order share one set.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import assert_never

from ringfence.compiler.compile_index import PodChange, PodIndex, PortKey
from ringfence.compiler.expressions import Expressions, Written, melted
from ringfence.compiler.program import PeerSet, PeerSetId
from ringfence.model.addresses import Address
from ringfence.model.persistent import PersistentSet
from ringfence.model.policy import AnyPeer, BlockPeer, Peer, Peers, PodPeer
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
    port: PortName | None

    @property
    def pod_peers(self) -> tuple[PodPeer, ...]:
        return tuple(each.member for each in self.members or () if isinstance(each.member, PodPeer))


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
        self._by_peer: dict[PodPeer, set[PeerSetId]] = defaultdict(set)
        self._by_port: dict[PortKey, set[PeerSetId]] = defaultdict(set)

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
            self._ask(known, _Recipe(members, None))
        return known

    def with_port(self, peers: AnyPeer | Peers, port: PortName) -> PeerSetId:
        """Return the set of the pod addresses that peers cover and on which a port name has a number.

        A block covers pods by their address here: "A named egress port never matches an address that is not a pod"
        (SEMANTICS 10).
        """
        members = None if isinstance(peers, AnyPeer) else self._expressions.write(peers)
        written = None if members is None else tuple([each.key for each in members])
        set_id = PeerSetId(digest(("peers with port", written, port.name, port.protocol.value, port.number)))
        self._ask(set_id, _Recipe(members, port))
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

    def keep(self, set_ids: AbstractSet[PeerSetId]) -> frozenset[PodPeer]:
        """Forget all sets but these, and who asked for which; returns the peers that they are made of."""
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
        selects = port is not None or bool(recipe.pod_peers)
        self._sets[set_id] = PeerSet(set_id, text, self._addresses(recipe), networks, selects)

    def _file(self, set_id: PeerSetId, recipe: _Recipe) -> None:
        for peer in recipe.pod_peers:
            self._by_peer[peer].add(set_id)
        if recipe.port is not None:
            self._by_port[recipe.port.name, recipe.port.protocol].add(set_id)

    def _addresses(self, recipe: _Recipe) -> PersistentSet[Address]:
        port = recipe.port
        if port is None:
            return PersistentSet.union([self._pods.matching(peer) for peer in recipe.pod_peers])
        having = self._pods.having_port(port.name, port.protocol, port.number)
        if recipe.members is None:
            return PersistentSet(having)
        return PersistentSet(frozenset().union(*(self._among(having, each.member) for each in recipe.members)))

    def _exchanged(
        self, recipe: _Recipe, addresses: AbstractSet[Address], changed: AbstractSet[Address]
    ) -> AbstractSet[Address]:
        """Return what a set is now whose recipe covers others only among some changed addresses."""
        if recipe.port is None and len(recipe.pod_peers) == 1:
            return self._pods.matching(recipe.pod_peers[0])
        assert isinstance(addresses, PersistentSet)
        port = recipe.port
        having = None if port is None else self._pods.having_port(port.name, port.protocol, port.number)
        gone: list[Address] = []
        come: list[Address] = []
        for address in changed:
            if having is None:
                covered = any(address in self._pods.matching(peer) for peer in recipe.pod_peers)
            else:
                covered = address in having and (recipe.members is None or self._covers(recipe.members, address))
            (come if covered else gone).append(address)
        return addresses.exchanged(gone, come)

    def _covers(self, members: tuple[Written, ...], address: Address) -> bool:
        return any(self._among((address,), each.member) for each in members)

    def _among(self, some: Collection[Address], member: Peer) -> AbstractSet[Address]:
        """Return who of some pods' addresses a peer covers."""
        match member:
            case PodPeer():
                covered = self._pods.matching(member)
                return covered & some if isinstance(some, AbstractSet) else {each for each in some if each in covered}
            case BlockPeer(block):
                return {address for address in some if block.contains(address)}
            case _:
                assert_never(member)
