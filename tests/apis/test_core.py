# SPDX-License-Identifier: Apache-2.0
"""Pods, Namespaces and Nodes, and the cluster that they make."""

from __future__ import annotations

import itertools
import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from ringfence.apis.core import (
    NamespaceObject,
    NodeObject,
    Pod,
    build_cluster,
    convert,
    decode_namespace,
    decode_node,
    decode_pod,
    with_invented_addresses,
)
from ringfence.errors import InvalidObject
from ringfence.model.cluster import Cluster, ContainerPort, PodKey
from ringfence.model.ports import Protocol


def pod(name: str = "a", *ips: str, **parts: Any) -> Pod:
    """Return a running pod as the API server has it, with changes to its parts."""
    status = {"phase": "Running", "podIP": ips[0] if ips else None, "podIPs": [{"ip": ip} for ip in ips]}
    obj = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "demo", "uid": f"uid-{name}", **parts.get("metadata", {})},
        "spec": {"nodeName": "n", "containers": [], **parts.get("spec", {})},
        "status": {**status, **parts.get("status", {})},
    }
    return decode_pod(json.dumps(obj).encode())


def cluster(*pods: Pod) -> Cluster:
    """Return the cluster of some pods."""
    return build_cluster([], [], pods)


def names(built: Cluster) -> list[str]:
    """Return the names of the pods that count."""
    return [key.name for key in built.endpoints]


def test_every_address_of_a_pod_counts() -> None:
    """SEMANTICS 18: podIPs, and podIP where an old server reports no other."""
    built = cluster(pod("a", "10.0.0.1", "fd00::1"), pod("b", status={"podIP": "10.0.0.2", "podIPs": None}))

    assert built.endpoints[PodKey("demo", "a")].addresses == {ip_address("10.0.0.1"), ip_address("fd00::1")}
    assert built.endpoint_at(ip_address("10.0.0.2")) is built.endpoints[PodKey("demo", "b")]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_completed_pods_do_not_count(phase: str) -> None:
    """SEMANTICS 26: the address may be another pod's by now."""
    assert names(cluster(pod("a", "10.0.0.1", status={"phase": phase}), pod("b", "10.0.0.1"))) == ["b"]


@pytest.mark.parametrize("status", [{"podIP": None, "podIPs": None}, {"podIPs": [{}]}, {"podIP": "no address"}])
def test_pods_without_an_address_are_skipped(status: dict[str, Any]) -> None:
    """SEMANTICS 28."""
    assert names(cluster(pod("a", status=status), pod("b", "10.0.0.1"))) == ["b"]


def test_terminating_pods_count() -> None:
    """SEMANTICS 27."""
    assert names(cluster(pod("a", "10.0.0.1", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}))) == ["a"]


def test_the_newest_holder_of_an_address_has_it_in_whatever_order_pods_arrive() -> None:
    """SEMANTICS 29: by creation, within a second by uid."""
    pods = [
        pod("old", "10.0.0.1", metadata={"creationTimestamp": "2026-01-01T00:00:00Z", "uid": "9"}),
        pod("new", "10.0.0.1", metadata={"creationTimestamp": "2026-01-01T00:00:01Z", "uid": "1"}),
        pod("newest", "10.0.0.1", metadata={"creationTimestamp": "2026-01-01T00:00:01Z", "uid": "2"}),
    ]
    for order in itertools.permutations(pods):
        holder = cluster(*order).endpoint_at(ip_address("10.0.0.1"))
        assert holder is not None
        assert holder.key.name == "newest"


def test_of_two_pods_of_one_name_the_newest_counts() -> None:
    """A replaced StatefulSet pod may be seen beside its predecessor; it holds its addresses by its own age."""
    old = pod("a", "10.0.0.1", metadata={"creationTimestamp": "2026-01-01T00:00:00Z", "uid": "9"})
    between = pod("b", "10.0.0.2", metadata={"creationTimestamp": "2026-01-02T00:00:00Z", "uid": "5"})
    new = pod("a", "10.0.0.2", metadata={"creationTimestamp": "2026-01-03T00:00:00Z", "uid": "1"})
    for order in itertools.permutations([old, between, new]):
        built = cluster(*order)
        assert built.endpoints[PodKey("demo", "a")].uid == "1"
        holder = built.endpoint_at(ip_address("10.0.0.2"))
        assert holder is not None
        assert holder.uid == "1"
        assert built.endpoint_at(ip_address("10.0.0.1")) is None


