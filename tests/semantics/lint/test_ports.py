# SPDX-License-Identifier: Apache-2.0
"""A Service's port where the pod's is meant, and names of ports that no pod has."""

from __future__ import annotations

import pytest

from tests.semantics.lint.linted import findings, found, namespace, pod, policy, service, workload

WEB = workload("shop/web", "{app: web}", "[{name: http, containerPort: 8080}]")
FRONT = service("shop/web", "{selector: {app: web}, ports: [{port: 80, targetPort: http}]}")
CLIENT = workload("shop/client", "{app: client}")
OTHER_PORT = "ports: [{port: 80, targetPort: 8080}]}"
TO_WEB_AND_OUTSIDE = "[{podSelector: {matchLabels: {app: web}}}, {ipBlock: {cidr: 203.0.113.0/24}}]"
DNS = "{ports: [{port: 53, protocol: UDP}, {port: 53}]}"


def ingress(ports: str) -> str:
    """Return a spec for the web pods."""
    return f"{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: {ports}}}]}}"


def egress(ports: str, to: str = "[{podSelector: {matchLabels: {app: web}}}]") -> str:
    """Return a spec for a client of the web pods."""
    rule = f"{{to: {to}, ports: {ports}}}"
    return f"{{podSelector: {{matchLabels: {{app: client}}}}, policyTypes: [Egress], egress: [{DNS}, {rule}]}}"


def test_a_service_port_in_ingress_is_found() -> None:
    """With the port that is meant."""
    (finding,) = findings(policy(ingress("[{port: 80}]")), WEB, FRONT)

    assert (finding.rule.name, finding.path) == ("service-port", "spec.ingress[0].ports[0].port")
    assert finding.message == "TCP 80 is the port of Service shop/web; its pods listen on 8080"
    assert finding.advice == "write port 8080"
    assert found(policy(ingress("[{port: 80}, {port: 8080, protocol: UDP}]")), WEB, FRONT) == [
        ("service-port", "spec.ingress[0].ports[0].port")
    ]


def test_a_service_port_in_egress_is_found() -> None:
    """Where the rule leads to nobody but the pods behind the Service."""
    assert found(policy(egress("[{port: 80}]")), WEB, FRONT, CLIENT) == [
        ("service-port", "spec.egress[1].ports[0].port")
    ]


@pytest.mark.parametrize(
    ("spec", "beside"),
    [
        pytest.param(ingress("[{port: 8080}]"), [WEB, FRONT], id="the pod's port"),
        pytest.param(ingress("[{port: 80}, {port: 8080}]"), [WEB, FRONT], id="both ports"),
        pytest.param(ingress("[{port: 80}, {port: http}]"), [WEB, FRONT], id="both, one by name"),
        pytest.param(ingress("[{port: 80}, {protocol: TCP}]"), [WEB, FRONT], id="every port beside"),
        pytest.param(ingress("[{port: 80, protocol: UDP}]"), [WEB, FRONT], id="another protocol"),
        pytest.param(ingress("[{port: 80, endPort: 90}]"), [WEB, FRONT], id="a range"),
        pytest.param(ingress("[{port: 80}]"), [WEB], id="no Service"),
        pytest.param(ingress("[{port: 80}]"), [FRONT], id="no pods"),
        pytest.param(ingress("[{port: 80}]"), [WEB, FRONT, workload("shop/old", "{app: web}", "[{containerPort: 80}]")],
                     id="a pod that declares the port"),
        pytest.param(ingress("[{port: 80}]"),
                     [WEB, service("shop/web", "{selector: {app: web}, ports: [{port: 80}]}")], id="the same number"),
        pytest.param(ingress("[{port: 80}]"),
                     [WEB, service("shop/web", "{clusterIP: None, selector: {app: web}, " + OTHER_PORT)],
                     id="headless: nobody translates"),
        pytest.param(ingress("[{port: 80}]"),
                     [WEB, FRONT, service("shop/other", "{selector: {app: web}, ports: [{port: 80}]}")],
                     id="another Service that leads to that port"),
        pytest.param(ingress("[{port: 80}]"), [WEB, service("shop/web", "{" + OTHER_PORT)],
                     id="a Service without selector"),
        pytest.param(egress("[{port: 80}]", "[]"), [WEB, FRONT, CLIENT], id="to everybody"),
        pytest.param(egress("[{port: 80}]", TO_WEB_AND_OUTSIDE),
                     [WEB, FRONT, CLIENT], id="to addresses too"),
        pytest.param(egress("[{port: 80}]", "[{podSelector: {}}]"), [WEB, FRONT, CLIENT],
                     id="to pods without Service too"),
    ],
)  # fmt: skip
def test_a_port_that_may_be_right_is_no_finding(spec: str, beside: list[dict[str, object]]) -> None:
    """One reason suffices."""
    assert findings(policy(spec), *beside, rule="service-port") == []


