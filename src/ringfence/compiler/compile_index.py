# SPDX-License-Identifier: Apache-2.0
"""Which pods does a selector match, and which policies select a pod, without asking every pair.

Pods of one namespace with the same labels are one *identity*: a selector matches all or none of them. Identities and
policies are filed under one label that a match must have, so that only likely partners are compared. This changes
cost, never meaning: what comes out is decided by ``Selector.matches`` and ``in_scope`` alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import assert_never

from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.labels import Labels, Operator, Selector
from ringfence.model.policy import InNamespace, NamespaceScope, NamespacesMatching, PodPeer, Policy
from ringfence.model.ports import Protocol

LabelPair = tuple[str, str]


@dataclass(slots=True)
class Identity:
    """The pods of one namespace that have the same labels, as addresses; never hostNetwork pods."""

    labels: Labels
    addresses: set[Address] = field(default_factory=set)


@dataclass(slots=True)
class _NamespacePods:
    identities: dict[Labels, Identity] = field(default_factory=dict)
    by_label: dict[LabelPair, list[Identity]] = field(default_factory=lambda: defaultdict(list))

    def add(self, labels: Labels, addresses: frozenset[Address]) -> None:
        identity = self.identities.get(labels)
        if identity is None:
            identity = self.identities[labels] = Identity(labels)
            for pair in labels.items():
                self.by_label[pair].append(identity)
        identity.addresses |= addresses

    def likely(self, selector: Selector) -> Iterable[Identity]:
        pairs = _needed_pairs(selector)
        if pairs is None:
            return self.identities.values()
        return (identity for pair in pairs for identity in self.by_label.get(pair, ()))


class PodIndex:
    """The pods of a cluster by namespace and labels. Answers are remembered: the cluster is one moment.

    Addresses are kept and joined as sets throughout: joining sets costs a fraction of hashing their addresses again.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._namespaces: dict[str, _NamespacePods] = defaultdict(_NamespacePods)
        self._scopes: dict[Selector, tuple[str, ...]] = {}
        self._matches: dict[PodPeer, frozenset[Address]] = {}
        self._by_port: dict[tuple[str, Protocol], dict[int, set[Address]]] = {}
        for endpoint in cluster.endpoints.values():
            if not endpoint.host_network:
                addresses = cluster.addresses_of(endpoint)
                self._namespaces[endpoint.key.namespace].add(endpoint.labels, addresses)
                for port in endpoint.ports:
                    if port.name is not None:
                        numbers = self._by_port.setdefault((port.name, port.protocol), {})
                        numbers.setdefault(port.number, set()).update(addresses)

    def matching(self, peer: PodPeer) -> frozenset[Address]:
        """Return the addresses of the pods that a peer covers, as ``PodPeer.covers`` would tell them."""
        found = self._matches.get(peer)
        if found is None:
            found = self._matches[peer] = frozenset().union(
                *(
                    identity.addresses
                    for namespace in self.namespaces(peer.scope)
                    if namespace in self._namespaces
                    for identity in self._namespaces[namespace].likely(peer.pods)
                    if peer.pods.matches(identity.labels)
                )
            )
        return found

    def port_numbers(self, name: str, protocol: Protocol) -> tuple[int, ...]:
        """Return the numbers that a port name has on the pods of the cluster, sorted."""
        return tuple(sorted(self._by_port.get((name, protocol), {})))

    def having_port(self, name: str, protocol: Protocol, number: int) -> AbstractSet[Address]:
        """Return the addresses of the pods on which a port name has a number."""
        return self._by_port.get((name, protocol), {}).get(number, frozenset())

    def namespaces(self, scope: NamespaceScope) -> tuple[str, ...]:
        """Return the names of the namespaces in a scope, as ``in_scope`` would tell them."""
        match scope:
            case InNamespace(name):
                return (name,)
            case NamespacesMatching(selector):
                names = self._scopes.get(selector)
                if names is None:
                    namespaces = self._cluster.namespaces.values()
                    names = self._scopes[selector] = tuple(n.name for n in namespaces if selector.matches(n.labels))
                return names
            case _:
                assert_never(scope)


class PolicyIndex:
    """Policies by the namespaces and labels of the pods that they select."""

    def __init__(self, policies: Iterable[Policy], pods: PodIndex) -> None:
        self._by_label: dict[tuple[str, LabelPair], list[tuple[int, Policy]]] = defaultdict(list)
        self._others: dict[str, list[tuple[int, Policy]]] = defaultdict(list)
        self._answers: dict[tuple[str, Labels], tuple[Policy, ...]] = {}
        for place, policy in enumerate(policies):
            pairs = _needed_pairs(policy.subject.pods)
            for namespace in pods.namespaces(policy.subject.scope):
                if pairs is None:
                    self._others[namespace].append((place, policy))
                else:
                    for pair in pairs:
                        self._by_label[namespace, pair].append((place, policy))

    def selecting(self, endpoint: Endpoint) -> tuple[Policy, ...]:
        """Return the policies whose subject covers an endpoint, in the order in which they were given."""
        key = endpoint.key.namespace, endpoint.labels
        found = self._answers.get(key)
        if found is None:
            likely = dict(self._likely(*key))
            found = self._answers[key] = tuple(
                policy for _, policy in sorted(likely.items()) if policy.subject.pods.matches(endpoint.labels)
            )
        return found

    def _likely(self, namespace: str, labels: Labels) -> Iterator[tuple[int, Policy]]:
        yield from self._others.get(namespace, ())
        for pair in labels.items():
            yield from self._by_label.get((namespace, pair), ())


def _needed_pairs(selector: Selector) -> tuple[LabelPair, ...] | None:
    """Return labels of which every match has exactly one, None if the selector needs no particular one."""
    for requirement in selector.requirements:
        if requirement.operator is Operator.IN:
            return tuple((requirement.key, value) for value in requirement.values)
    return None
