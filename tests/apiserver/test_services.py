# SPDX-License-Identifier: Apache-2.0
"""Services: how addresses and node ports are chosen, kept and refused."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds import clusteraddresses
from ringfence.lab.apiserver.status import Failure
from tests.apiserver.writes import Requests, causes, service

V4 = ipaddress.ip_network("10.0.0.0/16")
V6 = ipaddress.ip_network("fd00:10:0::/112")


@pytest.fixture
def req(api: Api) -> Requests:
    """Make requests."""
    return Requests(api)


def families(made: dict[str, Any]) -> list[str]:
    """Return the families of a Service's addresses."""
    return ["IPv6" if ":" in address else "IPv4" for address in made["spec"]["clusterIPs"]]


def test_a_service_gets_an_address_of_its_own(req: Requests) -> None:
    """Inside the Service network, never twice, and the first of the network is the API server's."""
    made = [req.create("services", service(f"s{n}"))["spec"] for n in range(30)]
    addresses = {spec["clusterIP"] for spec in made}
    assert len(addresses) == 30
    assert all(ipaddress.ip_address(address) in V4 for address in addresses)
    assert "10.0.0.1" not in addresses
    assert made[0]["clusterIPs"] == [made[0]["clusterIP"]]
    assert (made[0]["ipFamilies"], made[0]["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"ipFamilyPolicy": "PreferDualStack"}, ["IPv4", "IPv6"]),
        ({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}, ["IPv6", "IPv4"]),
        ({"ipFamilies": ["IPv6"]}, ["IPv6"]),
        ({"clusterIP": "fd00:10::77"}, ["IPv6"]),
        ({"clusterIPs": ["10.0.9.9", "fd00:10::99"]}, ["IPv4", "IPv6"]),
    ],
)
def test_families_are_chosen_by_policy(req: Requests, asked: dict[str, Any], expected: list[str]) -> None:
    """In the order that is asked for."""
    made = req.create("services", service(**asked))
    assert families(made) == made["spec"]["ipFamilies"] == expected


def test_the_api_server_has_a_service_of_both_families(req: Requests) -> None:
    """Made at start-up, with the first addresses."""
    spec = req.get("services", "kubernetes")["spec"]  # type: ignore[index]
    assert spec["clusterIPs"] == ["10.0.0.1", "fd00:10::1"]


def test_headless_and_external_services_have_no_address(req: Requests) -> None:
    """None is kept as such; an external name has nothing of the kind."""
    made = req.create("services", service("h", clusterIP="None"))["spec"]
    assert (made["clusterIP"], made["clusterIPs"]) == ("None", ["None"])
    open_to_all = req.create("services", service("o", clusterIP="None", selector=None))["spec"]
    assert open_to_all["ipFamilies"] == ["IPv4", "IPv6"]
    named = {"metadata": {"name": "n"}, "spec": {"type": "ExternalName", "externalName": "example.com"}}
    assert "clusterIP" not in req.create("services", named)["spec"]


