# SPDX-License-Identifier: Apache-2.0
"""What explanations say of half a flow, and of each policy: the four findings, and the three outcomes.

A policy is not applicable, admits the flow (or, in other tiers, denies it or passes it on), does not admit it, or it
cannot be decided. Values only: ``judge`` makes them, ``report`` tells of them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.model.cluster import Endpoint
from ringfence.model.policy import Action, Direction, ObjectRef, Origin
from ringfence.semantics.evaluate import Reason
from ringfence.semantics.knowledge import Unknown
from ringfence.semantics.miss import Miss, RuleMiss


class Outcome(enum.Enum):
    """What becomes of a flow, as far as is known; the value is how JSON spells it."""

    ALLOWED = "Allowed"
    DENIED = "Denied"
    UNDECIDABLE = "Undecidable"


def both(halves: Iterable[Outcome]) -> Outcome:
    """Return what becomes of what has to pass everywhere: one denial suffices, whatever is not known of the rest."""
    found = set(halves)
    if Outcome.DENIED in found:
        return Outcome.DENIED
    return Outcome.UNDECIDABLE if Outcome.UNDECIDABLE in found else Outcome.ALLOWED


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """A policy that says nothing about the subject in this direction. ``misses`` empty: it is about the other one."""

    policy: ObjectRef
    misses: tuple[Miss, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """A policy with a rule that matches the flow: the first such rule, and what it says (allow admits the flow)."""

    policy: ObjectRef
    rule: Origin
    action: Action


@dataclass(frozen=True, slots=True)
class DoesNotMatch:
    """A policy that selects the subject and of which no rule matches; ``nearest`` None if it has no rule at all."""

    policy: ObjectRef
    nearest: RuleMiss | None


@dataclass(frozen=True, slots=True)
class Undecidable:
    """A policy of which it is not known whether it selects the subject, or whether a rule of it matches."""

    policy: ObjectRef
    unknowns: tuple[Unknown, ...]


Finding = NotApplicable | Matches | DoesNotMatch | Undecidable


@dataclass(frozen=True, slots=True)
class JudgedHalf:
    """One half of a verdict. ``reason`` is None exactly if it is undecidable, and ``unknowns`` are then what it takes.

    ``isolated_by`` are the policies that isolate the subject for certain; ``findings`` what each policy makes of it.
    """

    direction: Direction
    outcome: Outcome
    subject: Endpoint | None
    reason: Reason | None
    isolated_by: tuple[ObjectRef, ...] = ()
    decided_by: Origin | None = None
    unknowns: tuple[Unknown, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def nearest(self) -> RuleMiss | None:
        """The rule that came nearest to allowing a denied flow."""
        if self.outcome is not Outcome.DENIED:
            return None
        misses = [f.nearest for f in self.findings if isinstance(f, DoesNotMatch) and f.nearest is not None]
        return min(misses, key=lambda miss: miss.distance, default=None)
