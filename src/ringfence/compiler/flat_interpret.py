# SPDX-License-Identifier: Apache-2.0
"""A flow run through a flattened program: the look-ups that a kernel makes of it, in the same order.

The answers are those of ``compiler.interpret`` for the program that was flattened.
"""

from __future__ import annotations

from ringfence.compiler.flat import NO_ATOM, AtomId, Decision, FlatProgram, Profile, View
from ringfence.compiler.interpret import Ground, Half, Judgement, own_node_decides
from ringfence.compiler.longest_prefix import LongestPrefix
from ringfence.compiler.program import RulesetId
from ringfence.model.addresses import Address
from ringfence.model.flow import Flow
from ringfence.model.policy import Direction


def judge_flat(flat: FlatProgram, flow: Flow) -> Judgement:
    """Return what a flattened program decides of a flow; for many flows, make a ``FlatJudge``."""
    return FlatJudge(flat).judge(flow)


class FlatJudge:
    """A flattened program and its blocks, ready to be asked."""

    def __init__(self, flat: FlatProgram) -> None:
        self._flat = flat
        self._blocks: LongestPrefix[AtomId] = LongestPrefix(flat.blocks)

    def judge(self, flow: Flow) -> Judgement:
        """Return what the node decides of a flow: its own halves, None for those that are not local."""
        source, destination = self.view(flow.source), self.view(flow.destination)
        if source.pod is not None and source.pod == destination.pod:
            return Judgement(Half(True, Ground.ITSELF), Half(True, Ground.ITSELF))
        return Judgement(
            self._half(flow, Direction.EGRESS, source, destination),
            self._half(flow, Direction.INGRESS, destination, source),
        )

    def view(self, address: Address) -> View:
        """Return all that is known of an address: by itself, or by the longest block around it, or nothing."""
        known = self._flat.views.get(address)
        return known or View(None, None, None, self._blocks.find(address) or NO_ATOM, own_node=False)

    def _half(self, flow: Flow, direction: Direction, subject: View, peer: View) -> Half | None:
        if subject.pod is None:
            return None
        if peer.own_node and own_node_decides(self._flat.settings, direction):
            return Half(True, Ground.OWN_NODE)
        ruleset = subject.ruleset(direction)
        if ruleset is None:
            return Half(True, Ground.NOT_ISOLATED)
        decision = decide(self._profile(ruleset, peer.atom), flow)
        if decision.rule is None:
            return Half(decision.allowed, Ground.NO_RULE)
        return Half(decision.allowed, Ground.RULE, self._flat.rules[decision.rule].origin)

    def _profile(self, ruleset: RulesetId, atom: AtomId) -> Profile:
        pairs = self._flat.pairs
        found = pairs.get((ruleset, atom))
        return self._flat.profiles[pairs[ruleset, NO_ATOM] if found is None else found]


def decide(profile: Profile, flow: Flow) -> Decision:
    """Return what a profile decides of a flow's protocol and port."""
    for span, decision in profile.traffic:
        if span.protocol is flow.protocol and (flow.port is None or span.ports.contains(flow.port)):
            return decision
    return profile.rest
