# SPDX-License-Identifier: Apache-2.0
"""What a lab consists of, as values: namespaces, links, names and addresses. Pure; ``fabric`` makes it so.

::

    rf-LAB-fabric                the cable and router between nodes; the API server's addresses; leads nowhere else
      └─ rf-LAB-node.NAME        a node: routes (azure) or bridges (kubenet) for its pods
           └─ rf-LAB-pod.NAMESPACE.NAME.DIGEST
      └─ rf-LAB-ext.NAME         a host outside of the cluster, with any addresses

A node hangs on the fabric, an external host too, as a pod of the ``azure`` plugin hangs on its node: over a veth, with
a /32 and a /128 of its own and a gateway that is nobody's address. So any address can be anywhere, which test cases
need. What the namespaces' kernels hold is derived in ``topology_state``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ringfence.errors import UsageError
from ringfence.lab import addressing
from ringfence.lab.config import NetworkPlugin, check_name
from ringfence.model.addresses import Address, Network

PREFIX = "rf"
UPLINK = "eth0"  # what nodes, pods and external hosts call their one link
BRIDGE = "cbr0"

_OWNED = re.compile(rf"{PREFIX}-([a-z0-9-]+)-(?:fabric|(?:node|pod|ext)\..+)")
_MOST_OF_A_NAME = 80  # characters of a pod's name in its namespace's name: file names have an end


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A node: its namespace, its addresses (any number, of either family), and the blocks of its pods' addresses.

    ``fabric_interface`` is the fabric's end of its link, ``mac`` the hardware address of its own end, ``bridge_mac``
    that of its bridge (kubenet).
    """

    index: int
    name: str
    netns: str
    addresses: tuple[Address, ...]
    pod_networks: tuple[Network, ...]
    fabric_interface: str
    mac: str
    bridge_mac: str


@dataclass(frozen=True, slots=True)
class PodPlan:
    """A pod: its namespace, the node it is on, its addresses, and the node's end of its link."""

    namespace: str
    name: str
    uid: str
    netns: str
    node: NodePlan
    addresses: tuple[Address, ...]
    host_interface: str
    mac: str


@dataclass(frozen=True, slots=True)
class ExternalPlan:
    """A host outside of the cluster, on the fabric."""

    name: str
    netns: str
    addresses: tuple[Address, ...]
    fabric_interface: str
    mac: str


@dataclass(frozen=True, slots=True)
class Topology:
    """A lab without its pods. ``apiserver_addresses`` are the fabric's own; there may be none.

    ``discovers``: pods and their nodes find each other by IPv6 neighbour discovery, and not by static entries.
    """

    lab: str
    plugin: NetworkPlugin
    nodes: tuple[NodePlan, ...]
    fabric_netns: str
    apiserver_addresses: tuple[Address, ...] = ()
    service_networks: tuple[Network, ...] = ()
    discovers: bool = False
    _by_name: Mapping[str, NodePlan] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {node.name: node for node in self.nodes})
        if len(self._by_name) != len(self.nodes):
            raise UsageError("two nodes of one lab have the same name")

    def node(self, name: str) -> NodePlan:
        """Return the node of a name; raises ``UsageError`` if there is none."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UsageError(f'lab "{self.lab}" has no node "{name}"') from None


def plan_topology(lab: str, plugin: NetworkPlugin, node_names: Sequence[str]) -> Topology:
    """Plan a lab with the addresses that AKS would give it (``addressing``); raises ``UsageError``."""
    if len(node_names) > addressing.MOST_NODES:
        raise UsageError(f"a lab has at most {addressing.MOST_NODES} nodes, not {len(node_names)}")
    nodes = tuple(
        _plan_node(
            lab, index, name, addressing.node_addresses(plugin, index), networks=addressing.pod_networks(plugin, index)
        )
        for index, name in enumerate(node_names)
    )
    return Topology(
        check_name(lab), plugin, nodes, f"{PREFIX}-{lab}-fabric", addressing.API_SERVER, addressing.SERVICE_NETWORKS
    )


def plan_explicit(lab: str, plugin: NetworkPlugin, nodes: Mapping[str, Sequence[Address]]) -> Topology:
    """Plan a lab whose nodes have exactly these addresses, and whose pods may have any: a test case's cluster.

    There is no API server, and no block belongs to a node: every pod's addresses are routed one by one. Neighbours are
    discovered, so that a case can tell if policy gets in the way of that (SEMANTICS 33).
    """
    planned = tuple(
        _plan_node(lab, index, name, tuple(addresses), networks=())
        for index, (name, addresses) in enumerate(nodes.items())
    )
    return Topology(check_name(lab), plugin, planned, f"{PREFIX}-{lab}-fabric", discovers=True)


def plan_pod(
    topology: Topology, node_name: str, namespace: str, name: str, uid: str, addresses: Sequence[Address]
) -> PodPlan:
    """Plan a pod on a node; raises ``UsageError`` if the lab has no such node.

    Names hold a digest of the UID, so a pod and the one of the same name before it do not meet.
    """
    digest = _digest(namespace, name, uid)
    return PodPlan(
        namespace=namespace,
        name=name,
        uid=uid,
        netns=f"{PREFIX}-{topology.lab}-pod.{namespace}.{name[:_MOST_OF_A_NAME]}.{digest[:8]}",
        node=topology.node(node_name),
        addresses=tuple(addresses),
        host_interface=f"azv{digest[:11]}" if topology.plugin == "azure" else f"veth{digest[:8]}",
        mac=_pod_mac(addresses),
    )


def plan_external(topology: Topology, name: str, addresses: Sequence[Address]) -> ExternalPlan:
    """Plan a host outside of the cluster: any addresses, routed to it one by one."""
    return ExternalPlan(
        name, f"{PREFIX}-{topology.lab}-ext.{name}", tuple(addresses), f"ext{_digest(name)[:11]}", _mac("ext", name)
    )


def lab_of(netns: str) -> str | None:
    """Return the lab that a namespace of this name belongs to, or None if it is no lab's.

    Never ambiguous: what follows the last hyphen before the first dot says the kind, and no lab has a dot in its name.
    """
    match = _OWNED.fullmatch(netns)
    return match[1] if match else None


def _plan_node(
    lab: str, index: int, name: str, addresses: tuple[Address, ...], *, networks: tuple[Network, ...]
) -> NodePlan:
    return NodePlan(
        index=index,
        name=name,
        netns=f"{PREFIX}-{lab}-node.{name}",
        addresses=addresses,
        pod_networks=networks,
        fabric_interface=f"node{index}",
        mac=_mac("node", name),
        bridge_mac=_mac("bridge", name),
    )


def _digest(*words: str) -> str:
    return hashlib.sha256("/".join(words).encode()).hexdigest()


def _pod_mac(addresses: Sequence[Address]) -> str:
    """Return a pod's hardware address. It goes with the IP address, as CNI's bridge has it: on a bridge, neighbours
    that remember the last holder of the IP address reach the next one.
    """
    for address in addresses:
        if address.version == 4:
            return ":".join(["0a:58", *(f"{byte:02x}" for byte in address.packed)])
    return _mac("pod", *map(str, addresses))


def _mac(*words: str) -> str:
    digest = _digest(*words)
    return ":".join(["02", *(digest[at : at + 2] for at in range(0, 10, 2))])  # 02: locally administered
