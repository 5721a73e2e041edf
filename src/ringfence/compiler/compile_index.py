# SPDX-License-Identifier: Apache-2.0
"""Which pods does a selector match, and which policies select a pod, without asking every pair.

Pods of one namespace with the same labels are one *identity*: a selector matches all or none of them. Identities and
policies are filed under one label that a match must have, so that only likely partners are compared. This changes
cost, never meaning: what comes out is decided by ``Selector.matches`` and ``in_scope`` alone.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from ringfence.model.addresses import Address
from ringfence.model.cluster import Endpoint, Namespace
from ringfence.model.labels import Labels, Operator, Selector
from ringfence.model.policy import InNamespace, NamespaceScope, NamespacesMatching, ObjectRef, PodPeer, Policy
from ringfence.model.ports import Protocol

LabelPair: TypeAlias = tuple[str, str]
PortKey: TypeAlias = tuple[str, Protocol]
Place: TypeAlias = tuple[float, str, float, ObjectRef]
"""Where a policy is asked: the tier's order and name, the policy's order and name."""


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

    def remove(self, labels: Labels, addresses: frozenset[Address]) -> None:
        identity = self.identities[labels]
        identity.addresses -= addresses
        if not identity.addresses:
            del self.identities[labels]
            for pair in labels.items():
                self.by_label[pair].remove(identity)

    def likely(self, selector: Selector) -> Iterable[Identity]:
        pairs = _needed_pairs(selector)
        if pairs is None:
            return self.identities.values()
        return (identity for pair in pairs for identity in self.by_label.get(pair, ()))


@dataclass(frozen=True, slots=True)
class PodChange:
    """What a pod that came, went or changed has changed: the peers that cover others now, and the port names that mean
    others; ``numbers`` if a name has a number now that it had on no pod before, or the reverse.
    """

    peers: frozenset[PodPeer]
    ports: frozenset[PortKey]
    numbers: bool


class PodIndex:
    """The pods of a cluster by namespace and labels. Answers are remembered, and kept right by ``change``.

    Addresses are kept and joined as sets throughout: joining sets costs a fraction of hashing their addresses again.
    """

    def __init__(self, namespaces: Mapping[str, Namespace], endpoints: Iterable[Endpoint]) -> None:
        self._known = namespaces
        self._namespaces: dict[str, _NamespacePods] = defaultdict(_NamespacePods)
        self._scopes: dict[Selector, frozenset[str]] = {}
        self._matches: dict[PodPeer, frozenset[Address]] = {}
        self._asked: dict[str | None, list[PodPeer]] = defaultdict(list)  # by the one namespace that they are about
        self._by_port: dict[PortKey, dict[int, set[Address]]] = {}
        for endpoint in endpoints:
            self._add(endpoint)

    def change(self, old: Endpoint | None, new: Endpoint | None) -> PodChange:
        """Exchange a pod, whose addresses are those that nobody newer holds, for what it is now."""
        numbers_before = {key: frozenset(self._by_port.get(key, ())) for key in _port_keys(old, new)}
        if old is not None:
            self._remove(old)
        if new is not None:
            self._add(new)
        peers = frozenset(self._changed_peers(old, new))
        numbers = any(frozenset(self._by_port.get(key, ())) != before for key, before in numbers_before.items())
        return PodChange(peers, frozenset(numbers_before), numbers)

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
            self._asked[peer.scope.name if isinstance(peer.scope, InNamespace) else None].append(peer)
        return found

    def port_numbers(self, name: str, protocol: Protocol) -> tuple[int, ...]:
        """Return the numbers that a port name has on the pods of the cluster, sorted."""
        return tuple(sorted(self._by_port.get((name, protocol), {})))

    def having_port(self, name: str, protocol: Protocol, number: int) -> AbstractSet[Address]:
        """Return the addresses of the pods on which a port name has a number."""
        return self._by_port.get((name, protocol), {}).get(number, frozenset())

    def namespaces(self, scope: NamespaceScope) -> frozenset[str]:
        """Return the names of the namespaces in a scope, as ``in_scope`` would tell them."""
        match scope:
            case InNamespace(name):
                return frozenset((name,))
            case NamespacesMatching(selector):
                names = self._scopes.get(selector)
                if names is None:
                    known = self._known.values()
                    names = self._scopes[selector] = frozenset(n.name for n in known if selector.matches(n.labels))
                return names
            case _:
                assert_never(scope)

    def _add(self, endpoint: Endpoint) -> None:
        if endpoint.host_network or not endpoint.addresses:
            return
        self._namespaces[endpoint.key.namespace].add(endpoint.labels, endpoint.addresses)
        for port in endpoint.ports:
            if port.name is not None:
                numbers = self._by_port.setdefault((port.name, port.protocol), {})
                numbers.setdefault(port.number, set()).update(endpoint.addresses)

    def _remove(self, endpoint: Endpoint) -> None:
        if endpoint.host_network or not endpoint.addresses:
            return
        self._namespaces[endpoint.key.namespace].remove(endpoint.labels, endpoint.addresses)
        for port in endpoint.ports:
            if port.name is not None:
                numbers = self._by_port[port.name, port.protocol]
                if port.number in numbers:
                    numbers[port.number] -= endpoint.addresses
                    if not numbers[port.number]:
                        del numbers[port.number]

    def _changed_peers(self, old: Endpoint | None, new: Endpoint | None) -> Iterator[PodPeer]:
        ends = [end for end in (old, new) if end is not None and not end.host_network]
        for namespace in dict.fromkeys((*(end.key.namespace for end in ends), None)):
            for peer in self._asked.get(namespace, ()):
                gone = old.addresses if old is not None and self._covers(peer, old) else frozenset()
                come = new.addresses if new is not None and self._covers(peer, new) else frozenset()
                if gone != come:
                    self._matches[peer] = (self._matches[peer] - gone) | come
                    yield peer

    def _covers(self, peer: PodPeer, endpoint: Endpoint) -> bool:
        return (
            not endpoint.host_network
            and endpoint.key.namespace in self.namespaces(peer.scope)
            and peer.pods.matches(endpoint.labels)
        )


def _port_keys(*endpoints: Endpoint | None) -> set[PortKey]:
    given = (endpoint for endpoint in endpoints if endpoint is not None and not endpoint.host_network)
    return {(port.name, port.protocol) for endpoint in given for port in endpoint.ports if port.name is not None}


class PolicyIndex:
    """Policies by the namespaces and labels of the pods that they select.

    Each has a ``place``, by which those that select a pod are sorted: the order in which they are asked.
    """

    def __init__(self, policies: Iterable[tuple[Place, Policy]], pods: PodIndex) -> None:
        self._pods = pods
        self._by_label: dict[tuple[str, LabelPair], dict[int, tuple[Place, Policy]]] = defaultdict(dict)
        self._others: dict[str, dict[int, tuple[Place, Policy]]] = defaultdict(dict)
        self._answers: dict[str, dict[Labels, tuple[Policy, ...]]] = defaultdict(dict)
        for place, policy in policies:
            self._add(place, policy)

    def change(self, old: Policy | None, new: tuple[Place, Policy] | None) -> frozenset[str]:
        """Exchange a policy; returns the namespaces in which pods may be selected by others now."""
        touched: frozenset[str] = frozenset()
        if old is not None:
            touched |= self._pods.namespaces(old.subject.scope)
            for index in self._indexes(old):
                index.pop(id(old), None)
        if new is not None:
            touched |= self._pods.namespaces(new[1].subject.scope)
            self._add(*new)
        for namespace in touched:
            self._answers.pop(namespace, None)
        return touched

    def selecting(self, endpoint: Endpoint) -> tuple[Policy, ...]:
        """Return the policies whose subject covers an endpoint, in the order of their places."""
        namespace, labels = endpoint.key.namespace, endpoint.labels
        found = self._answers[namespace].get(labels)
        if found is None:
            likely = dict(self._likely(namespace, labels))
            found = self._answers[namespace][labels] = tuple(
                policy
                for _, policy in sorted(likely.values(), key=operator.itemgetter(0))
                if policy.subject.pods.matches(labels)
            )
        return found

    def _add(self, place: Place, policy: Policy) -> None:
        for index in self._indexes(policy):
            index[id(policy)] = place, policy

    def _indexes(self, policy: Policy) -> Iterator[dict[int, tuple[Place, Policy]]]:
        pairs = _needed_pairs(policy.subject.pods)
        for namespace in self._pods.namespaces(policy.subject.scope):
            if pairs is None:
                yield self._others[namespace]
            else:
                yield from (self._by_label[namespace, pair] for pair in pairs)

    def _likely(self, namespace: str, labels: Labels) -> Iterator[tuple[int, tuple[Place, Policy]]]:
        yield from self._others.get(namespace, {}).items()
        for pair in labels.items():
            yield from self._by_label.get((namespace, pair), {}).items()


def _needed_pairs(selector: Selector) -> tuple[LabelPair, ...] | None:
    """Return labels of which every match has exactly one, None if the selector needs no particular one."""
    for requirement in selector.requirements:
        if requirement.operator is Operator.IN:
            return tuple((requirement.key, value) for value in requirement.values)
    return None
