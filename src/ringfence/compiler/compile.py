# SPDX-License-Identifier: Apache-2.0
"""Cluster, policies and node in, program out.

Keeps only what the node's own pods need. Pods that the same policies select share their rulesets; a ruleset differs
between such pods only where a named port is another number on one of them. Nothing is written down from memory: the
same cluster and policies make the same program, whatever was compiled before.

Compiled are the tiers that say "allow this, deny the rest": one tier that denies by default, with allow and deny
rules. Whatever needs more (several tiers in use, a default or an action that passes on) is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from ringfence.compiler.compile_index import Place, PodIndex, PolicyIndex
from ringfence.compiler.compile_peers import PeerSets, PortName, digest
from ringfence.compiler.program import (
    CompiledRule,
    EndpointEntry,
    PeerSetId,
    PortSpan,
    Program,
    Ruleset,
    RulesetId,
)
from ringfence.errors import Unsupported
from ringfence.model.addresses import address_order
from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.policy import Action, AnyPeer, Direction, ObjectRef, Peers, Policy, PolicySet, Rule
from ringfence.model.ports import ANY_PORT, LAST_PORT, AnyTraffic, NamedPort, PortMatch, PortRange, Ports, Protocol
from ringfence.model.settings import DEFAULTS, Settings

EVERY_PORT = PortRange(0, LAST_PORT)

_Names = tuple[tuple[str, Protocol], ...]
_Numbers = tuple[tuple[int, ...], ...]


def compile_program(cluster: Cluster, policies: PolicySet, node: str, settings: Settings = DEFAULTS) -> Program:
    """Return what a node must enforce for its pods; raises ``Unsupported`` for policies that no program can hold."""
    refuse_unsupported(policies)
    pods = PodIndex(cluster.namespaces, (placed(cluster, endpoint) for endpoint in cluster.endpoints.values()))
    compiling = Compiling(pods, places(policies))
    endpoints = [
        entry
        for endpoint in cluster.endpoints.values()
        if is_local(endpoint, node)
        for entry in compiling.entries(placed(cluster, endpoint))
    ]
    known = cluster.nodes.get(node)
    return Program(
        node=node,
        node_addresses=known.addresses if known else frozenset(),
        endpoints=sorted_entries(endpoints),
        rulesets=tuple(compiling.rulesets[ruleset_id] for ruleset_id in sorted(compiling.rulesets)),
        peer_sets=compiling.peer_sets.made(),
        settings=settings,
    )


def placed(cluster: Cluster, endpoint: Endpoint) -> Endpoint:
    """Return an endpoint with those of its addresses that nobody newer holds (SEMANTICS 29)."""
    own = cluster.addresses_of(endpoint)
    return endpoint if own == endpoint.addresses else replace(endpoint, addresses=own)


def is_local(endpoint: Endpoint, node: str) -> bool:
    """Tell whether a node protects an endpoint: it runs there, on the pod network (SEMANTICS 25)."""
    return endpoint.node == node and not endpoint.host_network


def sorted_entries(entries: Iterable[EndpointEntry]) -> tuple[EndpointEntry, ...]:
    """Return entries as a program has them."""
    return tuple(sorted(entries, key=lambda entry: address_order(entry.address)))


def places(policies: PolicySet) -> Iterator[tuple[Place, Policy]]:
    """Return policies with the places at which they are asked."""
    for tier in policies.tiers:
        for policy in tier.policies:
            yield (tier.order, tier.name, policy.order, policy.ref), policy


def refuse_unsupported(policies: PolicySet) -> None:
    """Raise ``Unsupported`` with all that no program can hold."""
    used = [tier for tier in policies.tiers if tier.policies]
    refusals = []
    if len(used) > 1:
        refusals.append(f"policies in more than one tier ({', '.join(tier.name for tier in used)})")
    refusals += [f"tier {tier.name} passes by default" for tier in used if tier.default is Action.PASS]
    refusals += [
        f"{rule.origin} passes to the next tier"
        for policy in policies.policies()
        for rule in (*(policy.ingress or ()), *(policy.egress or ()))
        if rule.action is Action.PASS
    ]
    if refusals:
        raise Unsupported("compiled", refusals)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a rule compiles to, and the same written down for its ruleset's digest."""

    rules: tuple[CompiledRule, ...]
    written: tuple[tuple[object, ...], ...]


