# SPDX-License-Identifier: Apache-2.0
"""The oracle by examples: each branch once on either side. What statements of SEMANTICS mean, the corpus shows."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given

from ringfence.model.cluster import Cluster, ContainerPort, Namespace, Node
from ringfence.model.flow import Flow
from ringfence.model.policy import (
    Action,
    Direction,
    InNamespace,
    NamespacesMatching,
    Peers,
    PodPeer,
    PolicySet,
)
from ringfence.model.ports import ANY_PORT, NamedPort, PortMatch, PortRange, Ports, Protocol
from ringfence.semantics.evaluate import Reason, evaluate, isolating, port_matches
from tests.semantics.small_worlds import (
    block,
    clusters,
    flow,
    flows,
    labelled,
    network_policies,
    pod,
    policy,
    policy_sets,
    rule,
    tier,
)

WEB = pod("shop/web", "10.0.0.10 fd00::10", {"app": "web"}, ports=[ContainerPort("http", 80, Protocol.TCP)])
JOB = pod("shop/job", "10.0.0.11 fd00::11", {"app": "job"}, node="node-b")
HOST = pod("shop/host", "10.0.0.2", {"app": "job"}, node="node-b", host_network=True)
CLUSTER = Cluster(
    [Namespace("shop")],
    [
        Node("node-a", addresses=frozenset(map(ipaddress.ip_address, ("10.0.0.1", "203.0.113.1", "fd00::1")))),
        Node("node-b", addresses=frozenset({ipaddress.ip_address("10.0.0.2")})),
    ],
    [WEB, JOB, HOST],
)
JOB_TO_WEB = flow("10.0.0.11", "10.0.0.10")
FROM_JOB = Peers((PodPeer(InNamespace("shop"), labelled(app="job")),))


def test_without_policies_everything_passes_and_each_half_says_why() -> None:
    """A pod that no policy selects is not isolated; an end that is no pod has no policies at all."""
    verdict = evaluate(flow("10.0.0.11", "8.8.8.8"), CLUSTER, PolicySet())

    assert verdict.allowed
    assert (verdict.egress.reason, verdict.egress.subject) == (Reason.NOT_ISOLATED, JOB)
    assert (verdict.ingress.reason, verdict.ingress.subject) == (Reason.NOT_A_POD, None)


def test_an_isolated_pod_denies_what_no_rule_allows_and_names_who_isolates_it() -> None:
    """The default of the tier denies, and the verdict lists every policy that isolates."""
    policies = network_policies(policy("a", ingress=()), policy("b", ingress=(rule(traffic=Ports(())),)))

    verdict = evaluate(JOB_TO_WEB, CLUSTER, policies)

    assert not verdict.allowed
    assert verdict.egress.allowed
    assert (verdict.ingress.reason, verdict.ingress.decided_by) == (Reason.DEFAULT, None)
    assert [ref.name for ref in verdict.ingress.isolated_by] == ["a", "b"]


def test_the_rule_that_decides_is_named() -> None:
    """The first matching rule's origin is in the verdict."""
    second = rule(FROM_JOB, path="spec.ingress[1]")
    policies = network_policies(policy(ingress=(rule(Peers(())), second)))

    half = evaluate(JOB_TO_WEB, CLUSTER, policies).ingress

    assert (True, Reason.RULE, second.origin) == (half.allowed, half.reason, half.decided_by)


def test_either_half_denies_alone() -> None:
    """A flow needs the source's egress and the destination's ingress."""
    nothing_out = network_policies(policy(subject=PodPeer(InNamespace("shop"), labelled(app="job")), egress=()))

    verdict = evaluate(JOB_TO_WEB, CLUSTER, nothing_out)

    assert (verdict.egress.allowed, verdict.ingress.allowed) == (False, True)
    assert not verdict.allowed


def test_a_pod_reaches_itself_in_both_halves() -> None:
    """Self traffic is allowed though everything is denied, and still says who isolates."""
    verdict = evaluate(flow("10.0.0.10", "10.0.0.10"), CLUSTER, network_policies(policy(ingress=(), egress=())))

    assert verdict.allowed
    assert (verdict.egress.reason, verdict.ingress.reason) == (Reason.SELF, Reason.SELF)
    assert verdict.ingress.isolated_by


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param("10.0.0.1", Reason.OWN_NODE, id="own-node"),
        pytest.param("203.0.113.1", Reason.OWN_NODE, id="another-address-of-it"),
        pytest.param("10.0.0.2", Reason.DEFAULT, id="another-node"),
    ],
)
def test_only_the_own_node_reaches_an_isolated_pod(source: str, reason: Reason) -> None:
    """All addresses of the pod's node get in, those of other nodes do not."""
    half = evaluate(flow(source, "10.0.0.10"), CLUSTER, network_policies(policy(ingress=()))).ingress

    assert (reason is Reason.OWN_NODE, reason) == (half.allowed, half.reason)


