# SPDX-License-Identifier: Apache-2.0
"""Compares what was observed with what the history allows, counts, and keeps evidence of what should not have been.

An observation is judged once it is settled what was in force at its time: when the fences after it were passed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.torture.history import Asked, History, Stream
from tools.torture.messages import Kind, Observation
from tools.torture.misfortune import Window

MOST_EVIDENCE = 25
_NEARBY_SECONDS = 2.0


@dataclass(slots=True)
class Tally:
    """What became of one kind of observation."""

    observed: int = 0
    passed: int = 0
    dropped: int = 0
    either: int = 0
    tampered: int = 0
    leaked: int = 0
    lost: int = 0


@dataclass(slots=True)
class Judge:
    """Judges observations in order. ``tables`` returns every node's table for evidence, ``log`` what was done when."""

    history: History
    homes: Mapping[str, str | None]
    windows: list[Window]
    log: Sequence[tuple[float, str]]
    tables: Callable[[], Mapping[str, str]]
    tallies: dict[Kind, Tally] = field(default_factory=lambda: {kind: Tally() for kind in Kind})
    evidence: list[dict[str, Any]] = field(default_factory=list)
    tampered_wrong: int = 0
    _waiting: deque[Observation] = field(default_factory=deque)

    def take(self, observations: Iterable[Observation]) -> None:
        """Take observations, to be judged when they are settled."""
        self._waiting.extend(observations)

    def settle(self, horizon: float, *, at_most: int = 1_000_000) -> int:
        """Judge what ended before a moment; returns how many still wait."""
        unsettled: list[Observation] = []
        while self._waiting and at_most > 0:
            observation = self._waiting.popleft()
            if observation.ended < horizon:
                self._judge(observation)
                at_most -= 1
            else:
                unsettled.append(observation)
                if observation.began > horizon:
                    break
        self._waiting.extendleft(reversed(unsettled))
        return len(self._waiting)

    def _judge(self, seen: Observation) -> None:
        tally = self.tallies[seen.kind]
        tally.observed += 1
        asked = Asked(seen.source, seen.destination, seen.protocol, seen.port)
        expected = self.history.expected(asked, seen.began, seen.ended)
        right = seen.passed in expected
        if self._tampered(seen):
            tally.tampered += 1
            self.tampered_wrong += not right
        elif right:
            tally.either += len(expected) > 1
            tally.passed += seen.passed
            tally.dropped += not seen.passed
        else:
            tally.leaked += seen.passed
            tally.lost += not seen.passed
            self._keep(seen, asked, expected)

    def _tampered(self, seen: Observation) -> bool:
        nodes = {self.homes[seen.source], self.homes[seen.destination]}
        return any(
            window.node in nodes and seen.began <= window.ended and seen.ended >= window.began
            for window in self.windows
        )

    def _keep(self, seen: Observation, asked: Asked, expected: frozenset[bool]) -> None:
        if len(self.evidence) >= MOST_EVIDENCE:
            return
        nodes = sorted({node for end in (seen.source, seen.destination) if (node := self.homes[end]) is not None})
        spans = {node: self.history.span(node, seen.began, seen.ended) for node in nodes}
        newest = max(span.newest for span in spans.values())
        pods = self.history.snapshot(newest, Stream.PODS)
        ends = {"source": pods.holding(seen.source), "destination": pods.holding(seen.destination)}
        spaces = {pod["metadata"]["namespace"] for pod in ends.values() if pod is not None}
        policies = self.history.snapshot(newest, Stream.POLICIES)
        self.evidence.append(
            {
                "flow": str(asked.flow),
                "kind": seen.kind.value,
                "began": seen.began,
                "ended": seen.ended,
                "seen": "passed" if seen.passed else "dropped",
                "allowed": sorted("passed" if each else "dropped" for each in expected),
                "spans": {node: {"oldest": span.oldest, "newest": span.newest} for node, span in spans.items()},
                "ends": ends,
                "namespaces": dict(self.history.snapshot(newest, Stream.NAMESPACES).objects),
                "policies": [dict(each) for space in sorted(spaces) for each in policies.inside(space)],
                "done": [
                    {"at": at, "what": what}
                    for at, what in self.log
                    if seen.began - _NEARBY_SECONDS <= at <= seen.ended + _NEARBY_SECONDS
                ],
                "tables": dict(self.tables()) if len(self.evidence) < 3 else {},
            }
        )
