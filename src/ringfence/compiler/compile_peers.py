# SPDX-License-Identifier: Apache-2.0
"""Peer sets: the addresses that each distinct peer expression covers at this moment.

A set is named by its *expression*, not by its content: pods that come and go change the content and leave every rule
that refers to the set alone. Rules that say the same in another order share one set.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import assert_never

from ringfence.compiler.compile_index import PodIndex
from ringfence.compiler.program import PeerSet, PeerSetId
from ringfence.model.addresses import Address, Network, network_order
from ringfence.model.labels import Selector
from ringfence.model.policy import AnyPeer, BlockPeer, InNamespace, Peers, PodPeer
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

    def plain(self, peers: Peers) -> PeerSetId:
        """Return the set of the addresses that peers cover."""
        # By the identity of the peers, which the policies keep alive: hashing them costs as much as writing them.
        known = self._plain_ids.get(id(peers))
        if known is not None:
            return known
        set_id = self._plain_ids[id(peers)] = PeerSetId(digest(("peers", _write_all(peers))))
        if set_id not in self._sets:
            members = _members(peers)
            addresses: frozenset[Address] = frozenset().union(
                *(self._pods.matching(member) for member in members if isinstance(member, PodPeer))
            )
            networks = collapse(n for m in members if isinstance(m, BlockPeer) for n in m.block.networks())
            selects = any(isinstance(member, PodPeer) for member in members)
            self._sets[set_id] = PeerSet(set_id, " or ".join(map(str, members)), addresses, networks, selects)
        return set_id

    def with_port(self, peers: AnyPeer | Peers, port: PortName) -> PeerSetId:
        """Return the set of the pod addresses that peers cover and on which a port name has a number.

        A block covers pods by their address here: "A named egress port never matches an address that is not a pod"
        (SEMANTICS 10).
        """
        written = None if isinstance(peers, AnyPeer) else _write_all(peers)
        set_id = PeerSetId(digest(("peers with port", written, port.name, port.protocol.value, port.number)))
        if set_id not in self._sets:
            having = self._pods.having_port(port.name, port.protocol, port.number)
            if isinstance(peers, AnyPeer):
                self._sets[set_id] = PeerSet(set_id, str(port), frozenset(having), ())
            else:
                members = _members(peers)
                text = f"({' or '.join(map(str, members))}) and {port}"
                addresses = frozenset().union(*(self._covered(member, having) for member in members))
                self._sets[set_id] = PeerSet(set_id, text, addresses, ())
        return set_id

    def made(self) -> tuple[PeerSet, ...]:
        """Return every set that was asked for, sorted by id."""
        return tuple(self._sets[set_id] for set_id in sorted(self._sets))

    def _covered(self, member: PodPeer | BlockPeer, having: AbstractSet[Address]) -> AbstractSet[Address]:
        match member:
            case PodPeer():
                return self._pods.matching(member) & having
            case BlockPeer(block):
                return {address for address in having if block.contains(address)}
            case _:
                assert_never(member)


def collapse(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Return disjoint networks that cover the same addresses, as few as possible, sorted."""
    given = list(networks)
    merged: list[Network] = [
        *ipaddress.collapse_addresses(n for n in given if isinstance(n, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(n for n in given if isinstance(n, ipaddress.IPv6Network)),
    ]
    return tuple(sorted(merged, key=network_order))


def _members(peers: Peers) -> tuple[PodPeer | BlockPeer, ...]:
    return tuple(sorted(set(peers.members), key=_write))


def _write_all(peers: Peers) -> tuple[_Written, ...]:
    return tuple(map(_write, _members(peers)))


def _write(member: PodPeer | BlockPeer) -> _Written:
    """Write a peer down so that different peers are never written the same, and so that they sort."""
    match member:
        case PodPeer(scope, pods):
            if isinstance(scope, InNamespace):
                return ("pods in namespace", scope.name, _write_selector(pods))
            return ("pods in namespaces", _write_selector(scope.selector), _write_selector(pods))
        case BlockPeer(block):
            return ("block", str(block.cidr), repr([str(hole) for hole in block.exceptions]))
        case _:
            assert_never(member)


def _write_selector(selector: Selector) -> str:
    return repr([(r.key, r.operator.value, r.values) for r in selector.requirements])
