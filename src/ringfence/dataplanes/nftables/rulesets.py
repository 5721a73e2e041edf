# SPDX-License-Identifier: Apache-2.0
"""The rules of one ruleset: compiled rules in, a chain of nft rules out, once for each family. Pure.

Which packets are sent to the chain, and what a chain's ``return`` leads to, ``render`` decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.compiler.program import CompiledRule, PeerSet, PeerSetId, PortSpan, Program, Ruleset
from ringfence.dataplanes.nftables import spelling
from ringfence.dataplanes.nftables.layout import Rule, TableBuilder
from ringfence.model.policy import Action, AnyPeer, Direction
from ringfence.model.ports import LAST_PORT, AnyTraffic, PortRange, Protocol


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between IPv4 and IPv6: nft's words, and the family's ICMP."""

    version: int
    word: str
    key: str
    icmp: Protocol

    @property
    def client(self) -> str:
        """Who opened the connection that a packet belongs to."""
        return f"ct original {self.word} saddr"

    @property
    def server(self) -> str:
        """Who answers on it, after DNAT."""
        return f"ct reply {self.word} saddr"

    @property
    def last(self) -> int:
        """The highest address."""
        return (1 << (32 if self.version == 4 else 128)) - 1


FAMILIES = (Family(4, "ip", "ipv4_addr", Protocol.ICMP), Family(6, "ip6", "ipv6_addr", Protocol.ICMPV6))


class RulesetWriter:
    """Writes rulesets as chains, and the sets that they ask, into a table that is being built."""

    def __init__(self, program: Program, build: TableBuilder) -> None:
        self.build = build
        self._peer_sets = {peer_set.id: peer_set for peer_set in program.peer_sets}
        self._made: dict[tuple[PeerSetId, int], list[str]] = {}

    def chain(self, ruleset: Ruleset, family: Family) -> str:
        """Make the chain of a ruleset in one family: allow returns to the dispatch, the end drops."""
        rules = [rule for compiled in ruleset.rules for rule in self.rules(ruleset.direction, compiled, family)]
        errors = [rule for compiled in ruleset.rules for rule in self.errors(ruleset.direction, compiled, family)]
        verdict = Rule("counter drop", spelling.comment(f"no rule of {ruleset.direction.value} {ruleset.id} allows it"))
        if errors:
            rules.append(Rule(f"meta l4proto != {family.icmp.number} counter drop", verdict.comment))
            rules += dict.fromkeys(errors)
        return self.build.chain(f"{ruleset.direction.value}{family.version}", [*rules, verdict])

    def rules(self, direction: Direction, rule: CompiledRule, family: Family) -> Iterator[Rule]:
        """Return a compiled rule as nft rules: one for each protocol and set that it needs."""
        verdict = "counter return" if rule.action is Action.ALLOW else "counter drop"
        for traffic in self.traffic(rule.traffic):
            for peer in self.peers(direction, rule.peers, family):
                yield Rule(" ".join(filter(None, (traffic, peer, verdict))), spelling.comment(str(rule.origin)))

    def errors(self, direction: Direction, rule: CompiledRule, family: Family) -> Iterator[Rule]:
        """Return the rules that let ICMP errors about connections pass that a rule with ports allows.

        nft can ask for the ports of a connection only in a rule that demands its protocol of the packet as well,
        which an ICMP error about it has not: so these ask for peer and protocol, and leave the port out. An error is
        RELATED only to a connection that has been allowed once.
        """
        if isinstance(rule.traffic, AnyTraffic) or rule.action is not Action.ALLOW:
            return
        for protocol in sorted({s.protocol.number for s in rule.traffic if not _every_port(s)}):
            for peer in self.peers(direction, rule.peers, family):
                matches = " ".join(filter(None, (f"ct protocol {protocol}", peer)))
                yield Rule(f"{matches} counter return", "an ICMP error about a connection to an allowed peer")

    def traffic(self, traffic: AnyTraffic | tuple[PortSpan, ...]) -> list[str]:
        """Return the matches of which one must hold; an empty text matches everything, no text at all nothing."""
        if isinstance(traffic, AnyTraffic):
            return [""]
        matches = []
        for protocol, spans in itertools.groupby(sorted(traffic, key=_span_order), key=lambda s: s.protocol):
            ports = spelling.merged((span.ports.first, span.ports.last) for span in spans)
            if ports == [(0, LAST_PORT)]:
                matches.append(f"ct protocol {protocol.number}")
                continue
            texts = [str(PortRange(first, last)) for first, last in ports]
            if len(texts) == 1:
                wanted = texts[0]
            else:
                interval = any(first != last for first, last in ports)
                wanted = "@" + self.build.set("ports", "inet_service", texts, interval=interval)
            matches.append(f"meta l4proto {protocol.number} ct reply proto-src {wanted}")
        return matches

    def peers(self, direction: Direction, peers: AnyPeer | PeerSetId, family: Family) -> list[str]:
        """Return the matches of which one must hold; an empty text matches everything, no text at all nothing."""
        if isinstance(peers, AnyPeer):
            return [""]
        who = family.server if direction is Direction.EGRESS else family.client
        return [f"{who} {wanted}" if wanted else "" for wanted in self.peer_set(peers, family)]

    def peer_set(self, wanted: PeerSetId, family: Family) -> list[str]:
        """Make the sets of a peer set in one family, once: pods in a hash set, blocks in an interval set."""
        made = self._made.get((wanted, family.version))
        if made is None:
            made = self._made[wanted, family.version] = self._peer_set(self._peer_sets[wanted], family)
        return made

    def _peer_set(self, peer_set: PeerSet, family: Family) -> list[str]:
        blocks = spelling.merged(
            (int(network.network_address), int(network.broadcast_address))
            for network in peer_set.networks
            if network.version == family.version
        )
        if blocks == [(0, family.last)]:
            return [""]
        made = []
        pods = [str(a) for a in peer_set.addresses if a.version == family.version]
        if pods:
            made.append("@" + self.build.set(f"peers{family.version}", family.key, pods))
        if blocks:
            spans = [spelling.span(first, last, family.version) for first, last in blocks]
            made.append("@" + self.build.set(f"blocks{family.version}", family.key, spans, interval=True))
        return made


def _every_port(span: PortSpan) -> bool:
    return not span.protocol.has_ports or (span.ports.first, span.ports.last) == (0, LAST_PORT)


def _span_order(span: PortSpan) -> tuple[int, int]:
    return span.protocol.number, span.ports.first
