# SPDX-License-Identifier: Apache-2.0
"""A suggested policy is valid, admits the connection, and isolates nobody who was not."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.apis.networkpolicy import lower, policy_set, validate
from ringfence.model.cluster import Cluster, ContainerPort, Namespace
from ringfence.model.labels import Labels
from ringfence.model.policy import InNamespace, PodPeer
from ringfence.model.ports import NamedPort, PortMatch, PortRange, Ports, Protocol
from ringfence.semantics.explain import explain
from ringfence.semantics.findings import Outcome
from ringfence.semantics.report import document, text
from tests.semantics.small_worlds import flow, network_policies, pod, policy, rule

TCP = Protocol.TCP
CLUSTER = Cluster(
    [Namespace(name, Labels({"kubernetes.io/metadata.name": name})) for name in ("shop", "bank")],
    [],
    [
        pod("shop/web-5d4f-x", "10.0.0.10", {"app": "web", "pod-template-hash": "5d4f"}),
        pod("shop/client", "10.0.0.11", {"app": "client"}),
        pod("bank/teller", "10.0.0.12", {"app": "teller"}),
        pod("shop/bare", "10.0.0.13"),
    ],
)
CLOSED = policy("closed", subject=PodPeer(InNamespace("shop")), ingress=(), egress=())


def half(source: str, destination: str, side: str, protocol: Protocol = Protocol.TCP) -> dict[str, Any]:
    """Return one half of an explanation under a default-deny of ``shop``, as JSON."""
    told = document(explain(flow(source, destination, protocol), CLUSTER, network_policies(CLOSED)))
    found: dict[str, Any] = told[side]
    return found


@pytest.mark.parametrize(
    ("source", "destination", "side"),
    [
        pytest.param("10.0.0.11", "10.0.0.10", "ingress", id="pod"),
        pytest.param("10.0.0.11", "10.0.0.10", "egress", id="pod-egress"),
        pytest.param("10.0.0.12", "10.0.0.10", "ingress", id="pod-of-another-namespace"),
        pytest.param("8.8.8.8", "10.0.0.10", "ingress", id="outside"),
        pytest.param("10.0.0.11", "8.8.8.8", "egress", id="to-outside"),
    ],
)
def test_a_suggested_policy_admits_the_connection(source: str, destination: str, side: str) -> None:
    """Applied, that half is allowed; no label of one rollout is in it."""
    suggested = half(source, destination, side)["suggested"]

    assert validate(suggested) == []
    assert "pod-template-hash" not in str(suggested)
    both = policy_set([CLOSED, lower(suggested).policy])
    after = explain(flow(source, destination), CLUSTER, both)
    assert (after.ingress if side == "ingress" else after.egress).outcome is Outcome.ALLOWED
    other = explain(flow(source, destination, port=81), CLUSTER, both)
    assert (other.ingress if side == "ingress" else other.egress).outcome is Outcome.DENIED


def test_the_text_shows_it_when_asked_for_more() -> None:
    """As YAML that can be pasted; the short answer stays short."""
    explained = explain(flow("8.8.8.8", "10.0.0.10"), CLUSTER, network_policies(CLOSED))

    assert "a policy that would allow it:\n      apiVersion: networking.k8s.io/v1" in text(explained, every_policy=True)
    assert "would allow" not in text(explained)


@pytest.mark.parametrize(
    ("source", "destination", "protocol"),
    [
        pytest.param("10.0.0.11", "10.0.0.13", Protocol.TCP, id="a-pod-without-labels"),
        pytest.param("10.0.0.13", "10.0.0.10", Protocol.TCP, id="from-a-pod-without-labels"),
        pytest.param("10.0.0.11", "10.0.0.10", Protocol.ICMP, id="a-rule-for-everything"),
    ],
)
def test_nothing_is_suggested_that_would_admit_more(source: str, destination: str, protocol: Protocol) -> None:
    """A selector without labels would be everybody, a rule without ports everything."""
    assert half(source, destination, "ingress", protocol)["suggested"] is None


@pytest.mark.parametrize("named", [True, False])
def test_a_rule_that_commands_make_match_is_mended_and_no_other_is_suggested(*, named: bool) -> None:
    """Where one of its misses has no remedy, the commands for the others would not help: a policy does."""
    port = NamedPort("http") if named else PortRange(443, 443)
    near = policy("near", subject=PodPeer(InNamespace("shop")), ingress=(rule(traffic=Ports((PortMatch(TCP, port),))),))
    some = pod("shop/some", "10.0.0.14", {"app": "some"}, ports=[ContainerPort("http", 8080, TCP)])
    cluster = Cluster(CLUSTER.namespaces.values(), [], [*CLUSTER.endpoints.values(), some])

    explained = explain(flow("10.0.0.11", "10.0.0.14"), cluster, network_policies(near))

    assert ("to match it" in text(explained)) is not named
    assert (document(explained)["ingress"]["suggested"] is not None) is named
