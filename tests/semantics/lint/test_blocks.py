# SPDX-License-Identifier: Apache-2.0
"""Blocks for pods, Services and nodes, and old forms of blocks."""

from __future__ import annotations

import pytest

from tests.semantics.lint.linted import findings, found, node, pod, policy, service

POD = pod("shop/db", ip="10.244.1.7")
OTHER = pod("shop/web", ip="10.244.0.9")
NODES = [node("a", ip="192.168.0.4", pods="10.244.0.0/24"), node("b", ip="192.168.0.5", pods="10.244.1.0/24")]
SERVICES = [
    service("default/kubernetes", "{clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], ports: [{port: 443}]}"),
    service("kube-system/kube-dns", "{clusterIP: 10.96.0.10, selector: {a: b}, ports: [{port: 53, protocol: UDP}]}"),
]
CLUSTER = [POD, OTHER, *NODES, *SERVICES]


def block(cidr: str, ports: str = "[{port: 443}]", holes: str = "[]") -> dict[str, object]:
    """Return a policy whose ingress has a block."""
    rule = f"{{from: [{{ipBlock: {{cidr: '{cidr}', except: {holes}}}}}], ports: {ports}}}"
    return policy(f"{{podSelector: {{}}, ingress: [{rule}]}}")


PATH = "spec.ingress[0].from[0].ipBlock"


@pytest.mark.parametrize(
    ("cidr", "rule", "message"),
    [
        ("10.244.1.7/32", "pod-address", "10.244.1.7 is the address of pod shop/db now, and may be another's later"),
        ("10.244.0.0/16", "pod-address", "10.244.0.0/16 is where pods have their addresses"),
        ("10.244.1.0/24", "pod-address", "10.244.1.0/24 is where pods have their addresses"),
        ("10.244.1.128/25", "pod-address", "10.244.1.128/25 is where pods have their addresses"),
        ("10.244.0.0/23", "pod-address", "10.244.0.0/23 is where pods have their addresses"),
        ("192.168.0.4/32", "node-address", "192.168.0.4 is the address of node a"),
    ],
)
def test_a_block_for_what_is_inside_is_found(cidr: str, rule: str, message: str) -> None:
    """By an address, or by the network that the addresses come from."""
    (finding,) = findings(block(cidr), *CLUSTER)

    assert (finding.rule.name, finding.path, finding.message) == (rule, PATH, message)


@pytest.mark.parametrize("cidr", ["10.96.0.1/32", "10.96.0.0/16", "10.96.0.0/12"])
def test_a_block_for_services_is_found(cidr: str) -> None:
    """Policy never sees their addresses."""
    (finding,) = findings(block(cidr), *CLUSTER)

    assert (finding.rule.name, finding.path) == ("service-address", PATH)
    assert "policy judges after translation" in finding.message


@pytest.mark.parametrize(
    ("cidr", "holes"),
    [
        pytest.param("0.0.0.0/0", "[]", id="everything"),
        pytest.param("0.0.0.0/0", "[169.254.169.254/32]", id="everything but"),
        pytest.param("10.0.0.0/8", "[]", id="a whole private range"),
        pytest.param("::/0", "[]", id="the other family"),
        pytest.param("192.168.0.0/24", "[]", id="the subnet of the nodes: there is no other way to say it"),
        pytest.param("203.0.113.0/24", "[]", id="outside"),
        pytest.param("203.0.113.7/32", "[]", id="an address outside"),
        pytest.param("10.244.0.0/16", "[10.244.1.0/24]", id="not where all pods are"),
        pytest.param("10.0.0.0/9", "[]", id="pods and more"),
    ],
)
def test_a_block_that_means_more_is_no_finding(cidr: str, holes: str) -> None:
    """Though it holds such addresses."""
    given = [*CLUSTER, node("c", ip="10.1.0.4")] if cidr == "10.0.0.0/9" else CLUSTER

    assert found(block(cidr, holes=holes), *given) == []


