# SPDX-License-Identifier: Apache-2.0
"""EndpointSlices say where a Service's traffic can go."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.lab.controllers.actions import Create, Delete, Patch
from ringfence.lab.controllers.endpointslices import LARGEST, MANAGED_BY, SERVICE_LABEL, EndpointSlices
from ringfence.lab.controllers.resources import ENDPOINT_SLICES, NAMESPACES, NODES, PODS, SERVICES, Object
from tests.controllers.clusters import Cluster, namespace, pod, running

KEY = "demo/web"


def service(**spec: Any) -> Object:
    """Return a Service."""
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    families = ["IPv4", "IPv6"]
    made = {"selector": {"app": "web"}, "ports": ports, "ipFamilies": families, **spec}
    return {"metadata": {"name": "web", "namespace": "demo", "labels": {"team": "a"}}, "spec": made}


def cluster_with(made: Object, *pods: Object) -> Cluster:
    """Return a cluster with a Service and pods, endpoints in place."""
    cluster = Cluster()
    cluster.add(SERVICES, made)
    for each in pods:
        cluster.add(PODS, each)
    cluster.look(EndpointSlices(), KEY)
    return cluster


def endpoints(cluster: Cluster, family: str = "IPv4") -> dict[str, Object]:
    """Return the endpoints of a family by address."""
    return {
        endpoint["addresses"][0]: endpoint
        for each in cluster.all(ENDPOINT_SLICES)
        if each["addressType"] == family
        for endpoint in each["endpoints"]
    }


def test_each_family_has_its_slices() -> None:
    """A dual-stack Service has its pods' addresses of both families, and slices that say whose they are."""
    cluster = cluster_with(service(), pod("a", nodeName="n", status=running("10.0.0.1", "fd00::1")))
    slices = cluster.all(ENDPOINT_SLICES)

    assert {each["addressType"] for each in slices} == {"IPv4", "IPv6"}
    assert endpoints(cluster)["10.0.0.1"]["nodeName"] == "n"
    assert set(endpoints(cluster, "IPv6")) == {"fd00::1"}
    assert slices[0]["metadata"]["labels"][SERVICE_LABEL] == "web"
    assert slices[0]["metadata"]["labels"]["team"] == "a"
    assert slices[0]["metadata"]["ownerReferences"][0]["kind"] == "Service"
    assert slices[0]["ports"] == [{"name": "http", "port": 80, "protocol": "TCP"}]


def test_conditions_tell_ready_serving_and_terminating_apart() -> None:
    """A pod that ends is not ready but may still serve; one that has ended is no endpoint at all."""
    ending = pod("b", status=running("10.0.0.2"))
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    pods = [
        pod("a", status=running("10.0.0.1", ready=False)),
        ending,
        pod("c", status=running("10.0.0.3")),
        pod("d", status={**running("10.0.0.4"), "phase": "Succeeded"}),
        pod("e", status={"phase": "Pending"}),
    ]
    found = endpoints(cluster_with(service(), *pods))

    assert {address: tuple(e["conditions"].values()) for address, e in found.items()} == {
        "10.0.0.1": (False, False, False),
        "10.0.0.2": (False, True, True),
        "10.0.0.3": (True, True, False),
    }
    unready = endpoints(cluster_with(service(publishNotReadyAddresses=True), pods[0]))
    assert unready["10.0.0.1"]["conditions"]["ready"] is True


def test_a_named_port_is_looked_up_on_each_pod() -> None:
    """Pods that call the port by another number are in another slice; those that lack it have no such port."""
    other = pod("b", status=running("10.0.0.2"))
    other["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": 8080}]
    lacking = pod("c", status=running("10.0.0.3"))
    lacking["spec"]["containers"][0].pop("ports")
    cluster = cluster_with(service(ipFamilies=["IPv4"]), pod("a", status=running("10.0.0.1")), other, lacking)

    found = {
        each["endpoints"][0]["addresses"][0]: [port["port"] for port in each["ports"]]
        for each in cluster.all(ENDPOINT_SLICES)
    }
    assert found == {"10.0.0.1": [80], "10.0.0.2": [8080], "10.0.0.3": []}


def test_numbers_protocols_and_hostnames_are_kept() -> None:
    """A numeric target needs no lookup; the application protocol and a pod's own hostname are told."""
    ports = [{"port": 53, "protocol": "UDP", "appProtocol": "dns"}, {"port": 80, "targetPort": 8080}]
    named = pod("a", hostname="h", subdomain="web", status=running("10.0.0.1"))
    cluster = cluster_with(service(ports=ports, ipFamilies=None), named)
    (made,) = cluster.all(ENDPOINT_SLICES)

    assert made["ports"] == [
        {"name": "", "port": 53, "protocol": "UDP", "appProtocol": "dns"},
        {"name": "", "port": 8080, "protocol": "TCP"},
    ]
    assert made["endpoints"][0]["hostname"] == "h"


