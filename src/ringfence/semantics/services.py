# SPDX-License-Identifier: Apache-2.0
"""Services, translated as kube-proxy does: to the pods behind them, on their own target ports (SEMANTICS 31).

Says where a connection to a Service goes, by name, by its own address or by a node's port; or what would have to be
known to say so. Whose rules then decide is not its business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import msgspec

from ringfence.errors import UsageError
from ringfence.model.cluster import Cluster, Endpoint, PodKey
from ringfence.model.ports import Protocol
from ringfence.semantics.knowledge import Gap, Unknown

_LOCAL = "Local"


class ServicePort(msgspec.Struct, frozen=True):
    """A port that a Service offers."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    target: int | str | None = msgspec.field(default=None, name="targetPort")
    node_port: int | None = msgspec.field(default=None, name="nodePort")


class _ServiceSpec(msgspec.Struct, frozen=True):
    type: str = "ClusterIP"
    selector: dict[str, str] | None = None
    ports: list[ServicePort] | None = None
    addresses: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    address: str | None = msgspec.field(default=None, name="clusterIP")
    external: list[str] | None = msgspec.field(default=None, name="externalIPs")
    external_name: str | None = msgspec.field(default=None, name="externalName")
    external_policy: str | None = msgspec.field(default=None, name="externalTrafficPolicy")
    internal_policy: str | None = msgspec.field(default=None, name="internalTrafficPolicy")


class Meta(msgspec.Struct, frozen=True):
    """Whose object it is; a time of deletion says that it is going."""

    name: str
    namespace: str = "default"
    labels: dict[str, str] | None = None
    deleted: str | None = msgspec.field(default=None, name="deletionTimestamp")

    @property
    def key(self) -> PodKey:
        """Namespace and name."""
        return PodKey(self.namespace, self.name)


class _Ingress(msgspec.Struct, frozen=True):
    ip: str | None = None


class _Balancer(msgspec.Struct, frozen=True):
    ingress: list[_Ingress] | None = None


class _ServiceStatus(msgspec.Struct, frozen=True):
    balancer: _Balancer | None = msgspec.field(default=None, name="loadBalancer")


class Service(msgspec.Struct, frozen=True):
    """A Service, as far as it says where connections go."""

    metadata: Meta
    spec: _ServiceSpec = msgspec.field(default_factory=_ServiceSpec)
    status: _ServiceStatus = msgspec.field(default_factory=_ServiceStatus)

    def __str__(self) -> str:
        return f"Service {self.metadata.key}"

    @property
    def headless(self) -> bool:
        """Tell whether its name leads to the pods themselves, ports untranslated."""
        return self.spec.address == "None"

    @property
    def keeps_source(self) -> bool:
        """Tell whether a node port leaves the client's address as it is, and leads to pods of that node only."""
        return self.spec.external_policy == _LOCAL

    @property
    def own_addresses(self) -> frozenset[str]:
        """Return the addresses that lead to it: its own, and those that are given to it from outside."""
        found = {*(self.spec.addresses or ()), self.spec.address or "", *self.outer_addresses}
        return frozenset(found - {"", "None"})

    @property
    def outer_addresses(self) -> frozenset[str]:
        """Return the addresses at which the world outside reaches it: of a load balancer, or external ones."""
        balanced = (self.status.balancer and self.status.balancer.ingress) or ()
        return frozenset({*(self.spec.external or ()), *(entry.ip or "" for entry in balanced)} - {""})

    def port_named(self, protocol: Protocol, port: str | None) -> ServicePort:
        """Return the port that a number or a name means; the only one where neither is given."""
        offered = [each for each in self.spec.ports or () if each.protocol == protocol.value]
        matching = [each for each in offered if port is None or port in (str(each.port), each.name)]
        if len(matching) == 1 or (matching and port is not None):
            return matching[0]
        listed = ", ".join(f"{p.port}{f' ({p.name})' if p.name else ''}" for p in offered) or "none"
        wanted = "add --port" if port is None else f"it has no {protocol.value} port {port}"
        raise UsageError(f"{self}: {wanted}; its {protocol.value} ports: {listed}")


class _Conditions(msgspec.Struct, frozen=True):
    ready: bool | None = None


class _SliceEndpoint(msgspec.Struct, frozen=True):
    addresses: list[str] = []
    conditions: _Conditions = msgspec.field(default_factory=_Conditions)


class _SlicePort(msgspec.Struct, frozen=True):
    port: int | None = None
    name: str | None = None
    protocol: str = "TCP"


