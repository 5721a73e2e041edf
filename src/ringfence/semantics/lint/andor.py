# SPDX-License-Identifier: Apache-2.0
"""Two list items where one was meant, and one where two were: judged by evidence.

Two items, one with a podSelector and one with a namespaceSelector, are a common and legitimate thing. They are a
mistake if the one leaves the other without effect, or if pods show that only both together make sense. By their looks
they are told of at most: a namespace and then pods, and nothing else, is how people write the pods of a namespace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ringfence.apis.core import NAME_LABEL
from ringfence.model.labels import EVERYTHING, Operator, Requirement, Selector
from ringfence.model.policy import ANY_PEER, Direction, InNamespace, NamespacesMatching, Peers, PodPeer, Rule
from ringfence.model.ports import ANY_TRAFFIC, PortRange, Ports
from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.parts import PlacedPeer, Written, found, scope_called
from ringfence.semantics.lint.world import World

_DNS = PortRange(53, 53)


def and_or(world: World, written: Written, placed: Sequence[PlacedPeer]) -> Iterator[Finding]:
    """Judge the peers of one rule."""
    for each in placed:
        match each.peer:
            case PodPeer(InNamespace(), pods) if pods != EVERYTHING:
                message = _meant_as_one(world, written, each, placed)
            case PodPeer(NamespacesMatching(), pods) if pods != EVERYTHING:
                message = _meant_as_two(world, written, each.peer)
            case _:
                message = ""
        if message:
            yield found("and-or", written, each.path, message)
    yield from _looks_like_one(world, written, placed)


def _meant_as_one(world: World, written: Written, item: PlacedPeer, placed: Sequence[PlacedPeer]) -> str:
    """Return what shows that a podSelector and a namespaceSelector in two items were meant as one."""
    assert isinstance(item.peer, PodPeer)
    pods = item.peer.pods
    for other in placed:
        match other.peer:
            case PodPeer(NamespacesMatching(selector) as scope, everybody) if everybody == EVERYTHING:
                pass
            case _:
                continue
        index = other.path.rpartition(".")[2]
        if _certainly_covers(selector, written.namespace):
            where = scope_called(scope)
            return f"{index} admits all pods of {where}, these among them, so that this podSelector has no effect"
        here, there = world.pods(item.peer), world.pods(PodPeer(scope, pods))
        if not here.pods and world.pods_known(written.namespace) and there.pods:
            return (
                f"no pod of namespace {written.namespace} has {pods}, but {world.called(there.pods)} in those of"
                f" {index}: as two items they admit every pod of those namespaces"
            )
    return ""


def _looks_like_one(world: World, written: Written, placed: Sequence[PlacedPeer]) -> Iterator[Finding]:
    """Find a namespaceSelector followed by a podSelector, where no pod shows what is meant."""
    match [each.peer for each in placed]:
        case [PodPeer(NamespacesMatching(selector) as scope, everybody), PodPeer(InNamespace(), pods) as local] if (
            everybody == EVERYTHING and pods != EVERYTHING and not _certainly_covers(selector, written.namespace)
        ):
            if any(world.pods(local)) or world.pods_known(written.namespace):
                return
            here = f"pods with {pods} of namespace {written.namespace}"
            message = f"admits all pods of {scope_called(scope)}; the next item, {here}"
            yield found("either-or", written, placed[0].path, message)
        case _:
            return


def _meant_as_two(world: World, written: Written, peer: PodPeer) -> str:
    """Return what shows that a podSelector and a namespaceSelector in one item were meant as two."""
    local = PodPeer(InNamespace(written.namespace), peer.pods)
    if any(world.pods(peer)) or not world.scope_known(peer.scope):
        return ""
    here, there = world.pods(local).pods, world.pods(PodPeer(peer.scope)).pods
    if not here or not there:
        return ""
    return (
        f"no pod of {scope_called(peer.scope)} has {peer.pods}; {world.called(here)} of the policy's own namespace has:"
        " as one item it admits only pods that match both"
    )


def _certainly_covers(selector: Selector, namespace: str) -> bool:
    """Tell whether a namespaceSelector was written for every namespace, or for this very one."""
    return selector in (EVERYTHING, Selector((Requirement(NAME_LABEL, Operator.IN, (namespace,)),)))


def split_rules(written: Written) -> Iterator[Finding]:
    """Find rules of a direction of which one has only peers and the other only ports."""
    for direction in Direction:
        match written.policy.rules(direction):
            case (first, second):
                pass
            case _:
                continue
        for peers, ports in ((first, second), (second, first)):
            if _only_peers(peers, written.namespace) and _only_ports(ports, direction):
                where = ports.origin.path.rpartition(".")[2]
                message = f"admits every port from these peers, and {where} admits its ports from everybody"
                if direction is Direction.EGRESS:
                    message = f"admits every port to these peers, and {where} admits its ports to everybody"
                yield found("split-rule", written, peers.origin.path, message)


def _only_ports(rule: Rule, direction: Direction) -> bool:
    """Tell whether a rule has ports and no peers; DNS to everybody is a rule by itself."""
    if rule.peers is not ANY_PEER or not isinstance(rule.traffic, Ports):
        return False
    return direction is Direction.INGRESS or any(match.port != _DNS for match in rule.traffic.matches)


def _only_peers(rule: Rule, namespace: str) -> bool:
    """Tell whether a rule has peers and no ports; all pods of the own namespace at every port is a rule by itself."""
    own = PodPeer(InNamespace(namespace))
    return isinstance(rule.peers, Peers) and rule.traffic is ANY_TRAFFIC and own not in rule.peers.members
