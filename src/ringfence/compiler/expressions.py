# SPDX-License-Identifier: Apache-2.0
"""Peer expressions written down: the members of ``from`` or ``to``, each once, in an order of their own.

What is written of a member is remembered by the member's identity: of a policy with 10,000 blocks that is edited,
nearly all members are the objects that they were before. Addresses are numbers here; networks are made of numbers only
where several melt into one, since making them costs the most.
"""

from __future__ import annotations

import ipaddress
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from ringfence.model.addresses import Network
from ringfence.model.labels import Selector
from ringfence.model.policy import BlockPeer, InNamespace, Peer, Peers, PodPeer

Key: TypeAlias = tuple[str, str, str]
Spread: TypeAlias = tuple[int, int, int, Network]
"""A network as numbers: version, first and last address."""


@dataclass(frozen=True, slots=True)
class Written:
    """A member of an expression. ``key`` tells it from every other and sorts it; ``text`` is for people."""

    member: Peer
    key: Key
    text: str
    spreads: tuple[Spread, ...]


class Expressions:
    """Writes expressions down."""

    def __init__(self) -> None:
        self._known: dict[int, Written] = {}  # by the identity of the member, which is kept alive in it

    def write(self, peers: Peers) -> tuple[Written, ...]:
        """Return the members of peers as they are written down, each once, sorted."""
        known = self._known
        written = []
        for member in peers.members:
            found = known.get(id(member))
            if found is None:
                found = known[id(member)] = _written(member)
            written.append(found)
        by_key = {each.key: each for each in written}
        return tuple([by_key[key] for key in sorted(by_key)])

    def keep(self, written: Iterable[Written]) -> None:
        """Forget everything but this."""
        self._known = {id(each.member): each for each in written}


def collapse(networks: Iterable[Network]) -> tuple[Network, ...]:
    """Return disjoint networks that cover the same addresses, as few as possible, sorted."""
    return melted(map(spread, networks))


def melted(spreads: Iterable[Spread]) -> tuple[Network, ...]:
    """Return what ``collapse`` does of networks as numbers."""
    found: list[Network] = []
    run: Spread | None = None
    alone = True  # the run is one of the networks that were given
    for spread in sorted(spreads, key=operator.itemgetter(0, 1)):
        if run is not None and spread[1] <= run[2] + 1 and spread[0] == run[0]:
            run = (*run[:2], max(run[2], spread[2]), run[3])
            alone = False
            continue
        if run is not None:
            found += (run[3],) if alone else _summarized(run)
        run, alone = spread, True
    if run is not None:
        found += (run[3],) if alone else _summarized(run)
    return tuple(found)


def spread(network: Network) -> Spread:
    """Return a network as numbers."""
    first = int(network.network_address)
    return network.version, first, first + (1 << (network.max_prefixlen - network.prefixlen)) - 1, network


def _summarized(run: Spread) -> Iterable[Network]:
    version, first, last, _ = run
    if version == 4:
        return ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last))
    return ipaddress.summarize_address_range(ipaddress.IPv6Address(first), ipaddress.IPv6Address(last))


def _written(member: Peer) -> Written:
    """Write a peer down so that different peers are never written the same, and so that they sort."""
    match member:
        case PodPeer(scope, pods):
            if isinstance(scope, InNamespace):
                key = "pods in namespace", scope.name, _write_selector(pods)
            else:
                key = "pods in namespaces", _write_selector(scope.selector), _write_selector(pods)
            return Written(member, key, str(member), ())
        case BlockPeer(block):
            key = "block", _write_network(block.cidr), " ".join(map(_write_network, block.exceptions))
            return Written(member, key, str(member), tuple(map(spread, block.networks())))
        case _:
            assert_never(member)


def _write_network(network: Network) -> str:
    return f"{network.version}:{int(network.network_address):x}/{network.prefixlen}"


def _write_selector(selector: Selector) -> str:
    return repr([(r.key, r.operator.value, r.values) for r in selector.requirements])
