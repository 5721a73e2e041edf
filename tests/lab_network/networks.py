# SPDX-License-Identifier: Apache-2.0
"""Networks for tests: a lab without its cluster, built and destroyed around each test."""

from __future__ import annotations

import ipaddress
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any, Self

from ringfence.lab import fabric
from ringfence.lab.addressing import AddressPool
from ringfence.lab.config import NetworkPlugin
from ringfence.lab.prober import Outcome, Probe, Prober
from ringfence.lab.topology import ExternalPlan, NodePlan, PodPlan, Topology, plan_external, plan_pod, plan_topology
from ringfence.model.addresses import Address
from ringfence.model.ports import Protocol

Host = NodePlan | PodPlan | ExternalPlan

ALL = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
PLUGINS: tuple[NetworkPlugin, ...] = ("azure", "kubenet")
PORT = 80
_numbers = itertools.count()


def lab_name() -> str:
    """Return a name that no other lab on this machine has."""
    return f"nt{os.getpid()}-{next(_numbers)}"


def addresses(*texts: str) -> tuple[Address, ...]:
    """Return addresses by their spelling."""
    return tuple(ipaddress.ip_address(text) for text in texts)


class Network:
    """A fabric with nodes and pods, and a prober; gone at the end of a ``with``."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.prober = Prober()
        self._pools = {node.name: AddressPool(topology.plugin, node.pod_networks) for node in topology.nodes}

    def __enter__(self) -> Self:
        fabric.build(self.topology)
        return self

    def __exit__(self, *_: object) -> None:
        self.prober.close()
        fabric.destroy(self.topology.lab)

    def add(self, name: str, node: NodePlan, own: Sequence[Address] | None = None) -> PodPlan:
        """Add a pod whose gate is closed."""
        own = self._pools[node.name].allocate() if own is None else own
        pod = plan_pod(self.topology, node.name, "demo", name, f"uid-{name}", own)
        fabric.add_pod(self.topology, pod)
        return pod

    def pod(self, name: str, node: NodePlan, own: Sequence[Address] | None = None) -> PodPlan:
        """Add a pod whose gate is open."""
        pod = self.add(name, node, own)
        fabric.open_pod(self.topology, pod)
        return pod

    def external(self, name: str, own: Sequence[Address]) -> ExternalPlan:
        """Add a host outside of the cluster."""
        plan = plan_external(self.topology, name, own)
        fabric.add_external(self.topology, plan)
        return plan

    def try_all(self, sources: Iterable[Host], targets: Iterable[Host]) -> dict[str, Outcome]:
        """Probe every protocol from each source to each address of each target that is not the source."""
        probes = {}
        for target in targets:
            self.prober.listen(target.netns, [(protocol, PORT) for protocol in ALL])
            for source in sources:
                for address in target.addresses if source is not target else ():
                    for protocol in ALL:
                        words = f"{source.name} to {target.name} {address} {protocol.value}"
                        probes[words] = Probe(source.netns, address, protocol, PORT)
        return dict(zip(probes, self.prober.probe(list(probes.values())), strict=True))

    def ask(self, source: str, destination: str, port: int = PORT, protocol: Protocol = Protocol.TCP) -> Outcome:
        """Probe once, from a namespace."""
        return self.prober.probe([Probe(source, ipaddress.ip_address(destination), protocol, port)])[0]


def two_nodes(plugin: NetworkPlugin) -> Network:
    """Return a network of two nodes, not built yet."""
    return Network(plan_topology(lab_name(), plugin, ["one", "two"]))


def service(name: str, cluster_ips: Sequence[str], ports: Sequence[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    """Return a Service of namespace ``demo``."""
    return {
        "metadata": {"namespace": "demo", "name": name},
        "spec": {"type": "ClusterIP", "clusterIP": cluster_ips[0], "clusterIPs": cluster_ips, "ports": ports, **spec},
    }


def slice_of(
    name: str, pods: Sequence[PodPlan], ports: Sequence[dict[str, Any]], *, version: int = 4, **conditions: bool
) -> dict[str, Any]:
    """Return an EndpointSlice of one family for a Service of namespace ``demo``."""
    endpoints = [
        {"addresses": [str(address)], "nodeName": pod.node.name, "conditions": conditions or {"ready": True}}
        for pod in pods
        for address in pod.addresses
        if address.version == version
    ]
    labels = {"kubernetes.io/service-name": name}
    return {
        "metadata": {"namespace": "demo", "name": f"{name}-{version}", "labels": labels},
        "addressType": f"IPv{version}",
        "ports": ports,
        "endpoints": endpoints,
    }
