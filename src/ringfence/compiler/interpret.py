# SPDX-License-Identifier: Apache-2.0
"""A flow run through a program, read literally: what the node that has the program would decide, and by which rule.

A node judges the halves of a flow that are its own: the egress of a local source, the ingress of a local
destination. A half that is not local is None: another node's business, or nobody's.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ringfence.compiler.program import CompiledRule, EndpointEntry, PeerSet, PeerSetId, PortSpan, Program, RulesetId
from ringfence.model.addresses import Address, contains
from ringfence.model.flow import Flow
from ringfence.model.policy import Action, AnyPeer, Direction, Origin
from ringfence.model.ports import AnyTraffic
from ringfence.model.settings import NodeProbes, OwnNodeEgress, Settings


class Ground(enum.Enum):
    """Why a half was decided as it was."""

    ITSELF = "a pod always reaches itself"
    OWN_NODE = "it is between the pod and its own node"
    NOT_ISOLATED = "no policy isolates the pod"
    RULE = "a rule decided"
    NO_RULE = "the pod is isolated and no rule matches"


@dataclass(frozen=True, slots=True)
class Half:
    """One side's decision; ``origin`` is the rule's that decided, None unless ``ground`` is ``RULE``."""

    allowed: bool
    ground: Ground
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a node decides of a flow: its own halves, None for those that are not local."""

    egress: Half | None
    ingress: Half | None

    @property
    def allowed(self) -> bool:
        """Tell whether every local half allows the flow."""
        return all(half.allowed for half in (self.egress, self.ingress) if half is not None)


def judge(program: Program, flow: Flow) -> Judgement:
    """Return what a program decides of a flow."""
    source = _entry(program, flow.source)
    destination = _entry(program, flow.destination)
    if (
        source is not None
        and destination is not None
        and (source.pod, source.uid) == (destination.pod, destination.uid)
    ):
        # "A pod reaches itself always" (SEMANTICS 22).
        return Judgement(Half(True, Ground.ITSELF), Half(True, Ground.ITSELF))
    return Judgement(
        None if source is None else _half(program, flow, source, Direction.EGRESS),
        None if destination is None else _half(program, flow, destination, Direction.INGRESS),
    )


def matches_traffic(traffic: AnyTraffic | tuple[PortSpan, ...], flow: Flow) -> bool:
    """Tell whether a rule's protocols and ports match a flow's."""
    if isinstance(traffic, AnyTraffic):
        return True
    return any(s.protocol is flow.protocol and (flow.port is None or s.ports.contains(flow.port)) for s in traffic)


def _half(program: Program, flow: Flow, subject: EndpointEntry, direction: Direction) -> Half:
    ruleset_id = subject.ruleset(direction)
    if own_node_decides(program.settings, direction) and _peer(flow, direction) in program.node_addresses:
        return Half(True, Ground.OWN_NODE)
    if ruleset_id is None:
        return Half(True, Ground.NOT_ISOLATED)
    peer = _peer(flow, direction)
    for rule in _rules(program, ruleset_id):
        if _matches_peer(program, rule.peers, peer) and matches_traffic(rule.traffic, flow):
            return Half(rule.action is Action.ALLOW, Ground.RULE, rule.origin)
    return Half(False, Ground.NO_RULE)


def own_node_decides(settings: Settings, direction: Direction) -> bool:
    """Tell whether traffic between a pod and its own node passes whatever the policy: "the node's own addresses reach
    the pods that run on it" (SEMANTICS 23), the other way only if that is set (24).
    """
    if direction is Direction.INGRESS:
        return settings.node_probes is NodeProbes.ALLOW
    return settings.own_node_egress is OwnNodeEgress.ALLOW


def _peer(flow: Flow, direction: Direction) -> Address:
    return flow.source if direction is Direction.INGRESS else flow.destination


def _entry(program: Program, address: Address) -> EndpointEntry | None:
    return next((entry for entry in program.endpoints if entry.address == address), None)


def _rules(program: Program, ruleset_id: RulesetId) -> tuple[CompiledRule, ...]:
    return next(ruleset.rules for ruleset in program.rulesets if ruleset.id == ruleset_id)


def _matches_peer(program: Program, peers: AnyPeer | PeerSetId, address: Address) -> bool:
    if isinstance(peers, AnyPeer):
        return True
    return _covers(next(each for each in program.peer_sets if each.id == peers), address)


def _covers(peer_set: PeerSet, address: Address) -> bool:
    return address in peer_set.addresses or any(contains(network, address) for network in peer_set.networks)
