# SPDX-License-Identifier: Apache-2.0
"""What two addresses have to do with each other whatever the policies say: one pod, a pod and its node, or nothing."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster, PodKey


class Relation(enum.Enum):
    """What the source of a flow is to its destination. ``EACH_OTHERS_NODE`` takes pods that have nodes' addresses."""

    APART = "apart"
    ITSELF = "the same pod"
    FROM_OWN_NODE = "from the node that the destination runs on"
    TO_OWN_NODE = "to the node that the source runs on"
    EACH_OTHERS_NODE = "both"


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Some addresses of one family, and what of them matters here, looked up once.

    ``pods`` has an address for each pod among the holders, ``on_node`` the addresses of pods by the node that the pods
    run on, ``owned`` the addresses that are nodes' own, with the names of those nodes.
    """

    addresses: tuple[Address, ...]
    pods: Mapping[PodKey, Address]
    on_node: Mapping[str, tuple[Address, ...]]
    owned: Mapping[Address, frozenset[str]]


class Relations:
    """Knows the relation of any two addresses of a cluster."""

    __slots__ = ("_cluster", "node_names")

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        names: dict[Address, set[str]] = defaultdict(set)
        for node in cluster.nodes.values():
            for address in node.addresses:
                names[address].add(node.name)
        self.node_names = {address: frozenset(each) for address, each in names.items()}

    def of(self, source: Address, destination: Address) -> Relation:
        """Return the relation of a source to a destination, asked for in the order in which ``evaluate`` does."""
        holders = self._cluster.endpoint_at(source), self._cluster.endpoint_at(destination)
        if holders[0] is holders[1] and holders[0] is not None:
            return Relation.ITSELF
        comes_from = holders[1] is not None and holders[1].node in self.node_names.get(source, ())
        goes_to = holders[0] is not None and holders[0].node in self.node_names.get(destination, ())
        return _BY_NODES[comes_from, goes_to]

    def members(self, addresses: Iterable[Address]) -> Members:
        """Return addresses with what ``between`` needs to know of them."""
        chosen = tuple(addresses)
        pods: dict[PodKey, Address] = {}
        on_node: dict[str, list[Address]] = defaultdict(list)
        for address in chosen:
            holder = self._cluster.endpoint_at(address)
            if holder is not None:
                pods.setdefault(holder.key, address)
                on_node[holder.node].append(address)
        return Members(
            chosen,
            pods,
            {node: tuple(each) for node, each in on_node.items()},
            {address: self.node_names[address] for address in chosen if address in self.node_names},
        )

    def between(self, sources: Members, destinations: Members) -> dict[Relation, tuple[Address, Address]]:
        """Return every relation that some source has to some destination, each with such a pair."""
        if not (sources.owned or destinations.owned) and sources.pods.keys().isdisjoint(destinations.pods):
            return {Relation.APART: (sources.addresses[0], destinations.addresses[0])}
        searches = {
            Relation.APART: ((s, d) for s in sources.addresses for d in destinations.addresses),
            Relation.ITSELF: _same_pod(sources, destinations),
            Relation.FROM_OWN_NODE: _from_node(sources, destinations),
            Relation.TO_OWN_NODE: _to_node(sources, destinations),
            Relation.EACH_OTHERS_NODE: _from_node(sources, destinations) if destinations.owned else (),
        }
        # The first candidates are nearly always what is looked for.
        found = (
            (relation, next((pair for pair in candidates if self.of(*pair) is relation), None))
            for relation, candidates in searches.items()
        )
        return {relation: pair for relation, pair in found if pair is not None}


_BY_NODES = {
    (False, False): Relation.APART,
    (True, False): Relation.FROM_OWN_NODE,
    (False, True): Relation.TO_OWN_NODE,
    (True, True): Relation.EACH_OTHERS_NODE,
}


def _same_pod(sources: Members, destinations: Members) -> Iterator[tuple[Address, Address]]:
    few, many = sorted((sources.pods, destinations.pods), key=len)
    return ((sources.pods[key], destinations.pods[key]) for key in few if key in many)


def _from_node(sources: Members, destinations: Members) -> Iterator[tuple[Address, Address]]:
    for source, nodes in sources.owned.items():
        for node in sorted(nodes):
            yield from ((source, destination) for destination in destinations.on_node.get(node, ()))


def _to_node(sources: Members, destinations: Members) -> Iterator[tuple[Address, Address]]:
    for destination, nodes in destinations.owned.items():
        for node in sorted(nodes):
            yield from ((source, destination) for source in sources.on_node.get(node, ()))