def test_a_name_that_no_selected_pod_has_is_found() -> None:
    """With the names that there are."""
    (finding,) = findings(policy(ingress("[{port: htp}]")), WEB)

    assert (finding.rule.name, finding.path) == ("named-port-missing", "spec.ingress[0].ports[0].port")
    assert finding.message == ("no port of Deployment shop/web is called htp for TCP; their TCP ports are called http")


def test_a_name_of_another_protocol_is_found() -> None:
    """Name and protocol are looked up together."""
    (finding,) = findings(policy(ingress("[{port: http, protocol: UDP}]")), WEB)

    assert finding.message == "no port of Deployment shop/web is called http for UDP; there it is a port of TCP"


def test_a_name_on_pods_without_any_is_found() -> None:
    """A port that is not declared has no name."""
    (finding,) = findings(policy(ingress("[{port: http}]")), workload("shop/web", "{app: web}"))

    assert finding.message == "no port of Deployment shop/web is called http for TCP"


def test_a_name_that_no_peer_pod_has_is_found() -> None:
    """Egress looks on the pod that is connected to."""
    assert found(policy(egress("[{port: htp}]")), WEB, CLIENT) == [
        ("named-port-missing", "spec.egress[1].ports[0].port")
    ]
    assert found(policy(egress("[{port: http}]")), WEB, CLIENT) == []


def test_a_name_to_everybody_is_judged_in_a_live_cluster_only() -> None:
    """Files do not hold everybody."""
    assert found(policy(egress("[{port: htp}]", "[]")), WEB, CLIENT) == []
    assert found(policy(egress("[{port: htp}]", "[]")), WEB, CLIENT, whole=True) == [
        ("named-port-missing", "spec.egress[1].ports[0].port")
    ]


def test_a_name_that_one_of_the_pods_has_is_no_finding() -> None:
    """It may be for that one; nor is one of pods that are not known."""
    other = workload("shop/other", "{app: web}")

    assert found(policy(ingress("[{port: http}]")), WEB, other) == []
    assert found(policy(ingress("[{port: http}]"))) == []


def test_a_name_to_a_block_alone_is_found() -> None:
    """Nothing says which number it would be."""
    block = "[{ipBlock: {cidr: 203.0.113.0/24}}]"

    assert found(policy(egress("[{port: https}]", block))) == [("named-port-outside", "spec.egress[1].to[0].ipBlock")]
    assert found(policy(egress("[{port: https}, {port: 443}]", block))) == []
    assert found(policy(egress("[{port: 443}]", block))) == []


def test_a_name_to_a_block_of_pods_that_have_it_is_no_finding() -> None:
    """It is looked up on the pod that holds the address."""
    spec = egress("[{port: http}]", "[{ipBlock: {cidr: 203.0.113.0/24}}]")
    server = pod("shop/server", ip="203.0.113.9")
    server["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": 8080}]

    assert findings(policy(spec), server, rule="named-port-outside") == []
    server["status"] = {}
    assert findings(policy(spec), server, rule="named-port-outside") != []


@pytest.mark.parametrize("everybody", ["[{podSelector: {}}]", "[{namespaceSelector: {}}]"])
def test_all_pods_of_a_namespace_are_known_in_a_live_cluster_only(everybody: str) -> None:
    """Files hold one application: its neighbours, or the cluster's DNS, may have the port."""
    named = policy(egress("[{port: dns-tcp}]", everybody).replace("client", "web"))
    numbered = policy(egress("[{port: 80}]", everybody).replace("client", "web"))
    entering = policy("{podSelector: {}, ingress: [{ports: [{port: metrics}]}]}")
    shop = [namespace("shop"), WEB, FRONT]

    assert found(named, *shop) == found(numbered, *shop) == found(entering, *shop) == []
    assert found(named, *shop, whole=True) == [("named-port-missing", "spec.egress[1].ports[0].port")]
    assert found(numbered, *shop, whole=True) == [("service-port", "spec.egress[1].ports[0].port")]
    assert found(entering, *shop, whole=True) == [("named-port-missing", "spec.ingress[0].ports[0].port")]
