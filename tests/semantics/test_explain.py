# SPDX-License-Identifier: Apache-2.0
"""Explanations: they agree with the oracle, name the nearest rule, and say what would make it match."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings

from ringfence.model.cluster import Cluster, ContainerPort, Namespace, Node
from ringfence.model.flow import Flow
from ringfence.model.labels import Labels, Operator, Requirement, Selector
from ringfence.model.policy import (
    Action,
    Direction,
    InNamespace,
    NamespacesMatching,
    Peers,
    PodPeer,
    PolicySet,
    Rule,
)
from ringfence.model.ports import ANY_PORT, NamedPort, PortMatch, PortRange, Ports, Protocol
from ringfence.semantics.evaluate import Reason, evaluate, rule_matches, selects
from ringfence.semantics.explain import explain
from ringfence.semantics.findings import DoesNotMatch, Matches, NotApplicable, Outcome, Undecidable
from ringfence.semantics.fixes import label_command
from ringfence.semantics.judge import judge
from ringfence.semantics.miss import Aspect
from ringfence.semantics.nearest import rule_miss
from ringfence.semantics.report import document, headline, text
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
    rules,
    tier,
)

TCP, UDP, ICMP = Protocol.TCP, Protocol.UDP, Protocol.ICMP
SHOP = InNamespace("shop")
CLIENT = pod("shop/client", "10.0.0.11", {"run": "client"})
SERVER = pod("shop/server", "10.0.0.10", {"app": "server"}, ports=[ContainerPort("http", 80, TCP)])
TELLER = pod("bank/teller", "10.0.0.12", {"app": "client"}, node="node-b")
STRAY = pod("late/stray", "10.0.0.13", {"app": "client"})
HOST = pod("shop/host", "10.0.0.2", {"app": "client"}, node="node-b", host_network=True)
CLUSTER = Cluster(
    [Namespace("shop"), Namespace("bank", Labels({"team": "sport"}))],
    [
        Node("node-a", addresses=frozenset({ipaddress.ip_address("10.0.0.1")})),
        Node("node-b", addresses=frozenset({ipaddress.ip_address("10.0.0.2")})),
    ],
    [CLIENT, SERVER, TELLER, STRAY, HOST],
)
TO_SERVER = flow("10.0.0.11", "10.0.0.10")
SUBJECT = PodPeer(SHOP, labelled(app="server"))


def pods(**labels: str) -> Peers:
    """Return one peer: pods of namespace ``shop``."""
    return Peers((PodPeer(SHOP, labelled(**labels)),))


@given(rules, flows(), clusters())
@settings(max_examples=300)
def test_a_rule_misses_nothing_exactly_if_it_matches(some: Rule, judged: Flow, cluster: Cluster) -> None:
    """Explanation and oracle agree on every rule, flow and cluster, in both directions."""
    for direction in Direction:
        miss = rule_miss(some, judged, direction, cluster)

        assert (miss.misses == ()) == rule_matches(some, judged, direction, cluster)
        assert (miss.distance == 0) == (miss.misses == ())


@given(flows(), clusters(), policy_sets())
def test_an_explanation_never_contradicts_the_verdict(judged: Flow, cluster: Cluster, policies: PolicySet) -> None:
    """Where everything is known it is the oracle's in every field, and it can be told in text and JSON."""
    explanation, verdict = explain(judged, cluster, policies), evaluate(judged, cluster, policies)

    assert verdict.allowed is explanation.allowed
    for side, half in ((explanation.egress, verdict.egress), (explanation.ingress, verdict.ingress)):
        assert (half.allowed, half.reason) == (side.outcome is Outcome.ALLOWED, side.reason)
        assert (half.subject, half.isolated_by, half.decided_by) == (side.subject, side.isolated_by, side.decided_by)
        assert side.unknowns == ()
        assert half.allowed <= (side.nearest is None)
    assert explanation.outcome.value.upper() in headline(explanation)
    assert headline(explanation) == text(explanation, every_policy=True).partition("\n")[0]
    assert explanation.allowed is document(explanation)["allowed"]


@given(flows(), clusters(), policy_sets())
@settings(max_examples=300)
def test_every_finding_agrees_with_the_oracle(judged: Flow, cluster: Cluster, policies: PolicySet) -> None:
    """A policy admits exactly if it selects the pod and a rule of it matches; and the findings make the verdict."""
    by_ref = {policy.ref: policy for policy in policies.policies()}
    for direction in Direction:
        side = judge(judged, direction, cluster, policies)
        for finding in side.findings:
            asked = by_ref[finding.policy]
            assert side.subject is not None
            selected = selects(asked, side.subject, direction, cluster)
            rules = [r for r in asked.rules(direction) or () if rule_matches(r, judged, direction, cluster)]
            match finding:
                case NotApplicable():
                    assert not selected
                case Matches():
                    assert selected
                    assert (finding.rule, finding.action) == (rules[0].origin, rules[0].action)
                case DoesNotMatch():
                    assert selected
                    assert rules == []
                case Undecidable():
                    raise AssertionError("nothing is unknown here")
        if side.reason in (Reason.RULE, Reason.DEFAULT, Reason.NOT_ISOLATED):
            admitted = any(isinstance(f, Matches) and f.action is Action.ALLOW for f in side.findings)
            assert admitted or side.outcome is Outcome.DENIED or side.reason is Reason.NOT_ISOLATED


