# SPDX-License-Identifier: Apache-2.0
"""An engine for cases that sends real packets: the case's cluster as namespaces, a kernel dataplane on each node.

It builds what a lab has, without API server and agents: programs are compiled from the case's objects and put in
force directly, so that a case of any addresses runs in a fraction of a second. Services are the lab's own (``proxy``),
with the endpoints that its controller would find, so that packets are translated before policy sees them.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ringfence.apis.manifests import cluster_from_objects
from ringfence.cases.run import verdicts
from ringfence.cases.script import Asks, Connection, Event, Fate, Objects, Probe, Script
from ringfence.compiler.compile import compile_program
from ringfence.dataplanes import registry
from ringfence.dataplanes.base import Dataplane, Held
from ringfence.errors import HostLacks, UsageError
from ringfence.host import netns
from ringfence.lab import fabric, icmperrors, prober
from ringfence.lab.config import NetworkPlugin
from ringfence.lab.prober_conversing import Conversation, Conversations, Opening, Passing
from ringfence.lab.proxy import ServiceProxy
from ringfence.lab.topology import ExternalPlan, PodPlan, Topology, plan_explicit, plan_external, plan_pod
from ringfence.model.addresses import Address, address_order
from ringfence.model.cluster import Cluster
from ringfence.model.policy import PolicySet
from ringfence.model.settings import DEFAULTS, Settings

ENGINES: dict[str, Callable[[], Dataplane]] = {
    name: engine.build for name, engine in registry.ENGINES.items() if engine.filters
}
_MOST_CONTROLS = 8
_SERIAL = itertools.count()
_FORGED_PORTS = (20000, 30000)  # which no connection has: they are below the kernel's own choice
_FATES = {
    Passing(forward=True, backward=True): Fate.ALIVE,
    Passing(forward=False, backward=False): Fate.CUT,
}


def require(dataplane: str) -> None:
    """Raise ``HostLacks`` unless this process can run cases on a dataplane."""
    if os.geteuid() != 0:
        raise HostLacks(
            f"to try cases on {dataplane} needs root: each gets network namespaces of its own",
            remedy="run it with sudo",
        )
    registry.require(dataplane)


def with_packets(
    dataplane: str, plugin: NetworkPlugin, settings: Settings, *, ebpf_hook: str = registry.AUTO
) -> Packets:
    """Return a new engine that sends packets."""
    return Packets(dataplane, plugin, settings, ebpf_hook=ebpf_hook)


def run_script(script: Script, dataplane: str, plugin: NetworkPlugin = "azure") -> list[list[bool]]:
    """Run a script with real packets and return a verdict for each probe of each step."""
    return verdicts(script, Packets(dataplane, plugin, script.settings))


class Packets:
    """Judges probes by sending them. Everything that it makes in the machine is gone after ``close``."""

    def __init__(
        self,
        dataplane: str,
        plugin: NetworkPlugin = "azure",
        settings: Settings = DEFAULTS,
        *,
        ebpf_hook: str = registry.AUTO,
    ) -> None:
        self._make_dataplane = ENGINES[dataplane]
        if ebpf_hook != registry.AUTO:
            self._make_dataplane = registry.builder(registry.engine(dataplane), ebpf_hook=ebpf_hook)
        self._plugin = plugin
        self._settings = settings
        self._lab = f"case{os.getpid()}-{next(_SERIAL)}"
        self._objects = Objects()
        self._topology: Topology | None = None
        self._pods: dict[PodPlan, None] = {}
        self._externals: dict[Address, ExternalPlan] = {}
        self._nodes: dict[str, Dataplane] = {}
        self._proxies: list[ServiceProxy] = []
        self._translates = False
        self._external_numbers = itertools.count()
        self._prober = prober.Prober()
        self._opener = Conversations(self._prober.answerers)
        self._open: dict[Connection, Conversation] = {}

    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in: pods come and go, and each node's program is put in force before new pods open."""
        self._objects.change(events)
        cluster, policies, _ = cluster_from_objects(self._objects.all())
        topology = self._build_nodes(cluster)
        wanted = _pods_of(topology, cluster)
        for pod in [pod for pod in self._pods if pod not in wanted]:
            self._forget(pod.netns)
            fabric.remove_pod(topology, pod)
            del self._pods[pod]
        self._yield_addresses(topology, {address for pod in wanted for address in pod.addresses})
        for pod in (new := [pod for pod in wanted if pod not in self._pods]):
            fabric.add_pod(topology, pod)
            self._pods[pod] = None
        self._enforce(topology, cluster, policies)
        self._translate()
        for pod in new:
            fabric.open_pod(topology, pod)

    def verdicts(self, probes: Sequence[Probe]) -> list[bool]:
        """Send a first packet for each probe, and tell for each whether it got through."""
        homes = self._homes(probes)
        plain = [number for number, probe in enumerate(probes) if probe.asks is Asks.CONNECTION]
        errors = [number for number, probe in enumerate(probes) if probe.asks is not Asks.CONNECTION]
        for number in plain:
            for way in probes[number].ways:
                if way.incoming.port is not None:
                    home = homes[way.incoming.destination]
                    self._prober.listen(home, [(way.incoming.protocol, way.incoming.port)])
        asked = [probes[number] for number in plain]
        outcomes = self._prober.probe([_question(probe, homes) for probe in asked], controls=self._controls(asked))
        passed = {number: outcome.passed for number, outcome in zip(plain, outcomes, strict=True)}
        passed |= zip(errors, self._error_verdicts([probes[number] for number in errors], homes), strict=True)
        return [passed[number] for number in range(len(probes))]

    def _controls(self, probes: Sequence[Probe]) -> list[prober.Probe]:
        """Return ways that are open unless an engine errs: to pods that are asked, each from its own node."""
        pods = {address: pod for pod in self._pods for address in pod.addresses}
        asked = {way.incoming.destination: way.incoming for probe in probes for way in probe.ways}
        controls = []
        for address, flow in asked.items():
            pod = pods.get(address)
            own = next((a for a in pod.node.addresses if a.version == address.version), None) if pod else None
            if pod is not None and own is not None:
                controls.append(prober.Probe(pod.node.netns, address, flow.protocol, flow.port, own))
        return controls[:: -(-len(controls) // _MOST_CONTROLS) or 1]

    def open(self, connections: Sequence[Connection]) -> list[bool]:
        """Open connections, one after the other."""
        homes = self._homes([connection.probe for connection in connections])
        for connection in connections:
            opened = self._opener.open(_opening(connection.probe, homes))
            if opened is not None:
                self._open[connection] = opened
        return [connection in self._open for connection in connections]

    def established(self, connections: Sequence[Connection]) -> list[Fate]:
        """Send data both ways on open connections; those that never opened, or whose pod is gone, are cut."""
        found = [connection for connection in connections if connection in self._open]
        passing = self._opener.passing([self._open[connection] for connection in found])
        fates = {c: _FATES.get(each, Fate.ONE_WAY) for c, each in zip(found, passing, strict=True)}
        return [fates.get(connection, Fate.CUT) for connection in connections]

    def close(self) -> None:
        """Take everything away."""
        for conversation in self._open.values():
            conversation.close()
        self._prober.close()
        self._drop_nodes()
        fabric.destroy(self._lab)

    def _error_verdicts(self, probes: Sequence[Probe], homes: Mapping[Address, str]) -> list[bool]:
        """Tell which path-MTU errors arrive; about a connection that cannot be opened there are none."""
        if not probes:
            return []
        conversations: dict[int, Conversation] = {}
        errors: dict[int, icmperrors.TooBig] = {}
        try:
            for number, probe in enumerate(probes):
                port = random.randrange(*_FORGED_PORTS)  # noqa: S311 - no secret
                if probe.asks is Asks.TOO_BIG:
                    opened = self._opener.open(_opening(probe, homes))
                    if opened is None:
                        continue
                    conversations[number] = opened
                    port = opened.client_port
                errors[number] = _too_big(probe, homes, port)
            assert self._topology is not None, "a script's first step has a cluster"
            arrived = icmperrors.arrivals(self._topology.fabric_netns, list(errors.values()))
            found = dict(zip(errors, arrived, strict=True))
            return [found.get(number, False) for number in range(len(probes))]
        finally:
            for conversation in conversations.values():
                conversation.close()

    def _build_nodes(self, cluster: Cluster) -> Topology:
        topology = plan_explicit(self._lab, self._plugin, _node_addresses(cluster))
        if self._topology == topology:
            return topology
        if self._topology is not None:
            if self._open:
                raise UsageError("nodes cannot change while a case has open connections: they would not survive it")
            for pod in self._pods:
                self._prober.forget(pod.netns)
            self._drop_nodes()
            fabric.destroy(self._lab)
            self._pods, self._externals = {}, {}
        fabric.build(topology)
        self._topology = topology
        for node in topology.nodes:
            with netns.enter(node.netns):
                self._nodes[node.name] = self._make_dataplane()
            self._proxies.append(ServiceProxy(node.netns, node.name))
        return topology

    def _drop_nodes(self) -> None:
        for proxy in self._proxies:
            proxy.close()
        self._proxies.clear()
        for dataplane in self._nodes.values():
            dataplane.remove()  # what an engine holds of a namespace would outlive it
            if isinstance(dataplane, Held):
                dataplane.close()
        self._nodes.clear()

    def _forget(self, name: str) -> None:
        """Close everything in a namespace that goes: a socket in it would keep it, and its links, alive."""
        gone = [c for c, open_ in self._open.items() if name in (open_.opening.netns, *_names(open_.opening))]
        for connection in gone:
            self._open.pop(connection).close()
        self._prober.forget(name)

    def _yield_addresses(self, topology: Topology, taken: set[Address]) -> None:
        """Take hosts outside of the cluster away whose addresses now are pods'."""
        for address in taken & self._externals.keys():
            external = self._externals.pop(address)
            self._forget(external.netns)
            fabric.remove_external(topology, external)

    def _enforce(self, topology: Topology, cluster: Cluster, policies: PolicySet) -> None:
        for node in topology.nodes:
            with netns.enter(node.netns):
                self._nodes[node.name].apply(compile_program(cluster, policies, node.name, self._settings))

    def _translate(self) -> None:
        """Put the Services in force on every node; without any, nodes have no Service rules at all."""
        objects = [dict(obj) for obj in self._objects.all()]
        services = [obj for obj in objects if obj["kind"] == "Service"]
        slices = _slices(services, [obj for obj in objects if obj["kind"] == "Pod"]) if services else []
        for proxy in self._proxies if services or self._translates else ():
            proxy.apply(services, slices)
        self._translates = bool(services)

    def _homes(self, probes: Iterable[Probe]) -> dict[Address, str]:
        """Return the namespace that each address of probes is in; hosts outside of the cluster are made if needed."""
        assert self._topology is not None, "a script's first step has a cluster"
        homes = {address: external.netns for address, external in self._externals.items()}
        homes |= {address: node.netns for node in self._topology.nodes for address in node.addresses}
        homes |= {address: pod.netns for pod in self._pods for address in pod.addresses}
        wanted = {
            address
            for probe in probes
            for address in (probe.source.address, *(way.incoming.destination for way in probe.ways))
        }
        return homes | {
            address: self._add_external(address) for address in sorted(wanted - homes.keys(), key=address_order)
        }

    def _add_external(self, address: Address) -> str:
        assert self._topology is not None, "a script's first step has a cluster"
        plan = plan_external(self._topology, f"x{next(self._external_numbers)}", [address])
        fabric.add_external(self._topology, plan)
        self._externals[address] = plan
        return plan.netns


def _pods_of(topology: Topology, cluster: Cluster) -> dict[PodPlan, None]:
    """Return a plan for each pod with a network of its own; an address that somebody newer holds is left out."""
    plans: dict[PodPlan, None] = {}
    for endpoint in cluster.endpoints.values():
        addresses = sorted(cluster.addresses_of(endpoint), key=address_order)
        if addresses and not endpoint.host_network:
            key = endpoint.key
            plans[plan_pod(topology, endpoint.node, key.namespace, key.name, endpoint.uid, addresses)] = None
    return plans


def _node_addresses(cluster: Cluster) -> Mapping[str, Sequence[Address]]:
    """Return the addresses of every node, also of those that only pods name."""
    names = sorted(cluster.nodes.keys() | {endpoint.node for endpoint in cluster.endpoints.values()})
    if not names:
        raise UsageError("a case that is run with packets has at least one node")
    known = {name: cluster.nodes[name].addresses if name in cluster.nodes else frozenset() for name in names}
    return {name: sorted(known[name], key=address_order) for name in names}


def _question(probe: Probe, homes: Mapping[Address, str]) -> prober.Probe:
    source, destination = probe.source.address, probe.destination.address
    return prober.Probe(homes[source], destination, probe.protocol, probe.port, source)


def _opening(probe: Probe, homes: Mapping[Address, str]) -> Opening:
    assert probe.port is not None, "open connections are TCP or UDP"
    heard_at = tuple((homes[way.incoming.destination], way.incoming.port or 0) for way in probe.ways)
    source, destination = probe.source.address, probe.destination.address
    return Opening(homes[source], source, destination, probe.protocol, probe.port, heard_at)


def _too_big(probe: Probe, homes: Mapping[Address, str], source_port: int) -> icmperrors.TooBig:
    """Return an error about a packet as it is beyond the node: after translation."""
    flow = probe.ways[0].incoming
    assert flow.port is not None, "errors are about connections of TCP and UDP"
    home = homes[flow.source]
    return icmperrors.TooBig(home, flow.source, source_port, flow.destination, flow.port, flow.protocol)


def _names(opening: Opening) -> Iterable[str]:
    return (name for name, _ in opening.heard_at)


def _slices(services: Sequence[dict[str, Any]], pods: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the EndpointSlices that the lab's controller would make."""
    # Here, since controllers bring in an HTTP client that takes as long to import as most cases to run.
    from ringfence.lab.controllers.actions import Create  # noqa: PLC0415
    from ringfence.lab.controllers.endpointslices import plan  # noqa: PLC0415

    return [
        action.object
        for service in services
        for action in plan(service, [pod for pod in pods if _selected(service, pod)], ())
        if isinstance(action, Create)
    ]


def _selected(service: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    selector: dict[str, str] = service["spec"]["selector"]
    same = service["metadata"]["namespace"] == pod["metadata"]["namespace"]
    labels: dict[str, str] = pod["metadata"]["labels"]
    return bool(same) and selector.items() <= labels.items()
