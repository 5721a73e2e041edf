# SPDX-License-Identifier: Apache-2.0
"""What the eBPF program should answer of a packet: the oracle's verdict, and by whose and by which rule.

Packets that open no connection, or cannot be read, are dropped where somebody's rules would have to be asked and
cannot be (``bpf/ringfence.bpf.c``); where nobody is isolated they pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ringfence.compiler.flat import NamedRule
from ringfence.compiler.flatten import flatten
from ringfence.compiler.interpret import Ground, Half, Judgement, judge
from ringfence.compiler.program import EndpointEntry, Program
from ringfence.model.flow import Flow
from ringfence.model.policy import Action, Direction
from ringfence.semantics.evaluate import Verdict
from tests.fuzz.agreement import local
from tests.fuzz.frames import Kind

# bpf/maps.h: enum reason, enum direction
_RULE_DECIDED, _NO_RULE, _MID_CONNECTION, _UNPARSABLE = 0, 1, 3, 4
_DIRECTIONS = {Direction.INGRESS: 1, Direction.EGRESS: 2}
_INGRESS, _EGRESS = Direction.INGRESS, Direction.EGRESS


class Answer(NamedTuple):
    """What the program says of a packet. ``mark`` tells reason and direction, and is 0 if nobody's rules were asked."""

    passes: int
    mark: int = 0
    rule: int = 0
    ruleset: int = 0

    def __str__(self) -> str:
        return f"passes={self.passes} mark={self.mark:#x} rule={self.rule:016x} ruleset={self.ruleset:016x}"


_PASSES, _NO_PACKET = Answer(1), Answer(0)


class Expectations:
    """What one program should answer."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._entries = {entry.address: entry for entry in program.endpoints}
        self._rules = {rule: int(rule_id, 16) for rule_id, rule in flatten(program, "ebpf").rules.items()}

    def of(self, flow: Flow, verdict: Verdict) -> Mapping[Kind, Answer]:
        """Return the answer to each kind of packet of a flow, of which the oracle has said a verdict."""
        client, server = self._entries.get(flow.source), self._entries.get(flow.destination)
        first = self.first(flow)._replace(passes=int(False not in local(verdict, self._program.node)))
        return {
            Kind.OPENS: first,
            Kind.MIDST: _dropped(_MID_CONNECTION, (client, (_INGRESS,)), (server, (_EGRESS,))) or first,
            Kind.UNREADABLE: _dropped(_UNPARSABLE, (client, (_EGRESS, _INGRESS)), (server, (_INGRESS, _EGRESS)))
            or _PASSES,
            Kind.DISCOVERS: _PASSES,
            Kind.NOTHING: _NO_PACKET,
        }

    def first(self, flow: Flow) -> Answer:
        """Return the answer to the first packet of a flow, as the interpreter has it."""
        judgement = judge(self._program, flow)
        asked = list(_asked(judgement))
        if not asked:
            return Answer(int(judgement.allowed))
        direction, half = next(((d, h) for d, h in asked if not h.allowed), asked[-1])
        subject = self._entries[flow.destination if direction is _INGRESS else flow.source]
        rule, reason = 0, _NO_RULE
        if half.origin is not None:
            rule, reason = self._rules[NamedRule(Action.ALLOW if half.allowed else Action.DENY, half.origin)], 0
        return Answer(
            int(judgement.allowed), _mark(reason, direction), rule, int(subject.ruleset(direction) or "0", 16)
        )


def _asked(judgement: Judgement) -> Iterator[tuple[Direction, Half]]:
    """Yield the halves for which rules are asked, in the order in which they are."""
    for direction, half in ((_EGRESS, judgement.egress), (_INGRESS, judgement.ingress)):
        if half is not None and half.ground in (Ground.RULE, Ground.NO_RULE):
            yield direction, half


def _dropped(reason: int, *ends: tuple[EndpointEntry | None, tuple[Direction, ...]]) -> Answer | None:
    """Return the answer if any of these ends has rules for one of these directions: the first one is told."""
    for entry, directions in ends:
        for direction in directions:
            ruleset = None if entry is None else entry.ruleset(direction)
            if ruleset is not None:
                return Answer(0, _mark(reason, direction), 0, int(ruleset, 16))
    return None


def _mark(reason: int, direction: Direction) -> int:
    return reason << 8 | _DIRECTIONS[direction] << 4 | 1
