# SPDX-License-Identifier: Apache-2.0
"""Equal priorities, on values of the model: for every kind of policy that has an order."""

from __future__ import annotations

import ipaddress

import pytest

from ringfence.apis.networkpolicy import lower, policy_set
from ringfence.model.addresses import Block
from ringfence.model.cluster import Cluster, Namespace
from ringfence.model.labels import EVERYTHING, Labels, Operator, Requirement, Selector
from ringfence.model.policy import (
    ANY_PEER,
    Action,
    AnyPeer,
    BlockPeer,
    InNamespace,
    NamespacesMatching,
    ObjectRef,
    Origin,
    Peers,
    PodPeer,
    Policy,
    PolicySet,
    Rule,
    Tier,
)
from ringfence.model.ports import ANY_PORT, ANY_TRAFFIC, AnyTraffic, NamedPort, PortMatch, PortRange, Ports, Protocol
from ringfence.semantics.lint.order import equal_priorities
from tests.semantics.lint.linted import policy as network_policy
from tests.semantics.small_worlds import pod

EVERYBODY = PodPeer(NamespacesMatching(EVERYTHING))


def label(key: str, operator: Operator, *values: str) -> Selector:
    """Return a selector of one requirement."""
    return Selector((Requirement(key, operator, values),))


def selecting(selector: Selector) -> PodPeer:
    """Return a subject: pods of any namespace."""
    return PodPeer(NamespacesMatching(EVERYTHING), selector)


def policy(
    name: str,
    action: Action,
    order: float = 10,
    *,
    subject: PodPeer = EVERYBODY,
    peers: AnyPeer | Peers = ANY_PEER,
    traffic: AnyTraffic | Ports = ANY_TRAFFIC,
    egress: bool = False,
) -> Policy:
    """Return a cluster-wide policy of one rule."""
    ref = ObjectRef("ClusterNetworkPolicy", "", name)
    rules = (Rule(action, peers, traffic, Origin(ref, f"spec.{'egress' if egress else 'ingress'}[0]")),)
    return Policy(ref, subject, None if egress else rules, rules if egress else None, order)


def messages(*policies: Policy, cluster: Cluster | None = None) -> list[str]:
    """Return what is found in a tier of these policies; pods are known if a cluster is given."""
    tiers = PolicySet((Tier("admin", 1, Action.PASS, policies),))
    return [f.message for f in equal_priorities(tiers, cluster or Cluster(), whole=cluster is not None)]


def test_two_of_one_priority_that_disagree_are_found() -> None:
    """With both rules, and which of them ringfence asks first."""
    (message,) = messages(policy("b", Action.DENY), policy("a", Action.ALLOW))

    assert message == (
        "has the priority 10 of ClusterNetworkPolicy b too, and they disagree: spec.ingress[0] says allow,"
        " spec.ingress[0] of b deny; ringfence asks a first, by name"
    )


def test_each_pair_is_found() -> None:
    """Three policies, of which one disagrees with both others."""
    assert len(messages(policy("a", Action.DENY), policy("b", Action.DENY), policy("c", Action.PASS))) == 2


TCP, UDP = Protocol.TCP, Protocol.UDP
WEB, DB = (selecting(label("app", Operator.IN, name)) for name in ("web", "db"))


def ports(*matches: PortMatch) -> Ports:
    """Return port entries."""
    return Ports(matches)