def test_the_text_says_all_that_a_person_needs() -> None:
    """Verdict first; then each half, the isolating policy, the nearest rule, what it lacks, and the remedy."""
    policies = network_policies(
        policy(
            "demo", subject=SUBJECT, ingress=(rule(pods(app="client"), Ports((PortMatch(TCP, PortRange(80, 80)),))),)
        )
    )

    assert (
        text(explain(TO_SERVER, CLUSTER, policies))
        == """\
shop/client -> shop/server TCP/80: DENIED
  egress of shop/client: allowed, no policy isolates it (1 in its namespace do not apply to it)
  ingress of shop/server: denied, isolated by NetworkPolicy shop/demo, and no rule matches
    nearest rule: NetworkPolicy shop/p spec.ingress[0]
      peer needs app=client, shop/client has run=client
      to match it: kubectl label pod client -n shop app=client"""
    )


def test_the_text_of_an_allowed_flow_names_the_rule() -> None:
    """A half that a rule allows names object and field."""
    policies = network_policies(policy("demo", subject=SUBJECT, ingress=(rule(pods(run="client")),)))

    told = text(explain(TO_SERVER, CLUSTER, policies), every_policy=True)

    assert "shop/client -> shop/server TCP/80: ALLOWED" in told
    assert "ingress of shop/server: allowed by NetworkPolicy shop/p spec.ingress[0]" in told
    assert "- NetworkPolicy shop/demo: Admits: spec.ingress[0]" in told
    assert "- NetworkPolicy shop/demo: NotApplicable: policy needs app=server, shop/client has run=client" in told


@pytest.mark.parametrize(
    ("some", "source", "port", "aspects", "said"),
    [
        pytest.param(
            rule(pods(run="client"), Ports((PortMatch(TCP, PortRange(81, 90)),))),
            "10.0.0.11",
            80,
            [Aspect.PORT],
            "port needs TCP/81-90, the flow is TCP/80",
            id="port",
        ),
        pytest.param(
            rule(traffic=Ports((PortMatch(UDP),))),
            "10.0.0.11",
            80,
            [Aspect.PROTOCOL],
            "port needs UDP, the flow is TCP/80",
            id="protocol",
        ),
        pytest.param(
            rule(traffic=Ports((PortMatch(TCP, PortRange(1, 1)), PortMatch(UDP, PortRange(80, 80))))),
            "10.0.0.11",
            80,
            [Aspect.PORT],
            "ports need one of TCP/1, UDP/80, the flow is TCP/80",
            id="several-ports",
        ),
        pytest.param(
            rule(traffic=Ports((PortMatch(TCP, NamedPort("https")),))),
            "10.0.0.11",
            80,
            [Aspect.PORT_NAME],
            "shop/server has no such port name (it has TCP/http=80)",
            id="port-name",
        ),
        pytest.param(
            rule(traffic=Ports((PortMatch(TCP, NamedPort("http")),))),
            "10.0.0.11",
            81,
            [Aspect.PORT],
            "on shop/server that is 80, the flow goes to 81",
            id="named-port-number",
        ),
        pytest.param(
            rule(pods(app="client")),
            "10.0.0.12",
            80,
            [Aspect.NAMESPACE],
            "peer without a namespaceSelector needs a pod of namespace shop, bank/teller is in namespace bank",
            id="namespace",
        ),
        pytest.param(
            rule(Peers((PodPeer(NamespacesMatching(labelled(team="money"))),))),
            "10.0.0.12",
            80,
            [Aspect.NAMESPACE_LABELS],
            "peer needs a namespace with team=money, namespace bank has team=sport",
            id="namespace-labels",
        ),
        pytest.param(
            rule(Peers((PodPeer(NamespacesMatching(labelled())),))),
            "10.0.0.13",
            80,
            [Aspect.NAMESPACE_UNKNOWN],
            "namespace late is not known yet",
            id="namespace-unknown",
        ),
        pytest.param(
            rule(pods(app="client")),
            "8.8.8.8",
            80,
            [Aspect.NOT_A_POD],
            "peer needs pods with app=client in namespace shop, 8.8.8.8 is not a pod of the pod network",
            id="not-a-pod",
        ),
        pytest.param(
            rule(Peers((block("10.1.0.0/16"),))),
            "10.0.0.11",
            80,
            [Aspect.OUTSIDE_BLOCK],
            "peer needs 10.1.0.0/16, 10.0.0.11 (shop/client) is outside of it",
            id="outside-block",
        ),
        pytest.param(
            rule(Peers((block("8.0.0.0/8", "8.8.0.0/16"),))),
            "8.8.8.8",
            80,
            [Aspect.EXCEPTION],
            "peer needs 8.0.0.0/8, 8.8.8.8 is in its exception 8.8.0.0/16",
            id="exception",
        ),
        pytest.param(
            rule(Peers((block("fd00::/8"),))),
            "8.8.8.8",
            80,
            [Aspect.ADDRESS_FAMILY],
            "peer needs IPv6 fd00::/8, 8.8.8.8 is IPv4",
            id="family",
        ),
        pytest.param(
            rule(Peers((block("fd00::/8"), PodPeer(SHOP, labelled(app="client"))))),
            "10.0.0.11",
            80,
            [Aspect.POD_LABELS],
            "peer needs app=client, shop/client has run=client",
            id="nearest-of-two-peers",
        ),
        pytest.param(
            rule(Peers(()), Ports(())), "10.0.0.11", 80, [Aspect.NOTHING, Aspect.NOTHING], "as it stands", id="broken"
        ),
    ],
)
def test_every_kind_of_miss_says_what_is_needed_and_what_there_is(
    some: Rule, source: str, port: int, aspects: list[Aspect], said: str
) -> None:
    """A miss names the aspect, what the rule needs and what the flow has instead."""
    miss = rule_miss(some, flow(source, "10.0.0.10", TCP, port), Direction.INGRESS, CLUSTER)

    assert aspects == [each.aspect for each in miss.misses]
    assert any(said in str(each) for each in miss.misses)


