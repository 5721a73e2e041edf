# SPDX-License-Identifier: Apache-2.0
"""How far a rule is from matching a flow: what it needs, what the flow has instead, and what would close the gap.

A rule misses by its peer, by its traffic, or by both; the nearest of several peers or port entries speaks for the
rule. A rule without misses matches, unless there is something that is not known (``knowledge``) on which that rests:
``evaluate.rule_matches`` and this module must always agree on what is known, and the tests hold them against each
other. Distances only order explanations; no verdict depends on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from ringfence.apis.core import NAME_LABEL
from ringfence.model.addresses import Address, Block, contains
from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.flow import Flow
from ringfence.model.labels import Labels, Requirement, Selector
from ringfence.model.policy import (
    ANY_PEER,
    BlockPeer,
    Direction,
    InNamespace,
    NamespaceScope,
    NamespacesMatching,
    Origin,
    Peer,
    Peers,
    PodPeer,
    Policy,
    Rule,
)
from ringfence.model.ports import ANY_PORT, ANY_TRAFFIC, NamedPort, PortMatch, PortRange
from ringfence.semantics import fixes
from ringfence.semantics.knowledge import (
    EVERYTHING_KNOWN,
    Knowledge,
    Unknown,
    address_of,
    holder_of,
    labels_of,
    meaning_of,
)
from ringfence.semantics.miss import Aspect, Lack, Miss, RuleMiss, distance, split


@dataclass(frozen=True, slots=True)
class _Question:
    """One rule's question: does this flow match, seen from the end that the policy selects?"""

    origin: Origin
    flow: Flow
    direction: Direction
    cluster: Cluster
    known: Knowledge

    @property
    def far(self) -> Address:
        return self.flow.source if self.direction is Direction.INGRESS else self.flow.destination

    def name(self, address: Address) -> str:
        """Return what to call an address that is no pod's of the pod network: never one that was made up."""
        return str(self.known.stand_ins.get(address, address))


def rule_miss(
    rule: Rule, flow: Flow, direction: Direction, cluster: Cluster, known: Knowledge = EVERYTHING_KNOWN
) -> RuleMiss:
    """Return why a rule does not match a flow; no misses at all if it does, or may."""
    question = _Question(rule.origin, flow, direction, cluster, known)
    broken = known.broken_at(rule.origin.object, rule.origin.path, "spec.podSelector", "spec.policyTypes")
    if broken and rule.peers == Peers(()):
        return RuleMiss(rule.origin, (), (meaning_of(rule.origin.object, rule.origin.path, broken),))
    lacks = (*_peer_lacks(rule, question), *_traffic_lacks(rule, question))
    misses, unknowns = split(lacks)
    return RuleMiss(rule.origin, misses, unknowns)


def _best(candidates: Sequence[tuple[Lack, ...]]) -> tuple[Lack, ...]:
    """Return what a list says whose entries suffice one by one: the entry that matches, those that may, the nearest."""
    parted = [split(lacks) for lacks in candidates]
    if any(not misses and not unknowns for misses, unknowns in parted):
        return ()
    maybe = [unknown for _, unknowns in parted for unknown in unknowns]
    if maybe:
        return tuple(dict.fromkeys(maybe))
    return min([misses for misses, _ in parted], key=distance)


def _peer_lacks(rule: Rule, question: _Question) -> tuple[Lack, ...]:
    if rule.peers is ANY_PEER:
        return ()
    candidates = [_one_peer_lacks(peer, question) for peer in rule.peers.members]
    return _best(candidates) if candidates else (Miss(Aspect.NOTHING, "the rule matches no peer", "as it stands"),)


def _one_peer_lacks(peer: Peer, question: _Question) -> tuple[Lack, ...]:
    far = question.far
    match peer:
        case PodPeer():
            endpoint = question.cluster.endpoint_at(far)
            if endpoint is not None:
                return _pod_lacks(peer, endpoint, question)
            if far in question.known.strangers:
                return (holder_of(far, f"peer needs {peer}"),)
            found = f"{question.name(far)} is not a pod of the pod network"
            return (Miss(Aspect.NOT_A_POD, f"peer needs {peer}", found, _admit_address(question)),)
        case BlockPeer(block):
            return _block_lacks(block, question)
        case _:
            assert_never(peer)


