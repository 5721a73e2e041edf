# SPDX-License-Identifier: Apache-2.0
"""Pods that may talk and cannot resolve names: found on all policies together, and silent where it is not certain."""

from __future__ import annotations

import pytest

from tests.semantics.lint.linted import findings, found, node, pod, policy, service, workload

WEB = workload("shop/web", "{app: web}")
DB = workload("shop/db", "{app: db}")
TO_DB = "{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}"
DNS = "{to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}"
ALL_PRIVATE = "except: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]"


def egress(*rules: str, selector: str = "{matchLabels: {app: web}}") -> str:
    """Return a spec with egress rules."""
    return f"{{podSelector: {selector}, policyTypes: [Egress], egress: [{', '.join(rules)}]}}"


@pytest.mark.parametrize("pods", [[], [WEB, DB]], ids=["pods unknown", "pods known"])
def test_egress_without_dns_is_found(pods: list[dict[str, object]]) -> None:
    """Whether pods are known or not."""
    assert found(policy(egress(TO_DB)), *pods) == [("no-dns-egress", "spec.egress")]


def test_the_pods_that_lack_it_are_named() -> None:
    """By their workload."""
    (finding,) = findings(policy(egress(TO_DB)), WEB, DB)

    assert finding.message == "no policy allows UDP 53 to the cluster's DNS for Deployment shop/web"


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([TO_DB, DNS], id="to pods"),
        pytest.param([TO_DB, "{ports: [{port: 53, protocol: UDP}, {port: 53}]}"], id="to everybody"),
        pytest.param([TO_DB, "{to: [{ipBlock: {cidr: 8.8.8.8/32}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}"],
                     id="to somebody else's server, plainly meant"),
        pytest.param([TO_DB, "{ports: [{port: 5353, protocol: UDP}, {port: 5353}]}"], id="where DNS listens on 5353"),
        pytest.param([TO_DB, "{ports: [{port: dns, protocol: UDP}, {port: dns-tcp}]}"], id="by name"),
        pytest.param([TO_DB, "{ports: [{protocol: UDP}, {protocol: TCP}]}"], id="every port"),
        pytest.param([TO_DB, "{ports: [{port: 1, endPort: 99, protocol: UDP}, {port: 1, endPort: 99}]}"], id="a range"),
        pytest.param(["{}"], id="everything"),
        pytest.param(["{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}"], id="every address"),
        pytest.param(["{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}"], id="private addresses"),
        pytest.param([], id="nothing at all"),
        pytest.param(["{to: [{ipBlock: {cidr: 203.0.113.7/32}}], ports: [{port: 443}]}"], id="one address"),
    ],
)  # fmt: skip
def test_egress_with_dns_or_without_need_of_it_is_no_finding(rules: list[str]) -> None:
    """Whoever may reach nobody, or one address, asks for no name."""
    assert found(policy(egress(*rules))) == []


def test_the_world_without_private_addresses_has_no_cluster_dns() -> None:
    """The usual rule for "the internet only"."""
    internet = f"{{to: [{{ipBlock: {{cidr: 0.0.0.0/0, {ALL_PRIVATE}}}}}]}}"

    assert found(policy(egress(internet))) == [("no-dns-egress", "spec.egress")]
    pods_in_it = pod("shop/web", "{app: web}", ip="198.51.100.7")
    assert found(policy(egress(internet)), pods_in_it, whole=True) == []
    assert found(policy(egress(internet)), node("n", ip="198.51.100.7")) == []


def test_a_dns_cache_on_each_node_has_an_address_of_its_own() -> None:
    """It is link-local."""
    internet = f"{{to: [{{ipBlock: {{cidr: 0.0.0.0/0, {ALL_PRIVATE}}}}}]}}"
    cache = pod("kube-system/node-local-dns-x", "{k8s-app: node-local-dns}", hostNetwork=True)

    assert found(policy(egress(internet)), cache) == []


def test_the_port_that_a_dns_service_leads_to_is_dns() -> None:
    """Policy sees the pods' own port."""
    to_pods = "{to: [{namespaceSelector: {}}], ports: [{port: 8053, protocol: UDP}, {port: 8053}]}"
    ports = "[{name: u, containerPort: 8053, protocol: UDP}, {name: t, containerPort: 8053}]"
    offered = "[{name: u, port: 53, protocol: UDP, targetPort: u}, {name: t, port: 53, targetPort: t}]"
    dns = workload("kube-system/coredns", "{k8s-app: kube-dns}", ports)
    front = service("kube-system/kube-dns", f"{{selector: {{k8s-app: kube-dns}}, ports: {offered}}}")

    assert found(policy(egress(TO_DB, to_pods))) == [("no-dns-egress", "spec.egress")]
    assert found(policy(egress(TO_DB, to_pods)), WEB, DB, dns, front) == []


def test_another_policy_may_allow_it() -> None:
    """Policies add up: for pods that it selects, or may select."""
    everybody = policy(egress(DNS, selector="{}"), name="dns")
    some = policy(egress(DNS, selector="{matchLabels: {dns: wanted}}"), name="dns")
    others = policy(egress(DNS, selector="{matchLabels: {app: db}}"), name="dns")
    elsewhere = policy(egress(DNS, selector="{}"), name="dns", namespace="bank")
    given = policy(egress(TO_DB))

    assert found(given, everybody) == found(given, everybody, WEB, DB) == []
    assert found(given, some) == []
    assert found(given, some, WEB, DB, workload("shop/x", "{dns: wanted}")) == [("no-dns-egress", "spec.egress")]
    assert found(given, others) == [("no-dns-egress", "spec.egress")]
    assert found(given, elsewhere) == [("no-dns-egress", "spec.egress")]


def test_pods_are_reported_once() -> None:
    """Of two policies for the same pods, the first tells."""
    again = policy(egress(TO_DB, selector="{}"), name="again")

    assert [
        f.object.name for f in findings(policy(egress(TO_DB)), again, WEB, DB) if f.rule.name == "no-dns-egress"
    ] == [
        "p",
        "again",
    ]
    assert [f.object.name for f in findings(policy(egress(TO_DB)), policy(egress(TO_DB), name="again"), WEB, DB)] == [
        "p"
    ]


def test_a_policy_that_selects_nothing_is_not_judged_for_dns() -> None:
    """One finding is enough."""
    assert found(policy(egress(TO_DB, selector="{matchLabels: {app: gone}}")), WEB, DB) == [
        ("selects-nothing", "spec.podSelector")
    ]


def test_dns_by_udp_alone_is_told_apart() -> None:
    """Most names are short; TCP without UDP is no DNS."""
    udp, tcp = "{ports: [{port: 53, protocol: UDP}]}", "{ports: [{port: 53}]}"

    assert found(policy(egress(TO_DB, udp)), WEB, DB) == [("dns-without-tcp", "spec.egress")]
    assert found(policy(egress(TO_DB, tcp)), WEB, DB) == [("no-dns-egress", "spec.egress")]
