# SPDX-License-Identifier: Apache-2.0
"""The objects of a case that exist so far, while its steps are walked through: named, placed and given addresses.

Everything is deterministic: the n-th pod of a case has the same uid, address and creation time at every run. What a
manifest under ``apply`` means is not looked at here: engines get it as written.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ringfence.cases import objects
from ringfence.cases.addressing import Addressing
from ringfence.cases.format import NodeSpec, PodSpec, ServiceSpec, Source, StepSpec
from ringfence.cases.script import Event, EventType, ObjectKey, complaint_about, object_key
from ringfence.errors import InvalidObject
from ringfence.model.ports import LAST_PORT

_CLUSTER_KINDS = ("Namespace", "Node", "Pod", "Service")


class World:
    """The objects that exist so far. Raises ``InvalidObject`` for mistakes, with the place where they stand."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._addressing = Addressing()
        self._objects: dict[ObjectKey, Mapping[str, Any]] = {}
        self._serial = 0
        self._next_node = 0

    def get(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return an object, or None."""
        return self._objects.get((kind, namespace, name))

    def all(self) -> list[Mapping[str, Any]]:
        """Return all objects in the order of their first appearance."""
        return list(self._objects.values())

    def _error(self, path: str, message: str) -> InvalidObject:
        return self._source.error(path, message)

    def step(self, step: StepSpec, path: str) -> Iterator[Event]:
        """Carry out a step's changes, in the order of its fields."""
        yield from self.nodes(step.nodes, f"{path}.nodes")
        yield from self.namespaces(step.namespaces)
        yield from self.pods(step.pods, f"{path}.pods")
        yield from self.services(step.services, f"{path}.services")
        for name, labels in step.label.items():
            yield self._label(name, labels, f"{path}.label.{name}")
        for index, manifest in enumerate(step.apply):
            yield self._apply(manifest, f"{path}.apply[{index}]")
        for index, reference in enumerate(step.delete):
            yield from self._delete(reference, f"{path}.delete[{index}]")

    def _put(self, obj: Mapping[str, Any]) -> Event:
        self._objects[object_key(obj)] = obj
        return Event(EventType.APPLY, obj)

    def nodes(self, nodes: Mapping[str, NodeSpec], path: str) -> Iterator[Event]:
        """Add or replace nodes."""
        for name, spec in nodes.items():
            try:
                # Asked for even where the case gives addresses: the node's pods get theirs from the same block.
                assigned = self._addressing.node(name)
            except ValueError as error:
                raise self._error(f"{path}.{name}", str(error)) from None
            addresses = assigned if spec.addresses is None else spec.addresses
            self._parse_addresses(addresses, f"{path}.{name}.addresses")
            yield self._put(objects.node(name, spec, addresses))

    def namespaces(self, namespaces: Mapping[str, Mapping[str, str]]) -> Iterator[Event]:
        """Add or replace namespaces, with the label that the API server gives to each."""
        for name, labels in namespaces.items():
            yield self._put(objects.namespace(name, labels))

    def pods(self, pods: Mapping[str, PodSpec], path: str) -> Iterator[Event]:
        """Add or replace pods."""
        for name, spec in pods.items():
            here = f"{path}.{name}"
            namespace, pod = self._names(name, here, "pod")
            old = self._objects.get(("Pod", namespace, pod))
            node = self._place(spec, old, here)
            addresses = self._pod_addresses(spec, old, node, here)
            self._parse_addresses(addresses, f"{here}.addresses")
            if old is None:
                self._serial += 1
            identity = objects.identity(namespace, pod, self._serial) if old is None else objects.identity_of(old)
            yield self._put(objects.pod(namespace, pod, spec, node=node, addresses=addresses, identity=identity))

    def services(self, services: Mapping[str, ServiceSpec], path: str) -> Iterator[Event]:
        """Add or replace Services."""
        for name, spec in services.items():
            here = f"{path}.{name}"
            namespace, service = self._names(name, here, "Service")
            old = self._objects.get(("Service", namespace, service))
            if spec.clusterIPs is not None:
                addresses = spec.clusterIPs
            elif old is not None:
                addresses = tuple(old["spec"]["clusterIPs"])
            else:
                addresses = self._addressing.next_service()
            self._parse_addresses(addresses, f"{here}.clusterIPs")
            complaint = complaint_about_service(spec, addresses)
            if complaint is not None:
                raise self._error(f"{here}.{complaint[0]}", complaint[1])
            canonical = [str(ipaddress.ip_address(address)) for address in addresses]
            made = objects.service(namespace, service, spec, canonical)
            taken = self._taken(made)
            if taken is not None:
                raise self._error(here, taken)
            yield self._put(made)

    def _taken(self, made: Mapping[str, Any]) -> str | None:
        """Return what of a Service another Service has already, None if nothing."""
        for key, other in self._objects.items():
            if key[0] != "Service" or key == object_key(made):
                continue
            both = _claims(other) & _claims(made)
            if both:
                return f"{min(both)} is Service {key[1]}/{key[2]}'s already"
        return None

    def _names(self, name: str, here: str, what: str) -> tuple[str, str]:
        namespace, slash, rest = name.partition("/")
        if not slash or not namespace or not rest:
            raise self._error(here, f"a {what} is named namespace/name")
        return namespace, rest

    def _place(self, spec: PodSpec, old: Mapping[str, Any] | None, here: str) -> str:
        nodes = [key[2] for key in self._objects if key[0] == "Node"]
        if spec.node is not None:
            if spec.node not in nodes:
                raise self._error(f"{here}.node", f"no such node: {spec.node}")
            return spec.node
        if old is not None:
            return str(old["spec"]["nodeName"])
        if not nodes:
            raise self._error(here, "the cluster has no node to run it")
        self._next_node += 1
        return nodes[(self._next_node - 1) % len(nodes)]

    def _pod_addresses(self, spec: PodSpec, old: Mapping[str, Any] | None, node: str, here: str) -> tuple[str, ...]:
        if spec.addresses is not None:
            return spec.addresses
        if spec.hostNetwork:
            return tuple(a["address"] for a in self._objects["Node", "", node]["status"]["addresses"])
        if old is not None:
            return tuple(entry["ip"] for entry in old["status"].get("podIPs", ()))
        try:
            return self._addressing.next_pod(node)
        except ValueError as error:
            raise self._error(here, str(error)) from None

    def _parse_addresses(self, addresses: Iterable[str], path: str) -> None:
        for index, address in enumerate(addresses):
            try:
                ipaddress.ip_address(address)
            except ValueError as error:
                raise self._error(f"{path}[{index}]", str(error)) from None

    def _label(self, name: str, labels: Mapping[str, str | None], path: str) -> Event:
        namespace, slash, pod = name.partition("/")
        key = ("Pod", namespace, pod) if slash else ("Namespace", "", name)
        obj = self._objects.get(key)
        if obj is None:
            raise self._error(path, f"no such {key[0].lower()}: {name}")
        merged = {**obj["metadata"]["labels"], **labels}
        kept = {label: value for label, value in merged.items() if value is not None}
        return self._put({**obj, "metadata": {**obj["metadata"], "labels": kept}})

    def _apply(self, manifest: Mapping[str, Any], path: str) -> Event:
        complaint = complaint_about(manifest)
        if manifest.get("kind") in _CLUSTER_KINDS:
            raise self._error(f"{path}.kind", "namespaces, nodes, pods and services go under the fields of that name")
        if complaint is not None:
            raise self._error(path, complaint)
        return self._put(manifest)

    def _delete(self, reference: str, path: str) -> Iterator[Event]:
        kind, _, name = reference.partition(" ")
        namespace, _, rest = name.rpartition("/")
        key = (kind, namespace, rest)
        if key not in self._objects:
            raise self._error(path, f"no such object: {reference} (write Kind namespace/name)")
        # A namespace goes with all that is in it, and last.
        inside = [other for other in self._objects if kind == "Namespace" and other[1] == name]
        for gone in (*inside, key):
            yield Event(EventType.DELETE, self._objects.pop(gone))


def complaint_about_service(spec: ServiceSpec, addresses: Sequence[str]) -> tuple[str, str] | None:
    """Return the field of a Service that is wrong, and how; None if nothing is."""
    families = [ipaddress.ip_address(address).version for address in addresses]
    if not families or len(set(families)) != len(families):
        return "clusterIPs", "a Service has one address, or one of each family"
    if not spec.selector:
        return "selector", "a Service of a case selects its pods"
    numbers = [(port.protocol, port.port) for port in spec.ports]
    if not numbers or len(set(numbers)) != len(numbers):
        return "ports", "a Service has ports, each number once for a protocol"
    if len(spec.ports) > 1 and len({port.name for port in spec.ports} - {None}) < len(spec.ports):
        return "ports", "several ports of a Service have a name each"
    given = [number for port in spec.ports for number in (port.port, port.targetPort, port.nodePort)]
    wrong = [number for number in given if isinstance(number, int) and not 0 < number <= LAST_PORT]
    if wrong:
        return "ports", f"no port: {wrong[0]}"
    if any((port.nodePort is not None) != (spec.type == "NodePort") for port in spec.ports):
        return "ports", "ports of type NodePort have a nodePort, those of other Services have none"
    return None


def _claims(service: Mapping[str, Any]) -> set[str]:
    """Return what only one Service can have: its addresses, and its node ports."""
    ports = service["spec"]["ports"]
    on_nodes = {f"nodePort {port['protocol']}/{port['nodePort']}" for port in ports if "nodePort" in port}
    return {f"clusterIP {address}" for address in service["spec"]["clusterIPs"]} | on_nodes