def test_ports_of_containers_and_sidecars_count_and_of_other_init_containers_not() -> None:
    """SEMANTICS 9; ports that no API server takes are left out."""
    ports = [{"containerPort": 80, "name": "http"}, {"containerPort": 53, "protocol": "UDP"}]
    odd = [{"containerPort": 0}, {"containerPort": 65536}, {"containerPort": 1, "protocol": "GRE"}]
    built = cluster(
        pod(
            "a",
            "10.0.0.1",
            spec={
                "containers": [{"ports": ports}, {"ports": odd}, {}],
                "initContainers": [
                    {"restartPolicy": "Always", "ports": [{"containerPort": 9, "name": "proxy", "protocol": "SCTP"}]},
                    {"ports": [{"containerPort": 10, "name": "setup"}]},
                ],
            },
        )
    )

    assert built.endpoints[PodKey("demo", "a")].ports == (
        ContainerPort("http", 80, Protocol.TCP),
        ContainerPort(None, 53, Protocol.UDP),
        ContainerPort("proxy", 9, Protocol.SCTP),
    )


def test_hostnetwork_pods_are_kept_and_hold_no_address() -> None:
    """SEMANTICS 25: their traffic is the node's."""
    built = cluster(pod("a", "10.224.0.4", spec={"hostNetwork": True}))

    assert built.endpoints[PodKey("demo", "a")].host_network
    assert built.endpoint_at(ip_address("10.224.0.4")) is None


def test_every_namespace_has_its_name_as_a_label() -> None:
    """SEMANTICS 13: whatever the object says."""
    raw = b'{"metadata":{"name":"demo","labels":{"a":"b","kubernetes.io/metadata.name":"other"}}}'
    built = build_cluster([decode_namespace(raw), decode_namespace(b'{"metadata":{"name":"x"}}')], [], [])

    assert dict(built.namespaces["demo"].labels) == {"a": "b", "kubernetes.io/metadata.name": "demo"}
    assert dict(built.namespaces["x"].labels) == {"kubernetes.io/metadata.name": "x"}


def test_every_address_of_a_node_is_its_own() -> None:
    """SEMANTICS 23: internal and external, both families; names are no addresses."""
    node = {
        "metadata": {"name": "n", "labels": {"a": "b"}},
        "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00:1::/64", "x"]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "10.224.0.4"},
                {"type": "InternalIP", "address": "fd00::4"},
                {"type": "ExternalIP", "address": "192.0.2.1"},
                {"type": "Hostname", "address": "n"},
            ]
        },
    }
    built = build_cluster([], [decode_node(json.dumps(node).encode())], [])

    assert built.nodes["n"].addresses == {ip_address(a) for a in ("10.224.0.4", "fd00::4", "192.0.2.1")}
    assert built.nodes["n"].pod_networks == (ip_network("10.244.0.0/24"), ip_network("fd00:1::/64"))


@pytest.mark.parametrize(("spec", "networks"), [({"podCIDR": "10.244.0.0/24"}, 1), ({}, 0)])
def test_a_node_may_have_one_pod_network_or_none(spec: dict[str, Any], networks: int) -> None:
    """Old servers report podCIDR alone; with a CNI's own addressing there is none."""
    node = convert(NodeObject, {"metadata": {"name": "n"}, "spec": spec})

    assert len(build_cluster([], [node], []).nodes["n"].pod_networks) == networks


def test_objects_of_the_wrong_type_are_refused_with_the_fields_path() -> None:
    """From files: the API server's objects have the right types."""
    with pytest.raises(InvalidObject) as caught:
        convert(Pod, {"metadata": {"name": "a"}, "spec": {"containers": [{"ports": [{"containerPort": "x"}]}]}})
    assert str(caught.value) == (
        'Pod "a" is invalid: spec.containers[0].ports[0].containerPort: Invalid value: Expected `int`, got `str`'
    )
    with pytest.raises(InvalidObject, match=r'^Namespace "" is invalid: Invalid value: Object missing required field'):
        convert(NamespaceObject, {})


def test_addresses_are_invented_only_for_pods_that_could_run_and_have_none() -> None:
    """For files; the same pods get the same addresses in any order, one of each family."""
    pods = [pod("b"), pod("a"), pod("c", "10.0.0.1"), pod("d", status={"phase": "Failed"})]
    built, again = cluster(*with_invented_addresses(pods)), cluster(*with_invented_addresses(pods[::-1]))

    assert sorted(names(built)) == ["a", "b", "c"]
    assert built.endpoints[PodKey("demo", "a")].addresses == {
        ip_address("198.18.0.1"),
        ip_address("2001:db8:198:18::1"),
    }
    assert built.endpoints[PodKey("demo", "c")].addresses == {ip_address("10.0.0.1")}
    assert {key: e.addresses for key, e in built.endpoints.items()} == {
        key: e.addresses for key, e in again.endpoints.items()
    }
