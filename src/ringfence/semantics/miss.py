# SPDX-License-Identifier: Apache-2.0
"""What a rule or a policy lacks to match: values that explanations are made of.

A ``Miss`` is certain, an ``Unknown`` may or may not be one. Something matches if it lacks nothing; where anything is
missing for certain, what is not known does not matter.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.model.policy import Origin
from ringfence.semantics.knowledge import Unknown


class Aspect(enum.Enum):
    """What of a flow a rule does not match; the value is how JSON spells it."""

    POD_LABELS = "podLabels"
    NAMESPACE_LABELS = "namespaceLabels"
    NAMESPACE = "namespace"
    NAMESPACE_UNKNOWN = "namespaceUnknown"
    NOT_A_POD = "notAPod"
    ADDRESS_FAMILY = "addressFamily"
    OUTSIDE_BLOCK = "outsideBlock"
    EXCEPTION = "exception"
    PROTOCOL = "protocol"
    PORT = "port"
    PORT_NAME = "portName"
    NOTHING = "matchesNothing"


# How much of a flow or a cluster has to change for a miss to go away: a label is nearer than another address.
_DISTANCE = {
    Aspect.POD_LABELS: 1,
    Aspect.NAMESPACE_LABELS: 2,
    Aspect.NAMESPACE: 3,
    Aspect.NAMESPACE_UNKNOWN: 3,
    Aspect.PORT: 2,
    Aspect.PORT_NAME: 2,
    Aspect.PROTOCOL: 3,
    Aspect.EXCEPTION: 4,
    Aspect.OUTSIDE_BLOCK: 5,
    Aspect.ADDRESS_FAMILY: 6,
    Aspect.NOT_A_POD: 7,
    Aspect.NOTHING: 100,
}


@dataclass(frozen=True, slots=True)
class Miss:
    """One thing that a rule needs (``needs``) and a flow does not have (``found`` says what it has instead).

    ``remedy`` is what would close this gap, where there is something that plainly would; ``times`` how many
    requirements are unmet.
    """

    aspect: Aspect
    needs: str
    found: str
    remedy: str | None = None
    times: int = 1

    def __str__(self) -> str:
        return f"{self.needs}, {self.found}"

    @property
    def distance(self) -> int:
        """How far this is from a match; only the order of distances means something."""
        return _DISTANCE[self.aspect] * self.times


class Match(enum.Enum):
    """Whether a rule matches a flow, or a policy selects a pod, as far as is known."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


Lack = Miss | Unknown


@dataclass(frozen=True, slots=True)
class RuleMiss:
    """A rule that does not match a flow, and every reason; ``distance`` sorts near before far.

    Without misses it matches, or may: ``unknowns`` are then what that rests on.
    """

    origin: Origin
    misses: tuple[Miss, ...]
    unknowns: tuple[Unknown, ...] = ()

    @property
    def distance(self) -> int:
        """The sum over all reasons; zero exactly for a rule that matches, or may."""
        return distance(self.misses)

    @property
    def closable(self) -> bool:
        """Tell whether the remedies together make the rule match: there is one for every miss."""
        return all(miss.remedy is not None for miss in self.misses)

    @property
    def match(self) -> Match:
        """Tell whether the rule matches."""
        if self.misses:
            return Match.NO
        return Match.UNKNOWN if self.unknowns else Match.YES


def split(lacks: Iterable[Lack]) -> tuple[tuple[Miss, ...], tuple[Unknown, ...]]:
    """Part what is missing from what is not known; where anything is missing, the unknown no longer matters."""
    found = tuple(lacks)
    misses = tuple(lack for lack in found if isinstance(lack, Miss))
    return misses, () if misses else tuple(lack for lack in found if isinstance(lack, Unknown))


def distance(misses: Iterable[Miss]) -> int:
    """Return how far misses together are from a match."""
    return sum(miss.distance for miss in misses)
