# SPDX-License-Identifier: Apache-2.0
"""Pods that may reach somebody and cannot resolve a name, judged on all policies that select them together.

Whoever is allowed nothing at all, or only single addresses, needs no DNS. Where pods are not known, another policy of
the namespace counts for a pod unless the two can select no pod in common. Port 53 is what pods ask, but policy sees
what the DNS pods listen on: 5353 in some distributions, or the port that a DNS Service leads to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import assert_never

from ringfence.model.addresses import Block
from ringfence.model.cluster import PodKey
from ringfence.model.policy import AnyPeer, BlockPeer, Peers, PodPeer, Policy, Rule
from ringfence.model.ports import AnyPort, AnyTraffic, NamedPort, PortMatch, PortRange, Protocol
from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.overlap import blocks_meet, subjects_meet
from ringfence.semantics.lint.parts import Written, found
from ringfence.semantics.lint.ranges import PRIVATE
from ringfence.semantics.lint.world import World

_PORTS = frozenset({53, 5353})
_LINK_LOCAL = Block(ipaddress.ip_network("169.254.0.0/16"))


@dataclass(frozen=True, slots=True)
class _Egress:
    """What the egress rules of one or more policies let pods do."""

    talks: bool = False
    udp: bool = False
    tcp: bool = False

    def __or__(self, other: _Egress) -> _Egress:
        return _Egress(self.talks or other.talks, self.udp or other.udp, self.tcp or other.tcp)


def dns(world: World, policies: Iterable[Written]) -> Iterator[Finding]:
    """Judge the egress of all policies together; each pod, or kind of pod, is reported once."""
    together = _together(world)
    by_pod = _by_pod(world, together)
    reported: set[tuple[str, PodKey]] = set()
    for written in policies:
        own = _egress(world, written.policy)
        if not own.talks or (own.udp and own.tcp):
            continue
        subject = written.policy.subject
        pods = world.pods(subject).pods
        if pods:
            yield from _report(world, written, {pod.key: own | by_pod.get(pod.key, own) for pod in pods}, reported)
        elif not world.pods_known(written.namespace):
            others = (egress for other, egress in together.items() if subjects_meet(subject, other))
            unknown = {PodKey(written.namespace, ""): reduce(_Egress.__or__, others, own)}
            yield from _report(world, written, unknown, reported)


def _together(world: World) -> dict[PodPeer, _Egress]:
    """Return what the policies of each selection let its pods do, all of them together."""
    found: dict[PodPeer, _Egress] = {}
    for policy in world.policies.policies():
        if policy.egress is not None:
            found[policy.subject] = found.get(policy.subject, _Egress()) | _egress(world, policy)
    return found


def _by_pod(world: World, together: Mapping[PodPeer, _Egress]) -> dict[PodKey, _Egress]:
    found: dict[PodKey, _Egress] = {}
    for subject, egress in together.items():
        for pod in world.pods(subject).pods:
            found[pod.key] = found.get(pod.key, egress) | egress
    return found


def _report(
    world: World, written: Written, lacking: dict[PodKey, _Egress], reported: set[tuple[str, PodKey]]
) -> Iterator[Finding]:
    without = [key for key, egress in lacking.items() if not egress.udp]
    only_udp = [key for key, egress in lacking.items() if egress.udp and not egress.tcp]
    for rule, keys, what in (
        ("no-dns-egress", without, "no policy allows UDP 53 to the cluster's DNS"),
        ("dns-without-tcp", only_udp, "no policy allows TCP 53 to the cluster's DNS, only UDP"),
    ):
        fresh = [key for key in keys if not key.name or (rule, key) not in reported]
        if not fresh:
            continue
        reported.update((rule, key) for key in fresh)
        pods = [world.cluster.endpoints[key] for key in fresh if key.name]
        whose = world.called(pods) if pods else "the pods that it selects"
        yield found(rule, written, "spec.egress", f"{what} for {whose}")


def _egress(world: World, policy: Policy) -> _Egress:
    merged = _Egress()
    for rule in policy.egress or ():
        merged |= _Egress(_talks(rule), _lets(world, rule, Protocol.UDP), _lets(world, rule, Protocol.TCP))
    return merged


def _talks(rule: Rule) -> bool:
    """Tell whether a rule leads to anybody whom one would call by a name."""
    match rule.peers:
        case AnyPeer():
            return True
        case Peers(members):
            return any(not isinstance(peer, BlockPeer) or not _is_single(peer.block) for peer in members)
        case _:
            assert_never(rule.peers)


def _is_single(block: Block) -> bool:
    return block.cidr.prefixlen == block.cidr.max_prefixlen


def _lets(world: World, rule: Rule, protocol: Protocol) -> bool:
    """Tell whether a rule may let DNS pass: by a port that is plainly DNS, or by one among many to the inside."""
    match rule.traffic:
        case AnyTraffic():
            return _reaches_inside(world, rule)
        case traffic:
            return any(
                _is_dns(world, match) or (_covers_dns(world, match) and _reaches_inside(world, rule))
                for match in traffic.matches
                if match.protocol is protocol
            )


def _is_dns(world: World, match: PortMatch) -> bool:
    match match.port:
        case PortRange(first, last):
            return first == last and first in _PORTS | world.dns_ports
        case NamedPort(name):
            return name.startswith("dns") or name.endswith("dns")
        case AnyPort():
            return False
        case _:
            assert_never(match.port)


def _covers_dns(world: World, match: PortMatch) -> bool:
    match match.port:
        case PortRange() as numbers:
            return any(map(numbers.contains, _PORTS | world.dns_ports))
        case NamedPort():
            return False
        case AnyPort():
            return True
        case _:
            assert_never(match.port)


def _reaches_inside(world: World, rule: Rule) -> bool:
    """Tell whether a rule leads to any address that may be of the cluster: private, or held by a pod or node."""
    match rule.peers:
        case AnyPeer():
            return True
        case Peers(members):
            return any(not isinstance(peer, BlockPeer) or _is_inside(world, peer) for peer in members)
        case _:
            assert_never(rule.peers)


def _is_inside(world: World, peer: BlockPeer) -> bool:
    private = (*PRIVATE, _LINK_LOCAL) if world.caches_dns else PRIVATE
    # Pods and nodes with private addresses are in those already.
    return any(blocks_meet(peer.block, each) for each in private) or any(map(peer.covers, world.ranges.public))