class _Slice(msgspec.Struct, frozen=True):
    metadata: Meta
    endpoints: list[_SliceEndpoint] | None = None
    ports: list[_SlicePort] | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a connection to a Service may end: a pod, or an address that an EndpointSlice gives."""

    holder: Endpoint | str
    port: int


@dataclass(slots=True)
class Services:
    """The Services of a cluster, and the EndpointSlices of those that select no pods."""

    cluster: Cluster
    unready: set[PodKey] = field(default_factory=set)
    ending: set[PodKey] = field(default_factory=set)
    by_key: dict[PodKey, Service] = field(default_factory=dict)
    _slices: dict[PodKey, list[_Slice]] = field(default_factory=lambda: defaultdict(list))
    _pods: dict[str, list[Endpoint]] = field(init=False)

    def __post_init__(self) -> None:
        self._pods = defaultdict(list)
        for endpoint in self.cluster.endpoints.values():
            self._pods[endpoint.key.namespace].append(endpoint)

    def add(self, obj: Mapping[str, Any]) -> None:
        """Take note of a Service or an EndpointSlice; raises ``msgspec.ValidationError``."""
        match obj.get("apiVersion"), obj.get("kind"):
            case "v1", "Service":
                service = msgspec.convert(obj, Service)
                self.by_key[service.metadata.key] = service
            case "discovery.k8s.io/v1", "EndpointSlice":
                piece = msgspec.convert(obj, _Slice)
                name = (piece.metadata.labels or {}).get("kubernetes.io/service-name", "")
                self._slices[PodKey(piece.metadata.namespace, name)].append(piece)
            case _:
                pass

    def at(self, addresses: Iterable[str]) -> Service | None:
        """Return the Service that one of these addresses leads to."""
        wanted = frozenset(addresses)
        return next((service for service in self.by_key.values() if wanted & service.own_addresses), None)

    def at_node_port(self, protocol: Protocol, port: str | None) -> tuple[Service, ServicePort] | None:
        """Return the Service that a port of every node leads to."""
        for service in self.by_key.values():
            for each in service.spec.ports or ():
                if each.protocol == protocol.value and each.node_port and port == str(each.node_port):
                    return service, each
        return None

    def behind(self, service: Service, chosen: ServicePort, protocol: Protocol) -> list[Backend]:
        """Return where a port of a Service leads to, sorted; empty where nobody is ready."""
        if service.spec.selector:
            selected = sorted(self.selected(service), key=lambda endpoint: endpoint.key)
            serving = [endpoint for endpoint in selected if endpoint.key not in self.unready]
            staying = [endpoint for endpoint in serving if endpoint.key not in self.ending]
            # While there is no other, pods that end but still serve are sent to, as kube-proxy does.
            numbers = ((e, _target_port(chosen, e, protocol, headless=service.headless)) for e in staying or serving)
            return [Backend(endpoint, number) for endpoint, number in numbers if number is not None]
        return sorted(set(self._sliced(service, chosen)), key=lambda backend: (str(backend.holder), backend.port))

    def selected(self, service: Service) -> Iterator[Endpoint]:
        """Yield the pods that a Service selects, ready or not."""
        wanted = (service.spec.selector or {}).items()
        for endpoint in self._pods.get(service.metadata.namespace, ()):
            if wanted <= dict(endpoint.labels).items():
                yield endpoint

    def missing(self, service: Service, chosen: ServicePort, where: str) -> Unknown:
        """Say why nobody is known to be behind a Service, and what would have to be."""
        fact = f"the pods behind {service}"
        if service.spec.type == "ExternalName":
            name = service.spec.external_name
            return Unknown(
                Gap.BACKENDS, f"what {service} leads to: it is an alias of {name}", f"ask for {name}'s address"
            )
        if not service.spec.selector:
            remedy = "name the address that it leads to, or give its EndpointSlices"
            return Unknown(Gap.BACKENDS, f"{fact}: it has no selector, and no endpoints {where}", remedy)
        selector = ",".join(f"{key}={value}" for key, value in sorted(service.spec.selector.items()))
        few = len(list(self.selected(service)))
        fact = f"{fact}: no ready pod {where} has {selector}"
        if few:
            return Unknown(
                Gap.BACKENDS, f"{fact} ({few} not ready, or without port {chosen.target})", "name a pod instead"
            )
        return Unknown(Gap.BACKENDS, fact, "give the pods, or name the address that answers")

    def _sliced(self, service: Service, chosen: ServicePort) -> Iterator[Backend]:
        for piece in self._slices.get(service.metadata.key, ()):
            for port in piece.ports or ():
                if (port.name or "", port.protocol) != (chosen.name, chosen.protocol) or port.port is None:
                    continue
                for endpoint in piece.endpoints or ():
                    if endpoint.conditions.ready is not False:  # unknown counts as ready
                        yield from (Backend(address, port.port) for address in endpoint.addresses[:1])


def _target_port(chosen: ServicePort, endpoint: Endpoint, protocol: Protocol, *, headless: bool) -> int | None:
    if headless:
        # Its name resolves to the pods' own addresses: nobody translates the port.
        return chosen.port
    match chosen.target:
        case None:
            return chosen.port
        case int() as number:
            return number or chosen.port
        case str() as name:
            return next((p.number for p in endpoint.ports if p.name == name and p.protocol is protocol), None)
        case _:
            assert_never(chosen.target)
