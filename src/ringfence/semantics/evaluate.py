# SPDX-License-Identifier: Apache-2.0
"""The verdict of one flow, read literally from SEMANTICS: slow, plain, and the measure of everything else.

Decides: whether the source's egress half and the destination's ingress half allow a flow, which rule or default said
so, and whom it was about. Leaves to ``apis`` what an object means (defaults, broken rules), to ``explain`` the story
around a verdict, and to the caller Service translation: a flow has the pod's own address and target port
(SEMANTICS 31).

Sentences in quotation marks are those of the Kubernetes API documentation of ``networking.k8s.io/v1`` (the field's
name goes before); they stand above the branch that implements them. Not expressible in a flow, and therefore the
dataplanes' affair: replies and related ICMP errors (20), neighbour discovery between pod and node (33).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import assert_never

from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.flow import Flow
from ringfence.model.policy import (
    ANY_PEER,
    Action,
    BlockPeer,
    Direction,
    ObjectRef,
    Origin,
    Peer,
    PodPeer,
    Policy,
    PolicySet,
    Rule,
    Tier,
)
from ringfence.model.ports import ANY_PORT, ANY_TRAFFIC, NamedPort, PortMatch, PortRange
from ringfence.model.settings import DEFAULTS, NodeProbes, OwnNodeEgress, Settings


class Reason(enum.Enum):
    """Why a half of a flow is allowed or denied."""

    NOT_A_POD = "not a pod of the cluster: policies do not apply to it"
    SELF = "a pod always reaches itself"
    OWN_NODE = "a node always reaches the pods that run on it"
    TO_OWN_NODE = "a setting lets pods reach the node that they run on"
    NOT_ISOLATED = "no policy isolates it"
    PASSED = "policies select it, and every tier passed the flow on"
    RULE = "a rule decided"
    DEFAULT = "isolated, and no rule allows it"


@dataclass(frozen=True, slots=True)
class Half:
    """One direction of a verdict, about the pod at its end (``subject``; None if no pod holds the address).

    ``isolated_by`` are the policies that isolate the subject in this direction, in the order in which they are asked;
    ``decided_by`` is the rule that decided, exactly if ``reason`` is ``RULE``.
    """

    direction: Direction
    allowed: bool
    subject: Endpoint | None
    isolated_by: tuple[ObjectRef, ...]
    decided_by: Origin | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """A flow passes when the source's egress and the destination's ingress both allow it."""

    flow: Flow
    egress: Half
    ingress: Half

    @property
    def allowed(self) -> bool:
        """Tell whether the flow passes."""
        return self.egress.allowed and self.ingress.allowed


def evaluate(flow: Flow, cluster: Cluster, policies: PolicySet, settings: Settings = DEFAULTS) -> Verdict:
    """Judge one flow: "for a connection from a source pod to a destination pod to be allowed, both the egress policy
    on the source pod and the ingress policy on the destination pod need to allow the connection" (Network Policies,
    "The two sorts of pod isolation").
    """
    return Verdict(
        flow=flow,
        egress=judge_half(flow, Direction.EGRESS, cluster, policies, settings),
        ingress=judge_half(flow, Direction.INGRESS, cluster, policies, settings),
    )


def judge_half(
    flow: Flow, direction: Direction, cluster: Cluster, policies: PolicySet, settings: Settings = DEFAULTS
) -> Half:
    """Judge the half of a flow that one end's policies decide: egress at the source, ingress at the destination."""
    source, destination = cluster.endpoint_at(flow.source), cluster.endpoint_at(flow.destination)
    subject = source if direction is Direction.EGRESS else destination
    # SEMANTICS 25: no policy applies to what is not a pod of the pod network; hostNetwork pods hold no address here.
    if subject is None:
        return Half(direction, True, None, (), None, Reason.NOT_A_POD)
    isolated_by = isolating(subject, direction, cluster, policies)
    # "A pod cannot block access to itself" (Network Policies, "Behavior of to and from selectors"); SEMANTICS 22.
    if source is destination:
        return Half(direction, True, subject, isolated_by, None, Reason.SELF)
    # ingress: "... OR if the traffic source is the pod's local node"; SEMANTICS 23. The other way, pod to its own
    # node, is subject to egress like any address (24), unless that is set otherwise.
    if direction is Direction.INGRESS:
        if settings.node_probes is NodeProbes.ALLOW and _is_own_node(flow.source, subject, cluster):
            return Half(direction, True, subject, isolated_by, None, Reason.OWN_NODE)
    elif settings.own_node_egress is OwnNodeEgress.ALLOW and _is_own_node(flow.destination, subject, cluster):
        return Half(direction, True, subject, isolated_by, None, Reason.TO_OWN_NODE)
    return _ask_tiers(flow, direction, subject, cluster, policies, isolated_by)


def _is_own_node(address: Address, subject: Endpoint, cluster: Cluster) -> bool:
    """Tell whether an address is one of the node on which the subject runs: every one, both families."""
    node = cluster.nodes.get(subject.node)
    return node is not None and address in node.addresses


def selects(policy: Policy, endpoint: Endpoint, direction: Direction, cluster: Cluster) -> bool:
    """Tell whether a policy selects an endpoint and speaks of this direction."""
    # podSelector: "an empty selector matches all pods in the policy's namespace" (SEMANTICS 3); policyTypes (1, 2) are
    # lowered to rules that are None where the policy leaves the direction alone.
    return policy.rules(direction) is not None and policy.subject.covers(endpoint, cluster)


