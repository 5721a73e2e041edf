# SPDX-License-Identifier: Apache-2.0
"""The API objects of a case's cluster, as an API server would serve them to a watcher: with uid, times and status."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ringfence.cases.format import NodeSpec, PodSpec, PortSpec, ServicePortSpec, ServiceSpec

_EPOCH = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def namespace(name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return a v1 Namespace, with the label that the API server gives to each."""
    meta = {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


def node(name: str, spec: NodeSpec, addresses: Iterable[str]) -> dict[str, Any]:
    """Return a v1 Node."""
    status = {"addresses": [{"type": "InternalIP", "address": address} for address in addresses]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": spec.labels}, "status": status}


def identity(namespace: str, name: str, serial: int) -> dict[str, Any]:
    """Return the uid and the creation time of the ``serial``-th pod of a case: later pods are younger."""
    born = (_EPOCH + datetime.timedelta(seconds=serial)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"uid": f"{namespace}-{name}-{serial}", "creationTimestamp": born}


def identity_of(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return the uid and the creation time of a pod that exists."""
    return {key: pod["metadata"][key] for key in ("uid", "creationTimestamp")}


def pod(
    namespace: str,
    name: str,
    spec: PodSpec,
    *,
    node: str,
    addresses: tuple[str, ...],
    identity: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a v1 Pod with one container ``main``, and a sidecar if the case asks for its ports."""
    meta = {"name": name, "namespace": namespace, "labels": dict(spec.labels), **identity}
    if spec.terminating:
        meta["deletionTimestamp"] = "2024-01-02T00:00:00Z"
        meta["deletionGracePeriodSeconds"] = 30
    containers = [{"name": "main", "image": "main", "ports": _ports(spec.ports)}]
    pod_spec: dict[str, Any] = {"nodeName": node, "hostNetwork": spec.hostNetwork, "containers": containers}
    if spec.sidecarPorts:
        sidecar = {"name": "sidecar", "image": "sidecar", "restartPolicy": "Always"}
        pod_spec["initContainers"] = [{**sidecar, "ports": _ports(spec.sidecarPorts)}]
    ready = spec.ready and spec.phase == "Running"
    conditions = [{"type": "Ready", "status": str(ready)}]
    status: dict[str, Any] = {"phase": spec.phase, "conditions": conditions}
    if addresses:
        status |= {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod_spec, "status": status}


def service(namespace: str, name: str, spec: ServiceSpec, cluster_ips: Sequence[str]) -> dict[str, Any]:
    """Return a v1 Service."""
    service_spec: dict[str, Any] = {
        "type": spec.type,
        "selector": dict(spec.selector),
        "clusterIP": cluster_ips[0],
        "clusterIPs": list(cluster_ips),
        "ipFamilies": ["IPv6" if ":" in address else "IPv4" for address in cluster_ips],
        "ports": [_service_port(port) for port in spec.ports],
    }
    if spec.type == "NodePort":
        service_spec["externalTrafficPolicy"] = spec.externalTrafficPolicy
    meta = {"name": name, "namespace": namespace, "uid": f"service-{namespace}-{name}"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service_spec}


def _service_port(port: ServicePortSpec) -> dict[str, Any]:
    target = port.port if port.targetPort is None else port.targetPort
    made: dict[str, Any] = {"port": port.port, "protocol": port.protocol, "targetPort": target}
    if port.name is not None:
        made["name"] = port.name
    if port.nodePort is not None:
        made["nodePort"] = port.nodePort
    return made


def _ports(ports: Iterable[PortSpec]) -> list[dict[str, Any]]:
    return [
        {"containerPort": port.containerPort, "protocol": port.protocol} | ({"name": port.name} if port.name else {})
        for port in ports
    ]