def test_updates_keep_address_and_ports(req: Requests) -> None:
    """Also those that do not mention them; a changed address is refused."""
    made = req.create("services", service(type="NodePort"))
    updated = req.update("services", {**service(type="NodePort", ports=[{"port": 80, "name": "web"}])})
    assert updated["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    assert updated["spec"]["ports"][0]["nodePort"] == made["spec"]["ports"][0]["nodePort"]
    with pytest.raises(
        Failure, match=r"spec\.clusterIPs\[0\]: Invalid value: \[\]string\{.*\}: may not change once set"
    ):
        req.update("services", service(type="NodePort", clusterIP="10.0.200.200", clusterIPs=["10.0.200.200"]))


def test_a_service_can_change_its_type(req: Requests) -> None:
    """Ports are chosen and given back, addresses too."""
    first = req.create("services", service())
    port = req.patch("services", "web", {"spec": {"type": "NodePort"}})["spec"]["ports"][0]["nodePort"]
    assert port in clusteraddresses.NODE_PORTS
    back = req.patch("services", "web", {"spec": {"type": "ClusterIP"}})["spec"]
    assert "nodePort" not in back["ports"][0]
    assert "externalTrafficPolicy" not in back
    assert back["clusterIP"] == first["spec"]["clusterIP"]
    named = req.patch("services", "web", {"spec": {"type": "ExternalName", "externalName": "example.com"}})["spec"]
    assert "clusterIP" not in named
    again = req.patch("services", "web", {"spec": {"type": "ClusterIP", "externalName": None}})["spec"]
    assert ipaddress.ip_address(again["clusterIP"]) in V4


def test_a_service_becomes_dual_stack_and_single_again(req: Requests) -> None:
    """The second address comes and goes, the first stays."""
    first = req.create("services", service())["spec"]["clusterIP"]
    dual = req.patch("services", "web", {"spec": {"ipFamilyPolicy": "PreferDualStack"}})["spec"]
    assert (dual["clusterIPs"][0], dual["ipFamilies"]) == (first, ["IPv4", "IPv6"])
    single = req.patch("services", "web", {"spec": {"ipFamilyPolicy": "SingleStack"}})["spec"]
    assert (single["clusterIPs"], single["ipFamilies"]) == ([first], ["IPv4"])


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        ({"ports": []}, "spec.ports", "Required value"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port", "must be between 1 and 65535, inclusive"),
        ({"ports": [{"port": 80}, {"port": 81}]}, "spec.ports[0].name", "Required value"),
        ({"ports": [{"port": 80, "name": "A"}]}, "spec.ports[0].name", "RFC 1123 label"),
        ({"ports": [{"port": 80, "protocol": "tcp"}]}, "spec.ports[0].protocol", '"SCTP", "TCP", "UDP"'),
        ({"ports": [{"port": 80, "targetPort": "80"}]}, "spec.ports[0].targetPort", "at least one letter"),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}, "spec.ports[1]", "Duplicate value"),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}, "spec.ports[1].name", "Duplicate value"),
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}, "spec.ports[0].nodePort", "30000-32767"),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 31000}]},
            "spec.ports[0].nodePort",
            "already allocated",
        ),
        ({"type": "Nothing"}, "spec.type", '"ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'),
        ({"type": "ExternalName"}, "spec.externalName", "Required value"),
        (
            {"clusterIP": "10.0.0.1"},
            "spec.clusterIPs",
            "failed to allocate IP 10.0.0.1: provided IP is already allocated",
        ),
        ({"clusterIP": "192.168.0.1"}, "spec.clusterIPs", "The range of valid IPs is 10.0.0.0/16"),
        ({"clusterIP": "nonsense"}, "spec.clusterIPs", "not in the valid range"),
        ({"clusterIP": "10.0.1.1", "clusterIPs": ["10.0.1.2"]}, "spec.clusterIPs", "first value must match"),
        ({"selector": {"a b": "c"}}, "spec.selector", "name part must consist of"),
    ],
)
def test_services_that_cannot_be_are_refused(req: Requests, asked: dict[str, Any], field: str, words: str) -> None:
    """422, the field, and kube-apiserver's words."""
    req.create("services", service("taken", type="NodePort", ports=[{"port": 80, "nodePort": 31000}]))
    with pytest.raises(Failure) as refused:
        req.create("services", service(**asked))
    assert refused.value.code == 422
    found = causes(refused.value)
    assert any(f == field and words in message for f, message in found), found


def test_a_full_network_is_said_to_be_full(req: Requests) -> None:
    """And nothing is stored."""
    req.api.service_networks = (ipaddress.ip_network("10.0.0.0/30"),)
    req.create("services", service("last"))
    with pytest.raises(Failure, match="range is full") as refused:
        req.create("services", service("more"))
    assert refused.value.code == 500
    assert req.get("services", "more") is None


def test_a_dry_run_takes_no_address(req: Requests) -> None:
    """What is taken is what is stored."""
    before = clusteraddresses.taken_addresses(req.api)
    req.create("services", service(type="NodePort"), dry_run=True)
    assert clusteraddresses.taken_addresses(req.api) == before
    assert clusteraddresses.taken_ports(req.api) == frozenset()
