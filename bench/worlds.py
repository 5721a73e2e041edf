# SPDX-License-Identifier: Apache-2.0
"""Clusters and policies of any size, as objects of the API: what is measured is how much of them there is."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from ringfence.apis.core import NamespaceObject, Pod, build_cluster, convert
from ringfence.apis.networkpolicy import lower, policy_set
from ringfence.compiler.compile import compile_program
from ringfence.compiler.program import Program
from ringfence.model.cluster import Cluster
from ringfence.model.policy import PolicySet

Object = dict[str, Any]
NODE, ELSEWHERE, SPACE = "n1", "n2", "bench"
_PODS = int(ipaddress.ip_address("10.64.0.0"))
_PORTS = [{"protocol": "TCP", "port": 80}, {"protocol": "UDP"}]
_BLOCKS = int(ipaddress.ip_address("172.16.0.0"))
ADDRESSES = ("10.64.0.0/10", "172.16.0.0/12")
"""Where the addresses of pods and blocks are."""


def pod_address(number: int) -> str:
    """Return the address of a pod."""
    return str(ipaddress.ip_address(_PODS + number))


def pod(number: int, node: str, *, address: str | None = None, space: str = SPACE, **labels: str) -> Object:
    """Return a pod; its address is made from its number, unless given."""
    place = address or pod_address(number)
    return {
        "metadata": {
            "namespace": space,
            "name": f"pod-{number}",
            "uid": f"uid-{number}",
            "labels": labels,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"nodeName": node, "containers": [{"ports": [{"containerPort": 80, "name": "http"}]}]},
        "status": {"phase": "Running", "podIP": place, "podIPs": [{"ip": place}]},
    }


def policy(name: str, selects: dict[str, str], peers: Iterable[Object], *, space: str = SPACE) -> Object:
    """Return a policy that lets peers in to port 80 and all UDP ports."""
    return _policy(name, selects, {"ingress": [{"from": list(peers), "ports": [*_PORTS]}]}, space)


def egress_policy(name: str, selects: dict[str, str], peers: Iterable[Object], *, space: str = SPACE) -> Object:
    """Return a policy that lets pods out to port 80 and all UDP ports of peers."""
    return _policy(name, selects, {"egress": [{"to": list(peers), "ports": [*_PORTS]}]}, space)


def _policy(name: str, selects: dict[str, str], rules: Object, space: str) -> Object:
    spec = {"podSelector": {"matchLabels": selects}, "policyTypes": [each.capitalize() for each in rules], **rules}
    return {"metadata": {"namespace": space, "name": name, "uid": f"uid-{name}"}, "spec": spec}


def labelled(**labels: str) -> Object:
    """Return a peer: pods of these labels."""
    return {"podSelector": {"matchLabels": labels}}


def block(number: int) -> Object:
    """Return a peer: the block of a number; no two of them touch."""
    return {"ipBlock": {"cidr": f"{block_address(number)}/30"}}


def block_address(number: int) -> str:
    """Return the first address of a block."""
    return str(ipaddress.ip_address(_BLOCKS + 8 * number))


def cluster_of(pods: Iterable[Object], spaces: Iterable[str] = (SPACE,)) -> Cluster:
    """Return the cluster that pods make up."""
    names = [convert(NamespaceObject, {"metadata": {"name": name}}) for name in spaces]
    return build_cluster(names, (), [convert(Pod, each) for each in pods])


def policies_of(objects: Iterable[Object]) -> PolicySet:
    """Return policies, lowered."""
    return policy_set(lower(each).policy for each in objects)


def program_of(pods: Iterable[Object], policies: Iterable[Object]) -> Program:
    """Return what the node enforces."""
    return compile_program(cluster_of(pods), policies_of(policies), NODE)