def test_a_network_between_those_of_nodes_is_no_finding() -> None:
    """What lies between two pod networks need not be one."""
    apart = [node("a", pods="10.0.1.0/24"), node("b", pods="10.0.200.0/24")]

    assert found(block("10.0.50.0/24"), *apart) == []
    assert found(block("10.0.1.0/25"), *apart) == [("pod-address", PATH)]


def test_pod_networks_that_have_nothing_in_common_say_nothing_of_what_is_between() -> None:
    """Their common network would be the world."""
    apart = [node("a", pods="10.0.1.0/24"), node("b", pods="192.168.200.0/24")]

    assert found(block("172.16.0.0/24"), *apart) == []


def test_addresses_that_were_made_up_are_nobodys() -> None:
    """Pods of files have none."""
    assert found(block("198.18.0.0/16"), pod("shop/a"), pod("shop/b")) == []


def test_addresses_of_the_other_family_say_nothing_of_a_block() -> None:
    """Neither that it holds them all nor that it does not."""
    both = service("shop/six", "{clusterIP: 'fd00::1', clusterIPs: ['fd00::1'], ports: [{port: 1}]}")

    assert found(block("10.96.0.0/16"), *SERVICES, both) == [("service-address", PATH)]


def test_one_service_makes_no_range() -> None:
    """Two addresses are the least that show one."""
    assert found(block("10.96.0.0/16"), SERVICES[0]) == []


def test_a_headless_service_has_no_address() -> None:
    """And one whose address is not chosen yet has none either."""
    headless = service("shop/h", "{clusterIP: None, clusterIPs: [None], ports: [{port: 1}]}")

    assert found(block("10.96.0.1/32"), headless, service("shop/new", "{ports: [{port: 1}]}")) == []


def test_the_address_of_the_dns_service_is_right_where_a_cache_answers_at_it() -> None:
    """NodeLocal DNSCache takes packets to that address before anything translates them; files may not show it."""
    dns = "[{port: 53, protocol: UDP}]"
    cache = pod("kube-system/node-local-dns-x", "{k8s-app: node-local-dns}", hostNetwork=True)

    assert found(block("10.96.0.10/32", dns), *CLUSTER) == []
    assert found(block("10.96.0.10/32", dns), *CLUSTER, cache, whole=True) == []
    assert found(block("10.96.0.10/32", dns), *CLUSTER, whole=True) == [("service-address", PATH)]
    assert found(block("10.96.0.10/32"), *CLUSTER) == [("service-address", PATH)]
    assert found(block("10.96.0.1/32", dns), *CLUSTER) == [("service-address", PATH)]


def endpoints(*addresses: str, port: int = 6443) -> dict[str, object]:
    """Return an EndpointSlice of the API server's Service."""
    meta = {"name": "k", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}}
    held = [{"addresses": [address]} for address in addresses]
    ports = [{"port": port, "protocol": "TCP"}]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta,
        "endpoints": held,
        "ports": ports,
    }


def reaching(peers: str, ports: str) -> dict[str, object]:
    """Return a policy whose egress has these peers."""
    allowed = "{ports: [{port: 53, protocol: UDP}, {port: 53}]}"
    return policy(
        f"{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{peers}], ports: {ports}}}, {allowed}]}}"
    )


API, BOTH = "{ipBlock: {cidr: 10.96.0.1/32}}", "[{port: 443}, {port: 6443}]"
SERVER, OTHER_SERVER = "{ipBlock: {cidr: 203.0.113.9/32}}", "{ipBlock: {cidr: 203.0.113.8/32}}"
FOUND = [("service-address", "spec.egress[0].to[0].ipBlock")]


def test_the_address_of_a_service_beside_all_that_is_behind_it_is_no_finding() -> None:
    """It stands there for engines that judge before translation; names and other families are passed over."""
    behind = endpoints("203.0.113.9", "fd00::9", "api.example")

    assert found(reaching(f"{API}, {SERVER}", BOTH), *SERVICES, behind) == []
    assert found(reaching(f"{API}, {SERVER}", "[{protocol: TCP}]"), *SERVICES, behind) == []
    assert FOUND[0] not in found(reaching(f"{API}, {SERVER}", "[]"), *SERVICES, behind)
    assert found(reaching(f"{API}, {{ipBlock: {{cidr: 203.0.113.0/24}}}}", BOTH), *SERVICES, behind) == []


