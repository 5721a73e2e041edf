# SPDX-License-Identifier: Apache-2.0
"""How far a rule is from matching a flow: what it needs, what the flow has instead, and what would close the gap.

A rule misses by its peer, by its traffic, or by both; the nearest of several peers or port entries speaks for the
rule. A rule without misses matches: ``evaluate.rule_matches`` and this module must always agree, and the tests hold
them against each other. Distances only order explanations; no verdict depends on them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from ringfence.model.addresses import Block, contains
from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.flow import Flow
from ringfence.model.labels import Labels, Operator, Requirement, Selector
from ringfence.model.policy import (
    ANY_PEER,
    BlockPeer,
    Direction,
    InNamespace,
    NamespaceScope,
    NamespacesMatching,
    Origin,
    Peer,
    PodPeer,
    Rule,
)
from ringfence.model.ports import ANY_PORT, ANY_TRAFFIC, NamedPort, PortMatch, PortRange


class Aspect(enum.Enum):
    """What of a flow a rule does not match; the value is how JSON spells it."""

    POD_LABELS = "podLabels"
    NAMESPACE_LABELS = "namespaceLabels"
    NAMESPACE = "namespace"
    NAMESPACE_UNKNOWN = "namespaceUnknown"
    NOT_A_POD = "notAPod"
    ADDRESS_FAMILY = "addressFamily"
    OUTSIDE_BLOCK = "outsideBlock"
    EXCEPTION = "exception"
    PROTOCOL = "protocol"
    PORT = "port"
    PORT_NAME = "portName"
    NOTHING = "matchesNothing"


# How much of a flow or a cluster has to change for a miss to go away: a label is nearer than another address.
_DISTANCE = {
    Aspect.POD_LABELS: 1,
    Aspect.NAMESPACE_LABELS: 2,
    Aspect.NAMESPACE: 3,
    Aspect.NAMESPACE_UNKNOWN: 3,
    Aspect.PORT: 2,
    Aspect.PORT_NAME: 2,
    Aspect.PROTOCOL: 3,
    Aspect.EXCEPTION: 4,
    Aspect.OUTSIDE_BLOCK: 5,
    Aspect.ADDRESS_FAMILY: 6,
    Aspect.NOT_A_POD: 7,
    Aspect.NOTHING: 100,
}


@dataclass(frozen=True, slots=True)
class Miss:
    """One thing that a rule needs (``needs``) and a flow does not have (``found`` says what it has instead).

    ``remedy`` is what would close this gap, where there is something that plainly would; ``times`` how many
    requirements are unmet.
    """

    aspect: Aspect
    needs: str
    found: str
    remedy: str | None = None
    times: int = 1

    def __str__(self) -> str:
        return f"{self.needs}, {self.found}"

    @property
    def distance(self) -> int:
        """How far this is from a match; only the order of distances means something."""
        return _DISTANCE[self.aspect] * self.times


@dataclass(frozen=True, slots=True)
class RuleMiss:
    """A rule that does not match a flow, and every reason; ``distance`` sorts near before far."""

    origin: Origin
    misses: tuple[Miss, ...]

    @property
    def distance(self) -> int:
        """The sum over all reasons; zero exactly for a rule that matches."""
        return _distance(self.misses)


def rule_miss(rule: Rule, flow: Flow, direction: Direction, cluster: Cluster) -> RuleMiss:
    """Return why a rule does not match a flow; no misses at all if it does."""
    return RuleMiss(rule.origin, (*_peer_misses(rule, flow, direction, cluster), *_traffic_misses(rule, flow, cluster)))


def _distance(misses: Iterable[Miss]) -> int:
    return sum(miss.distance for miss in misses)


def _peer_misses(rule: Rule, flow: Flow, direction: Direction, cluster: Cluster) -> tuple[Miss, ...]:
    if rule.peers is ANY_PEER:
        return ()
    candidates = [_one_peer_misses(peer, flow, direction, cluster) for peer in rule.peers.members]
    if not candidates:
        return (Miss(Aspect.NOTHING, "the rule matches no peer", "because it is invalid or empty"),)
    return min(candidates, key=_distance)


def _one_peer_misses(peer: Peer, flow: Flow, direction: Direction, cluster: Cluster) -> tuple[Miss, ...]:
    far = flow.source if direction is Direction.INGRESS else flow.destination
    match peer:
        case PodPeer():
            endpoint = cluster.endpoint_at(far)
            if endpoint is None:
                return (Miss(Aspect.NOT_A_POD, f"peer needs {peer}", f"{far} is not a pod of the pod network"),)
            return pod_misses(peer, endpoint, cluster, "peer")
        case BlockPeer(block):
            if peer.covers(far):
                return ()
            holder = cluster.endpoint_at(far)
            return (_block_miss(block, flow, direction, str(holder.key) if holder else None),)
        case _:
            assert_never(peer)


def pod_misses(peer: PodPeer, endpoint: Endpoint, cluster: Cluster, what: str) -> tuple[Miss, ...]:
    """Return why a pod selection (a rule's peer, or a policy's subject: ``what``) does not cover a pod."""
    return (*_scope_misses(peer.scope, endpoint, cluster, what), *_label_misses(peer.pods, endpoint, what))


def _label_misses(selector: Selector, endpoint: Endpoint, what: str) -> tuple[Miss, ...]:
    unmet = selector.unmet(endpoint.labels)
    if not unmet:
        return ()
    needs, found = f"{what} needs {Selector(unmet)}", f"{endpoint.key} has {_shown(endpoint.labels, unmet)}"
    command = f"kubectl label pod {endpoint.key.name} -n {endpoint.key.namespace}"
    return (Miss(Aspect.POD_LABELS, needs, found, label_command(command, unmet, endpoint.labels), len(unmet)),)


def _scope_misses(scope: NamespaceScope, endpoint: Endpoint, cluster: Cluster, what: str) -> tuple[Miss, ...]:
    namespace = endpoint.key.namespace
    match scope:
        case InNamespace(name):
            if name == namespace:
                return ()
            needs = f"{what} without a namespaceSelector needs a pod of namespace {name}"
            remedy = f"add a namespaceSelector for kubernetes.io/metadata.name={namespace} to the {what}"
            return (Miss(Aspect.NAMESPACE, needs, f"{endpoint.key} is in namespace {namespace}", remedy),)
        case NamespacesMatching(selector):
            labels = cluster.namespace_labels(namespace)
            if labels is None:
                found = f"namespace {namespace} is not known yet"
                return (Miss(Aspect.NAMESPACE_UNKNOWN, f"{what} needs {scope}", found),)
            unmet = selector.unmet(labels)
            if not unmet:
                return ()
            needs = f"{what} needs a namespace with {Selector(unmet)}"
            found = f"namespace {namespace} has {_shown(labels, unmet)}"
            remedy = label_command(f"kubectl label namespace {namespace}", unmet, labels)
            return (Miss(Aspect.NAMESPACE_LABELS, needs, found, remedy, len(unmet)),)
        case _:
            assert_never(scope)


def _shown(labels: Labels, unmet: Iterable[Requirement]) -> str:
    """Return what a person should see of labels when some keys are at stake: their values, or else all there are."""
    present = dict.fromkeys(f"{r.key}={labels[r.key]}" for r in unmet if r.key in labels)
    return ",".join(present) or str(labels) or "no labels"


def label_command(command: str, unmet: Iterable[Requirement], labels: Labels) -> str:
    """Complete a ``kubectl label`` command so that the requirements are met; for In, by the first of its values."""
    changes: list[str] = []
    overwrite = False
    for requirement in unmet:
        match requirement.operator:
            case Operator.IN:
                changes.append(f"{requirement.key}={requirement.values[0]}")
                overwrite = overwrite or requirement.key in labels
            case Operator.EXISTS:
                changes.append(f"{requirement.key}=")
            case Operator.NOT_IN | Operator.DOES_NOT_EXIST:
                changes.append(f"{requirement.key}-")
            case _:
                assert_never(requirement.operator)
    return " ".join([command, *changes, *(["--overwrite"] if overwrite else [])])


def _block_miss(block: Block, flow: Flow, direction: Direction, holder: str | None) -> Miss:
    far = flow.source if direction is Direction.INGRESS else flow.destination
    name = f"{far} ({holder})" if holder else str(far)
    if block.cidr.version != far.version:
        return Miss(Aspect.ADDRESS_FAMILY, f"peer needs IPv{block.cidr.version} {block}", f"{name} is IPv{far.version}")
    for hole in block.exceptions:
        if contains(hole, far):
            return Miss(Aspect.EXCEPTION, f"peer needs {block.cidr}", f"{name} is in its exception {hole}")
    return Miss(Aspect.OUTSIDE_BLOCK, f"peer needs {block}", f"{name} is outside of it")


def _traffic_misses(rule: Rule, flow: Flow, cluster: Cluster) -> tuple[Miss, ...]:
    if rule.traffic is ANY_TRAFFIC:
        return ()
    candidates = [_port_misses(match, flow, cluster) for match in rule.traffic.matches]
    if not candidates:
        return (Miss(Aspect.NOTHING, "the rule matches no port", "because it is invalid or empty"),)
    nearest = min(candidates, key=_distance)
    if len(candidates) == 1 or not nearest or nearest[0].aspect is Aspect.PORT_NAME:
        return nearest
    # Of several entries that all miss, the list as a whole says more than the nearest of them.
    return (Miss(nearest[0].aspect, f"ports need one of {rule.traffic}", nearest[0].found, nearest[0].remedy),)


def _port_misses(match: PortMatch, flow: Flow, cluster: Cluster) -> tuple[Miss, ...]:
    traffic = flow.protocol.value if flow.port is None else f"{flow.protocol.value}/{flow.port}"
    needs, found = f"port needs {match}", f"the flow is {traffic}"
    if match.protocol is not flow.protocol:
        remedy = f"add {traffic} to the rule's ports" if flow.protocol.has_ports else "a rule without ports admits it"
        return (Miss(Aspect.PROTOCOL, needs, found, remedy),)
    if match.port is ANY_PORT:
        return ()
    remedy = f"add {traffic} to the rule's ports"
    match match.port:
        case PortRange() as ports:
            inside = flow.port is not None and ports.contains(flow.port)
            return () if inside else (Miss(Aspect.PORT, needs, found, remedy),)
        case NamedPort(name):
            return _name_misses(match, name, flow, cluster)
        case _:
            assert_never(match.port)


def _name_misses(match: PortMatch, name: str, flow: Flow, cluster: Cluster) -> tuple[Miss, ...]:
    needs = f"port needs {match} by name"
    destination = cluster.endpoint_at(flow.destination)
    if destination is None:
        found = f"{flow.destination} is not a pod of the pod network: it has no port names"
        return (Miss(Aspect.PORT_NAME, needs, found, f"name the number: {flow.port}"),)
    numbers = destination.port_numbers(name, match.protocol)
    if flow.port in numbers:
        return ()
    if numbers:
        found = f"on {destination.key} that is {' or '.join(map(str, sorted(numbers)))}, the flow goes to {flow.port}"
        return (Miss(Aspect.PORT, needs, found),)
    named = ", ".join(f"{p.protocol.value}/{p.name}={p.number}" for p in destination.ports if p.name)
    found = f"{destination.key} has no such port name (it has {named or 'none'})"
    return (Miss(Aspect.PORT_NAME, needs, found),)
