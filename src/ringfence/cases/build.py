# SPDX-License-Identifier: Apache-2.0
"""A case made into a script: API objects with identities and addresses, probes between addresses, and what to expect.

Everything is deterministic: the n-th pod of a case has the same uid, address and creation time at every run. What a
manifest under ``apply`` means is not looked at here: engines get it as written.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.cases import objects
from ringfence.cases.addressing import Addressing
from ringfence.cases.format import Case, NodeSpec, PodSpec, Source, StepSpec, decode
from ringfence.cases.script import (
    Event,
    EventType,
    ObjectKey,
    Probe,
    Script,
    ScriptStep,
    Spot,
    complaint_about,
    object_key,
)
from ringfence.cases.tables import BadExpectation, Cell, cells
from ringfence.errors import InvalidObject

_CLUSTER_KINDS = ("Namespace", "Node", "Pod")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A case ready to run: ``expected[step][probe]`` answers ``script.steps[step].probes[probe]``."""

    shows: str
    script: Script
    says: tuple[str, ...]
    expected: tuple[tuple[bool, ...], ...]


def load(path: Path) -> Loaded:
    """Read a case file; raises ``InvalidObject`` naming file, line, column and field of the first mistake."""
    source = Source(path.read_text(encoding="utf-8"), file=str(path))
    return build(decode(source), source, name=path.stem)


def build(case: Case, source: Source, *, name: str) -> Loaded:
    """Resolve a case. ``source`` is asked where a field stands, for complaints."""
    world = _World(source)
    first = [
        *world.nodes(case.cluster.nodes, "cluster.nodes"),
        *world.namespaces(case.cluster.namespaces),
        *world.pods(case.cluster.pods, "cluster.pods"),
    ]
    steps: list[ScriptStep] = []
    expected: list[tuple[bool, ...]] = []
    for index, step in enumerate(case.steps):
        path = f"steps[{index}]"
        events = [*first, *world.step(step, path)]
        first = []
        asked = list(world.probes(step, path))
        steps.append(ScriptStep(tuple(events), tuple(probe for probe, _ in asked)))
        expected.append(tuple(allowed for _, allowed in asked))
    return Loaded(case.shows, Script(name, tuple(steps)), tuple(step.say for step in case.steps), tuple(expected))


class _World:
    """The objects that exist so far, while a case is walked through."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._addressing = Addressing()
        self._objects: dict[ObjectKey, Mapping[str, Any]] = {}
        self._serial = 0
        self._next_node = 0

    def _error(self, path: str, message: str) -> InvalidObject:
        return self._source.error(path, message)

    def step(self, step: StepSpec, path: str) -> Iterator[Event]:
        """Carry out a step's changes, in the order of its fields."""
        yield from self.nodes(step.nodes, f"{path}.nodes")
        yield from self.namespaces(step.namespaces)
        yield from self.pods(step.pods, f"{path}.pods")
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
            namespace, slash, pod = name.partition("/")
            if not slash or not namespace or not pod:
                raise self._error(here, "a pod is named namespace/name")
            old = self._objects.get(("Pod", namespace, pod))
            node = self._place(spec, old, here)
            addresses = self._pod_addresses(spec, old, node, here)
            self._parse_addresses(addresses, f"{here}.addresses")
            if old is None:
                self._serial += 1
            identity = objects.identity(namespace, pod, self._serial) if old is None else objects.identity_of(old)
            yield self._put(objects.pod(namespace, pod, spec, node=node, addresses=addresses, identity=identity))

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
        if complaint is not None:
            raise self._error(path, complaint)
        if manifest["kind"] in _CLUSTER_KINDS:
            raise self._error(f"{path}.kind", "namespaces, nodes and pods go under the fields of that name")
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

    def probes(self, step: StepSpec, path: str) -> Iterator[tuple[Probe, bool]]:
        """Return a step's probes and whether each must be allowed, in every family that both ends have."""
        for index, expectation in enumerate(step.expect):
            here = f"{path}.expect[{index}]"
            try:
                for cell in cells(expectation):
                    yield from self._cell_probes(cell)
            except BadExpectation as error:
                raise self._error(f"{here}.{error.field}".rstrip("."), str(error)) from None

    def _cell_probes(self, cell: Cell) -> Iterator[tuple[Probe, bool]]:
        sources, destinations = self._end(cell.source), self._end(cell.destination)
        families = sorted(sources.keys() & destinations.keys() & ({cell.family} if cell.family else {4, 6}))
        if not families:
            raise BadExpectation("", f"{cell.source} and {cell.destination} share no address family")
        for version in families:
            traffic = cell.traffic.in_family(version)
            yield Probe(sources[version], destinations[version], traffic.protocol, traffic.port), cell.allowed

    def _end(self, name: str) -> dict[int, Spot]:
        """Return an end's address in each family that it has."""
        prefix, slash, rest = name.partition("/")
        if not slash:
            try:
                return {ipaddress.ip_address(name).version: Spot(ipaddress.ip_address(name))}
            except ValueError:
                raise BadExpectation("", f"{name!r} is no namespace/pod, node/NAME or address") from None
        is_node = prefix == "node"
        obj = self._objects.get(("Node", "", rest) if is_node else ("Pod", prefix, rest))
        if obj is None:
            raise BadExpectation("", f"no such {'node' if is_node else 'pod'}: {rest if is_node else name}")
        status = obj["status"]
        found = [a["address"] for a in status["addresses"]] if is_node else [a["ip"] for a in status.get("podIPs", ())]
        spots: dict[int, Spot] = {}
        for address in map(ipaddress.ip_address, found):
            spots.setdefault(address.version, Spot(address, None if is_node else name))
        return spots
