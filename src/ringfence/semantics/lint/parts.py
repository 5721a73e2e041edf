# SPDX-License-Identifier: Apache-2.0
"""A policy as it was written, and its parts with their field paths: what rules walk over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, assert_never

from ringfence.model.labels import EVERYTHING
from ringfence.model.policy import (
    BlockPeer,
    Direction,
    InNamespace,
    NamespaceScope,
    NamespacesMatching,
    Peer,
    Peers,
    PodPeer,
    Policy,
    Rule,
)
from ringfence.model.ports import PortMatch, Ports
from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.rules import RULES


@dataclass(frozen=True, slots=True)
class Written:
    """A NetworkPolicy as it was given: its number among the objects, what it says, and what it means."""

    number: int
    object: Mapping[str, Any]
    policy: Policy

    @property
    def namespace(self) -> str:
        """The namespace whose pods it is about."""
        return self.policy.ref.namespace


class PlacedPeer(NamedTuple):
    """A peer of a rule, and its field path."""

    peer: Peer
    path: str


class PlacedPort(NamedTuple):
    """An entry of a rule's ports, and its field path."""

    match: PortMatch
    path: str


def rules_of(written: Written) -> Iterator[tuple[Direction, Rule]]:
    """Yield every rule of a policy with its direction."""
    for direction in Direction:
        for rule in written.policy.rules(direction) or ():
            yield direction, rule


def peers_of(direction: Direction, rule: Rule) -> list[PlacedPeer]:
    """Return the peers of a rule, none where it admits everybody."""
    side = "from" if direction is Direction.INGRESS else "to"
    members = rule.peers.members if isinstance(rule.peers, Peers) else ()
    return [PlacedPeer(peer, f"{rule.origin.path}.{side}[{index}]") for index, peer in enumerate(members)]


def pod_peers(rule: Rule) -> list[PodPeer]:
    """Return the peers of a rule that select pods."""
    return [peer for peer in (rule.peers.members if isinstance(rule.peers, Peers) else ()) if isinstance(peer, PodPeer)]


def block_peers(direction: Direction, rule: Rule) -> list[tuple[BlockPeer, str]]:
    """Return the blocks of a rule with their field paths."""
    return [
        (each.peer, f"{each.path}.ipBlock") for each in peers_of(direction, rule) if isinstance(each.peer, BlockPeer)
    ]


def ports_of(rule: Rule) -> list[PlacedPort]:
    """Return the port entries of a rule, none where it admits all traffic."""
    matches = rule.traffic.matches if isinstance(rule.traffic, Ports) else ()
    return [PlacedPort(match, f"{rule.origin.path}.ports[{index}]") for index, match in enumerate(matches)]


def scope_called(scope: NamespaceScope) -> str:
    """Return what to call the namespaces of a scope in a sentence."""
    match scope:
        case InNamespace(name):
            return f"namespace {name}"
        case NamespacesMatching(selector):
            return f"the namespaces with {selector}" if selector != EVERYTHING else "any namespace"
        case _:
            assert_never(scope)


def found(rule: str, written: Written, path: str, message: str, remedy: str = "") -> Finding:
    """Return a finding about a policy."""
    return Finding(RULES[rule], written.policy.ref, path, message, written.number, remedy=remedy)
