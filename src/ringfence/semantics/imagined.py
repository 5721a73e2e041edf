# SPDX-License-Identifier: Apache-2.0
"""A cluster for policies that come without one: every kind of pod that their selectors can tell apart.

For each namespace, all combinations of the labels that some selector asks for, of each key also another value and none;
one combination of those that the same selectors match is kept. So a pod with whatever labels is matched as one of
these is. There are two of each, since a pod may or may not reach another of its kind. Namespaces are imagined
likewise, beside those that are known; the known ones have the labels that are known of them.

What a port name means on pods that nobody has seen cannot be known: it is given a number of its own on all of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, product

from ringfence.errors import UsageError
from ringfence.model.cluster import Cluster, ContainerPort, Endpoint, Namespace, PodKey
from ringfence.model.labels import Labels, Operator, Selector
from ringfence.model.policy import InNamespace, NamespacesMatching, Peers, PodPeer, PolicySet, Rule, in_scope
from ringfence.model.ports import NamedPort, Ports, Protocol

_NAME = "kubernetes.io/metadata.name"
_MOST = 50_000
_FIRST_PORT = 61_000
_FIRST = ipaddress.IPv4Address("198.18.0.1"), ipaddress.IPv6Address("2001:db8:198:18::1")


def imagined(known: Iterable[Namespace], policy_sets: Iterable[PolicySet]) -> Cluster:
    """Return a cluster in which policies mean all that they can mean; raises ``UsageError`` if it were too large."""
    policies = [policy for policy_set in policy_sets for policy in policy_set.policies()]
    rules = [rule for policy in policies for rule in chain(policy.ingress or (), policy.egress or ())]
    selections = list(dict.fromkeys(chain((policy.subject for policy in policies), _pod_peers(rules))))
    local = [each.scope.name for each in selections if isinstance(each.scope, InNamespace)]
    there = {namespace.name: namespace for namespace in known}
    for name in local:
        there.setdefault(name, Namespace(name, Labels({_NAME: name})))
    namespaces = [*there.values(), *_namespaces(there, selections)]
    ports = tuple(port_names(rules))
    bare = Cluster(namespaces)
    return Cluster(namespaces, endpoints=_pods(bare, selections, ports))


def _others() -> Iterator[str]:
    return chain(["other"], (f"other-{number}" for number in count(2)))


def port_names(rules: Iterable[Rule]) -> Iterator[ContainerPort]:
    """Yield a port for each port name that rules use, with a number that is nobody else's."""
    matches = [m for rule in rules if isinstance(rule.traffic, Ports) for m in rule.traffic.matches]
    named: set[tuple[str, Protocol]] = {(m.port.name, m.protocol) for m in matches if isinstance(m.port, NamedPort)}
    for number, (name, protocol) in enumerate(sorted(named, key=lambda each: (each[0], each[1].value))):
        yield ContainerPort(name, _FIRST_PORT + number, protocol)


def _pod_peers(rules: Iterable[Rule]) -> Iterator[PodPeer]:
    for rule in rules:
        if isinstance(rule.peers, Peers):
            yield from (member for member in rule.peers.members if isinstance(member, PodPeer))


def _namespaces(there: Mapping[str, Namespace], selections: Sequence[PodPeer]) -> Iterator[Namespace]:
    """Yield a namespace of each kind that selectors tell apart; those that have a known name are there already."""
    scopes = [each.scope.selector for each in selections if isinstance(each.scope, NamespacesMatching)]
    if not scopes:
        return
    for labels in _kinds(scopes):
        name = labels.get(_NAME)
        if name not in there:
            others = Labels({key: value for key, value in labels.items() if key != _NAME})
            yield Namespace(name if name and not others else f"namespace {{{labels}}}", labels)


def _pods(bare: Cluster, selections: Sequence[PodPeer], ports: tuple[ContainerPort, ...]) -> Iterator[Endpoint]:
    numbers = count()
    for namespace in bare.namespaces:
        selectors = [each.pods for each in selections if in_scope(each.scope, namespace, bare)]
        for labels in _kinds(selectors):
            for which in ("a", "b"):
                number = next(numbers)
                addresses = frozenset(first + number for first in _FIRST)
                key = PodKey(namespace, f"{{{labels}}}~{which}")
                yield Endpoint(key, f"{number}", labels, addresses, "", ports)


def _kinds(selectors: Sequence[Selector]) -> list[Labels]:
    """Return labels for every way in which selectors can match, the fewest labels first."""
    values: dict[str, dict[str | None, None]] = {}
    open_keys: set[str] = set()
    for requirement in chain.from_iterable(selector.requirements for selector in selectors):
        values.setdefault(requirement.key, {None: None}).update(dict.fromkeys(requirement.values))
        if requirement.operator is not Operator.IN:
            open_keys.add(requirement.key)
    for key in open_keys:
        # To such an operator, having some other value is not the same as having none.
        values[key][next(each for each in _others() if each not in values[key])] = None
    size = 1
    for each in values.values():
        size *= len(each)
    if size > _MOST:
        raise UsageError(
            f"the selectors of the policies can tell {size} kinds of pods apart, too many to imagine: say which there "
            "are with --cluster FILE"
        )
    kinds: dict[tuple[bool, ...], Labels] = {}
    for chosen in sorted(product(*values.values()), key=lambda each: sum(value is not None for value in each)):
        labels = Labels({key: value for key, value in zip(values, chosen, strict=True) if value is not None})
        kinds.setdefault(tuple(selector.matches(labels) for selector in selectors), labels)
    return list(kinds.values())
