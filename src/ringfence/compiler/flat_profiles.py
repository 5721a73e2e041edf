# SPDX-License-Identifier: Apache-2.0
"""What a ruleset decides of one atom's flows: its rules painted over the ports, the first that matches on top.

Of a ruleset's rules only those count that ask for any peer or for one of the atom's peer sets. They are found by those
sets, so that it costs nothing that a ruleset has ten thousand other rules.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, KeysView, Sequence

from ringfence.compiler.compile_peers import digest
from ringfence.compiler.flat import NO_RULE, Decision, NamedRule, Profile, ProfileId, RuleId
from ringfence.compiler.program import CompiledRule, PeerSetId, PortSpan, Ruleset
from ringfence.model.policy import Action, AnyPeer
from ringfence.model.ports import LAST_PORT, AnyTraffic, PortRange, Protocol

Painted = tuple[tuple[PortSpan, Decision], ...]
_Stroke = tuple[int, int, int]  # first port, last port, position of the rule


class Painter:
    """Makes profiles of ordered rules, and knows rules again by their identity, whatever ruleset they stand in."""

    def __init__(self) -> None:
        # The rules are kept alive by what is known of them.
        self._made: dict[tuple[int, ...], tuple[tuple[CompiledRule, ...], Profile]] = {}
        self._decisions: dict[int, tuple[CompiledRule, Decision]] = {}
        self.named: dict[RuleId, NamedRule] = {}
        """Every rule that a profile made so far refers to."""

    @property
    def size(self) -> int:
        """How many profiles it remembers."""
        return len(self._made)

    def forget(self) -> None:
        """Remember nothing any more."""
        self._made.clear()
        self._decisions.clear()
        self.named.clear()

    def profile(self, rules: tuple[CompiledRule, ...]) -> Profile:
        """Return what rules decide of the flows of a peer that all of them ask for."""
        key = tuple(map(id, rules))
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = rules, self._paint(rules)
        return made[1]

    def _paint(self, rules: tuple[CompiledRule, ...]) -> Profile:
        strokes, last = _strokes(rules)
        rest = NO_RULE if last is None else self._decision(rules[last])
        painted = tuple(
            (PortSpan(protocol, PortRange(first, last)), decision)
            for protocol in sorted(strokes, key=lambda each: each.number)
            for first, last, decision in self._decided(rules, strokes[protocol])
            if decision != rest
        )
        return Profile(_profile_id(rest, painted), rest, painted)

    def _decided(self, rules: tuple[CompiledRule, ...], strokes: list[_Stroke]) -> Iterator[tuple[int, int, Decision]]:
        """Yield the stretches of ports that strokes decide; neighbours that decide alike are one."""
        pending: tuple[int, int, Decision] | None = None
        for first, last, position in _topmost(strokes):
            decision = self._decision(rules[position])
            if pending is not None and pending[1] + 1 == first and pending[2] == decision:
                pending = pending[0], last, decision
                continue
            if pending is not None:
                yield pending
            pending = first, last, decision
        if pending is not None:
            yield pending

    def _decision(self, rule: CompiledRule) -> Decision:
        known = self._decisions.get(id(rule))
        if known is None:
            named = NamedRule(rule.action, rule.origin)
            named_id = rule_id(named)
            self.named[named_id] = named
            known = self._decisions[id(rule)] = rule, Decision(named_id, rule.action is Action.ALLOW)
        return known[1]


class RulesetProfiles:
    """The profiles of one ruleset. Its rules of any peer count for every atom."""

    def __init__(self, ruleset: Ruleset, painter: Painter) -> None:
        self._painter = painter
        self._rules = _reached(ruleset.rules)
        self._positions: dict[PeerSetId, list[int]] = defaultdict(list)
        of_any_peer: list[int] = []
        for position, rule in enumerate(self._rules):
            (of_any_peer if isinstance(rule.peers, AnyPeer) else self._positions[rule.peers]).append(position)
        self._of_any_peer = _reaching(self._rules, of_any_peer)

    @property
    def peer_sets(self) -> KeysView[PeerSetId]:
        """The peer sets that some rule asks for."""
        return self._positions.keys()

    def profile(self, peer_sets: Iterable[PeerSetId]) -> Profile:
        """Return the profile of the atom of some peer sets."""
        own = [self._positions[each] for each in peer_sets if each in self._positions]
        positions = sorted(set().union(self._of_any_peer, *own)) if own else self._of_any_peer
        return self._painter.profile(tuple([self._rules[position] for position in positions]))


def _reached(rules: tuple[CompiledRule, ...]) -> tuple[CompiledRule, ...]:
    """Return the rules up to the first that matches every flow."""
    for position, rule in enumerate(rules):
        if isinstance(rule.peers, AnyPeer) and isinstance(rule.traffic, AnyTraffic):
            return rules[: position + 1]
    return rules


def _reaching(rules: tuple[CompiledRule, ...], positions: list[int]) -> list[int]:
    """Return the positions of the rules of any peer that some flow reaches: others do not count for any atom."""
    strokes, last = _strokes([rules[position] for position in positions])
    reached = {each for painted in strokes.values() for _, _, each in _topmost(painted)}
    return [position for at, position in enumerate(positions) if at in reached or at == last]


def _strokes(rules: Sequence[CompiledRule]) -> tuple[dict[Protocol, list[_Stroke]], int | None]:
    """Return which ports rules are about, and the position of the first that is about all: of what is before it."""
    strokes: dict[Protocol, list[_Stroke]] = defaultdict(list)
    for position, rule in enumerate(rules):
        if isinstance(rule.traffic, AnyTraffic):
            return strokes, position
        for span in rule.traffic:
            # A flow without a port matches a span of its protocol whatever the ports.
            first, last = (span.ports.first, span.ports.last) if span.protocol.has_ports else (0, LAST_PORT)
            strokes[span.protocol].append((first, last, position))
    return strokes, None


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