def isolating(endpoint: Endpoint, direction: Direction, cluster: Cluster, policies: PolicySet) -> tuple[ObjectRef, ...]:
    """Return the policies that isolate an endpoint: those that select it, in tiers whose default is to deny."""
    return tuple(
        policy.ref
        for tier in policies.tiers
        if tier.default is Action.DENY
        for policy in tier.policies
        if selects(policy, endpoint, direction, cluster)
    )


def _ask_tiers(
    flow: Flow,
    direction: Direction,
    subject: Endpoint,
    cluster: Cluster,
    policies: PolicySet,
    isolated_by: tuple[ObjectRef, ...],
) -> Half:
    """Ask the tiers in their order until one decides."""
    reason = Reason.NOT_ISOLATED
    for tier in policies.tiers:
        asked = [policy for policy in tier.policies if selects(policy, subject, direction, cluster)]
        # ingress: "Traffic is allowed to a pod if there are no NetworkPolicies selecting the pod"; any tier likewise:
        # one that does not select the endpoint has nothing to say.
        if not asked:
            continue
        action, origin = _ask_tier(flow, direction, tier, asked, cluster)
        # Pass leaves the tier undecided, whether a rule or the tier's default says it.
        if action is Action.PASS:
            reason = Reason.PASSED
            continue
        allowed = action is Action.ALLOW
        return Half(direction, allowed, subject, isolated_by, origin, Reason.RULE if origin else Reason.DEFAULT)
    # After the last tier a flow is allowed.
    return Half(direction, True, subject, isolated_by, None, reason)


def _ask_tier(
    flow: Flow, direction: Direction, tier: Tier, asked: list[Policy], cluster: Cluster
) -> tuple[Action, Origin | None]:
    """Return what a tier says of a flow, and the rule that said it (None: the tier's default)."""
    for policy in asked:
        # "OR if the traffic matches at least one ingress rule across all of the NetworkPolicy objects whose
        # podSelector matches the pod": their rules all allow, so the first match in any order is the union (SEMANTICS
        # 19). Where rules of other actions are mixed, order decides: the first match is the tier's word.
        for rule in policy.rules(direction) or ():
            if rule_matches(rule, flow, direction, cluster):
                return rule.action, rule.origin
    # ingress: "If this field is empty then this NetworkPolicy does not allow any traffic (and serves solely to ensure
    # that the pods it selects are isolated by default)" (SEMANTICS 4).
    return tier.default, None


def rule_matches(rule: Rule, flow: Flow, direction: Direction, cluster: Cluster) -> bool:
    """Tell whether a rule matches a flow: "traffic must match both ports and from" (NetworkPolicyIngressRule)."""
    return _peers_match(rule, flow, direction, cluster) and _traffic_matches(rule, flow, cluster)


def _peers_match(rule: Rule, flow: Flow, direction: Direction, cluster: Cluster) -> bool:
    # from: "If this field is empty or missing, this rule matches all sources" (SEMANTICS 5).
    if rule.peers is ANY_PEER:
        return True
    # from: "Items in this list are combined using a logical OR operation." (SEMANTICS 11)
    return any(peer_matches(peer, flow, direction, cluster) for peer in rule.peers.members)


def peer_matches(peer: Peer, flow: Flow, direction: Direction, cluster: Cluster) -> bool:
    """Tell whether a peer covers the far end of a flow: the source for ingress, the destination for egress."""
    far = flow.source if direction is Direction.INGRESS else flow.destination
    match peer:
        case PodPeer():
            # podSelector: "selects the pods matching podSelector in the Namespaces selected by namespaceSelector",
            # "otherwise it selects the pods matching podSelector in the policy's own namespace" (SEMANTICS 11-13).
            endpoint = cluster.endpoint_at(far)
            return endpoint is not None and peer.covers(endpoint, cluster)
        case BlockPeer():
            # The exceptions are "CIDRs that should not be included within an IPBlock" (SEMANTICS 16); the packet's
            # address counts, whoever holds it (15), and never across families (18).
            return peer.covers(far)
        case _:
            assert_never(peer)


def _traffic_matches(rule: Rule, flow: Flow, cluster: Cluster) -> bool:
    # ports: "If this field is empty or missing, this rule matches all ports (traffic not restricted by port)": every
    # protocol, those without ports included (SEMANTICS 6, 33).
    if rule.traffic is ANY_TRAFFIC:
        return True
    # And of the entries of ports: "Each item in this list is combined using a logical OR."
    return any(port_matches(match, flow, cluster) for match in rule.traffic.matches)


def port_matches(match: PortMatch, flow: Flow, cluster: Cluster) -> bool:
    """Tell whether one entry of a rule's ports covers the protocol and the destination port of a flow."""
    # port: "If present, only traffic on the specified protocol AND port will be matched." (SEMANTICS 34)
    if match.protocol is not flow.protocol:
        return False
    # port: "If this field is not provided, this matches all port names and numbers." (SEMANTICS 7)
    if match.port is ANY_PORT:
        return True
    # A number or a name never matches a packet that carries no port.
    if flow.port is None:
        return False
    match match.port:
        case PortRange() as ports:
            # endPort: "the range of ports from port to endPort if set, inclusive" (SEMANTICS 8)
            return ports.contains(flow.port)
        case NamedPort(name):
            # port: "a numerical or named port on a pod": on the destination pod, by name and protocol, whichever
            # direction the rule has (SEMANTICS 9); what is not a pod has no names (10).
            destination = cluster.endpoint_at(flow.destination)
            return destination is not None and flow.port in destination.port_numbers(name, match.protocol)
        case _:
            assert_never(match.port)
