# SPDX-License-Identifier: Apache-2.0
"""What the Service proxy makes of Services and EndpointSlices: values, and the golden text for the kernel."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from ringfence.host import netns
from ringfence.host.nft import Nft
from ringfence.lab.proxy import render
from ringfence.lab.proxy_services import Backend, ServicePort, service_ports
from ringfence.lab.topology import PodPlan, plan_pod, plan_topology
from tests.lab_network.networks import addresses, service, slice_of

GOLDEN = Path(__file__).parent / "golden" / "proxy.nft"
TOPOLOGY = plan_topology("lab", "azure", ["one", "two"])
HTTP = {"name": "http", "protocol": "TCP", "port": 80}
TARGET = {"name": "http", "protocol": "TCP", "port": 8080}


def _pod(node: str, host: int) -> PodPlan:
    own = addresses(f"10.224.{int(node == 'two')}.{host}", f"fd00:10:224:{int(node == 'two')}::{host}")
    return plan_pod(TOPOLOGY, node, "demo", f"pod-{host}", "uid", own)


NEAR, FAR = _pod("one", 5), _pod("two", 6)


def _only(services: list[dict[str, Any]], slices: list[dict[str, Any]]) -> ServicePort:
    (port,) = service_ports(services, slices, "one")
    return port


def _example() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return one Service of every kind that the proxy tells apart."""
    dns = [{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "dns-tcp", "protocol": "TCP", "port": 53}]
    signalling = [{"protocol": "SCTP", "port": 3868}]
    node_port = [{**HTTP, "nodePort": 30080}]
    services = [
        service("web", ["10.0.0.5", "fd00:10::5"], node_port, type="NodePort"),
        service("dns", ["10.0.0.10"], dns, sessionAffinity="ClientIP"),
        service("signalling", ["fd00:10::7"], signalling),
        service("local", ["10.0.0.8"], [{**HTTP, "nodePort": 30081}], externalTrafficPolicy="Local"),
        service("elsewhere", ["10.0.0.9"], [HTTP], internalTrafficPolicy="Local"),
        service("empty", ["10.0.0.11"], [{**HTTP, "nodePort": 30082}]),
        service("headless", ["None"], [HTTP]),
    ]
    slices = [
        slice_of("web", [NEAR, FAR], [TARGET]),
        slice_of("web", [NEAR, FAR], [TARGET], version=6),
        slice_of("dns", [NEAR, FAR], dns),
        slice_of("signalling", [FAR], [{"name": "", "protocol": "SCTP", "port": 3868}], version=6),
        slice_of("local", [NEAR, FAR], [TARGET]),
        slice_of("elsewhere", [FAR], [TARGET]),
        slice_of("headless", [NEAR], [TARGET]),
    ]
    return services, slices


def test_the_text_for_the_kernel_is_as_in_the_golden_file() -> None:
    """Rewrite with RINGFENCE_GOLDEN=1 and read the difference."""
    text = render(*_example(), "one")
    if os.environ.get("RINGFENCE_GOLDEN") == "1":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


@pytest.mark.kernel
def test_the_golden_text_is_taken_by_a_kernel_and_replaces_itself() -> None:
    """It loads, a second time too, and no Services at all leave an empty table."""
    name = f"rf-nt{os.getpid()}-proxy-fabric"
    netns.create(name)
    try:
        with netns.enter(name), Nft() as nft:
            nft.run(GOLDEN.read_text())
            nft.run(GOLDEN.read_text())
            translations = 'comment "demo/'
            assert nft.run("list ruleset").count(translations) == GOLDEN.read_text().count(translations)
            nft.run(render([], [], "one"))
            assert "10.0.0.5" not in nft.run("list ruleset")
    finally:
        netns.delete(name)


def test_the_same_objects_in_any_order_give_the_same_text() -> None:
    """Watches deliver in any order."""
    services, slices = _example()
    shuffled = random.Random(4)
    for _ in range(5):
        shuffled.shuffle(services)
        shuffled.shuffle(slices)
        assert render(services, slices, "one") == GOLDEN.read_text()


def test_backends_are_the_ready_endpoints() -> None:
    """Unknown readiness counts as ready; an endpoint of another port or family does not count."""
    web = [service("web", ["10.0.0.5"], [HTTP])]
    unknown = slice_of("web", [NEAR], [TARGET])
    unknown["endpoints"][0]["conditions"] = {}
    unready = slice_of("web", [FAR], [TARGET], ready=False)
    other_port = slice_of("web", [FAR], [{**TARGET, "name": "metrics"}])
    other_family = slice_of("web", [FAR], [TARGET], version=6)
    port = _only(web, [unknown, unready, other_port, other_family])
    assert port.backends == (Backend("10.224.0.5", 8080, local=True),)
    assert port.name == "demo/web:http"


def test_endpoints_that_end_serve_while_there_is_no_ready_one() -> None:
    """As kube-proxy: terminating endpoints that still serve are better than none."""
    web = [service("web", ["10.0.0.5"], [HTTP])]
    ending = slice_of("web", [NEAR], [TARGET], ready=False, serving=True, terminating=True)
    dead = slice_of("web", [FAR], [TARGET], ready=False, serving=False, terminating=True)
    assert [b.address for b in _only(web, [ending, dead]).backends] == ["10.224.0.5"]
    ready = slice_of("web", [FAR], [TARGET])
    assert [b.address for b in _only(web, [ending, ready]).backends] == ["10.224.1.6"]


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "ExternalName", "clusterIP": "", "clusterIPs": []},
        {"clusterIP": "None", "clusterIPs": ["None"]},
        {"clusterIP": "", "clusterIPs": None},
        {"clusterIP": "no address", "clusterIPs": ["no address"]},
        {"ports": None},
        {"ports": [{"protocol": "ICMP", "port": 80}]},
    ],
    ids=["external name", "headless", "no address yet", "not an address", "no ports", "unknown protocol"],
)
def test_services_without_an_address_of_their_own_are_not_proxied(changes: dict[str, Any]) -> None:
    """Nothing of them reaches the kernel."""
    web = service("web", ["10.0.0.5"], [HTTP])
    web["spec"] |= changes
    assert service_ports([web], [], "one") == ()


def test_a_service_with_another_proxy_is_left_to_it() -> None:
    """The label ``service.kubernetes.io/service-proxy-name`` says so."""
    web = service("web", ["10.0.0.5"], [HTTP])
    web["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "mesh"}
    assert service_ports([web], [], "one") == ()


def test_a_broken_object_costs_no_other_service_its_place() -> None:
    """Two Services with one address or node port, endpoints that are no addresses: the rest is still written."""
    first = service("a", ["10.0.0.5"], [{**HTTP, "nodePort": 30080}])
    second = service("b", ["10.0.0.5"], [HTTP])
    third = service("c", ["10.0.0.6"], [{**HTTP, "nodePort": 30080}])
    broken = slice_of("c", [NEAR], [TARGET])
    broken["endpoints"].append({"addresses": ['1 } flush ruleset; "'], "conditions": {}})
    ports = service_ports([third, second, first], [broken], "one")
    assert [(port.name, port.node_port) for port in ports] == [("demo/a:http", 30080), ("demo/c:http", 0)]
    assert [backend.address for backend in ports[1].backends] == ["10.224.0.5"]
