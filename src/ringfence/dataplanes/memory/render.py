# SPDX-License-Identifier: Apache-2.0
"""A program as look-up tables: what a kernel would hold, so that a flow costs a few look-ups and not a walk. Pure.

An address finds its endpoint, an endpoint its rules, a rule its peer set; a peer set finds an address among its own,
or its prefix among the networks, one look-up for each prefix length that occurs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ringfence.compiler.interpret import Ground, Half, Judgement, matches_traffic, own_node_decides
from ringfence.compiler.program import CompiledRule, EndpointEntry, PeerSet, PeerSetId, Program, RulesetId
from ringfence.model.addresses import Address, Network
from ringfence.model.flow import Flow
from ringfence.model.policy import Action, AnyPeer, Direction
from ringfence.model.settings import Settings


@dataclass(frozen=True, slots=True)
class AddressSet:
    """A peer set to look addresses up in. ``prefixes``: (IP version, length) -> the networks' leading bits."""

    addresses: AbstractSet[Address]
    prefixes: Mapping[tuple[int, int], frozenset[int]]

    def __contains__(self, address: Address) -> bool:
        if address in self.addresses:
            return True
        bits, width = int(address), address.max_prefixlen
        return any(
            version == address.version and bits >> (width - length) in leading
            for (version, length), leading in self.prefixes.items()
        )


@dataclass(frozen=True, slots=True)
class Table:
    """A whole program, indexed. ``judge`` answers as ``compiler.interpret.judge`` does of the program."""

    node_addresses: frozenset[Address]
    endpoints: Mapping[Address, EndpointEntry]
    rules: Mapping[RulesetId, tuple[CompiledRule, ...]]
    peers: Mapping[PeerSetId, AddressSet]
    settings: Settings

    def judge(self, flow: Flow) -> Judgement:
        """Return what the node decides of a flow: its own halves, None for those that are not local."""
        source = self.endpoints.get(flow.source)
        destination = self.endpoints.get(flow.destination)
        if source is not None and destination is not None and _same_pod(source, destination):
            return Judgement(Half(True, Ground.ITSELF), Half(True, Ground.ITSELF))
        egress = None if source is None else self._half(flow, source, Direction.EGRESS, flow.destination)
        if destination is None:
            return Judgement(egress, None)
        return Judgement(egress, self._half(flow, destination, Direction.INGRESS, flow.source))

    def _half(self, flow: Flow, subject: EndpointEntry, direction: Direction, peer: Address) -> Half:
        if peer in self.node_addresses and own_node_decides(self.settings, direction):
            return Half(True, Ground.OWN_NODE)
        ruleset_id = subject.ruleset(direction)
        if ruleset_id is None:
            return Half(True, Ground.NOT_ISOLATED)
        for rule in self.rules[ruleset_id]:
            if matches_traffic(rule.traffic, flow) and (
                isinstance(rule.peers, AnyPeer) or peer in self.peers[rule.peers]
            ):
                return Half(rule.action is Action.ALLOW, Ground.RULE, rule.origin)
        return Half(False, Ground.NO_RULE)


def render(program: Program) -> Table:
    """Return the tables of a program."""
    return Table(
        node_addresses=program.node_addresses,
        endpoints={entry.address: entry for entry in program.endpoints},
        rules={ruleset.id: ruleset.rules for ruleset in program.rulesets},
        peers={peer_set.id: _address_set(peer_set) for peer_set in program.peer_sets},
        settings=program.settings,
    )


def _same_pod(one: EndpointEntry, other: EndpointEntry) -> bool:
    return (one.pod, one.uid) == (other.pod, other.uid)


def _address_set(peer_set: PeerSet) -> AddressSet:
    prefixes: dict[tuple[int, int], set[int]] = defaultdict(set)
    for network in peer_set.networks:
        prefixes[network.version, network.prefixlen].add(_leading_bits(network))
    return AddressSet(peer_set.addresses, {length: frozenset(leading) for length, leading in prefixes.items()})


def _leading_bits(network: Network) -> int:
    return int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
