# SPDX-License-Identifier: Apache-2.0
"""What Services make of a probe: which pods and ports it is sent on to, and what source address policy sees there.

As kube-proxy does it on every node (SEMANTICS 31, 32): the client's own node translates ClusterIPs, the node that is
asked translates its node ports. With ``externalTrafficPolicy: Cluster`` that node puts its own address in, which the
pod's policy sees if the pod is on another node; on the same node policy stands before that and sees the client. This
is the reading of the engines without packets; with packets a node's real Service rules are asked.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.cases.script import Way
from ringfence.model.addresses import Address
from ringfence.model.flow import Flow

Object = Mapping[str, Any]


class Untranslatable(ValueError):
    """A connection through a Service that cannot be asked for; the message says why."""


@dataclass(frozen=True, slots=True)
class _Backend:
    address: Address
    port: int
    node: str


@dataclass(frozen=True, slots=True)
class _Target:
    """A Service's port that an address and a port number stand for; ``entry`` is the node of a node port."""

    service: Object
    port: Object
    entry: str | None

    def __str__(self) -> str:
        meta = self.service["metadata"]
        return f"service/{meta['namespace']}/{meta['name']}"


class Translation:
    """The Services, pods and nodes of one moment."""

    def __init__(self, objects: Iterable[Object]) -> None:
        by_kind: dict[str, list[Object]] = {"Service": [], "Pod": [], "Node": []}
        for obj in objects:
            by_kind.get(obj["kind"], []).append(obj)
        self._services, self._pods = by_kind["Service"], by_kind["Pod"]
        self._nodes: dict[str, tuple[Address, ...]] = {
            node["metadata"]["name"]: tuple(ipaddress.ip_address(a["address"]) for a in node["status"]["addresses"])
            for node in by_kind["Node"]
        }

    def ways(self, flow: Flow) -> tuple[Way, ...] | None:
        """Return the ways that a connection may take, none if it leads nowhere; None if no Service is asked for.

        Raises ``Untranslatable`` for what no client can do, and for a Service without a ready pod.
        """
        target = self._target(flow)
        if target is None:
            return None
        client = self._node_of(flow.source)
        entry = target.entry if target.entry is not None else client
        if entry is None:
            raise Untranslatable(f"{target}: only pods and nodes reach a ClusterIP, not {flow.source}")
        backends = list(self._backends(target, flow))
        if not backends:
            raise Untranslatable(f"{target} leads nowhere: no ready pod of this family with its port is selected")
        masquerades = target.entry is not None
        if masquerades and target.service["spec"].get("externalTrafficPolicy") == "Local":
            masquerades, backends = False, [backend for backend in backends if backend.node == entry]
        return tuple(
            dict.fromkeys(
                Way(
                    Flow(flow.source, backend.address, flow.protocol, backend.port) if client == entry else flow,
                    Flow(source, backend.address, flow.protocol, backend.port),
                )
                for backend in backends
                for source in (
                    self._own(entry, flow.source.version) if masquerades and backend.node != entry else (flow.source,)
                )
            )
        )

    def _target(self, flow: Flow) -> _Target | None:
        for service in self._services:
            for port in service["spec"]["ports"]:
                if port["protocol"] != flow.protocol.value:
                    continue
                if port["port"] == flow.port and str(flow.destination) in service["spec"]["clusterIPs"]:
                    return _Target(service, port, None)
                if port.get("nodePort") == flow.port and flow.destination.version in _versions(service):
                    entry = next((name for name, own in self._nodes.items() if flow.destination in own), None)
                    if entry is not None:
                        return _Target(service, port, entry)
        return None

    def _node_of(self, address: Address) -> str | None:
        """Return the node that an address is on: its own, or a running pod's."""
        for name, own in self._nodes.items():
            if address in own:
                return name
        # The newest holder of an address comes last.
        holders = [pod for pod in self._pods if pod["status"]["phase"] not in _ENDED and address in _addresses(pod)]
        return str(holders[-1]["spec"]["nodeName"]) if holders else None

    def _own(self, node: str, version: int) -> tuple[Address, ...]:
        """Return the addresses that a node may put in for a client's: any of its own, which one the kernel chooses."""
        return tuple(address for address in self._nodes[node] if address.version == version)

    def _backends(self, target: _Target, flow: Flow) -> Iterator[_Backend]:
        selected = [pod for pod in self._pods if _selects(target.service, pod)]
        serving = [pod for pod in selected if _is_ready(pod)]
        # While there is no other, pods that end but still serve are sent to (kube-proxy's terminating endpoints).
        staying = [pod for pod in serving if "deletionTimestamp" not in pod["metadata"]]
        for pod in staying or serving:
            number = _number(target.port, pod)
            address = next((each for each in _addresses(pod) if each.version == flow.destination.version), None)
            if number is not None and address is not None:
                yield _Backend(address, number, pod["spec"]["nodeName"])


_ENDED = ("Succeeded", "Failed")


def _versions(service: Object) -> set[int]:
    return {ipaddress.ip_address(address).version for address in service["spec"]["clusterIPs"]}


def _addresses(pod: Object) -> list[Address]:
    return [ipaddress.ip_address(entry["ip"]) for entry in pod["status"].get("podIPs", ())]


def _selects(service: Object, pod: Object) -> bool:
    selector = service["spec"]["selector"]
    same = service["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return bool(selector) and same and selector.items() <= pod["metadata"]["labels"].items()


def _is_ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def _number(port: Object, pod: Object) -> int | None:
    """Return the number of a Service's target port on a pod: a name is looked up among its containers' ports."""
    target = port["targetPort"]
    if isinstance(target, int):
        return target
    named = (
        int(declared["containerPort"])
        for container in pod["spec"]["containers"]
        for declared in container["ports"]
        if declared.get("name") == target and declared["protocol"] == port["protocol"]
    )
    return next(named, None)
