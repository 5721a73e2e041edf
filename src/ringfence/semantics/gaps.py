# SPDX-License-Identifier: Apache-2.0
"""What API objects leave open, found: pods without addresses, namespaces without objects, policies that are broken.

Takes the objects, and the cluster that was made of them with its gaps filled in; says what of it was made up.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.apis.networkpolicy import lower
from ringfence.apis.workloads import owners
from ringfence.errors import FieldError, InvalidObject
from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster, PodKey
from ringfence.model.policy import ObjectRef
from ringfence.semantics.knowledge import Knowledge


def gaps(objects: Sequence[Mapping[str, Any]], cluster: Cluster, problems: Sequence[InvalidObject] = ()) -> Knowledge:
    """Return what objects do not tell about the cluster that was made of them."""
    pods = [obj for obj in objects if _is(obj, "v1", "Pod")]
    named = {obj["metadata"]["name"] for obj in objects if _is(obj, "v1", "Namespace")}
    addressed = {_key(pod) for pod in pods if _addresses(pod)}
    bare = [endpoint for endpoint in cluster.endpoints.values() if endpoint.key not in addressed]
    return Knowledge(
        stand_ins={address: endpoint.key for endpoint in bare for address in endpoint.addresses},
        on_host={a: endpoint.node for endpoint in bare if endpoint.host_network for a in endpoint.addresses},
        families=_families(cluster, addressed),
        labelless=frozenset(cluster.namespaces.keys() - named),
        unplaced=frozenset(key for key, endpoint in cluster.endpoints.items() if not endpoint.node),
        broken=_broken(objects, problems),
        owners=owners(objects),
    )


def _families(cluster: Cluster, addressed: set[PodKey]) -> frozenset[int]:
    """Return the address families that pods of this cluster have, as far as the objects tell."""
    own = [a for key, e in cluster.endpoints.items() if key in addressed and not e.host_network for a in e.addresses]
    networks = [network for node in cluster.nodes.values() for network in node.pod_networks]
    return frozenset({address.version for address in own} | {network.version for network in networks})


def _broken(
    objects: Sequence[Mapping[str, Any]], problems: Sequence[InvalidObject]
) -> dict[ObjectRef, tuple[FieldError, ...]]:
    names = {problem.name for problem in problems}
    policies = (obj for obj in objects if _is(obj, "networking.k8s.io/v1", "NetworkPolicy"))
    # Only those that somebody has complained about are read again.
    lowered = [lower(obj) for obj in policies if obj.get("metadata", {}).get("name", "") in names]
    return {each.policy.ref: each.problems for each in lowered if each.problems}


def _is(obj: Mapping[str, Any], version: str, kind: str) -> bool:
    return obj.get("apiVersion") == version and obj.get("kind") == kind


def _key(pod: Mapping[str, Any]) -> PodKey:
    meta = pod.get("metadata") or {}
    return PodKey(meta.get("namespace") or "default", str(meta.get("name", "")))


def _addresses(pod: Mapping[str, Any]) -> list[Address]:
    status = pod.get("status") or {}
    texts = [status.get("podIP"), *(entry.get("ip") for entry in status.get("podIPs") or ())]
    found: list[Address] = []
    for text in texts:
        try:
            found += [ipaddress.ip_address(text)] if text else []
        except ValueError:
            continue
    return found
