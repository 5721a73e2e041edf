# SPDX-License-Identifier: Apache-2.0
"""The program: everything that one node enforces, as a value. No selector is left in it, only addresses and numbers.

Same cluster and policies, same program, whatever path led there: everything is sorted, every id is a digest.

A program that ``compiler.incremental`` made of another is equal to one that was compiled from nothing, and what has
not changed in it (a ``PeerSet``, a ``Ruleset``, an ``EndpointEntry``, a tuple of them) *is* the object of the program
before. So a dataplane looks for differences by identity first: the same object needs no second look, and another one
may still be equal. Two ``addresses`` of one set, before and after a change, find quickly how they differ (``-``).
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NewType

from ringfence.model.addresses import Address, Network
from ringfence.model.cluster import PodKey
from ringfence.model.policy import Action, AnyPeer, Direction, ObjectRef, Origin
from ringfence.model.ports import AnyTraffic, PortRange, Protocol
from ringfence.model.settings import DEFAULTS, Settings

PeerSetId = NewType("PeerSetId", str)
RulesetId = NewType("RulesetId", str)


@dataclass(frozen=True, slots=True)
class PeerSet:
    """The addresses that one distinct peer expression covers, shared by all rules that use the expression.

    ``id`` is a digest (16 hexadecimal digits) of the *expression*, so it stays while pods come and go; ``addresses``
    are those of pods that selectors match, ``networks`` the blocks after their exceptions are taken out (sorted, may
    overlap addresses). Both families together. A set may be empty: it then matches nothing. ``selects``: the expression
    has selectors, so that pods may come into it; False where it is blocks alone.
    """

    id: PeerSetId
    expression: str
    addresses: AbstractSet[Address]
    networks: tuple[Network, ...]
    selects: bool = True


@dataclass(frozen=True, slots=True)
class PortSpan:
    """A protocol and a range of its ports; ``ports`` is 0-65535 where the rule named no port."""

    protocol: Protocol
    ports: PortRange


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule with names resolved: ``traffic`` is any, or sorted disjoint spans (none at all matches nothing)."""

    action: Action
    peers: AnyPeer | PeerSetId
    traffic: AnyTraffic | tuple[PortSpan, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The ordered rules that a group of endpoints shares in one direction; what no rule decides is denied.

    ``policies`` are those that isolate the endpoints in this direction, sorted: "no rule of these allows it" is why the
    rest is denied, and some of them may have no rule at all. ``id`` is a digest (16 hexadecimal digits) of direction,
    policies and rules, origins included.
    """

    id: RulesetId
    direction: Direction
    rules: tuple[CompiledRule, ...]
    policies: tuple[ObjectRef, ...]

    def __post_init__(self) -> None:
        if not self.policies:
            raise ValueError("a ruleset isolates, so there is a policy that does")


@dataclass(frozen=True, slots=True)
class EndpointEntry:
    """One address of a local pod, and the ruleset of each direction: None where the pod is not isolated."""

    address: Address
    pod: PodKey
    uid: str
    ingress: RulesetId | None
    egress: RulesetId | None

    def ruleset(self, direction: Direction) -> RulesetId | None:
        """Return the ruleset id of a direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True, slots=True)
class Program:
    """What a node enforces.

    ``endpoints``: every address of every local pod, isolated or not, sorted by address. ``rulesets`` and
    ``peer_sets``: exactly those in use, sorted by id. ``node_addresses``: the node's own addresses, which always
    reach the pods that run on it (SEMANTICS 23) unless ``settings`` say otherwise. A flow whose source is local is
    judged by the source's egress ruleset, one whose destination is local by the destination's ingress ruleset; a pod
    always reaches itself.
    """

    node: str
    node_addresses: frozenset[Address]
    endpoints: tuple[EndpointEntry, ...]
    rulesets: tuple[Ruleset, ...]
    peer_sets: tuple[PeerSet, ...]
    settings: Settings = DEFAULTS


def empty_program(node: str) -> Program:
    """Return the program of a node that has no pods: it touches no packet."""
    return Program(node, frozenset(), (), (), ())
