# SPDX-License-Identifier: Apache-2.0
"""The flattened program: what a node enforces, cut so that a packet costs a few exact look-ups and no walk over rules.

An address finds its *view*: its own rulesets if it is a local pod's, and its *atom*, which stands for the peer sets
that cover it. A ruleset and an atom find their *profile*: what is decided for each protocol and port.

Everything is named by its content (an atom by what covers it, a profile by its decisions, a rule by its action and
origin), so that what a name stands for never changes, whoever wrote it down and when. Between two programs only views,
blocks and what is in use differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NewType

from ringfence.compiler.program import PortSpan, RulesetId
from ringfence.model.addresses import Address, Network
from ringfence.model.cluster import PodKey
from ringfence.model.policy import Action, Direction, Origin
from ringfence.model.settings import Settings

PartId = NewType("PartId", str)
AtomId = NewType("AtomId", str)
ProfileId = NewType("ProfileId", str)
RuleId = NewType("RuleId", str)
"""Each a digest, 16 hexadecimal digits."""

Covering = tuple[PartId, ...]
"""The parts of peer sets (``compiler.flat_parts``) that cover an address, sorted; most peer sets are one part."""

NO_ATOM = AtomId("0" * 16)
"""The atom of addresses that no peer set covers."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is decided and by which rule: None where no rule matches, which denies."""

    rule: RuleId | None
    allowed: bool


NO_RULE = Decision(None, allowed=False)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a ruleset decides of the flows of an atom.

    ``traffic``: where it is decided otherwise than ``rest`` says; disjoint, sorted by protocol number and port, as few
    spans as possible. Protocols without ports have one span of all ports (0-65535).
    """

    id: ProfileId
    rest: Decision
    traffic: tuple[tuple[PortSpan, Decision], ...]

    def rules(self) -> frozenset[RuleId]:
        """Return the rules that decide something."""
        decisions = (self.rest, *(decision for _, decision in self.traffic))
        return frozenset(decision.rule for decision in decisions if decision.rule is not None)


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """Tells a pod from every other, also from a later one of its name."""

    key: PodKey
    uid: str


@dataclass(frozen=True, slots=True)
class View:
    """All that is known of an address: ``ingress`` and ``egress`` are None where no policy isolates it, ``pod`` is
    None unless it is a local pod's, ``own_node`` tells the node's own addresses.
    """

    ingress: RulesetId | None
    egress: RulesetId | None
    pod: PodIdentity | None
    atom: AtomId
    own_node: bool

    def ruleset(self, direction: Direction) -> RulesetId | None:
        """Return the ruleset id of a direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True, slots=True)
class NamedRule:
    """A rule as far as a verdict names it."""

    action: Action
    origin: Origin


Pair = tuple[RulesetId, AtomId]


@dataclass(frozen=True, slots=True)
class FlatProgram:
    """What a node enforces; ``compiler.flatten`` makes it and ``compiler.flat_interpret`` says what it means.

    ``views``: of the addresses of which more is known than ``blocks`` tell. ``blocks``: of all that contain an
    address, the longest names its atom; one that says the same as the block it lies in is left out. ``atoms``: what
    covers each atom that a view or block names, NO_ATOM not among them. ``pairs``: a profile for each ruleset
    with NO_ATOM, and with each atom for which the ruleset decides otherwise than that. ``profiles`` and ``rules``:
    exactly those that are referred to.
    """

    node: str
    settings: Settings
    views: Mapping[Address, View]
    blocks: Mapping[Network, AtomId]
    atoms: Mapping[AtomId, Covering]
    pairs: Mapping[Pair, ProfileId]
    profiles: Mapping[ProfileId, Profile]
    rules: Mapping[RuleId, NamedRule]
