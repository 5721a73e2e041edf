# SPDX-License-Identifier: Apache-2.0
"""What Services and EndpointSlices say to the proxy of one node: where which connection may be sent. Pure.

Takes the API server's objects as decoded JSON. How the kernel is told, ``proxy`` decides.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}
_SLICE_FAMILIES = {"IPv4": "ip", "IPv6": "ip6"}

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Where a connection may be sent: an endpoint's address and port, and whether it is on this node."""

    address: str
    port: int
    local: bool


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service in one address family (``ip`` or ``ip6``), in nft's words, with its backends, sorted.

    ``node_port`` is 0 where there is none. ``only_local_internal`` and ``only_local_external`` are the traffic
    policies ``Local`` of ClusterIP and node port; ``sticky`` is the session affinity ``ClientIP``.
    """

    name: str
    family: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int
    only_local_internal: bool
    only_local_external: bool
    sticky: bool
    backends: tuple[Backend, ...]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name this port in this family."""
        return hashlib.sha256(f"{self.name} {self.family} {self.protocol} {self.port}".encode()).hexdigest()[:12]

    def reachable(self, *, only_local: bool) -> tuple[Backend, ...]:
        """Return all backends, or only those on this node."""
        return tuple(backend for backend in self.backends if backend.local or not only_local)


def service_ports(services: Iterable[Object], slices: Iterable[Object], node: str) -> tuple[ServicePort, ...]:
    """Return every port of every Service that has a ClusterIP, in each of its families, sorted."""
    slices_of: dict[tuple[str, str], list[Object]] = defaultdict(list)
    for piece in slices:
        metadata = piece["metadata"]
        owner = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
        slices_of[metadata.get("namespace", ""), owner].append(piece)
    found = []
    for service in services:
        key = service["metadata"].get("namespace", ""), service["metadata"]["name"]
        found += [
            _service_port(service, port, address, slices_of[key], node)
            for address in _cluster_ips(service)
            for port in service["spec"].get("ports") or ()
            if port.get("protocol", "TCP") in PROTOCOLS
        ]
    return tuple(_each_once(sorted(found, key=lambda p: (p.name, p.family, p.protocol, p.port))))


def _each_once(ports: Iterable[ServicePort]) -> Iterator[ServicePort]:
    """Leave out what an earlier port has taken: two Services with one address must not cost all others theirs."""
    taken: set[tuple[str, str, int]] = set()
    for port in ports:
        where = port.cluster_ip, port.protocol, port.port
        on_node = port.family, port.protocol, port.node_port
        if where not in taken:
            yield port if port.node_port and on_node not in taken else replace(port, node_port=0)
            taken |= {where, on_node}


def _cluster_ips(service: Object) -> list[str]:
    """Return a Service's own addresses: none for a headless one, an external name, or one that has another proxy."""
    spec = service.get("spec") or {}
    labels = service["metadata"].get("labels") or {}
    if spec.get("type") == "ExternalName" or "service.kubernetes.io/service-proxy-name" in labels:
        return []
    addresses = (_address(text) for text in spec.get("clusterIPs") or [spec.get("clusterIP")])
    return [address for address in addresses if address is not None]


def _address(text: str | None) -> str | None:
    """Return an address in its one canonical spelling; None for what is no address (``None`` is a headless Service)."""
    try:
        return str(ipaddress.ip_address(text or ""))
    except ValueError:
        return None


def _service_port(service: Object, port: Object, address: str, slices: Iterable[Object], node: str) -> ServicePort:
    metadata, spec = service["metadata"], service["spec"]
    name = f"{metadata.get('namespace', '')}/{metadata['name']}"
    family = "ip6" if ":" in address else "ip"
    return ServicePort(
        name=f"{name}:{port['name']}" if port.get("name") else name,
        family=family,
        protocol=PROTOCOLS[port.get("protocol", "TCP")],
        cluster_ip=address,
        port=port["port"],
        node_port=port.get("nodePort") or 0,
        only_local_internal=spec.get("internalTrafficPolicy") == "Local",
        only_local_external=spec.get("externalTrafficPolicy") == "Local",
        sticky=spec.get("sessionAffinity") == "ClientIP",
        backends=tuple(sorted(set(_backends(slices, family, port, node)))),
    )


def _backends(slices: Iterable[Object], family: str, port: Object, node: str) -> list[Backend]:
    """Return the ready endpoints or, while there is none, those that end but still serve (as kube-proxy does)."""
    ready, ending = [], []
    for endpoint, number in _endpoints(slices, family, port):
        conditions = endpoint.get("conditions") or {}
        local = endpoint.get("nodeName") == node
        # Of several addresses the first: they are alternatives, and kube-proxy takes the first too.
        address = _address(endpoint["addresses"][0])
        if address is None:
            continue
        backend = Backend(address, number, local)
        if conditions.get("ready") is not False:  # unknown counts as ready (EndpointConditions)
            ready.append(backend)
        elif conditions.get("serving") and conditions.get("terminating"):
            ending.append(backend)
    return ready or ending


def _endpoints(slices: Iterable[Object], family: str, port: Object) -> Iterator[tuple[Object, int]]:
    """Yield the endpoints that serve a Service's port, each with the number of its own port."""
    wanted = port.get("name") or "", port.get("protocol", "TCP")
    for piece in slices:
        if _SLICE_FAMILIES.get(piece.get("addressType", "")) != family:
            continue
        for served in piece.get("ports") or ():
            if (served.get("name") or "", served.get("protocol") or "TCP") == wanted and served.get("port"):
                yield from ((endpoint, served["port"]) for endpoint in piece.get("endpoints") or ())