def policy_lacks(
    policy: Policy, endpoint: Endpoint, direction: Direction, cluster: Cluster, known: Knowledge = EVERYTHING_KNOWN
) -> tuple[tuple[Miss, ...], tuple[Unknown, ...]]:
    """Return why a policy does not select a pod that its direction is about, or what that rests on."""
    subject = policy.subject
    scope = _scope_lacks(subject.scope, endpoint, _Subject(cluster, known, "policy"))
    lacks = (*scope, *_label_lacks(subject.pods, endpoint, "policy", known))
    # A broken podSelector selects at least what it could have meant: what it does not select is certain.
    broken = known.broken_at(policy.ref, "spec.podSelector", "spec.policyTypes")
    doubts = (meaning_of(policy.ref, f"its pods and {direction.value}", broken),) if broken else ()
    return split((*lacks, *doubts))


@dataclass(frozen=True, slots=True)
class _Subject:
    """Whom a selection of pods is asked about; ``what`` says whose it is: a policy's own, or a rule's peer."""

    cluster: Cluster
    known: Knowledge
    what: str


def _pod_lacks(peer: PodPeer, endpoint: Endpoint, question: _Question) -> tuple[Lack, ...]:
    asked = _Subject(question.cluster, question.known, "peer")
    scope = _scope_lacks(peer.scope, endpoint, asked)
    if isinstance(peer.scope, InNamespace) and scope:
        remedy = fixes.add_namespace(question.origin, question.direction, endpoint.key.namespace, peer.pods)
        scope = tuple(replace(lack, remedy=remedy) for lack in scope)
    return (*scope, *_label_lacks(peer.pods, endpoint, "peer", question.known))


def _label_lacks(selector: Selector, endpoint: Endpoint, what: str, known: Knowledge) -> tuple[Lack, ...]:
    unmet = selector.unmet(endpoint.labels)
    if not unmet:
        return ()
    needs, found = f"{what} needs {Selector(unmet)}", f"{endpoint.key} has {_shown(endpoint.labels, unmet)}"
    return (Miss(Aspect.POD_LABELS, needs, found, fixes.label_pod(endpoint, unmet, known), len(unmet)),)


def _scope_lacks(scope: NamespaceScope, endpoint: Endpoint, asked: _Subject) -> tuple[Lack, ...]:
    namespace, what = endpoint.key.namespace, asked.what
    match scope:
        case InNamespace(name):
            if name == namespace:
                return ()
            needs = f"{what} without a namespaceSelector needs a pod of namespace {name}"
            return (Miss(Aspect.NAMESPACE, needs, f"{endpoint.key} is in namespace {namespace}"),)
        case NamespacesMatching(selector):
            return _namespace_label_lacks(selector, namespace, asked)
        case _:
            assert_never(scope)


def _namespace_label_lacks(selector: Selector, namespace: str, asked: _Subject) -> tuple[Lack, ...]:
    what, labels = asked.what, asked.cluster.namespace_labels(namespace)
    needs = f"{what} needs {NamespacesMatching(selector)}"
    if labels is None:
        return (Miss(Aspect.NAMESPACE_UNKNOWN, needs, f"namespace {namespace} is not known yet"),)
    unmet = selector.unmet(labels)
    if namespace in asked.known.labelless:
        # Its name is all that is known of it, and the one label that follows from that.
        unmet = tuple(requirement for requirement in unmet if requirement.key == NAME_LABEL)
        if not unmet and any(requirement.key != NAME_LABEL for requirement in selector.requirements):
            return (labels_of(namespace, needs),)
    if not unmet:
        return ()
    needs, found = (
        f"{what} needs a namespace with {Selector(unmet)}",
        f"namespace {namespace} has {_shown(labels, unmet)}",
    )
    # Nobody can change the label that repeats the name.
    named = any(requirement.key == NAME_LABEL for requirement in unmet)
    remedy = None if named else fixes.label_command(f"kubectl label namespace {namespace}", unmet, labels)
    return (Miss(Aspect.NAMESPACE_LABELS, needs, found, remedy, len(unmet)),)


def _shown(labels: Labels, unmet: Iterable[Requirement]) -> str:
    """Return what a person should see of labels when some keys are at stake: their values, or else all there are."""
    present = dict.fromkeys(f"{r.key}={labels[r.key]}" for r in unmet if r.key in labels)
    return ",".join(present) or str(labels) or "no labels"


