# SPDX-License-Identifier: Apache-2.0
"""Peer sets: the addresses that each distinct peer expression covers at this moment.

A set is named by its *expression*, not by its content: pods that come and go change the content and leave every rule
that refers to the set alone. Rules that say the same in another order share one set.
"""

from __future__ import annotations

import hashlib
import ipaddress
import operator
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import assert_never

from ringfence.compiler.compile_index import PodChange, PodIndex, PortKey
from ringfence.compiler.program import PeerSet, PeerSetId
from ringfence.model.addresses import Address, Network
from ringfence.model.labels import Selector
from ringfence.model.policy import AnyPeer, BlockPeer, InNamespace, Peer, Peers, PodPeer
from ringfence.model.ports import Protocol

_Written = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class PortName:
    """A named port, and the number that it has on some pods: what narrows a peer expression to those pods."""

    name: str
    protocol: Protocol
    number: int

    def __str__(self) -> str:
        return f'pods with port "{self.name}" {self.protocol.value}/{self.number}'


def digest(value: object) -> str:
    """Return 16 hexadecimal digits that stand for a value made of tuples, strings, numbers and None."""
    # repr tells all such values apart, and for these it is cheap.
    return hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class PeerSets:
    """Makes peer sets on demand, each expression once, and remembers those that were asked for."""

    def __init__(self, pods: PodIndex) -> None:
        self._pods = pods
        self._sets: dict[PeerSetId, PeerSet] = {}
        self._plain_ids: dict[int, PeerSetId] = {}
        self._recipes: dict[PeerSetId, tuple[AnyPeer | Peers, PortName | None]] = {}
        self._by_peer: dict[PodPeer, set[PeerSetId]] = defaultdict(set)
        self._by_port: dict[PortKey, set[PeerSetId]] = defaultdict(set)

    def __getitem__(self, set_id: PeerSetId) -> PeerSet:
        return self._sets[set_id]

    def plain(self, peers: Peers) -> PeerSetId:
        """Return the set of the addresses that peers cover."""
        # By the identity of the peers, which the policies keep alive: hashing them costs as much as writing them.
        known = self._plain_ids.get(id(peers))
        if known is None:
            members = _members(peers)
            known = self._plain_ids[id(peers)] = PeerSetId(digest(("peers", tuple(members))))
            self._ask(known, peers, tuple(members.values()), None)
        return known

    def with_port(self, peers: AnyPeer | Peers, port: PortName) -> PeerSetId:
        """Return the set of the pod addresses that peers cover and on which a port name has a number.

        A block covers pods by their address here: "A named egress port never matches an address that is not a pod"
        (SEMANTICS 10).
        """
        members = {} if isinstance(peers, AnyPeer) else _members(peers)
        written = None if isinstance(peers, AnyPeer) else tuple(members)
        set_id = PeerSetId(digest(("peers with port", written, port.name, port.protocol.value, port.number)))
        self._ask(set_id, peers, tuple(members.values()), port)
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
            addresses = self._addresses(*self._recipes[set_id])
            if addresses != old.addresses:
                self._sets[set_id] = replace(old, addresses=addresses)
                changed = True
        return changed

    def _ask(self, set_id: PeerSetId, peers: AnyPeer | Peers, members: tuple[Peer, ...], port: PortName | None) -> None:
        if set_id in self._sets:
            return
        self._recipes[set_id] = peers, port
        for member in members:
            if isinstance(member, PodPeer):
                self._by_peer[member].add(set_id)
        if port is not None:
            self._by_port[port.name, port.protocol].add(set_id)
        text = " or ".join(map(str, members))
        if port is not None:
            text = f"({text}) and {port}" if members else str(port)
        networks = () if port is not None else collapse(n for m in members for n in _networks(m))
        selects = port is not None or any(isinstance(member, PodPeer) for member in members)
        self._sets[set_id] = PeerSet(set_id, text, self._addresses(peers, port), networks, selects)

    def _addresses(self, peers: AnyPeer | Peers, port: PortName | None) -> frozenset[Address]:
        if port is None:
            assert not isinstance(peers, AnyPeer)
            found = [self._pods.matching(member) for member in peers.members if isinstance(member, PodPeer)]
            return found[0] if len(found) == 1 else frozenset().union(*found)
        having = self._pods.having_port(port.name, port.protocol, port.number)
        if isinstance(peers, AnyPeer):
            return frozenset(having)
        return frozenset().union(*(self._covered(member, having) for member in peers.members))

    def _covered(self, member: Peer, having: AbstractSet[Address]) -> AbstractSet[Address]:
        match member:
            case PodPeer():
                return self._pods.matching(member) & having
            case BlockPeer(block):
                return {address for address in having if block.contains(address)}
            case _:
                assert_never(member)


def _networks(member: Peer) -> tuple[Network, ...]:
    return member.block.networks() if isinstance(member, BlockPeer) else ()


def collapse(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Return disjoint networks that cover the same addresses, as few as possible, sorted."""
    runs: list[list[tuple[int, int, int, Network]]] = []  # version, first, last: each run without a gap
    for part in sorted(map(_spread, networks), key=operator.itemgetter(0, 1)):
        run = runs[-1] if runs else None
        if run is not None and part[0] == run[0][0] and part[1] <= run[0][2] + 1:
            first = run[0]
            run[0] = (*first[:2], max(first[2], part[2]), first[3])
            run.append(part)
        else:
            runs.append([part])
    # What stands alone is kept as it is: making networks of numbers costs the most.
    return tuple(n for run in runs for n in ((run[0][3],) if len(run) == 1 else _summarized(*run[0][:3])))


def _spread(network: Network) -> tuple[int, int, int, Network]:
    first = int(network.network_address)
    return network.version, first, first + (1 << (network.max_prefixlen - network.prefixlen)) - 1, network


def _summarized(version: int, first: int, last: int) -> Iterable[Network]:
    if version == 4:
        return ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last))
    return ipaddress.summarize_address_range(ipaddress.IPv6Address(first), ipaddress.IPv6Address(last))


def _members(peers: Peers) -> dict[_Written, Peer]:
    """Return the members of peers as they are written down, each once, sorted."""
    return dict(sorted(((_write(member), member) for member in peers.members), key=operator.itemgetter(0)))


def _write(member: Peer) -> _Written:
    """Write a peer down so that different peers are never written the same, and so that they sort."""
    match member:
        case PodPeer(scope, pods):
            if isinstance(scope, InNamespace):
                return ("pods in namespace", scope.name, _write_selector(pods))
            return ("pods in namespaces", _write_selector(scope.selector), _write_selector(pods))
        case BlockPeer(block):
            return ("block", _write_network(block.cidr), " ".join(map(_write_network, block.exceptions)))
        case _:
            assert_never(member)


def _write_network(network: Network) -> str:
    return f"{network.version}:{int(network.network_address):x}/{network.prefixlen}"


def _write_selector(selector: Selector) -> str:
    return repr([(r.key, r.operator.value, r.values) for r in selector.requirements])
