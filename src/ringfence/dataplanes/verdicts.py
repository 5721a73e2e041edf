# SPDX-License-Identifier: Apache-2.0
"""What a dataplane may tell of the verdicts that it gives: one by one as they are given, and as counts.

Not every engine can. Who asks one finds out with ``isinstance(dataplane, Reports)``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from ringfence.compiler.flat import RuleId
from ringfence.compiler.program import RulesetId
from ringfence.model import ports
from ringfence.model.addresses import Address
from ringfence.model.policy import Direction


class Reason(enum.Enum):
    """Why a verdict is what it is."""

    RULE = "rule"
    NO_RULE = "no_rule"
    NO_CONNECTION = "no_connection"
    MID_CONNECTION = "mid_connection"
    UNPARSABLE = "unparsable"


@dataclass(frozen=True, slots=True)
class VerdictEvent:
    """One verdict: of the packet that began an allowed connection, or of any packet that was dropped.

    ``at_ns`` is CLOCK_MONOTONIC. ``client`` and ``server`` are the connection's ends, after Service translation; where
    the packet has none (``NO_CONNECTION``, ``UNPARSABLE``), its source and destination. ``protocol`` is a number where
    policies have no name for it; ``port`` is the server's. ``direction`` and ``ruleset`` are those that decided, and
    ``rule`` the rule, if one did. ``lost``: so many verdicts about the same endpoint were not reported since its last.
    """

    at_ns: int
    allowed: bool
    reason: Reason
    direction: Direction | None
    client: Address
    server: Address
    protocol: ports.Protocol | int
    port: int | None
    ruleset: RulesetId | None
    rule: RuleId | None
    lost: int


class VerdictKind(NamedTuple):
    """What verdicts are counted by."""

    allowed: bool
    direction: Direction | None
    reason: Reason


@runtime_checkable
class Reports(Protocol):
    """A dataplane that tells of its verdicts. Any thread may ask it, also while another one is in ``apply``."""

    def fileno(self) -> int:
        """Return the descriptor that is readable while there are events: the same one as long as the dataplane is."""
        ...

    def read(self) -> list[VerdictEvent]:
        """Return events that are there, in their order and at most some thousands; never waits."""
        ...

    def report_allows(self, wanted: bool) -> None:  # noqa: FBT001 - the one thing there is to say
        """Report allowed connections as well, or no more; for this program and those that come."""
        ...

    def verdict_counts(self) -> Mapping[VerdictKind, int]:
        """Return how many connections were allowed and packets dropped; the numbers only grow."""
        ...