class Compiling:
    """What pods and policies are compiled with, and what has been compiled so far; shared by all pods of one node."""

    def __init__(self, pods: PodIndex, policies: Iterable[tuple[Place, Policy]]) -> None:
        self.pods = pods
        self.policies = PolicyIndex(policies, pods)
        self.peer_sets = PeerSets(pods)
        self.rulesets: dict[RulesetId, Ruleset] = {}
        # Keyed by the identity of policies and rules, which the policy set keeps alive: hashing them costs too much.
        self._names: dict[tuple[int, ...], _Names] = {}
        self._made: dict[tuple[Direction, tuple[int, ...], _Numbers], RulesetId] = {}
        self._parts: dict[tuple[Direction, int, _Numbers], _Part] = {}

    def forget_port_numbers(self) -> None:
        """Compile anew what depends on the numbers that port names have in the cluster."""
        self._made.clear()
        self._parts.clear()

    def keep(self, rulesets: AbstractSet[RulesetId]) -> None:
        """Forget whatever is not needed for these rulesets, and all that is known by the identity of policies."""
        self._names.clear()
        self.forget_port_numbers()
        self.rulesets = {ruleset_id: self.rulesets[ruleset_id] for ruleset_id in rulesets}
        rules = (rule for ruleset in self.rulesets.values() for rule in ruleset.rules)
        self.pods.keep_answers(
            self.peer_sets.keep({rule.peers for rule in rules if not isinstance(rule.peers, AnyPeer)})
        )

    def entries(self, endpoint: Endpoint) -> Iterator[EndpointEntry]:
        """Return what a local pod's addresses need; each address must be the pod's own."""
        if not endpoint.addresses:
            return
        selecting = self.policies.selecting(endpoint)
        ingress = self._ruleset(Direction.INGRESS, selecting, endpoint)
        egress = self._ruleset(Direction.EGRESS, selecting, endpoint)
        for address in endpoint.addresses:
            yield EndpointEntry(address, endpoint.key, endpoint.uid, ingress, egress)

    def _ruleset(self, direction: Direction, selecting: tuple[Policy, ...], endpoint: Endpoint) -> RulesetId | None:
        isolating = tuple(policy for policy in selecting if policy.rules(direction) is not None)
        if not isolating:
            return None
        ids = tuple(map(id, isolating))
        numbers = self._subject_numbers(ids, isolating, endpoint) if direction is Direction.INGRESS else ()
        key = direction, ids, numbers
        if key not in self._made:
            rules = (rule for policy in isolating for rule in policy.rules(direction) or ())
            parts = [self._rule(direction, rule, endpoint) for rule in rules]
            refs = tuple(sorted(policy.ref for policy in isolating))
            written = (line for part in parts for line in part.written)
            ruleset_id = RulesetId(digest((direction.value, tuple(map(_write_ref, refs)), *written)))
            if ruleset_id not in self.rulesets:
                compiled = tuple(rule for part in parts for rule in part.rules)
                self.rulesets[ruleset_id] = Ruleset(ruleset_id, direction, compiled, refs)
            self._made[key] = ruleset_id
        return self._made[key]

    def _subject_numbers(self, ids: tuple[int, ...], isolating: Iterable[Policy], subject: Endpoint) -> _Numbers:
        """Return what the port names of policies are on a pod: all by which two pods' ingress rulesets can differ."""
        if ids not in self._names:
            traffics = (rule.traffic for policy in isolating for rule in policy.ingress or ())
            self._names[ids] = _sorted_names(name for traffic in traffics for name in _port_names(traffic))
        return _numbers(self._names[ids], subject)

    def _rule(self, direction: Direction, rule: Rule, subject: Endpoint) -> _Part:
        """Compile a rule; one that can never match, whatever pods come, compiles to nothing."""
        names = _port_names(rule.traffic) if direction is Direction.INGRESS else ()
        key = direction, id(rule), _numbers(names, subject)
        if key not in self._parts:
            compiled = self._ingress_rule(rule, subject) if direction is Direction.INGRESS else self._egress_rule(rule)
            rules = tuple(compiled)
            self._parts[key] = _Part(rules, tuple(map(_write, rules)))
        return self._parts[key]

    def _ingress_rule(self, rule: Rule, subject: Endpoint) -> Iterator[CompiledRule]:
        """Names are looked up on the selected pod itself (SEMANTICS 9)."""
        if isinstance(rule.traffic, AnyTraffic):
            traffic: AnyTraffic | tuple[PortSpan, ...] = rule.traffic
        else:
            traffic = spans(span for match in rule.traffic.matches for span in _resolved(match, subject))
        if traffic != () and rule.peers != Peers(()):
            yield CompiledRule(rule.action, self._peers(rule.peers), traffic, rule.origin)

    def _egress_rule(self, rule: Rule) -> Iterator[CompiledRule]:
        """Names are looked up on each destination pod: one rule for each number that a name has there."""
        if rule.peers == Peers(()):
            return
        if isinstance(rule.traffic, AnyTraffic):
            yield CompiledRule(rule.action, self._peers(rule.peers), rule.traffic, rule.origin)
            return
        numeric = spans(span for match in rule.traffic.matches for span in _numeric(match))
        if numeric:
            yield CompiledRule(rule.action, self._peers(rule.peers), numeric, rule.origin)
        for port in self._port_numbers(rule.traffic):
            span = PortSpan(port.protocol, PortRange(port.number, port.number))
            yield CompiledRule(rule.action, self.peer_sets.with_port(rule.peers, port), (span,), rule.origin)

    def _port_numbers(self, traffic: Ports) -> Iterator[PortName]:
        for name, protocol in _sorted_names(_port_names(traffic)):
            for number in self.pods.port_numbers(name, protocol):
                yield PortName(name, protocol, number)

    def _peers(self, peers: AnyPeer | Peers) -> AnyPeer | PeerSetId:
        return peers if isinstance(peers, AnyPeer) else self.peer_sets.plain(peers)


