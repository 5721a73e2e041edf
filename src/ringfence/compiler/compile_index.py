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
from ringfence.model.persistent import PersistentSet
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
    by_label: dict[LabelPair, dict[Labels, Identity]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, labels: Labels, addresses: frozenset[Address]) -> None:
        identity = self.identities.get(labels)
        if identity is None:
            identity = self.identities[labels] = Identity(labels)
            for pair in labels.items():
                self.by_label[pair][labels] = identity
        identity.addresses |= addresses

    def remove(self, labels: Labels, addresses: frozenset[Address]) -> None:
        identity = self.identities[labels]
        identity.addresses -= addresses
        if not identity.addresses:
            del self.identities[labels]
            for pair in labels.items():
                del self.by_label[pair][labels]
                if not self.by_label[pair]:
                    del self.by_label[pair]

    def likely(self, selector: Selector) -> Iterable[Identity]:
        pairs = _needed_pairs(selector)
        if pairs is None:
            return self.identities.values()
        return (identity for pair in pairs for identity in self.by_label.get(pair, {}).values())


@dataclass(slots=True, eq=False)
class Matching:
    """Whom a peer covers at this moment: always the same object for one peer, so that nobody needs to hash peers."""

    peer: PodPeer
    addresses: PersistentSet[Address]


@dataclass(frozen=True, slots=True)
class PodChange:
    """What pods that came, went or changed have changed: the peers that cover others now, or others of a port name; the
    port names that mean others; ``numbers`` if a name has a number now that it had on no pod before, or the reverse.
    All of it is about ``addresses``: everybody else is covered by whom it was covered before.
    """

    peers: frozenset[Matching]
    ports: frozenset[PortKey] = frozenset()
    numbers: bool = False
    addresses: frozenset[Address] = frozenset()