def test_a_pod_whose_node_is_unknown_has_no_own_node() -> None:
    """A node that has no object yet has no addresses, so nothing passes as it."""
    lonely = Cluster([Namespace("shop")], [], [WEB])

    assert not evaluate(flow("10.0.0.1", "10.0.0.10"), lonely, network_policies(policy(ingress=()))).allowed


def test_a_pod_to_its_own_node_is_subject_to_egress() -> None:
    """The privilege of the own node is one-way."""
    half = evaluate(flow("10.0.0.10", "10.0.0.1"), CLUSTER, network_policies(policy(egress=()))).egress

    assert (half.allowed, half.reason) == (False, Reason.DEFAULT)


def test_host_network_pods_are_neither_subject_nor_peer() -> None:
    """Their address is the node's: no policy selects it, and no pod selector covers it."""
    policies = network_policies(policy(ingress=(rule(FROM_JOB),), egress=()))

    to_host = evaluate(flow("8.8.8.8", "10.0.0.2"), CLUSTER, policies)
    from_host = evaluate(flow("10.0.0.2", "10.0.0.10"), CLUSTER, policies)

    assert Reason.NOT_A_POD is to_host.ingress.reason
    assert Reason.DEFAULT is from_host.ingress.reason


def test_a_block_covers_addresses_whoever_holds_them() -> None:
    """A block matches pod and foreign addresses alike, outside of its exceptions."""
    policies = network_policies(policy(ingress=(rule(Peers((block("10.0.0.0/24", "10.0.0.64/26"),))),)))

    allowed = [
        evaluate(flow(source, "10.0.0.10"), CLUSTER, policies).allowed
        for source in ("10.0.0.11", "10.0.0.63", "10.0.0.64", "10.0.1.1")
    ]

    assert allowed == [True, True, False, False]


def test_a_namespace_selector_matches_nothing_of_an_unknown_namespace() -> None:
    """A pod whose namespace is not there yet is no namespace selector's peer."""
    stray = pod("late/pod", "10.0.0.12")
    everywhere = network_policies(policy(ingress=(rule(Peers((PodPeer(NamespacesMatching(labelled())),))),)))
    late = flow("10.0.0.12", "10.0.0.10")

    before = Cluster([Namespace("shop")], [], [WEB, stray])
    after = Cluster([Namespace("shop"), Namespace("late")], [], [WEB, stray])

    assert [evaluate(late, cluster, everywhere).allowed for cluster in (before, after)] == [False, True]


TCP, UDP, ICMP = Protocol.TCP, Protocol.UDP, Protocol.ICMP


@pytest.mark.parametrize(
    ("match", "judged", "expected"),
    [
        pytest.param(PortMatch(TCP), flow("10.0.0.11", "10.0.0.10", TCP, 1), True, id="any-port"),
        pytest.param(PortMatch(TCP), flow("10.0.0.11", "10.0.0.10", UDP, 1), False, id="other-protocol"),
        pytest.param(PortMatch(ICMP, ANY_PORT), flow("10.0.0.11", "10.0.0.10", ICMP), True, id="protocol-only"),
        pytest.param(PortMatch(ICMP, PortRange(0, 65535)), flow("10.0.0.11", "10.0.0.10", ICMP), False, id="no-port"),
        pytest.param(PortMatch(TCP, PortRange(80, 81)), flow("10.0.0.11", "10.0.0.10", TCP, 81), True, id="last"),
        pytest.param(PortMatch(TCP, PortRange(80, 81)), flow("10.0.0.11", "10.0.0.10", TCP, 82), False, id="beyond"),
        pytest.param(PortMatch(TCP, NamedPort("http")), flow("10.0.0.11", "10.0.0.10", TCP, 80), True, id="named"),
        pytest.param(PortMatch(TCP, NamedPort("http")), flow("10.0.0.11", "10.0.0.10", TCP, 81), False, id="number"),
        pytest.param(PortMatch(UDP, NamedPort("http")), flow("10.0.0.11", "10.0.0.10", UDP, 80), False, id="name-tcp"),
        pytest.param(PortMatch(TCP, NamedPort("http")), flow("10.0.0.10", "10.0.0.11", TCP, 80), False, id="on-source"),
        pytest.param(PortMatch(TCP, NamedPort("http")), flow("10.0.0.10", "8.8.8.8", TCP, 80), False, id="no-pod"),
    ],
)
def test_port_entries(match: PortMatch, judged: Flow, expected: bool) -> None:  # noqa: FBT001 - a table's column
    """An entry asks for the protocol, and for a port where it names one; names are the destination pod's."""
    assert expected is port_matches(match, judged, CLUSTER)


