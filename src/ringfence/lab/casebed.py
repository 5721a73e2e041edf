# SPDX-License-Identifier: Apache-2.0
"""An engine for cases that sends real packets: the case's cluster as namespaces, a kernel dataplane on each node.

It builds what a lab has, without API server and agents: programs are compiled from the case's objects and put in
force directly, so that a case of any addresses runs in a fraction of a second.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence

from ringfence.apis.manifests import cluster_from_objects
from ringfence.cases.run import verdicts
from ringfence.cases.script import Event, Objects, Probe, Script
from ringfence.compiler.compile import compile_program
from ringfence.dataplanes.base import Dataplane
from ringfence.dataplanes.nftables.apply import NftablesDataplane
from ringfence.errors import UsageError
from ringfence.host import netns
from ringfence.lab import fabric, pinger, prober
from ringfence.lab.config import NetworkPlugin
from ringfence.lab.topology import PodPlan, Topology, plan_explicit, plan_external, plan_pod
from ringfence.model.addresses import Address, address_order
from ringfence.model.cluster import Cluster
from ringfence.model.policy import PolicySet

ENGINES: dict[str, Callable[[], Dataplane]] = {"nftables": NftablesDataplane}
_SERIAL = itertools.count()


def run_script(script: Script, dataplane: str, plugin: NetworkPlugin = "azure") -> list[list[bool]]:
    """Run a script with real packets and return a verdict for each probe of each step."""
    return verdicts(script, Packets(dataplane, plugin))


class Packets:
    """Judges probes by sending them. Everything that it makes in the machine is gone after ``close``."""

    def __init__(self, dataplane: str, plugin: NetworkPlugin = "azure") -> None:
        self._make_dataplane = ENGINES[dataplane]
        self._plugin = plugin
        self._lab = f"case{os.getpid()}-{next(_SERIAL)}"
        self._objects = Objects()
        self._topology: Topology | None = None
        self._pods: dict[PodPlan, None] = {}
        self._externals: dict[Address, str] = {}
        self._nodes: dict[str, Dataplane] = {}
        self._prober = prober.Prober()

    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in: pods come and go, and each node's program is put in force before new pods open."""
        self._objects.change(events)
        cluster, policies, _ = cluster_from_objects(self._objects.all())
        topology = self._build_nodes(cluster)
        wanted = _pods_of(topology, cluster)
        for pod in [pod for pod in self._pods if pod not in wanted]:
            self._prober.forget(pod.netns)
            fabric.remove_pod(topology, pod)
            del self._pods[pod]
        for pod in (new := [pod for pod in wanted if pod not in self._pods]):
            fabric.add_pod(topology, pod)
            self._pods[pod] = None
        self._enforce(topology, cluster, policies)
        for pod in new:
            fabric.open_pod(topology, pod)

    def verdicts(self, probes: Sequence[Probe]) -> list[bool]:
        """Send a first packet for each probe, and tell for each whether it got through."""
        homes = self._homes()
        for address in {spot.address for probe in probes for spot in (probe.source, probe.destination)} - homes.keys():
            homes[address] = self._add_external(address)
        for probe in probes:
            if probe.port is not None:
                self._prober.listen(homes[probe.destination.address], [(probe.protocol, probe.port)])
        with_ports = {number: probe for number, probe in enumerate(probes) if probe.port is not None}
        without = {number: probe for number, probe in enumerate(probes) if probe.port is None}
        outcomes = self._prober.probe([_question(probe, homes) for probe in with_ports.values()])
        passed = {number: outcome.passed for number, outcome in zip(with_ports, outcomes, strict=True)}
        pings = [
            pinger.Ping(homes[probe.source.address], probe.source.address, probe.destination.address)
            for probe in without.values()
        ]
        passed |= zip(without, pinger.ping(pings, timeout=prober.TIMEOUT), strict=True)
        return [passed[number] for number in range(len(probes))]

    def close(self) -> None:
        """Take everything away."""
        self._prober.close()
        self._nodes.clear()
        fabric.destroy(self._lab)

    def _build_nodes(self, cluster: Cluster) -> Topology:
        topology = plan_explicit(self._lab, self._plugin, _node_addresses(cluster))
        if self._topology == topology:
            return topology
        if self._topology is not None:
            for pod in self._pods:
                self._prober.forget(pod.netns)
            fabric.destroy(self._lab)
            self._pods, self._externals = {}, {}
        fabric.build(topology)
        self._topology = topology
        self._nodes = {}
        for node in topology.nodes:
            with netns.enter(node.netns):
                self._nodes[node.name] = self._make_dataplane()
        return topology

    def _enforce(self, topology: Topology, cluster: Cluster, policies: PolicySet) -> None:
        for node in topology.nodes:
            with netns.enter(node.netns):
                self._nodes[node.name].apply(compile_program(cluster, policies, node.name))

    def _homes(self) -> dict[Address, str]:
        """Return the namespace that each address is in."""
        assert self._topology is not None, "a script's first step has a cluster"
        homes = dict(self._externals)
        homes |= {address: node.netns for node in self._topology.nodes for address in node.addresses}
        return homes | {address: pod.netns for pod in self._pods for address in pod.addresses}

    def _add_external(self, address: Address) -> str:
        assert self._topology is not None, "a script's first step has a cluster"
        plan = plan_external(self._topology, f"x{len(self._externals)}", [address])
        fabric.add_external(self._topology, plan)
        self._externals[address] = plan.netns
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
    assert probe.port is not None, "chosen by the caller"
    source, destination = probe.source.address, probe.destination.address
    return prober.Probe(homes[source], destination, probe.protocol, probe.port, source)
