# SPDX-License-Identifier: Apache-2.0
"""The cluster as policy sees it: namespaces, nodes and endpoints, and who holds which address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ringfence.model.addresses import Address, Network
from ringfence.model.labels import Labels
from ringfence.model.ports import Protocol


@dataclass(frozen=True, slots=True, order=True)
class PodKey:
    """Namespace and name of a pod."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace and its labels (``kubernetes.io/metadata.name`` among them, SEMANTICS 13)."""

    name: str
    labels: Labels = field(default_factory=Labels)


@dataclass(frozen=True, slots=True)
class Node:
    """A node, the addresses that are its own (every one, both families), and the blocks its pods get theirs from."""

    name: str
    labels: Labels = field(default_factory=Labels)
    addresses: frozenset[Address] = frozenset()
    pod_networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port that a container declares; ``name`` is what a rule's named port looks up."""

    name: str | None
    number: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running pod: what policies select and protect.

    ``addresses`` holds every entry of ``status.podIPs`` (SEMANTICS 18). A hostNetwork pod is kept, so that
    explanations can name it, but is neither subject nor pod-selector peer: its traffic is the node's (SEMANTICS 25).
    """

    key: PodKey
    uid: str
    labels: Labels
    addresses: frozenset[Address]
    node: str
    ports: tuple[ContainerPort, ...] = ()
    host_network: bool = False

    def port_numbers(self, name: str, protocol: Protocol) -> frozenset[int]:
        """Return the numbers that a port name has on this pod for a protocol: usually one, none if it has no such."""
        return frozenset(p.number for p in self.ports if p.name == name and p.protocol is protocol)


class Cluster:
    """Namespaces, nodes and endpoints at one moment, indexed by name and by address. Immutable.

    ``endpoints`` must hold at most one endpoint for each pod key, and the newest holder of an address last: lowering
    (``apis.core``) leaves out pods that are completed or have no address (SEMANTICS 26, 28) and orders by creation.
    """

    __slots__ = ("_by_address", "_node_by_address", "endpoints", "namespaces", "nodes")

    def __init__(
        self,
        namespaces: Iterable[Namespace] = (),
        nodes: Iterable[Node] = (),
        endpoints: Iterable[Endpoint] = (),
    ) -> None:
        self.namespaces: Mapping[str, Namespace] = {n.name: n for n in namespaces}
        self.nodes: Mapping[str, Node] = {n.name: n for n in nodes}
        self.endpoints: Mapping[PodKey, Endpoint] = {e.key: e for e in endpoints}
        self._by_address: dict[Address, Endpoint] = {
            address: endpoint
            for endpoint in self.endpoints.values()
            if not endpoint.host_network
            for address in endpoint.addresses
        }
        self._node_by_address: dict[Address, Node] = {
            address: node for node in self.nodes.values() for address in node.addresses
        }

    def endpoint_at(self, address: Address) -> Endpoint | None:
        """Return the pod that holds an address now (SEMANTICS 29: the newest holder), hostNetwork pods excluded."""
        return self._by_address.get(address)

    def node_at(self, address: Address) -> Node | None:
        """Return the node that owns an address."""
        return self._node_by_address.get(address)

    def addresses_of(self, endpoint: Endpoint) -> frozenset[Address]:
        """Return the addresses of an endpoint that nobody newer holds."""
        return frozenset(a for a in endpoint.addresses if self._by_address.get(a) is endpoint)

    def namespace_labels(self, name: str) -> Labels | None:
        """Return the labels of a namespace, or None while the cluster has no such namespace (SEMANTICS 35)."""
        namespace = self.namespaces.get(name)
        return namespace.labels if namespace else None