def spans(given: Iterable[PortSpan]) -> tuple[PortSpan, ...]:
    """Return port spans that cover the same ports: disjoint, not touching, sorted by protocol number and port."""
    merged: list[PortSpan] = []
    for span in sorted(given, key=lambda s: (s.protocol.number, s.ports)):
        last = merged[-1] if merged else None
        if last is not None and last.protocol is span.protocol and span.ports.first <= last.ports.last + 1:
            end = max(last.ports.last, span.ports.last)
            merged[-1] = PortSpan(span.protocol, PortRange(last.ports.first, end))
        else:
            merged.append(span)
    return tuple(merged)


def _write(rule: CompiledRule) -> tuple[object, ...]:
    """Write a rule down for its ruleset's digest: all of it, origin included."""
    traffic = None
    if not isinstance(rule.traffic, AnyTraffic):
        traffic = tuple((span.protocol.value, span.ports.first, span.ports.last) for span in rule.traffic)
    peers = None if isinstance(rule.peers, AnyPeer) else rule.peers
    return (rule.action.value, peers, traffic, *_write_ref(rule.origin.object), rule.origin.path)


def _write_ref(ref: ObjectRef) -> tuple[str, str, str]:
    return ref.kind, ref.namespace, ref.name


def _port_names(traffic: AnyTraffic | Ports) -> _Names:
    if isinstance(traffic, AnyTraffic):
        return ()
    return tuple((match.port.name, match.protocol) for match in traffic.matches if isinstance(match.port, NamedPort))


def _sorted_names(names: Iterable[tuple[str, Protocol]]) -> _Names:
    return tuple(sorted(set(names), key=lambda pair: (pair[0], pair[1].number)))


def _numbers(names: _Names, subject: Endpoint) -> _Numbers:
    return tuple(tuple(sorted(subject.port_numbers(name, protocol))) for name, protocol in names)


def _resolved(match: PortMatch, subject: Endpoint) -> Iterable[PortSpan]:
    if isinstance(match.port, NamedPort):
        numbers = subject.port_numbers(match.port.name, match.protocol)
        return (PortSpan(match.protocol, PortRange(number, number)) for number in numbers)
    return _numeric(match)


def _numeric(match: PortMatch) -> Iterable[PortSpan]:
    match match.port:
        case NamedPort():
            return ()
        case PortRange() as ports:
            return (PortSpan(match.protocol, ports),)
        case _:
            assert match.port is ANY_PORT
            return (PortSpan(match.protocol, EVERY_PORT),)