def test_tiers_are_asked_in_order_and_the_first_word_is_final() -> None:
    """A deny of an earlier tier beats an allow of a later one, and the other way round."""
    deny = tier(Action.PASS, policy("deny", ingress=(rule(action=Action.DENY, policy="deny"),)), order=1, name="one")
    allow = tier(Action.DENY, policy("allow", ingress=(rule(policy="allow"),)), order=2, name="two")

    denied = evaluate(JOB_TO_WEB, CLUSTER, PolicySet((allow, deny))).ingress
    allowed = evaluate(JOB_TO_WEB, CLUSTER, PolicySet((allow, tier(Action.PASS, order=1)))).ingress

    assert (denied.allowed, denied.reason) == (False, Reason.RULE)
    assert denied.decided_by is not None
    assert denied.decided_by.object.name == "deny"
    assert (allowed.allowed, allowed.reason) == (True, Reason.RULE)


def test_pass_leaves_the_tier_for_the_next_one() -> None:
    """A pass rule skips the rest of its tier, its deny rules and its default; then the next tier decides."""
    passing = policy("a", ingress=(rule(action=Action.PASS),), order=1)
    denying = policy("b", ingress=(rule(action=Action.DENY),), order=2)
    first = tier(Action.DENY, passing, denying, order=1, name="one")

    alone = evaluate(JOB_TO_WEB, CLUSTER, PolicySet((first,))).ingress
    followed = evaluate(JOB_TO_WEB, CLUSTER, PolicySet((first, tier(Action.DENY, policy("c", ingress=()), order=2))))

    assert (alone.allowed, alone.reason) == (True, Reason.PASSED)
    assert (followed.ingress.allowed, followed.ingress.reason) == (False, Reason.DEFAULT)


def test_a_tier_that_passes_by_default_isolates_nobody() -> None:
    """Policies of such a tier are not among those that isolate, and what they do not match goes on."""
    lenient = tier(Action.PASS, policy(ingress=(rule(Peers(()), action=Action.DENY),)))

    half = evaluate(JOB_TO_WEB, CLUSTER, PolicySet((lenient,))).ingress

    assert (half.allowed, half.reason, half.isolated_by) == (True, Reason.PASSED, ())


def test_within_a_tier_order_then_name_decides() -> None:
    """The policy of lower order is asked first, whatever it is called."""
    late = policy("a", ingress=(rule(action=Action.ALLOW, policy="a"),), order=2)
    early = policy("z", ingress=(rule(action=Action.DENY, policy="z"),), order=1)

    assert not evaluate(JOB_TO_WEB, CLUSTER, PolicySet((tier(Action.DENY, late, early),))).allowed


def test_a_tier_whose_policies_are_about_the_other_direction_has_no_say() -> None:
    """A policy without rules for a direction does not isolate in it."""
    policies = network_policies(policy(egress=()))

    assert isolating(WEB, Direction.INGRESS, CLUSTER, policies) == ()
    assert evaluate(flow("8.8.8.8", "10.0.0.10"), CLUSTER, policies).allowed


@given(flows(), clusters(), policy_sets())
def test_a_half_is_decided_by_a_rule_exactly_if_it_says_so(judged: Flow, cluster: Cluster, policies: PolicySet) -> None:
    """Whatever the world: rule and reason go together, subjects are pods, and denials have somebody to name."""
    verdict = evaluate(judged, cluster, policies)

    assert verdict.allowed == (verdict.egress.allowed and verdict.ingress.allowed)
    for half in (verdict.egress, verdict.ingress):
        assert (half.decided_by is not None) == (half.reason is Reason.RULE)
        assert (half.subject is None) == (half.reason is Reason.NOT_A_POD)
        assert half.allowed or half.reason in (Reason.RULE, Reason.DEFAULT)
        assert half.reason is not Reason.DEFAULT or half.isolated_by
