# SPDX-License-Identifier: Apache-2.0
"""What a person calls an end of a connection, resolved: pods, workloads, Services, nodes and addresses.

``demo/client`` and ``client`` name a pod, else a Service (of a destination), else a workload; ``pod/…``, ``svc/…``,
``deploy/…``, ``node/…`` and ``outside/ADDRESS`` say which. A Service is translated (``services``), since rules are
judged after that (SEMANTICS 31). Every end that cannot be is refused in a sentence that says why; what would have to
be known is said instead of guessed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ringfence.apis.workloads import WORDS, Owner, twin_of
from ringfence.errors import UsageError
from ringfence.model.addresses import Address, address_order, contains
from ringfence.model.cluster import Cluster, Endpoint, Node, PodKey
from ringfence.model.ports import LAST_PORT, Protocol
from ringfence.semantics.knowledge import EVERYTHING_KNOWN, Knowledge, Unknown, node_of
from ringfence.semantics.services import Backend, Meta, Service, ServicePort, Services

_KINDS = {
    **dict.fromkeys(("pod", "pods", "po"), "pod"),
    **dict.fromkeys(("service", "services", "svc"), "service"),
    **dict.fromkeys(("node", "nodes", "no"), "node"),
    "outside": "outside",
    **WORDS,
}
# Where clusters get the addresses of their pods and nodes from (RFC 1918, RFC 6598, RFC 4193).
_CLUSTERS_USE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
_FORMS = "NAMESPACE/NAME, pod/NAME, svc/NAMESPACE/NAME, deploy/NAME, node/NAME, an address or outside/ADDRESS"


class _Condition(msgspec.Struct, frozen=True):
    type: str
    status: str


class _PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    conditions: list[_Condition] | None = None


class _Pod(msgspec.Struct, frozen=True):
    metadata: Meta
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)

    @property
    def ready(self) -> bool:
        """Tell whether a Service would send to it; a pod from a file, whose readiness nobody reports, is."""
        if self.status.conditions is None:
            return True
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)


@dataclass(frozen=True, slots=True)
class Through:
    """A port of a node that leads to a Service: the packet is translated there, and may get the node's address."""

    node: Node
    port: int
    keeps_source: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection goes to or comes from: addresses of one holder, by family, and the port on it.

    ``pod`` is None for nodes and bare addresses. ``local_only``: only connections from its own node end here.
    ``stranger``: nobody told whose the address is. ``guessed``: which families it has is not known, so it got one of
    each.
    """

    label: str
    addresses: Mapping[int, Address]
    port: int | None = None
    pod: PodKey | None = None
    node: str | None = None
    through: Through | None = None
    local_only: bool = False
    stranger: bool = False
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """An end, resolved: one target, or one for each pod of a workload or Service; ``notes`` tell of translations.

    Without targets, ``unknowns`` say what would have to be known to have any.
    """

    targets: tuple[Target, ...]
    notes: tuple[str, ...] = ()
    unknowns: tuple[Unknown, ...] = ()
    label: str = ""


@dataclass(slots=True)
class Directory:
    """Knows the pods, workloads, Services and nodes of a cluster by what people call them.

    ``namespace`` is meant where none is named; ``where`` completes "no pod demo/client …" in complaints. ``whole``:
    there is nothing in the cluster that was not told of.
    """

    cluster: Cluster
    namespace: str
    where: str
    known: Knowledge = EVERYTHING_KNOWN
    whole: bool = True
    services: Services = field(init=False)
    _pods: dict[PodKey, _Pod] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = Services(self.cluster)

    def add(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Take note of Services and Pods among API objects; others, and unreadable ones, are passed over."""
        for obj in objects:
            try:
                if (obj.get("apiVersion"), obj.get("kind")) == ("v1", "Pod"):
                    pod = msgspec.convert(obj, _Pod)
                    self._pods[pod.metadata.key] = pod
                    if not pod.ready:
                        self.services.unready.add(pod.metadata.key)
                    if pod.metadata.deleted is not None:
                        self.services.ending.add(pod.metadata.key)
                else:
                    self.services.add(obj)
            except msgspec.ValidationError:
                continue

    def source(self, text: str) -> Resolved:
        """Resolve where a connection comes from."""
        found = self._find(text, services=False)
        if isinstance(found, Service):
            raise UsageError(f"{text} is a Service: connections come from pods, nodes and addresses")
        return Resolved(tuple(found), self._leaving(found), label=text)

    def destination(self, text: str, protocol: Protocol, port: str | None) -> Resolved:
        """Resolve where a connection goes to; ``port`` is a number or a name, of the Service where one is named."""
        found = self._find(text, services=True)
        service = found if isinstance(found, Service) else self._service_at(found)
        if service is not None:
            outer = not isinstance(found, Service) and text in service.outer_addresses
            return self._behind(service, protocol, port, outer=outer)
        assert not isinstance(found, Service)  # nothing but a Service has been found to be one
        (first, *_) = found
        by_node = self.services.at_node_port(protocol, port) if first.pod is None and first.node else None
        if by_node is not None:
            return self._through_node(self.cluster.nodes[str(first.node)], *by_node, protocol)
        numbered = [replace(each, port=number) for each in found for number in self._ports_on(each, protocol, port)]
        return Resolved(tuple(numbered), self._leaving(found), label=text)

    def _find(self, text: str, *, services: bool) -> list[Target] | Service:
        address = _address(text)
        if address is not None:
            return [self._at(text, address)]
        first, slash, rest = text.partition("/")
        kind = _KINDS.get(first) if slash else None
        name = rest if kind else text
        if kind == "node":
            return [self._node(name)]
        if kind == "outside":
            outside = _address(name)
            if outside is None:
                raise UsageError(f"{name!r} is no address")
            told = self._at(name, outside)
            if told.node is not None or told.pod is not None:
                raise UsageError(f"{name} is not outside: it is {told.pod or f'node {told.node}'}'s")
            return [replace(told, stranger=False)]
        key = self._named(name, text)
        if kind in (None, "pod") and key in self.cluster.endpoints:
            return [self._pod_target(self.cluster.endpoints[key])]
        if key in self.services.by_key and (kind == "service" or (kind is None and services)):
            return self.services.by_key[key]
        found = self._workload(key, kind) if kind is None or kind in WORDS.values() else []
        if found:
            return found
        if kind is None and key in self.services.by_key:
            return self.services.by_key[key]
        raise UsageError(self._absent(key, kind or "pod or Service"))

    def _at(self, text: str, address: Address) -> Target:
        holder, node = self.cluster.endpoint_at(address), self.cluster.node_at(address)
        if address in self.known.stand_ins:
            raise UsageError(f"{address} stands for {self.known.stand_ins[address]} here: name the pod")
        return Target(
            text,
            {address.version: address},
            pod=holder.key if holder else None,
            node=holder.node if holder else node.name if node else None,
            stranger=holder is None and node is None and self._may_be_anybodys(address),
        )

    def _may_be_anybodys(self, address: Address) -> bool:
        """Tell whether an address that nobody is known to hold may be a pod's or a node's all the same."""
        if self.whole:
            return False
        nodes = self.cluster.nodes.values()
        networks = [net for node in nodes for net in node.pod_networks if net.version == address.version]
        if any(contains(network, address) for network in networks):
            return True
        open_ = any(not node.addresses for node in nodes) if networks else bool(self.known.stand_ins)
        return open_ and any(contains(network, address) for network in _CLUSTERS_USE)

    def _named(self, name: str, text: str) -> PodKey:
        namespace, slash, rest = name.rpartition("/")
        if not rest or "/" in namespace or (slash and not namespace):
            raise UsageError(f"{text!r} names no end: write {_FORMS}")
        return PodKey(namespace or self.namespace, rest)

    def _node(self, name: str) -> Target:
        node = self.cluster.nodes.get(name)
        if node is None:
            raise UsageError(f"no node {name} {self.where}")
        return Target(f"node/{name}", _by_family(node.addresses), node=name)

    def _workload(self, key: PodKey, kind: str | None) -> list[Target]:
        wanted = [kind] if kind else dict.fromkeys(WORDS.values())
        for each in wanted:
            owner = Owner(each, key.namespace, key.name)
            members = sorted(pod for pod, its in self.known.owners.items() if its == owner)
            running = [self.cluster.endpoints[pod] for pod in members if pod in self.cluster.endpoints]
            if running:
                return [self._pod_target(endpoint) for endpoint in running]
        return []

    def _absent(self, key: PodKey, kind: str) -> str:
        pod = self._pods.get(key)
        if pod is not None and kind in ("pod", "pod or Service"):
            return f"pod {key} is completed ({pod.status.phase}): its address may already be another pod's"
        if key.namespace not in self.cluster.namespaces:
            known = ", ".join(sorted(self.cluster.namespaces)) or "none"
            return f"no namespace {key.namespace} {self.where} (there are: {known})"
        if kind in WORDS.values():
            return f"no pod of {kind} {key} {self.where}"
        return f"no {kind} {key} {self.where}"

    def _pod_target(self, endpoint: Endpoint) -> Target:
        families = _by_family(endpoint.addresses)
        guessed = False
        if not endpoint.addresses.isdisjoint(self.known.stand_ins):
            node = self.cluster.nodes.get(endpoint.node)
            if endpoint.host_network and node is not None and node.addresses:
                families = _by_family(node.addresses)
            else:
                guessed = not self.known.families
                families = {v: a for v, a in families.items() if guessed or v in self.known.families}
        return Target(str(endpoint.key), families, pod=endpoint.key, node=endpoint.node or None, guessed=guessed)

    def _ports_on(self, target: Target, protocol: Protocol, port: str | None) -> list[int | None]:
        """Return the number of a port given as text; by name, what it is on that pod."""
        if not protocol.has_ports:
            if port is not None:
                raise UsageError(f"{protocol.value} has no ports: leave --port out")
            return [None]
        if port is None:
            raise UsageError("which port? add --port (a number, or the name of a port of the pod)")
        if port.isdecimal():
            return [_in_range(int(port))]
        holder = self.cluster.endpoints.get(target.pod) if target.pod else None
        numbers = sorted(holder.port_numbers(port, protocol)) if holder else []
        if not numbers:
            raise UsageError(f"{target.label} has no {protocol.value} port named {port!r}")
        return [*numbers]

    def _service_at(self, found: list[Target]) -> Service | None:
        return self.services.at(str(address) for each in found for address in each.addresses.values())

    def _behind(self, service: Service, protocol: Protocol, port: str | None, *, outer: bool) -> Resolved:
        chosen = service.port_named(protocol, port)
        backends = self.services.behind(service, chosen, protocol)
        targets = tuple(self._backend_target(backend) for backend in backends)
        label = f"svc/{service.metadata.key}"
        if not targets:
            return Resolved((), (), (self.services.missing(service, chosen, self.where),), label)
        there = f"{service} port {chosen.port} leads to {_places(targets)}"
        notes = [f"{there}: policies are judged there, on pod and target port"]
        if service.headless:
            notes = [f"{service} is headless: its name leads to {_places(targets)}, and no port is translated"]
        if service.spec.internal_policy == "Local" and not outer:
            targets = tuple(replace(each, local_only=True) for each in targets)
            notes.append(f"{service} has internalTrafficPolicy: Local: only its pods on the client's own node count")
        if outer and not service.keeps_source:
            notes.append(
                f"through a node, as clients outside reach {service}, pods on other nodes see that node's address: "
                "ask for that with --from node/NAME"
            )
        return Resolved(targets, (*notes, *self._leaving(targets)), (), label)

    def _through_node(self, node: Node, service: Service, chosen: ServicePort, protocol: Protocol) -> Resolved:
        """Translate a node port: on the node that is asked, to any pod, or with ``Local`` to its own."""
        through = Through(node, chosen.node_port or 0, service.keeps_source)
        backends = self.services.behind(service, chosen, protocol)
        targets = [replace(self._backend_target(backend), through=through) for backend in backends]
        label = f"node/{node.name}"
        if service.keeps_source:
            unplaced = next((target for target in targets if target.node is None), None)
            if unplaced is not None:
                return Resolved((), (), (node_of(unplaced.label, f"{node.name} sends to its own pods only"),), label)
            targets = [target for target in targets if target.node == node.name]
        targets = [replace(each, addresses=_shared(each, node)) for each in targets if _shared(each, node)]
        if not targets:
            return Resolved((), (), (self.services.missing(service, chosen, self.where),), label)
        policy = (
            "Local: to its own pods, and the source stays" if service.keeps_source else "Cluster: to pods of any node"
        )
        note = (
            f"port {chosen.node_port} of node {node.name} is {service}'s, with externalTrafficPolicy: {policy}; "
            f"it leads to {_places(targets)}"
        )
        changed = [] if service.keeps_source else ["pods on other nodes see this node's address as the source"]
        return Resolved(tuple(targets), (note, *changed, *self._leaving(targets)), (), label)

    def _backend_target(self, backend: Backend) -> Target:
        match backend.holder:
            case Endpoint():
                return replace(self._pod_target(backend.holder), port=backend.port)
            case text:
                return replace(self._at(text, ipaddress.ip_address(text)), port=backend.port)

    def _leaving(self, targets: Iterable[Target]) -> tuple[str, ...]:
        """Say which pods are being deleted: policies keep applying to them (SEMANTICS 27)."""
        going = [each.label for each in targets if each.pod in self._pods and self._pods[each.pod].metadata.deleted]
        return tuple(f"{label} is being deleted: until it is gone, it keeps its policies" for label in going)


