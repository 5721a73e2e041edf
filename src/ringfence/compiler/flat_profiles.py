# SPDX-License-Identifier: Apache-2.0
"""What a ruleset decides of one atom's flows: its rules painted over the ports, the first that matches on top.

Of a ruleset's rules only those count that ask for any peer or for one of the atom's peer sets. They are found by those
sets, so that it costs nothing that a ruleset has ten thousand other rules.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, KeysView

from ringfence.compiler.compile_peers import digest
from ringfence.compiler.flat import NO_RULE, Decision, NamedRule, Profile, ProfileId, RuleId
from ringfence.compiler.program import CompiledRule, PeerSetId, PortSpan, Ruleset
from ringfence.model.policy import Action, AnyPeer
from ringfence.model.ports import LAST_PORT, AnyTraffic, PortRange, Protocol

Painted = tuple[tuple[PortSpan, Decision], ...]
_Stroke = tuple[int, int, int]  # first port, last port, position of the rule


class RulesetProfiles:
    """The profiles of one ruleset, each made when it is first asked for. Rules of any peer count for every atom."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._rules = _reached(ruleset.rules)
        self._positions: dict[PeerSetId, list[int]] = defaultdict(list)
        self._of_any_peer: list[int] = []
        for position, rule in enumerate(self._rules):
            of = self._of_any_peer if isinstance(rule.peers, AnyPeer) else self._positions[rule.peers]
            of.append(position)
        self._decisions: dict[int, Decision] = {}
        self._made: dict[tuple[int, ...], Profile] = {}
        self.named: dict[RuleId, NamedRule] = {}
        """Every rule that a profile made so far refers to."""

    @property
    def peer_sets(self) -> KeysView[PeerSetId]:
        """The peer sets that some rule asks for."""
        return self._positions.keys()

    def profile(self, peer_sets: Iterable[PeerSetId]) -> Profile:
        """Return the profile of the atom of some peer sets."""
        own = [self._positions[each] for each in peer_sets if each in self._positions]
        positions = tuple(sorted(self._of_any_peer if not own else set(self._of_any_peer).union(*own)))
        if positions not in self._made:
            self._made[positions] = self._paint(positions)
        return self._made[positions]

    def _paint(self, positions: Iterable[int]) -> Profile:
        rest = NO_RULE
        strokes: dict[Protocol, list[_Stroke]] = defaultdict(list)
        for position in positions:
            traffic = self._rules[position].traffic
            if isinstance(traffic, AnyTraffic):
                rest = self._decision(position)
                break  # whatever comes after it is never reached
            for span in traffic:
                # A flow without a port matches a span of its protocol whatever the ports.
                first, last = (span.ports.first, span.ports.last) if span.protocol.has_ports else (0, LAST_PORT)
                strokes[span.protocol].append((first, last, position))
        painted = tuple(
            (PortSpan(protocol, PortRange(first, last)), decision)
            for protocol in sorted(strokes, key=lambda each: each.number)
            for first, last, decision in self._decided(strokes[protocol])
            if decision != rest
        )
        return Profile(_profile_id(rest, painted), rest, painted)

    def _decided(self, strokes: list[_Stroke]) -> Iterator[tuple[int, int, Decision]]:
        """Yield the stretches of ports that strokes decide; neighbours that decide alike are one."""
        pending: tuple[int, int, Decision] | None = None
        for first, last, position in _topmost(strokes):
            decision = self._decision(position)
            if pending is not None and pending[1] + 1 == first and pending[2] == decision:
                pending = pending[0], last, decision
                continue
            if pending is not None:
                yield pending
            pending = first, last, decision
        if pending is not None:
            yield pending

    def _decision(self, position: int) -> Decision:
        if position not in self._decisions:
            rule = self._rules[position]
            named = NamedRule(rule.action, rule.origin)
            named_id = rule_id(named)
            self.named[named_id] = named
            self._decisions[position] = Decision(named_id, rule.action is Action.ALLOW)
        return self._decisions[position]


def _reached(rules: tuple[CompiledRule, ...]) -> tuple[CompiledRule, ...]:
    """Return the rules up to the first that matches every flow."""
    for position, rule in enumerate(rules):
        if isinstance(rule.peers, AnyPeer) and isinstance(rule.traffic, AnyTraffic):
            return rules[: position + 1]
    return rules


def _topmost(strokes: list[_Stroke]) -> Iterator[_Stroke]:
    """Yield disjoint stretches, sorted, with the least position of the strokes over each."""
    waiting = sorted(strokes, reverse=True)
    over: list[tuple[int, int]] = []  # heap of (position, last port): strokes over the present port, and some past it
    cuts = sorted({first for first, _, _ in strokes} | {last + 1 for _, last, _ in strokes})
    for first, end in itertools.pairwise(cuts):
        while waiting and waiting[-1][0] == first:
            _, last, position = waiting.pop()
            heapq.heappush(over, (position, last))
        while over and over[0][1] < first:
            heapq.heappop(over)
        if over:
            yield first, end - 1, over[0][0]


def _profile_id(rest: Decision, painted: Painted) -> ProfileId:
    written = tuple(
        (span.protocol.value, span.ports.first, span.ports.last, decision.rule, decision.allowed)
        for span, decision in painted
    )
    return ProfileId(digest(("profile", rest.rule, rest.allowed, written)))


def rule_id(rule: NamedRule) -> RuleId:
    """Return the id by which the kernel knows a rule."""
    of = rule.origin.object
    return RuleId(digest(("rule", rule.action.value, of.kind, of.namespace, of.name, rule.origin.path)))
