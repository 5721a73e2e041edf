# SPDX-License-Identifier: Apache-2.0
"""Whether two selections, peers or rules may have anything in common; "no" only where that is certain."""

from __future__ import annotations

from typing import assert_never

from ringfence.model.addresses import Block
from ringfence.model.labels import Operator, Requirement, Selector
from ringfence.model.policy import (
    AnyPeer,
    BlockPeer,
    InNamespace,
    NamespaceScope,
    NamespacesMatching,
    Peer,
    Peers,
    PodPeer,
    Rule,
)
from ringfence.model.ports import AnyPort, AnyTraffic, NamedPort, PortMatch, PortRange, Ports


def selectors_meet(one: Selector, other: Selector) -> bool:
    """Tell whether some labels may meet both selectors."""
    return not any(_contradict(a, b) for a in one.requirements for b in other.requirements if a.key == b.key)


def subjects_meet(one: PodPeer, other: PodPeer) -> bool:
    """Tell whether some pod may be selected by both."""
    return _scopes_meet(one.scope, other.scope) and selectors_meet(one.pods, other.pods)


def rules_meet(one: Rule, other: Rule) -> bool:
    """Tell whether some connection of one pod may match both rules."""
    return _traffics_meet(one.traffic, other.traffic) and _peers_meet(one.peers, other.peers)


def _contradict(one: Requirement, other: Requirement) -> bool:
    """Tell whether two requirements on one key can never hold together."""
    for a, b in ((one, other), (other, one)):
        match a.operator, b.operator:
            case Operator.IN, Operator.IN if not set(a.values) & set(b.values):
                return True
            case Operator.IN, Operator.NOT_IN if set(a.values) <= set(b.values):
                return True
            case ((Operator.IN | Operator.EXISTS), Operator.DOES_NOT_EXIST):
                return True
            case _:
                pass
    return False


def _scopes_meet(one: NamespaceScope, other: NamespaceScope) -> bool:
    match one, other:
        case InNamespace(a), InNamespace(b):
            return a == b
        case NamespacesMatching(a), NamespacesMatching(b):
            return selectors_meet(a, b)
        case _:
            return True


def _peers_meet(one: AnyPeer | Peers, other: AnyPeer | Peers) -> bool:
    match one, other:
        case Peers(some), Peers(others):
            return any(_peer_meets(a, b) for a in some for b in others)
        case (Peers(some), AnyPeer()) | (AnyPeer(), Peers(some)):
            return len(some) > 0
        case _:
            return True


def _peer_meets(one: Peer, other: Peer) -> bool:
    match one, other:
        case PodPeer(), PodPeer():
            return subjects_meet(one, other)
        case BlockPeer(a), BlockPeer(b):
            return blocks_meet(a, b)
        case _:
            return True  # a pod may have any address


def blocks_meet(one: Block, other: Block) -> bool:
    """Tell whether two blocks have an address in common."""
    return any(a.overlaps(b) for a in one.networks() for b in other.networks() if a.version == b.version)


def _traffics_meet(one: AnyTraffic | Ports, other: AnyTraffic | Ports) -> bool:
    match one, other:
        case Ports(some), Ports(others):
            return any(_ports_meet(a, b) for a in some for b in others)
        case (Ports(some), AnyTraffic()) | (AnyTraffic(), Ports(some)):
            return len(some) > 0
        case _:
            return True


def _ports_meet(one: PortMatch, other: PortMatch) -> bool:
    if one.protocol is not other.protocol:
        return False
    match one.port, other.port:
        case PortRange() as a, PortRange() as b:
            return a.first <= b.last and b.first <= a.last
        case ((AnyPort() | NamedPort() | PortRange()), (AnyPort() | NamedPort() | PortRange())):
            return True  # a name may be any number
        case _ as never:
            assert_never(never)