@dataclass(slots=True)
class _AskedPeers:
    """The peers whose pods were asked for, filed by the namespace and by a label that a pod of theirs must have; None
    where that may be any.
    """

    by_need: dict[tuple[str | None, LabelPair | None], dict[Matching, None]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def add(self, matching: Matching) -> None:
        for need in self._needs(matching.peer):
            self.by_need[need][matching] = None

    def remove(self, matching: Matching) -> None:
        for need in self._needs(matching.peer):
            del self.by_need[need][matching]
            if not self.by_need[need]:
                del self.by_need[need]

    def likely(self, endpoint: Endpoint) -> Iterator[Matching]:
        for namespace in (endpoint.key.namespace, None):
            for pair in (None, *endpoint.labels.items()):
                yield from self.by_need.get((namespace, pair), ())

    @staticmethod
    def _needs(peer: PodPeer) -> Iterator[tuple[str | None, LabelPair | None]]:
        namespace = peer.scope.name if isinstance(peer.scope, InNamespace) else None
        return ((namespace, pair) for pair in _needed_pairs(peer.pods) or (None,))


class PodIndex:
    """The pods of a cluster by namespace and labels. Answers are remembered, and kept right by ``change``.

    Addresses are kept and joined as sets throughout: joining sets costs a fraction of hashing their addresses again.
    """

    def __init__(self, namespaces: Mapping[str, Namespace], endpoints: Iterable[Endpoint]) -> None:
        self._known = dict(namespaces)
        self._namespaces: dict[str, _NamespacePods] = defaultdict(_NamespacePods)
        self._scopes: dict[Selector, frozenset[str]] = {}
        self._matches: dict[PodPeer, Matching] = {}
        self._asked = _AskedPeers()
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
        addresses = frozenset[Address]().union(*(end.addresses for end in (old, new) if end is not None))
        return PodChange(peers, frozenset(numbers_before), numbers, addresses)

    def change_namespace(self, name: str, old: Namespace | None, new: Namespace | None) -> PodChange:
        """Exchange a namespace (None: there is none): its pods come into scopes, and leave them."""
        self._known.pop(name, None)
        if new is not None:
            self._known[name] = new
        moved: dict[Selector, bool] = {}  # to whether the namespace is in it now
        for selector, names in self._scopes.items():
            now = new is not None and selector.matches(new.labels)
            if now != (old is not None and selector.matches(old.labels)):
                self._scopes[selector] = names | {name} if now else names - {name}
                moved[selector] = now
        changed, addresses = set(), frozenset[Address]()
        for peer, matching in self._matches.items() if moved else ():
            if isinstance(peer.scope, NamespacesMatching) and peer.scope.selector in moved:
                pods = self._matching_in(name, peer.pods)
                come = moved[peer.scope.selector]
                matching.addresses = matching.addresses.exchanged(() if come else pods, pods if come else ())
                changed.add(matching)
                addresses |= pods
        return PodChange(frozenset(changed), addresses=addresses)

    def matching(self, peer: PodPeer) -> Matching:
        """Return the addresses of the pods that a peer covers, as ``PodPeer.covers`` would tell them."""
        found = self._matches.get(peer)
        if found is None:
            namespaces = self.namespaces(peer.scope)
            pods = frozenset[Address]().union(*(self._matching_in(each, peer.pods) for each in namespaces))
            found = self._matches[peer] = Matching(peer, PersistentSet(pods))
            self._asked.add(found)
        return found

    def keep_answers(self, answers: AbstractSet[Matching]) -> None:
        """Forget what was asked for, but for these."""
        for matching in set(self._matches.values()) - answers:
            del self._matches[matching.peer]
            self._asked.remove(matching)
        scopes = (matching.peer.scope for matching in answers)
        asked = {scope.selector for scope in scopes if isinstance(scope, NamespacesMatching)}
        self._scopes = {selector: names for selector, names in self._scopes.items() if selector in asked}

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

    def _matching_in(self, namespace: str, pods: Selector) -> frozenset[Address]:
        if namespace not in self._namespaces:
            return frozenset()
        identities = self._namespaces[namespace].likely(pods)
        return frozenset().union(*(each.addresses for each in identities if pods.matches(each.labels)))

    def _changed_peers(self, old: Endpoint | None, new: Endpoint | None) -> Iterator[Matching]:
        """Yield the peers that cover others now, and those that cover the pod if its ports are others now."""
        ends = [end for end in (old, new) if end is not None and not end.host_network]
        moved = old is not None and new is not None and old.ports != new.ports
        for matching in dict.fromkeys(each for end in ends for each in self._asked.likely(end)):
            gone = old.addresses if old is not None and self._covers(matching.peer, old) else frozenset()
            come = new.addresses if new is not None and self._covers(matching.peer, new) else frozenset()
            if gone != come:
                matching.addresses = matching.addresses.exchanged(gone - come, come - gone)
                yield matching
            elif come and moved:
                yield matching

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
        self._wide: dict[int, tuple[Place, Policy]] = {}  # whose subjects are in namespaces by their labels
        for place, policy in policies:
            self._add(place, policy)

    def change(self, old: Policy | None, new: tuple[Place, Policy] | None) -> frozenset[str]:
        """Exchange a policy; returns the namespaces in which pods may be selected by others now."""
        touched: frozenset[str] = frozenset()
        if old is not None:
            touched |= self._pods.namespaces(old.subject.scope)
            self._wide.pop(id(old), None)
            for index in self._indexes(old, self._pods.namespaces(old.subject.scope)):
                index.pop(id(old), None)
        if new is not None:
            touched |= self._pods.namespaces(new[1].subject.scope)
            self._add(*new)
        for namespace in touched:
            self._answers.pop(namespace, None)
        return touched

    def change_namespace(self, name: str, old: Namespace | None, new: Namespace | None) -> bool:
        """Exchange a namespace (None: there is none); tell whether its pods may be selected by others now."""
        moved = False
        for place, policy in self._wide.values():
            assert isinstance(policy.subject.scope, NamespacesMatching)
            selector = policy.subject.scope.selector
            now = new is not None and selector.matches(new.labels)
            if now != (old is not None and selector.matches(old.labels)):
                moved = True
                for index in self._indexes(policy, (name,)):
                    if now:
                        index[id(policy)] = place, policy
                    else:
                        index.pop(id(policy), None)
        if moved:
            self._answers.pop(name, None)
        return moved

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
        if isinstance(policy.subject.scope, NamespacesMatching):
            self._wide[id(policy)] = place, policy
        for index in self._indexes(policy, self._pods.namespaces(policy.subject.scope)):
            index[id(policy)] = place, policy

    def _indexes(self, policy: Policy, namespaces: Iterable[str]) -> Iterator[dict[int, tuple[Place, Policy]]]:
        pairs = _needed_pairs(policy.subject.pods)
        for namespace in namespaces:
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