def first_only(targets: tuple[Target, ...], *, opposite: tuple[Target, ...] = ()) -> tuple[Target, ...]:
    """Return targets without the second pods of workloads from files: those matter to their own workload only."""
    near = {each.pod for each in opposite}
    return tuple(each for each in targets if each.pod is None or twin_of(each.pod) is None or twin_of(each.pod) in near)


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _by_family(addresses: Iterable[Address]) -> dict[int, Address]:
    """Return the first address of each family."""
    families: dict[int, Address] = {}
    for address in sorted(addresses, key=address_order):
        families.setdefault(address.version, address)
    return families


def _shared(target: Target, node: Node) -> dict[int, Address]:
    """Return the addresses of a target in the families that a node has: its ports are no others'."""
    families = {address.version for address in node.addresses}
    return {version: address for version, address in target.addresses.items() if version in families}


def _places(targets: Iterable[Target]) -> str:
    named = [f"{target.label} port {target.port}" for target in targets if not (target.pod and twin_of(target.pod))]
    more = f" and {len(named) - 4} more" if len(named) > 4 else ""
    return ", ".join(named[:4]) + more


def _in_range(port: int) -> int:
    if not 0 < port <= LAST_PORT:
        raise UsageError(f"no port {port}: ports go from 1 to {LAST_PORT}")
    return port
