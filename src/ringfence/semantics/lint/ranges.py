# SPDX-License-Identifier: Apache-2.0
"""Which addresses are the cluster's own, and what for: pods, nodes, Services.

Asked for each block of each policy, of which there may be very many, so that it is worked out once.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from ringfence.model.addresses import Address, Block, Network, contains
from ringfence.model.cluster import Cluster
from ringfence.semantics.services import Service

PRIVATE = tuple(
    Block(ipaddress.ip_network(text)) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
"""Where clusters have their addresses, mostly."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """The addresses of pods, nodes and Services; by family, the networks of nodes for their pods, and what holds all
    of those; and the addresses of pods and nodes that are not private.
    """

    pods: frozenset[Address]
    nodes: frozenset[Address]
    services: Mapping[Address, Service]
    networks: Mapping[int, tuple[Network, ...]]
    around: Mapping[int, Network]
    public: frozenset[Address]


def ranges(cluster: Cluster, services: Iterable[Service], *, made_up: Collection[Address]) -> Ranges:
    """Return what a cluster's addresses are for, without those that were made up for pods of files."""
    pods = frozenset(
        a for e in cluster.endpoints.values() if not e.host_network for a in e.addresses if a not in made_up
    )
    nodes = frozenset(address for node in cluster.nodes.values() for address in node.addresses)
    networks: dict[int, list[Network]] = defaultdict(list)
    for node in cluster.nodes.values():
        for network in node.pod_networks:
            networks[network.version].append(network)
    return Ranges(
        pods,
        nodes,
        {address: service for service in services for address in _own(service)},
        {version: tuple(own) for version, own in networks.items()},
        {version: reduce(_widened, own) for version, own in networks.items()},
        frozenset(a for a in pods | nodes if not any(block.contains(a) for block in PRIVATE)),
    )


def is_within(inner: Network, outer: Network) -> bool:
    """Tell whether one network lies in another; never, if they are of different families."""
    return contains(outer, inner.network_address) and inner.prefixlen >= outer.prefixlen


def _widened(one: Network, other: Network) -> Network:
    """Return the smallest network that holds two of one family."""
    while not is_within(other, one):
        one = one.supernet()
    return one


def _own(service: Service) -> Iterable[Address]:
    for text in {*(service.spec.addresses or ()), service.spec.address or ""}:
        try:
            yield ipaddress.ip_address(text)
        except ValueError:  # headless, or not chosen yet
            continue
