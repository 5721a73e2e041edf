# SPDX-License-Identifier: Apache-2.0
"""A dataplane that tells of its verdicts: it judges flows by the program in force, and says so as a kernel's would."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Mapping

from ringfence.compiler.flat import NamedRule
from ringfence.compiler.flat_profiles import rule_id
from ringfence.compiler.interpret import Ground, Half
from ringfence.compiler.program import Program
from ringfence.dataplanes.memory.apply import MemoryDataplane
from ringfence.dataplanes.verdicts import Reason, VerdictEvent, VerdictKind
from ringfence.model.flow import Flow
from ringfence.model.policy import Action, Direction


class TellingDataplane(MemoryDataplane):
    """Tells of the flows that somebody makes it meet. ``failures`` are raised instead of reading."""

    name = "telling"

    def __init__(self) -> None:
        super().__init__()
        self._signal = os.eventfd(0, os.EFD_NONBLOCK)
        self._events: deque[VerdictEvent] = deque()
        self._allows = False
        self._counts: Counter[VerdictKind] = Counter()
        self.failures: list[Exception] = []

    def meet(self, flow: Flow) -> None:
        """Judge a flow, count the verdict of the half that decided, and report it."""
        assert self.program is not None
        judged = _verdict(self.program, flow, self)
        if judged is not None:
            self._counts[VerdictKind(judged.allowed, judged.direction, judged.reason)] += 1
            if not judged.allowed or self._allows:
                self.tell(judged)

    def tell(self, event: VerdictEvent) -> None:
        """Report an event."""
        self._events.append(event)
        os.eventfd_write(self._signal, 1)

    def fileno(self) -> int:
        """Return the descriptor that is readable while there are events."""
        return self._signal

    def read(self) -> list[VerdictEvent]:
        """Return all events that are there, or fail."""
        if self.failures:
            raise self.failures.pop(0)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._signal)
        taken, self._events = self._events, deque()
        return list(taken)

    def report_allows(self, wanted: bool) -> None:  # noqa: FBT001 - as the contract has it
        """Report allowed flows as well, or no more."""
        self._allows = wanted

    def verdict_counts(self) -> Mapping[VerdictKind, int]:
        """Return how often each verdict was given."""
        return dict(self._counts)

    def close(self) -> None:
        """Give back the descriptor."""
        os.close(self._signal)


def _verdict(program: Program, flow: Flow, dataplane: MemoryDataplane) -> VerdictEvent | None:
    """Return what a dataplane says of a flow, None where nobody's rules were asked."""
    judgement = dataplane.judge(flow)
    deciding = None
    for direction, half in ((Direction.EGRESS, judgement.egress), (Direction.INGRESS, judgement.ingress)):
        if half is not None and half.ground in (Ground.RULE, Ground.NO_RULE):
            deciding = direction, half
            if not half.allowed:
                break
    return None if deciding is None else _event(program, flow, *deciding)


def _event(program: Program, flow: Flow, direction: Direction, half: Half) -> VerdictEvent:
    subject = flow.source if direction is Direction.EGRESS else flow.destination
    (entry,) = (entry for entry in program.endpoints if entry.address == subject)
    action = Action.ALLOW if half.allowed else Action.DENY
    return VerdictEvent(
        at_ns=time.monotonic_ns(),
        allowed=half.allowed,
        reason=Reason.NO_RULE if half.origin is None else Reason.RULE,
        direction=direction,
        client=flow.source,
        server=flow.destination,
        protocol=flow.protocol,
        port=flow.port,
        ruleset=entry.ruleset(direction),
        rule=None if half.origin is None else rule_id(NamedRule(action, half.origin)),
        lost=0,
    )
