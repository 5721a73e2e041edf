# SPDX-License-Identifier: Apache-2.0
"""What changes between two programs, as a value that prints itself: what ``--dry-run`` shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ringfence.compiler.program import CompiledRule, EndpointEntry, PeerSet, Program, Ruleset
from ringfence.model.addresses import Address, Network, address_order, network_order
from ringfence.model.policy import AnyPeer
from ringfence.model.ports import LAST_PORT, AnyTraffic


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """An address whose pod or rulesets change; ``old`` None if it is new, ``new`` None if it goes."""

    old: EndpointEntry | None
    new: EndpointEntry | None


@dataclass(frozen=True, slots=True)
class PeerSetChange:
    """A peer set that stays and whose content changes."""

    peer_set: PeerSet
    added: tuple[Address | Network, ...]
    removed: tuple[Address | Network, ...]


@dataclass(frozen=True, slots=True)
class ProgramDiff:
    """All that differs between two programs; everything is sorted, nothing is in it twice."""

    node_addresses_added: tuple[Address, ...]
    node_addresses_removed: tuple[Address, ...]
    endpoints: tuple[EndpointChange, ...]
    rulesets_added: tuple[Ruleset, ...]
    rulesets_removed: tuple[Ruleset, ...]
    peer_sets_added: tuple[PeerSet, ...]
    peer_sets_removed: tuple[PeerSet, ...]
    peer_sets_changed: tuple[PeerSetChange, ...]

    @property
    def empty(self) -> bool:
        """Tell whether the programs enforce the same."""
        return not str(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from (f"+ node address {address}" for address in self.node_addresses_added)
        yield from (f"- node address {address}" for address in self.node_addresses_removed)
        for change in self.endpoints:
            if change.old is not None:
                yield f"- {_endpoint_line(change.old)}"
            if change.new is not None:
                yield f"+ {_endpoint_line(change.new)}"
        for sign, rulesets in (("-", self.rulesets_removed), ("+", self.rulesets_added)):
            for ruleset in rulesets:
                yield f"{sign} ruleset {ruleset.id} ({_ruleset_words(ruleset)})"
                yield from (f"{sign}   {_rule_line(rule)}" for rule in ruleset.rules)
        for sign, peer_sets in (("-", self.peer_sets_removed), ("+", self.peer_sets_added)):
            for peer_set in peer_sets:
                yield f"{sign} peers {peer_set.id}: {peer_set.expression}"
                yield from (f"{sign}   {entry}" for entry in _content(peer_set))
        for each in self.peer_sets_changed:
            yield f"~ peers {each.peer_set.id}: {each.peer_set.expression}"
            yield from (f"-   {entry}" for entry in each.removed)
            yield from (f"+   {entry}" for entry in each.added)


def diff(old: Program, new: Program) -> ProgramDiff:
    """Return what must change for the new program to be in force where the old one is."""
    old_endpoints = {entry.address: entry for entry in old.endpoints}
    new_endpoints = {entry.address: entry for entry in new.endpoints}
    old_rulesets = {ruleset.id: ruleset for ruleset in old.rulesets}
    new_rulesets = {ruleset.id: ruleset for ruleset in new.rulesets}
    old_sets = {peer_set.id: peer_set for peer_set in old.peer_sets}
    new_sets = {peer_set.id: peer_set for peer_set in new.peer_sets}
    return ProgramDiff(
        node_addresses_added=_sorted_addresses(new.node_addresses - old.node_addresses),
        node_addresses_removed=_sorted_addresses(old.node_addresses - new.node_addresses),
        endpoints=tuple(
            EndpointChange(old_endpoints.get(address), new_endpoints.get(address))
            for address in _sorted_addresses(old_endpoints.keys() | new_endpoints.keys())
            if old_endpoints.get(address) != new_endpoints.get(address)
        ),
        rulesets_added=tuple(new_rulesets[i] for i in sorted(new_rulesets.keys() - old_rulesets.keys())),
        rulesets_removed=tuple(old_rulesets[i] for i in sorted(old_rulesets.keys() - new_rulesets.keys())),
        peer_sets_added=tuple(new_sets[i] for i in sorted(new_sets.keys() - old_sets.keys())),
        peer_sets_removed=tuple(old_sets[i] for i in sorted(old_sets.keys() - new_sets.keys())),
        peer_sets_changed=tuple(
            _peer_set_change(old_sets[i], new_sets[i])
            for i in sorted(old_sets.keys() & new_sets.keys())
            if old_sets[i] != new_sets[i]
        ),
    )


def _peer_set_change(old: PeerSet, new: PeerSet) -> PeerSetChange:
    return PeerSetChange(
        new,
        (*_sorted_addresses(new.addresses - old.addresses), *_sorted_networks(set(new.networks) - set(old.networks))),
        (*_sorted_addresses(old.addresses - new.addresses), *_sorted_networks(set(old.networks) - set(new.networks))),
    )


def _sorted_addresses(addresses: Iterable[Address]) -> tuple[Address, ...]:
    return tuple(sorted(addresses, key=address_order))


def _sorted_networks(networks: Iterable[Network]) -> tuple[Network, ...]:
    return tuple(sorted(networks, key=network_order))


def _content(peer_set: PeerSet) -> tuple[Address | Network, ...]:
    return (*_sorted_addresses(peer_set.addresses), *peer_set.networks)


def _endpoint_line(entry: EndpointEntry) -> str:
    return f"{entry.address} {entry.pod} ingress {entry.ingress or 'open'} egress {entry.egress or 'open'}"


def _ruleset_words(ruleset: Ruleset) -> str:
    return ", ".join((ruleset.direction.value, *map(str, ruleset.policies)))


def _rule_line(rule: CompiledRule) -> str:
    peers = "any peer" if isinstance(rule.peers, AnyPeer) else f"peers {rule.peers}"
    return f"{rule.action.value} {peers} {_traffic_text(rule)} ({rule.origin})"


def _traffic_text(rule: CompiledRule) -> str:
    if isinstance(rule.traffic, AnyTraffic):
        return "any traffic"
    every = (0, LAST_PORT)
    return ", ".join(
        span.protocol.value if (span.ports.first, span.ports.last) == every else f"{span.protocol.value}/{span.ports}"
        for span in rule.traffic
    )
