# SPDX-License-Identifier: Apache-2.0
"""What a person calls an end of a connection, resolved: pods, Services, nodes and addresses.

``demo/client`` and ``client`` name a pod, or a Service if there is no such pod; ``pod/…``, ``svc/…`` and ``node/…``
say which. A Service is translated as kube-proxy does, to its ready pods and their target ports, since rules are
judged after that (SEMANTICS 31). Every end that cannot be is refused in a sentence that says why.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import msgspec

from ringfence.errors import UsageError
from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster, Endpoint, PodKey
from ringfence.model.ports import LAST_PORT, Protocol

_KINDS = {
    **dict.fromkeys(("pod", "pods", "po"), "pod"),
    **dict.fromkeys(("service", "services", "svc"), "service"),
    **dict.fromkeys(("node", "nodes", "no"), "node"),
}


class _ServicePort(msgspec.Struct, frozen=True):
    port: int
    name: str = ""
    protocol: str = "TCP"
    target: int | str | None = msgspec.field(default=None, name="targetPort")


class _ServiceSpec(msgspec.Struct, frozen=True):
    selector: dict[str, str] | None = None
    ports: list[_ServicePort] | None = None
    addresses: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    address: str | None = msgspec.field(default=None, name="clusterIP")


class _Meta(msgspec.Struct, frozen=True):
    name: str
    namespace: str = "default"


class _Service(msgspec.Struct, frozen=True):
    metadata: _Meta
    spec: _ServiceSpec = msgspec.field(default_factory=_ServiceSpec)


class _Condition(msgspec.Struct, frozen=True):
    type: str
    status: str


class _PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    address: str | None = msgspec.field(default=None, name="podIP")
    addresses: list[dict[str, str]] | None = msgspec.field(default=None, name="podIPs")
    conditions: list[_Condition] | None = None


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Meta
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)

    @property
    def ready(self) -> bool:
        """Tell whether a Service would send to it; a pod from a file, whose readiness nobody reports, is."""
        if self.status.conditions is None:
            return True
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection goes to or comes from: addresses of one holder, by family, and the port on it.

    ``pod`` is None for nodes and bare addresses.
    """

    label: str
    addresses: Mapping[int, Address]
    port: int | None = None
    pod: PodKey | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """An end, resolved: one target, or one for each ready pod of a Service; ``notes`` tell of translations."""

    targets: tuple[Target, ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Directory:
    """Knows the pods, Services and nodes of a cluster by what people call them.

    ``namespace`` is meant where none is named; ``where`` completes "no pod demo/client …" in complaints.
    """

    cluster: Cluster
    namespace: str
    where: str
    _services: dict[PodKey, _Service] = field(default_factory=dict)
    _pods: dict[PodKey, _Pod] = field(default_factory=dict)

    def add(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Take note of Services and Pods among API objects; others, and unreadable ones, are passed over."""
        for obj in objects:
            try:
                match obj.get("apiVersion"), obj.get("kind"):
                    case "v1", "Service":
                        service = msgspec.convert(obj, _Service)
                        self._services[_key(service.metadata)] = service
                    case "v1", "Pod":
                        pod = msgspec.convert(obj, _Pod)
                        self._pods[_key(pod.metadata)] = pod
                    case _:
                        pass
            except msgspec.ValidationError:
                continue

    def source(self, text: str) -> Resolved:
        """Resolve where a connection comes from."""
        found = self._find(text)
        if isinstance(found, _Service):
            raise UsageError(f"{text} is a Service: connections come from pods, nodes and addresses")
        return Resolved((found,))

    def destination(self, text: str, protocol: Protocol, port: str | None) -> Resolved:
        """Resolve where a connection goes to; ``port`` is a number or a name, of the Service where one is named."""
        found = self._find(text)
        if isinstance(found, _Service):
            return self._behind(found, protocol, port)
        for service in self._services.values():
            if {str(address) for address in found.addresses.values()} & _cluster_addresses(service):
                return self._behind(service, protocol, port)
        return Resolved((replace(found, port=self._port_on(found, protocol, port)),))

    def has_address(self, target: Target) -> bool:
        """Tell whether a target's addresses are its own: pods from files may have been given some that are made up."""
        pod = self._pods.get(target.pod) if target.pod else None
        return pod is None or bool(pod.status.address or pod.status.addresses)

    def _find(self, text: str) -> Target | _Service:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            pass
        else:
            return Target(text, {address.version: address})
        first, slash, rest = text.partition("/")
        kind = _KINDS.get(first) if slash else None
        name = rest if kind else text
        if kind == "node":
            return self._node(name)
        key = self._named(name, text)
        if kind != "service" and key in self.cluster.endpoints:
            return _pod_target(self.cluster.endpoints[key])
        if kind != "pod" and key in self._services:
            return self._services[key]
        raise UsageError(self._absent(key, kind or "pod or Service"))

    def _named(self, name: str, text: str) -> PodKey:
        namespace, slash, rest = name.rpartition("/")
        if not rest or "/" in namespace or (slash and not namespace):
            raise UsageError(
                f"{text!r} names no end: write NAMESPACE/NAME, pod/NAME, svc/NAMESPACE/NAME, node/NAME or an address"
            )
        return PodKey(namespace or self.namespace, rest)

    def _node(self, name: str) -> Target:
        node = self.cluster.nodes.get(name)
        if node is None:
            raise UsageError(f"no node {name} {self.where}")
        return Target(f"node/{name}", _by_family(node.addresses))

    def _absent(self, key: PodKey, kind: str) -> str:
        pod = self._pods.get(key)
        if pod is not None and kind != "service":
            if pod.status.phase in ("Succeeded", "Failed"):
                return f"pod {key} is completed ({pod.status.phase}): its address may already be another pod's"
            return f"pod {key} has no address yet: no policy can be judged for it"
        if key.namespace not in self.cluster.namespaces:
            known = ", ".join(sorted(self.cluster.namespaces)) or "none"
            return f"no namespace {key.namespace} {self.where} (there are: {known})"
        return f"no {kind} {key} {self.where}"

    def _port_on(self, target: Target, protocol: Protocol, port: str | None) -> int | None:
        """Return the number of a port given as text, by name if the target is a pod that has such a name."""
        if not protocol.has_ports:
            if port is not None:
                raise UsageError(f"{protocol.value} has no ports: leave --port out")
            return None
        if port is None:
            raise UsageError("which port? add --port (a number, or the name of a port of the pod)")
        if port.isdecimal():
            return _in_range(int(port))
        holder = next((self.cluster.endpoint_at(address) for address in target.addresses.values()), None)
        numbers = sorted(holder.port_numbers(port, protocol)) if holder else []
        if not numbers:
            raise UsageError(f"{target.label} has no {protocol.value} port named {port!r}")
        return numbers[0]

    def _behind(self, service: _Service, protocol: Protocol, port: str | None) -> Resolved:
        """Translate as kube-proxy does: to each ready pod that the Service selects, on its own target port."""
        name = f"Service {_key(service.metadata)}"
        chosen = _service_port(service, name, protocol, port)
        if not service.spec.selector:
            raise UsageError(f"{name} has no selector: name the address that it leads to instead")
        behind = [e for e in self.cluster.endpoints.values() if self._selected(service, e)]
        ready = sorted((e for e in behind if self._is_ready(e)), key=lambda endpoint: endpoint.key)
        targets = tuple(
            replace(_pod_target(endpoint), port=number)
            for endpoint in ready
            for number in _target_ports(chosen, endpoint, protocol)
        )
        if not targets:
            selector = ",".join(f"{key}={value}" for key, value in sorted(service.spec.selector.items()))
            unready = f" ({len(behind)} not ready, or without port {chosen.target})" if behind else ""
            raise UsageError(f"{name} leads nowhere: no ready pod has {selector}{unready}")
        places = ", ".join(f"{target.label} port {target.port}" for target in targets[:4])
        more = f" and {len(targets) - 4} more" if len(targets) > 4 else ""
        note = f"{name} port {chosen.port} leads to {places}{more}: policies are judged there, on pod and target port"
        return Resolved(targets, (note,))

    def _selected(self, service: _Service, endpoint: Endpoint) -> bool:
        wanted = service.spec.selector or {}
        return endpoint.key.namespace == service.metadata.namespace and wanted.items() <= dict(endpoint.labels).items()

    def _is_ready(self, endpoint: Endpoint) -> bool:
        pod = self._pods.get(endpoint.key)
        return pod is None or pod.ready


def _key(meta: _Meta) -> PodKey:
    return PodKey(meta.namespace, meta.name)


def _cluster_addresses(service: _Service) -> set[str]:
    found = {*(service.spec.addresses or ()), service.spec.address or ""}
    return found - {"", "None"}


def _by_family(addresses: Iterable[Address]) -> dict[int, Address]:
    """Return the first address of each family."""
    families: dict[int, Address] = {}
    for address in sorted(addresses, key=lambda a: (a.version, int(a))):
        families.setdefault(address.version, address)
    return families


def _pod_target(endpoint: Endpoint) -> Target:
    return Target(str(endpoint.key), _by_family(endpoint.addresses), pod=endpoint.key)


def _in_range(port: int) -> int:
    if not 0 < port <= LAST_PORT:
        raise UsageError(f"no port {port}: ports go from 1 to {LAST_PORT}")
    return port


def _service_port(service: _Service, name: str, protocol: Protocol, port: str | None) -> _ServicePort:
    offered = [p for p in service.spec.ports or () if p.protocol == protocol.value]
    matching = [p for p in offered if port is None or port in (str(p.port), p.name)]
    if len(matching) == 1 or (matching and port is not None):
        return matching[0]
    listed = ", ".join(f"{p.port}{f' ({p.name})' if p.name else ''}" for p in offered) or "none"
    wanted = "add --port" if port is None else f"it has no {protocol.value} port {port}"
    raise UsageError(f"{name}: {wanted}; its {protocol.value} ports: {listed}")


def _target_ports(chosen: _ServicePort, endpoint: Endpoint, protocol: Protocol) -> list[int]:
    match chosen.target:
        case None:
            return [chosen.port]
        case int() as number:
            return [number or chosen.port]
        case str() as name:
            return sorted(endpoint.port_numbers(name, protocol))[:1]
        case _:
            assert_never(chosen.target)