def _block_lacks(block: Block, question: _Question) -> tuple[Lack, ...]:
    far, known = question.far, question.known
    holder = known.stand_ins.get(far) or getattr(question.cluster.endpoint_at(far), "key", None)
    name = str(holder) if far in known.stand_ins else f"{far} ({holder})" if holder else str(far)
    remedy = None if holder else _admit_address(question)
    if block.cidr.version != far.version:
        needs = f"peer needs IPv{block.cidr.version} {block}"
        return (Miss(Aspect.ADDRESS_FAMILY, needs, f"{name} is IPv{far.version}", remedy),)
    if far in known.stand_ins:
        everything = block.cidr.prefixlen == 0 and not block.exceptions
        return () if everything else (address_of(known.stand_ins[far], f"peer needs {block}"),)
    if block.contains(far):
        return ()
    for hole in block.exceptions:
        if contains(hole, far):
            return (Miss(Aspect.EXCEPTION, f"peer needs {block.cidr}", f"{name} is in its exception {hole}", remedy),)
    return (Miss(Aspect.OUTSIDE_BLOCK, f"peer needs {block}", f"{name} is outside of it", remedy),)


def _admit_address(question: _Question) -> str | None:
    """Return what admits the far end by its address; nothing does that plainly for an address that is not known."""
    if question.far in question.known.stand_ins:
        return None
    return fixes.add_address(question.origin, question.direction, question.far)


def _traffic_lacks(rule: Rule, question: _Question) -> tuple[Lack, ...]:
    if rule.traffic is ANY_TRAFFIC:
        return ()
    candidates = [_port_lacks(match, question) for match in rule.traffic.matches]
    if not candidates:
        return (Miss(Aspect.NOTHING, "the rule matches no port", "as it stands"),)
    best = _best(candidates)
    nearest = next((lack for lack in best if isinstance(lack, Miss)), None)
    if len(candidates) == 1 or nearest is None or nearest.aspect is Aspect.PORT_NAME:
        return best
    # Of several entries that all miss, the list as a whole says more than the nearest of them.
    return (Miss(nearest.aspect, f"ports need one of {rule.traffic}", nearest.found, nearest.remedy),)


def _port_lacks(match: PortMatch, question: _Question) -> tuple[Lack, ...]:
    flow = question.flow
    traffic = flow.protocol.value if flow.port is None else f"{flow.protocol.value}/{flow.port}"
    needs, found = f"port needs {match}", f"the flow is {traffic}"
    if match.protocol is not flow.protocol:
        ported = flow.protocol.has_ports
        remedy = fixes.add_port(question.origin, flow) if ported else "a rule without ports admits it"
        return (Miss(Aspect.PROTOCOL, needs, found, remedy),)
    if match.port is ANY_PORT:
        return ()
    match match.port:
        case PortRange() as ports:
            inside = flow.port is not None and ports.contains(flow.port)
            return () if inside else (Miss(Aspect.PORT, needs, found, fixes.add_port(question.origin, flow)),)
        case NamedPort(name):
            return _name_lacks(match, name, question)
        case _:
            assert_never(match.port)


def _name_lacks(match: PortMatch, name: str, question: _Question) -> tuple[Lack, ...]:
    needs, flow = f"port needs {match} by name", question.flow
    destination = question.cluster.endpoint_at(flow.destination)
    if destination is None:
        if flow.destination in question.known.strangers:
            return (holder_of(flow.destination, needs),)
        found = f"{question.name(flow.destination)} is not a pod of the pod network: it has no port names"
        return (Miss(Aspect.PORT_NAME, needs, found, fixes.add_port(question.origin, flow)),)
    numbers = destination.port_numbers(name, match.protocol)
    if flow.port in numbers:
        return ()
    if numbers:
        found = f"on {destination.key} that is {' or '.join(map(str, sorted(numbers)))}, the flow goes to {flow.port}"
        return (Miss(Aspect.PORT, needs, found),)
    named = ", ".join(f"{p.protocol.value}/{p.name}={p.number}" for p in destination.ports if p.name)
    found = f"{destination.key} has no such port name (it has {named or 'none'})"
    return (Miss(Aspect.PORT_NAME, needs, found),)
