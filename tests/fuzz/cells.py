# SPDX-License-Identifier: Apache-2.0
"""The flattened space of a cluster and its policies: flows, at least one from each cell that anything can tell apart.

An address that no pod or node holds is told apart from its neighbours only where a block or an exception begins or
ends: so the first and the last address of each such stretch stand for all of it. Ports likewise.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from ringfence.model.addresses import Address, Network, address_order
from ringfence.model.cluster import Cluster
from ringfence.model.flow import Flow
from ringfence.model.policy import BlockPeer, Peers, PolicySet, Rule
from ringfence.model.ports import LAST_PORT, PortRange, Ports, Protocol

Traffic = tuple[Protocol, int | None]


def cells(cluster: Cluster, *policies: PolicySet) -> Iterator[Flow]:
    """Yield the flows: every pair of addresses of a family, every protocol, every stretch of ports."""
    rules = [rule for each in policies for policy in each.policies() for rule in _rules(policy.ingress, policy.egress)]
    traffic = list(_traffic(cluster, rules))
    held = _held(cluster)
    for version in (4, 6):
        places = _addresses(version, held, rules)
        icmp = Protocol.ICMP if version == 4 else Protocol.ICMPV6
        for source in places:
            for destination in places:
                yield Flow(source, destination, icmp)
                if source not in held and destination not in held:
                    continue  # nobody's: one of them stands for all
                for protocol, port in traffic:
                    yield Flow(source, destination, protocol, port)


def _rules(*directions: tuple[Rule, ...] | None) -> Iterator[Rule]:
    for rules in directions:
        yield from rules or ()


def _held(cluster: Cluster) -> set[Address]:
    pods = {a for endpoint in cluster.endpoints.values() for a in endpoint.addresses}
    return pods | {a for node in cluster.nodes.values() for a in node.addresses}


def _addresses(version: int, held: Iterable[Address], rules: Iterable[Rule]) -> list[Address]:
    networks = {
        network
        for rule in rules
        if isinstance(rule.peers, Peers)
        for peer in rule.peers.members
        if isinstance(peer, BlockPeer)
        for network in (peer.block.cidr, *peer.block.exceptions)
    }
    return sorted({a for a in held if a.version == version} | set(_edges(version, networks)), key=address_order)


def _edges(version: int, networks: Iterable[Network]) -> Iterator[Address]:
    width = 32 if version == 4 else 128
    starts = {0, *(int(n.network_address) for n in networks if n.version == version)}
    starts |= {int(n.broadcast_address) + 1 for n in networks if n.version == version}
    for number in _ends_of_stretches(starts, (1 << width) - 1):
        yield ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)


def _traffic(cluster: Cluster, rules: Iterable[Rule]) -> Iterator[Traffic]:
    starts: dict[Protocol, set[int]] = {protocol: {0} for protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP)}
    for endpoint in cluster.endpoints.values():
        for port in endpoint.ports:
            starts[port.protocol] |= {port.number, port.number + 1}
    for rule in rules:
        if isinstance(rule.traffic, Ports):
            for match in rule.traffic.matches:
                if isinstance(match.port, PortRange):
                    starts[match.protocol] |= {match.port.first, match.port.last + 1}
    for protocol, firsts in starts.items():
        for number in _ends_of_stretches(firsts, LAST_PORT):
            yield protocol, number


def _ends_of_stretches(starts: Iterable[int], last: int) -> list[int]:
    """Return the first and the last number of each stretch that begins at one of the starts."""
    firsts = sorted({start for start in starts if start <= last})
    lasts = [*(start - 1 for start in firsts[1:]), last]
    return sorted({*firsts, *lasts})
