# SPDX-License-Identifier: Apache-2.0
"""Why a flow is allowed or denied, as a value: what a person debugging needs, in the order in which they need it.

The verdict itself is ``evaluate``'s. This adds, for each half, what every policy that could concern the subject makes
of the flow, and the nearest rule that missed (``nearest``); ``report`` renders the value to text and JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster, Endpoint, Node
from ringfence.model.flow import Flow
from ringfence.model.policy import (
    Action,
    Direction,
    InNamespace,
    ObjectRef,
    Origin,
    Policy,
    PolicySet,
)
from ringfence.semantics.evaluate import Half, Reason, Verdict, evaluate, rule_matches, selects
from ringfence.semantics.nearest import Miss, RuleMiss, pod_misses, rule_miss


@dataclass(frozen=True, slots=True)
class End:
    """One end of a flow: its address, and who holds it: a pod, a node, both None for the world outside.

    ``host_network`` names the hostNetwork pods behind a node's address: their traffic is the node's (SEMANTICS 25).
    """

    address: Address
    endpoint: Endpoint | None
    node: Node | None
    host_network: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.endpoint is not None:
            return str(self.endpoint.key)
        return str(self.address) if self.node is None else f"{self.address} (node {self.node.name})"


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """A policy that says nothing about the subject in this direction. ``misses`` empty: it is about the other one."""

    policy: ObjectRef
    misses: tuple[Miss, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """A policy with a rule that matches the flow: the first such rule, and what it says (allow admits the flow)."""

    policy: ObjectRef
    rule: Origin
    action: Action


@dataclass(frozen=True, slots=True)
class DoesNotMatch:
    """A policy that selects the subject and of which no rule matches; ``nearest`` None if it has no rule at all."""

    policy: ObjectRef
    nearest: RuleMiss | None


Finding = NotApplicable | Matches | DoesNotMatch


@dataclass(frozen=True, slots=True)
class HalfExplanation:
    """One half of the verdict, and what each policy that could concern its subject makes of the flow."""

    half: Half
    findings: tuple[Finding, ...]

    @property
    def nearest(self) -> RuleMiss | None:
        """The rule that came nearest to allowing a denied flow."""
        misses = [f.nearest for f in self.findings if isinstance(f, DoesNotMatch) and f.nearest is not None]
        return min(misses, key=lambda miss: miss.distance, default=None) if not self.half.allowed else None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict with its reasons. ``notes`` are sentences on what is easily overlooked about these two ends."""

    verdict: Verdict
    source: End
    destination: End
    egress: HalfExplanation
    ingress: HalfExplanation
    notes: tuple[str, ...] = ()

    @property
    def flow(self) -> Flow:
        """The flow that is explained."""
        return self.verdict.flow

    @property
    def allowed(self) -> bool:
        """Tell whether the flow passes."""
        return self.verdict.allowed


def explain(flow: Flow, cluster: Cluster, policies: PolicySet) -> Explanation:
    """Judge a flow and say why."""
    verdict = evaluate(flow, cluster, policies)
    source, destination = _end(flow.source, cluster), _end(flow.destination, cluster)
    return Explanation(
        verdict=verdict,
        source=source,
        destination=destination,
        egress=_explain_half(verdict.egress, flow, cluster, policies),
        ingress=_explain_half(verdict.ingress, flow, cluster, policies),
        notes=tuple(_notes(verdict, source, destination)),
    )


def _end(address: Address, cluster: Cluster) -> End:
    endpoint, node = cluster.endpoint_at(address), cluster.node_at(address)
    behind = sorted(str(e.key) for e in cluster.endpoints.values() if e.host_network and address in e.addresses)
    return End(address, endpoint, node, tuple(behind) if endpoint is None else ())


def _explain_half(half: Half, flow: Flow, cluster: Cluster, policies: PolicySet) -> HalfExplanation:
    if half.subject is None:
        return HalfExplanation(half, ())
    findings = [
        _finding(policy, half.subject, flow, half.direction, cluster)
        for policy in policies.policies()
        if _could_concern(policy, half.subject)
    ]
    return HalfExplanation(half, tuple(findings))


def _could_concern(policy: Policy, subject: Endpoint) -> bool:
    """Tell whether a person who asks about a pod may have this policy in mind: other namespaces' are left out."""
    scope = policy.subject.scope
    return not isinstance(scope, InNamespace) or scope.name == subject.key.namespace


def _finding(policy: Policy, subject: Endpoint, flow: Flow, direction: Direction, cluster: Cluster) -> Finding:
    if not selects(policy, subject, direction, cluster):
        return NotApplicable(policy.ref, pod_misses(policy.subject, subject, cluster, "policy"))
    rules = policy.rules(direction) or ()
    for rule in rules:
        if rule_matches(rule, flow, direction, cluster):
            return Matches(policy.ref, rule.origin, rule.action)
    misses = [rule_miss(rule, flow, direction, cluster) for rule in rules]
    return DoesNotMatch(policy.ref, min(misses, key=lambda miss: miss.distance, default=None))


def _notes(verdict: Verdict, source: End, destination: End) -> Iterator[str]:
    for end in (source, destination):
        if end.host_network:
            yield (
                f"{end.address} is also {', '.join(end.host_network)} (hostNetwork): policies see the node's address, "
                "and do not isolate such pods"
            )
    if source.node is not None and source.endpoint is None and verdict.ingress.reason is not Reason.OWN_NODE:
        yield (
            f"{source.address} is a node's address: so is the source of connections through a NodePort or LoadBalancer "
            "Service with externalTrafficPolicy: Cluster, whoever the client is"
        )
    subject = verdict.egress.subject
    if subject is not None and destination.node is not None and destination.node.name == subject.node:
        yield f"{destination.address} is {subject.key}'s own node: egress policies apply to it like to any address"
