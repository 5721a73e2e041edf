# SPDX-License-Identifier: Apache-2.0
"""Lowering of NetworkPolicies: what each field means, and that what is broken stays closed."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest

from ringfence.apis.networkpolicy import decode_network_policy, lower, policy_set
from ringfence.model.addresses import Block
from ringfence.model.labels import EVERYTHING, Operator, Requirement, Selector
from ringfence.model.policy import (
    ANY_PEER,
    Action,
    BlockPeer,
    InNamespace,
    NamespacesMatching,
    ObjectRef,
    Origin,
    Peers,
    PodPeer,
    Policy,
    Rule,
)
from ringfence.model.ports import ANY_TRAFFIC, NamedPort, PortMatch, PortRange, Ports, Protocol

REF = ObjectRef("NetworkPolicy", "demo", "p")
NOTHING = Peers(())
APP = Selector((Requirement("app", Operator.IN, ("web",)),))


def lowered(spec: Any) -> Policy:
    """Lower a spec."""
    return lower({"metadata": {"name": "p", "namespace": "demo"}, "spec": spec}).policy


def ingress_rule(entry: Any) -> Rule:
    """Lower a spec with one ingress rule."""
    rules = lowered({"ingress": [entry]}).ingress
    assert rules is not None
    return rules[0]


def voided(direction: str, index: int) -> Rule:
    """Return the rule that stands where a broken one stood."""
    return Rule(Action.ALLOW, NOTHING, ANY_TRAFFIC, Origin(REF, f"spec.{direction}[{index}]"))


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        pytest.param({}, True, False, id="absent: ingress always"),
        pytest.param({"policyTypes": []}, True, False, id="empty is absent"),
        pytest.param({"egress": []}, True, False, id="absent, egress without rules"),
        pytest.param({"egress": [{}]}, True, True, id="absent, egress with a rule"),
        pytest.param({"policyTypes": ["Egress"], "ingress": [{}]}, False, True, id="Egress leaves ingress alone"),
        pytest.param({"policyTypes": ["Ingress"], "egress": [{}]}, True, False, id="Ingress leaves egress alone"),
        pytest.param({"policyTypes": ["Ingress", "Egress"]}, True, True, id="both"),
    ],
)
def test_policy_types_decide_what_is_isolated(spec: Any, ingress: bool, egress: bool) -> None:  # noqa: FBT001 - a table
    """SEMANTICS 1, 2: absent policyTypes are defaulted as the API server does."""
    policy = lowered(spec)

    assert (policy.ingress is not None, policy.egress is not None) == (ingress, egress)


@pytest.mark.parametrize("selector", [None, {}, {"matchLabels": {}, "matchExpressions": []}])
def test_an_empty_podselector_selects_the_whole_namespace(selector: Any) -> None:
    """SEMANTICS 3."""
    assert lowered({"podSelector": selector}).subject == PodPeer(InNamespace("demo"), EVERYTHING)


@pytest.mark.parametrize("rules", [None, []])
def test_no_rules_allow_nothing_and_an_empty_rule_everything(rules: Any) -> None:
    """SEMANTICS 4."""
    assert lowered({"ingress": rules}).ingress == ()
    assert ingress_rule({}) == Rule(Action.ALLOW, ANY_PEER, ANY_TRAFFIC, Origin(REF, "spec.ingress[0]"))


@pytest.mark.parametrize("nothing", [None, []])
def test_absent_and_empty_peers_and_ports_are_any(nothing: Any) -> None:
    """SEMANTICS 5, 6."""
    rule = ingress_rule({"from": nothing, "ports": nothing})

    assert (rule.peers, rule.traffic) == (ANY_PEER, ANY_TRAFFIC)


def test_ports_default_to_every_port_and_to_tcp() -> None:
    """SEMANTICS 7, 8, 9."""
    rule = ingress_rule({"ports": [{}, {"port": 80}, {"port": 80, "endPort": 90, "protocol": "UDP"}, {"port": "dns"}]})

    assert rule.traffic == Ports(
        (
            PortMatch(Protocol.TCP),
            PortMatch(Protocol.TCP, PortRange(80, 80)),
            PortMatch(Protocol.UDP, PortRange(80, 90)),
            PortMatch(Protocol.TCP, NamedPort("dns")),
        )
    )


def test_peers_are_read_as_pods_of_the_own_namespace_of_others_and_blocks() -> None:
    """SEMANTICS 11, 12, 13, 15: both selectors in one peer are ANDed, list items ORed."""
    web = {"matchLabels": {"app": "web"}}
    rule = ingress_rule(
        {
            "from": [
                {"podSelector": web},
                {"namespaceSelector": web},
                {"namespaceSelector": {}, "podSelector": web},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
            ]
        }
    )

    assert rule.peers == Peers(
        (
            PodPeer(InNamespace("demo"), APP),
            PodPeer(NamespacesMatching(APP), EVERYTHING),
            PodPeer(NamespacesMatching(EVERYTHING), APP),
            BlockPeer(Block(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),))),
        )
    )


def test_all_four_operators_are_read() -> None:
    """MatchLabels are In with one value; the rest as written."""
    expressions = [
        {"key": "a", "operator": "NotIn", "values": ["x", "y"]},
        {"key": "b", "operator": "Exists"},
        {"key": "c", "operator": "DoesNotExist", "values": []},
    ]
    subject = lowered({"podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": expressions}}).subject

    assert subject.pods == Selector(
        (
            *APP.requirements,
            Requirement("a", Operator.NOT_IN, ("x", "y")),
            Requirement("b", Operator.EXISTS),
            Requirement("c", Operator.DOES_NOT_EXIST),
        )
    )


@pytest.mark.parametrize(
    ("cidr", "exception", "block"),
    [
        ("10.0.0.5/8", "10.1.0.9/16", Block(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),))),
        ("010.000.0.0/08", "10.1.0.0/16", Block(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),))),
        ("10.0.0.0/8", "::ffff:10.1.0.0/112", Block(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),))),
    ],
)
def test_stored_cidrs_of_old_forms_keep_their_meaning(cidr: str, exception: str, block: Block) -> None:
    """SEMANTICS 17: host bits are masked, zeros are decimal; an IPv4-mapped exception carves its IPv4 block."""
    assert ingress_rule({"from": [{"ipBlock": {"cidr": cidr, "except": [exception]}}]}).peers == Peers(
        (BlockPeer(block),)
    )


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"from": [{"podSelector": {}}, {}]}, id="one peer of two is empty"),
        pytest.param({"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}, {"podSelector": {}}]}, id="CIDR"),
        pytest.param({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}, id="exception"),
        pytest.param({"from": [{"podSelector": {"matchLabels": {"a": "b c"}}}]}, id="label value"),
        pytest.param({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "x"}]}}]}, id="operator"),
        pytest.param({"ports": [{"port": "80"}]}, id="port"),
        pytest.param({"ports": {"port": 80}}, id="ports of the wrong type"),
        pytest.param({"from": [{"podSelector": "a"}]}, id="selector of the wrong type"),
        pytest.param("x", id="rule of the wrong type"),
    ],
)
def test_a_broken_rule_matches_nothing_and_the_rest_works(broken: Any) -> None:
    """SEMANTICS 37: the broken rule keeps its place, isolation stands, other rules and directions work."""
    result = lower({"metadata": {"name": "p", "namespace": "demo"}, "spec": {"ingress": [broken, {}], "egress": [{}]}})

    assert result.policy.ingress is not None
    assert result.policy.ingress[0] == voided("ingress", 0)
    assert result.policy.ingress[1].peers is ANY_PEER
    assert result.policy.egress is not None
    assert result.policy.egress[0].peers is ANY_PEER
    assert all(problem.path.startswith("spec.ingress[0]") for problem in result.problems)
    assert result.problems


def test_a_broken_podselector_selects_all_that_it_could_mean_and_allows_nothing() -> None:
    """What is right in the selector still narrows it; no allowance reaches pods that were not meant."""
    expressions = [{"key": "b", "operator": "Exists"}, {"key": "c", "operator": "?"}]
    policy = lowered(
        {
            "podSelector": {
                "matchLabels": {"app": "web", "x": "b c", "-": "a", "n": 5},
                "matchExpressions": expressions,
            },
            "ingress": [{}],
            "policyTypes": ["Ingress"],
        }
    )

    assert policy.subject.pods == Selector((*APP.requirements, Requirement("b", Operator.EXISTS)))
    assert policy.ingress == (voided("ingress", 0),)
    assert policy.egress is None


def test_broken_policy_types_isolate_both_directions() -> None:
    """Rules of a direction that is named for certain still work; those of the other match nothing."""
    policy = lowered({"policyTypes": ["Ingress", "egress"], "ingress": [{}], "egress": [{}]})

    assert policy.ingress is not None
    assert policy.ingress[0].peers is ANY_PEER
    assert policy.egress == (voided("egress", 0),)


@pytest.mark.parametrize("spec", [5, [], "x"])
def test_a_spec_that_cannot_be_read_isolates_the_namespace(spec: Any) -> None:
    """Nothing is known but that something was to be isolated."""
    policy = lowered(spec)

    assert policy == Policy(REF, PodPeer(InNamespace("demo"), EVERYTHING), (), ())


def test_egress_of_the_wrong_type_isolates_egress() -> None:
    """Absent policyTypes are defaulted by what egress could have been."""
    assert lowered({"egress": {"to": []}}).egress == ()


def test_a_policy_without_namespace_is_in_the_default_one() -> None:
    """As kubectl would put it."""
    policy = lower({"metadata": {"name": "p"}}).policy

    assert policy.ref == ObjectRef("NetworkPolicy", "default", "p")
    assert policy.subject.scope == InNamespace("default")


def test_policies_of_the_api_make_the_networkpolicy_tier() -> None:
    """SEMANTICS 19: one tier that denies what no policy allows."""
    raw = json.dumps({"metadata": {"name": "p", "namespace": "demo"}, "spec": {"podSelector": {}}}).encode()
    decoded = decode_network_policy(raw)
    tiers = policy_set([decoded.policy]).tiers

    assert decoded.problems == ()
    assert [(tier.name, tier.default, tier.policies) for tier in tiers] == [
        ("kubernetes", Action.DENY, (decoded.policy,))
    ]