def test_only_what_misses_is_told() -> None:
    """A namespace and a port name that fit are no part of the explanation of the label that does not."""
    peer = PodPeer(NamespacesMatching(labelled(team="sport")), labelled(app="boss"))
    some = rule(Peers((peer,)), Ports((PortMatch(TCP, NamedPort("http")),)))

    (miss,) = rule_miss(some, flow("10.0.0.12", "10.0.0.10"), Direction.INGRESS, CLUSTER).misses

    assert str(miss) == "peer needs app=boss, bank/teller has app=client"


def test_a_named_port_of_an_outside_destination_suggests_the_number() -> None:
    """What is not a pod has no port names."""
    some = rule(traffic=Ports((PortMatch(TCP, NamedPort("https")),)))

    (miss,) = rule_miss(some, flow("10.0.0.11", "8.8.8.8", TCP, 443), Direction.EGRESS, CLUSTER).misses

    assert miss.aspect is Aspect.PORT_NAME
    assert miss.remedy is not None
    assert '"value":{"protocol":"TCP","port":443}' in miss.remedy


def test_icmp_is_told_that_it_needs_a_rule_without_ports() -> None:
    """No port entry can admit a protocol without ports."""
    some = rule(traffic=Ports((PortMatch(TCP, ANY_PORT),)))

    (miss,) = rule_miss(some, flow("10.0.0.11", "10.0.0.10", ICMP), Direction.INGRESS, CLUSTER).misses

    assert (miss.found, miss.remedy) == ("the flow is ICMP", "a rule without ports admits it")


def test_the_nearest_rule_of_all_policies_is_shown() -> None:
    """A label away is nearer than a port and a namespace away, whichever policy it is in."""
    far = policy("a", ingress=(rule(Peers((block("192.0.2.0/24"),)), path="far"),))
    near = policy("b", ingress=(rule(Peers(()), path="broken"), rule(pods(app="client"), path="near")))
    none = policy("c", ingress=())

    side = explain(TO_SERVER, CLUSTER, network_policies(far, near, none)).ingress

    assert side.nearest is not None
    assert side.nearest.origin.path == "near"
    assert DoesNotMatch(none.ref, None) in side.findings


def test_a_policy_without_rules_says_so() -> None:
    """Where no rule exists, none is called nearest."""
    told = text(explain(TO_SERVER, CLUSTER, network_policies(policy("deny", ingress=()))), every_policy=True)

    assert "denied, isolated by NetworkPolicy shop/deny, with no ingress rule at all" in told
    assert "nearest" not in told
    assert "- NetworkPolicy shop/deny: DoesNotAdmit: it isolates, and has no rules" in told


