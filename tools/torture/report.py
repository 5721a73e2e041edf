# SPDX-License-Identifier: Apache-2.0
"""The outcome of a run: what must be zero, what was counted, as a table or as JSON. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.torture.judge import Tally
from tools.torture.messages import Kind

_NEW = (Kind.NEW_TCP, Kind.NEW_UDP)
_OPEN = (Kind.KEPT_TCP, Kind.KEPT_UDP, Kind.STUCK_TCP)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that a run counted."""

    seconds: float
    seed: int
    nodes: int
    tallies: Mapping[Kind, Tally]
    tampered_wrong: int
    changes: Mapping[str, int]
    events: Mapping[str, int]
    commit_seconds: Sequence[float]
    repair_seconds: Sequence[float]
    late_repairs: int
    agents_ended: int
    open_connections: int
    lag: float
    unclear: int
    late: int
    discarded: int
    agent_errors: Sequence[str] = ()
    stalled: str = ""
    evidence: Sequence[Mapping[str, Any]] = ()
    logs: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def zeros(self) -> dict[str, int]:
        """Return what must be zero."""
        tallies = self.tallies
        return {
            "new connections that passed though no state allowed it": sum(tallies[k].leaked for k in _NEW),
            "new connections that were dropped though every state allowed it": sum(tallies[k].lost for k in _NEW),
            "open connections that went on though they had to be cut": sum(tallies[k].leaked for k in _OPEN),
            "open connections that were lost though they stayed allowed": sum(tallies[k].lost for k in _OPEN),
            "repairs that came too late": self.late_repairs,
            "agents that ended by themselves": self.agents_ended,
            "changes that never came into force": int(bool(self.stalled)),
        }

    @property
    def clean(self) -> bool:
        """Whether everything that must be zero is."""
        return not any(self.zeros().values())

    def table(self) -> str:
        """Return the outcome for people."""
        lines = [f"{self.seconds:.0f} s, seed {self.seed}, {self.nodes} nodes", ""]
        header = ("observed", "passed", "dropped", "either", "tampered", "leaked", "lost")
        lines.append(f"{'':<46}" + "".join(f"{word:>10}" for word in header))
        for kind, tally in self.tallies.items():
            numbers = (getattr(tally, word) for word in header)
            lines.append(f"{kind.value:<46}" + "".join(f"{number:>10}" for number in numbers))
        lines.append("")
        lines += [f"{name:<66}{count:>8}" for name, count in sorted(self.changes.items())]
        lines += [f"{name:<66}{count:>8}" for name, count in sorted(self.events.items())]
        lines += [
            f"{'open connections at the end':<66}{self.open_connections:>8}",
            f"{'wrong verdicts while our rules were tampered with (counted apart)':<66}{self.tampered_wrong:>8}",
            f"{'not judged: the pod went away, or the sender had an error':<66}{self.discarded + self.unclear:>8}",
            f"{'arrived after they had been given up':<66}{self.late:>8}",
            f"{'error lines in the logs of the agents':<66}{len(self.agent_errors):>8}",
            _times("from a change to proof on every node (two fences)", self.commit_seconds),
            _times("from tampering to repair", self.repair_seconds),
            f"{'the hammer was kept waiting at most':<66}{1000 * self.lag:>5.0f} ms",
            "",
            "must be zero:",
        ]
        lines += [f"  {name:<64}{count:>8}" for name, count in self.zeros().items()]
        if self.stalled:
            lines.append(f"  {self.stalled}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the outcome for programs; the evidence is in a file of its own."""
        return {
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
            "nodes": self.nodes,
            "clean": self.clean,
            "mustBeZero": self.zeros(),
            "stalled": self.stalled,
            "observations": {
                kind.name.lower(): {word: getattr(tally, word) for word in Tally.__slots__}
                for kind, tally in self.tallies.items()
            },
            "changes": dict(self.changes),
            "events": dict(self.events),
            "commitSeconds": _spread(self.commit_seconds),
            "repairSeconds": _spread(self.repair_seconds),
            "wrongWhileTampered": self.tampered_wrong,
            "openConnections": self.open_connections,
            "unclear": self.unclear,
            "late": self.late,
            "discarded": self.discarded,
            "agentErrors": list(self.agent_errors)[:20],
            "hammerLagSeconds": round(self.lag, 3),
        }


def _times(what: str, seconds: Sequence[float]) -> str:
    if not seconds:
        return f"{what:<66}{'none':>8}"
    return f"{what:<58}median {1000 * statistics.median(seconds):.0f} ms, at most {1000 * max(seconds):.0f} ms"


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {"median": round(statistics.median(seconds), 4), "max": round(max(seconds), 4), "count": len(seconds)}