def block(cidr: str) -> Peers:
    """Return a block as the only peer."""
    return Peers((BlockPeer(Block(ipaddress.ip_network(cidr))),))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(policy("a", Action.ALLOW, 10), policy("b", Action.DENY, 11), id="other priorities"),
        pytest.param(policy("a", Action.DENY), policy("b", Action.DENY), id="the same action"),
        pytest.param(policy("a", Action.ALLOW), policy("b", Action.DENY, egress=True), id="other directions"),
        pytest.param(policy("a", Action.ALLOW, subject=WEB), policy("b", Action.DENY, subject=DB), id="other pods"),
        pytest.param(
            policy("a", Action.ALLOW, subject=PodPeer(InNamespace("x"))),
            policy("b", Action.DENY, subject=PodPeer(InNamespace("y"))),
            id="other namespaces",
        ),
        pytest.param(
            policy("a", Action.ALLOW, subject=PodPeer(NamespacesMatching(label("t", Operator.EXISTS)))),
            policy("b", Action.DENY, subject=PodPeer(NamespacesMatching(label("t", Operator.DOES_NOT_EXIST)))),
            id="other kinds of namespaces",
        ),
        pytest.param(
            policy("a", Action.ALLOW, subject=selecting(label("app", Operator.IN, "web"))),
            policy("b", Action.DENY, subject=selecting(label("app", Operator.NOT_IN, "web", "db"))),
            id="all but these",
        ),
        pytest.param(
            policy("a", Action.ALLOW, peers=Peers((WEB,))),
            policy("b", Action.DENY, peers=Peers((DB,))),
            id="other peers",
        ),
        pytest.param(
            policy("a", Action.ALLOW, peers=block("10.0.0.0/8")),
            policy("b", Action.DENY, peers=block("192.168.0.0/16")),
            id="other blocks",
        ),
        pytest.param(
            policy("a", Action.ALLOW, peers=block("0.0.0.0/0")),
            policy("b", Action.DENY, peers=block("::/0")),
            id="families",
        ),
        pytest.param(policy("a", Action.ALLOW, peers=Peers(())), policy("b", Action.DENY), id="nobody"),
        pytest.param(policy("a", Action.ALLOW), policy("b", Action.DENY, traffic=Ports(())), id="no traffic"),
        pytest.param(
            policy("a", Action.ALLOW, traffic=ports(PortMatch(TCP, ANY_PORT))),
            policy("b", Action.DENY, traffic=ports(PortMatch(UDP, ANY_PORT))),
            id="other protocols",
        ),
        pytest.param(
            policy("a", Action.ALLOW, traffic=ports(PortMatch(TCP, PortRange(1, 80)))),
            policy("b", Action.DENY, traffic=ports(PortMatch(TCP, PortRange(81, 90)))),
            id="other ports",
        ),
    ],
)
def test_two_that_cannot_meet_are_no_finding(first: Policy, second: Policy) -> None:
    """Whichever is asked first, the verdict is the same."""
    assert messages(first, second) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (policy("a", Action.ALLOW, subject=WEB), policy("b", Action.PASS)),
        (policy("a", Action.ALLOW, subject=PodPeer(InNamespace("x"))), policy("b", Action.DENY)),
        (policy("a", Action.ALLOW, peers=Peers((WEB,))), policy("b", Action.DENY, peers=block("10.0.0.0/8"))),
        (policy("a", Action.ALLOW, peers=block("10.0.0.0/8")), policy("b", Action.DENY, peers=block("10.1.0.0/16"))),
        (
            policy("a", Action.ALLOW, traffic=ports(PortMatch(TCP, NamedPort("http")))),
            policy("b", Action.DENY, traffic=ports(PortMatch(TCP, PortRange(80, 80)))),
        ),
        (policy("a", Action.ALLOW, traffic=ports(PortMatch(TCP, ANY_PORT))), policy("b", Action.DENY)),
        (
            policy("a", Action.ALLOW, subject=WEB),
            policy("b", Action.DENY, subject=selecting(label("app", Operator.NOT_IN, "db"))),
        ),
    ],
)
def test_two_that_may_meet_are_found(first: Policy, second: Policy) -> None:
    """A pod may have any address, and a name may be any number."""
    assert len(messages(first, second)) == 1


def test_where_all_pods_are_known_some_pod_must_be_selected_by_both() -> None:
    """The policies of one pod are what can disagree."""
    tiered = selecting(label("tier", Operator.EXISTS))
    pair = policy("a", Action.ALLOW, subject=WEB), policy("b", Action.DENY, subject=tiered)
    shop = [Namespace("shop", Labels({}))]
    apart = [pod("shop/a", "10.0.0.1", {"app": "web"}), pod("shop/b", "10.0.0.2", {"tier": "x"})]
    both = [pod("shop/c", "10.0.0.3", {"app": "web", "tier": "x"})]

    assert len(messages(*pair)) == 1
    assert messages(*pair, cluster=Cluster(shop, [], apart)) == []
    assert len(messages(*pair, cluster=Cluster(shop, [], both))) == 1


def test_network_policies_are_never_found() -> None:
    """They all have one order, and only ever allow: they add up."""
    specs = (
        "{podSelector: {}}",
        "{podSelector: {}, ingress: [{}]}",
        "{podSelector: {}, ingress: [{ports: [{port: 1}]}]}",
    )
    policies = [lower(network_policy(spec, name=f"p{index}")).policy for index, spec in enumerate(specs)]

    assert list(equal_priorities(policy_set(policies), Cluster(), whole=False)) == []