def test_policies_of_other_namespaces_are_left_out_and_cluster_wide_ones_are_not() -> None:
    """Findings are about policies that a person may have in mind for this pod."""
    other = policy("other", subject=PodPeer(InNamespace("bank")), ingress=())
    wide = policy("wide", subject=PodPeer(NamespacesMatching(labelled(team="sport"))), ingress=())
    egress = policy("egress", egress=())

    findings = explain(TO_SERVER, CLUSTER, network_policies(other, wide, egress)).ingress.findings

    assert [finding.policy.name for finding in findings] == ["egress", "wide"]
    assert all(isinstance(finding, NotApplicable) for finding in findings)
    assert NotApplicable(egress.ref, ()) in findings


@pytest.mark.parametrize(
    ("source", "destination", "note"),
    [
        pytest.param("10.0.0.2", "10.0.0.10", "externalTrafficPolicy: Cluster", id="another-node"),
        pytest.param("10.0.0.2", "10.0.0.10", "10.0.0.2 is also shop/host (hostNetwork)", id="host-network"),
        pytest.param("10.0.0.10", "10.0.0.1", "10.0.0.1 is shop/server's own node", id="own-node"),
    ],
)
def test_what_is_easily_overlooked_is_noted(source: str, destination: str, note: str) -> None:
    """Node addresses, and pods that share them, come with a sentence."""
    explanation = explain(flow(source, destination), CLUSTER, PolicySet())

    assert note in text(explanation)
    assert note in " ".join(document(explanation)["notes"])


def test_a_node_that_reaches_its_own_pod_needs_no_note() -> None:
    """The note on NodePort sources is for nodes that policies apply to."""
    assert explain(flow("10.0.0.1", "10.0.0.10"), CLUSTER, PolicySet()).notes == ()


def test_denying_and_passing_rules_are_told_as_what_they_are() -> None:
    """In other tiers a rule that matches may deny, or pass the flow on."""
    passes = tier(Action.PASS, policy("p1", ingress=(rule(action=Action.PASS),)), order=1)
    denies = tier(Action.PASS, policy("p2", ingress=(rule(action=Action.DENY, policy="p2"),)), order=2, name="u")

    explanation = explain(TO_SERVER, CLUSTER, PolicySet((passes, denies)))
    told = text(explanation, every_policy=True)

    assert "ingress of shop/server: denied by NetworkPolicy shop/p2 spec.ingress[0]" in told
    assert "- NetworkPolicy shop/p1: PassesOn: spec.ingress[0]" in told
    assert [each["finding"] for each in document(explanation)["ingress"]["policies"]] == ["PassesOn", "Denies"]


def test_the_document_has_every_finding() -> None:
    """JSON spells verdict, ends, nearest miss and all policies; it is what programs read."""
    policies = network_policies(
        policy("demo", subject=SUBJECT, ingress=(rule(pods(app="client")),)), policy("other", ingress=(rule(),))
    )
    denied = document(explain(TO_SERVER, CLUSTER, network_policies(*policies.policies()[:1])))
    allowed = document(explain(TO_SERVER, CLUSTER, policies))

    assert denied["source"] == {"address": "10.0.0.11", "pod": "shop/client", "node": None, "hostNetworkPods": []}
    assert denied["ingress"]["isolatedBy"] == ["NetworkPolicy shop/demo"]
    assert denied["ingress"]["nearest"]["misses"][0]["aspect"] == "podLabels"
    assert denied["egress"]["policies"][0]["finding"] == "NotApplicable"
    assert [each["finding"] for each in allowed["ingress"]["policies"]] == ["DoesNotAdmit", "Admits"]
    assert (allowed["ingress"]["reason"], allowed["ingress"]["nearest"]) == ("rule", None)


@pytest.mark.parametrize(
    ("requirement", "labels", "change"),
    [
        pytest.param(Requirement("app", Operator.IN, ("b", "a")), {}, "app=a", id="in"),
        pytest.param(Requirement("app", Operator.IN, ("a",)), {"app": "z"}, "app=a --overwrite", id="in-another"),
        pytest.param(Requirement("app", Operator.EXISTS), {}, "app=", id="exists"),
        pytest.param(Requirement("app", Operator.NOT_IN, ("z",)), {"app": "z"}, "app-", id="not-in"),
        pytest.param(Requirement("app", Operator.DOES_NOT_EXIST), {"app": "z"}, "app-", id="does-not-exist"),
    ],
)
def test_label_commands_do_what_they_promise(requirement: Requirement, labels: dict[str, str], change: str) -> None:
    """Carried out as kubectl would, the command makes the requirement match."""
    command = label_command("kubectl label pod x", [requirement], Labels(labels))

    assert f"kubectl label pod x {change}" == command
    word = change.split(maxsplit=1)[0]
    after = dict(labels)
    if word.endswith("-"):
        del after[word.removesuffix("-")]
    else:
        key, _, value = word.partition("=")
        after[key] = value
    assert Selector((requirement,)).matches(after)