@pytest.mark.parametrize(
    ("peers", "ports", "behind"),
    [
        pytest.param(f"{API}, {SERVER}", BOTH, [], id="nothing is known behind it"),
        pytest.param(f"{API}, {SERVER}", BOTH, [endpoints("203.0.113.9", "203.0.113.8")], id="one of two is missing"),
        pytest.param(f"{API}, {OTHER_SERVER}", BOTH, [endpoints("203.0.113.9")], id="another address"),
        pytest.param(f"{API}, {SERVER}", "[{port: 443}]", [endpoints("203.0.113.9")], id="not the port behind it"),
        pytest.param(f"{API}, {SERVER}", "[{port: 6443}]", [endpoints("203.0.113.9")], id="not the Service's port"),
        pytest.param(f"{API}, {SERVER}", "[{port: https}]", [endpoints("203.0.113.9")], id="a name"),
        pytest.param(f"{API}, {SERVER}", BOTH, [endpoints("api.example")], id="a name behind it"),
        pytest.param(f"{API}, {SERVER}", BOTH, [{**endpoints("203.0.113.9"), "ports": 1}], id="a broken EndpointSlice"),
    ],
)
def test_the_address_of_a_service_beside_less_is_found(peers: str, ports: str, behind: list[dict[str, object]]) -> None:
    """The connection would not come about."""
    assert [each for each in found(reaching(peers, ports), *SERVICES, *behind) if each[0] == "service-address"] == FOUND


def test_pods_behind_a_service_are_named_by_their_labels() -> None:
    """Or by the address of a pod, which is a finding of its own."""
    offered = "[{name: sql, port: 5432, targetPort: 5433}, {name: stats, port: 9}]"
    front = service("shop/db", f"{{clusterIP: 10.96.0.7, selector: {{app: db}}, ports: {offered}}}")
    server, more = pod("shop/db", "{app: db}", ip="10.244.1.7"), pod("shop/db2", "{app: db, spare: y}", ip="10.244.1.8")
    own, ports = "{ipBlock: {cidr: 10.96.0.7/32}}", "[{port: 5432}, {port: 5433}]"
    by_labels, by_more = "{podSelector: {matchLabels: {app: db}}}", "{podSelector: {matchLabels: {spare: y}}}"

    assert found(reaching(f"{own}, {by_labels}", ports), front, server, more) == []
    assert found(reaching(f"{own}, {by_more}", ports), front, server, more) == FOUND
    assert found(reaching(f"{own}, {{ipBlock: {{cidr: 10.244.1.7/32}}}}", ports), front, server) == [
        ("pod-address", "spec.egress[0].to[1].ipBlock")
    ]


def test_nobody_comes_from_the_address_of_a_service() -> None:
    """So that nothing beside it makes it right as a source."""
    peers = f"{{podSelector: {{}}, ingress: [{{from: [{API}, {SERVER}]}}]}}"

    assert found(policy(peers), *SERVICES, endpoints("203.0.113.9")) == [("service-address", PATH)]


def test_old_forms_are_errors_in_files_and_warnings_when_stored() -> None:
    """New API servers refuse them; old ones stored them."""
    old = block("10.1.2.3/8", holes="['010.9.0.0/16']")

    assert found(old) == [("invalid", f"{PATH}.cidr"), ("invalid", f"{PATH}.except[0]")]
    assert found(old, whole=True) == [("old-cidr", f"{PATH}.cidr"), ("old-cidr", f"{PATH}.except[0]")]
    assert findings(old, whole=True)[0].message.endswith("; it is read as 10.0.0.0/8")


def test_a_stored_exception_outside_of_its_block_is_an_error() -> None:
    """The rule matches nothing."""
    assert found(block("10.0.0.0/8", holes="[192.168.0.0/16]"), whole=True) == [("invalid", f"{PATH}.except[0]")]