def test_a_service_without_a_selector_is_left_to_others() -> None:
    """Its endpoints are made by hand; ours go when the selector goes or the Service does."""
    controller = EndpointSlices()
    cluster = cluster_with(service(), pod("a", status=running("10.0.0.1")))
    by_hand = {
        "metadata": {"name": "mine", "namespace": "demo", "labels": {SERVICE_LABEL: "web"}},
        "addressType": "IPv4",
        "endpoints": [],
    }
    cluster.add(ENDPOINT_SLICES, by_hand)
    cluster.change(SERVICES, KEY, {"spec": {"selector": None}})
    cluster.look(controller, KEY)

    assert [each["metadata"]["name"] for each in cluster.all(ENDPOINT_SLICES)] == ["mine"]
    assert list(controller.affected(cluster.world, ENDPOINT_SLICES, "demo/mine", None, by_hand)) == []


def test_a_terminating_namespace_gets_no_new_slices() -> None:
    """What is there is still kept true, nothing new is made."""
    cluster = Cluster()
    cluster.add(NAMESPACES, namespace("demo", deletionTimestamp="2026-01-01T00:00:00Z"))
    cluster.add(SERVICES, service())
    cluster.add(PODS, pod("a", status=running("10.0.0.1")))

    assert cluster.look(EndpointSlices(), KEY).actions == []


def test_slices_that_go_are_left_alone_and_made_anew() -> None:
    """A slice that is being deleted holds nobody any more."""
    cluster = cluster_with(service(ipFamilies=["IPv4"]), pod("a", status=running("10.0.0.1")))
    (old,) = cluster.all(ENDPOINT_SLICES)
    key = f"demo/{old['metadata']['name']}"
    cluster.change(ENDPOINT_SLICES, key, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    outcome = EndpointSlices().reconcile(cluster.world, KEY, cluster.now)

    assert [type(action) for action in outcome.actions] == [Create]


def test_only_what_matters_to_endpoints_wakes_the_controller() -> None:
    """A pod's labels, address, readiness and end matter; its other changes do not."""
    cluster = cluster_with(service())
    controller = EndpointSlices()

    def woken(old: Object | None, new: Object | None) -> list[str]:
        return list(controller.affected(cluster.world, PODS, "demo/a", old, new))

    made = pod("a", status=running("10.0.0.1"))
    assert woken(None, made) == [KEY]
    assert woken(made, {**made, "metadata": {**made["metadata"], "annotations": {"a": "b"}}}) == []
    assert woken(made, pod("a", status=running("10.0.0.1", ready=False))) == [KEY]
    assert woken(made, pod("a", labels={"app": "x"}, status=running("10.0.0.1"))) == [KEY]
    assert woken(made, None) == [KEY]
    assert list(controller.affected(cluster.world, SERVICES, KEY, None, None)) == [KEY]
    ours = {
        "metadata": {
            "namespace": "demo",
            "labels": {SERVICE_LABEL: "web", MANAGED_BY: "endpointslice-controller.k8s.io"},
        }
    }
    assert list(controller.affected(cluster.world, ENDPOINT_SLICES, "demo/s", ours, ours)) == [KEY]
    assert list(controller.affected(cluster.world, NODES, "n", None, {})) == []


def numbered(count: int) -> list[Object]:
    """Return so many pods."""
    return [pod(f"p{index:03d}", status=running(f"10.0.{index // 250}.{index % 250 + 1}")) for index in range(count)]


def test_large_services_have_several_slices_and_small_changes_touch_one() -> None:
    """No slice is larger than a hundred; when a pod goes, the others stay where they are."""
    cluster = cluster_with(service(ipFamilies=["IPv4"]), *numbered(250))
    assert sorted(len(each["endpoints"]) for each in cluster.all(ENDPOINT_SLICES)) == [50, 100, 100]
    cluster.world.remove(PODS, "demo/p005")
    outcome = cluster.look(EndpointSlices(), KEY)

    assert [type(action) for action in outcome.actions] == [Patch]
    assert cluster.look(EndpointSlices(), KEY).actions == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sets(st.integers(0, 12)), min_size=1, max_size=6))
def test_whatever_the_path_every_pod_is_in_one_slice(states: list[set[int]]) -> None:
    """After any history the slices hold exactly the pods' addresses, each once, and the controller is at rest."""
    cluster = cluster_with(service(ipFamilies=["IPv4"]))
    for wanted in states:
        there = {int(each["metadata"]["name"]) for each in cluster.all(PODS)}
        for number in there - wanted:
            cluster.world.remove(PODS, f"demo/{number}")
        for number in wanted - there:
            cluster.add(PODS, pod(str(number), status=running(f"10.0.0.{number + 1}")))
        cluster.look(EndpointSlices(), KEY)
        addresses = [e["addresses"][0] for each in cluster.all(ENDPOINT_SLICES) for e in each["endpoints"]]
        assert sorted(addresses) == sorted(f"10.0.0.{number + 1}" for number in wanted)
        assert all(len(each["endpoints"]) <= LARGEST for each in cluster.all(ENDPOINT_SLICES))
        assert cluster.look(EndpointSlices(), KEY).actions == []
    cluster.world.remove(SERVICES, KEY)
    outcome = cluster.look(EndpointSlices(), KEY)
    assert all(isinstance(action, Delete) for action in outcome.actions)
    assert cluster.all(ENDPOINT_SLICES) == []
