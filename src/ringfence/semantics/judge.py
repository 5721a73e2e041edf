# SPDX-License-Identifier: Apache-2.0
"""The verdict of half a flow where not everything is known: allowed, denied, or undecidable and by what.

Asks the same question as ``evaluate.judge_half`` and, where everything is known, gives the same answer: the tests hold
the two against each other, and hold every decided answer against what the unknown could turn out to be. Each policy's
own finding comes with it, for explanations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.flow import Flow
from ringfence.model.policy import Action, Direction, InNamespace, ObjectRef, Origin, Policy, PolicySet, Tier
from ringfence.model.settings import DEFAULTS, NodeProbes, OwnNodeEgress, Settings
from ringfence.semantics.evaluate import Reason
from ringfence.semantics.findings import (
    DoesNotMatch,
    Finding,
    JudgedHalf,
    Matches,
    NotApplicable,
    Outcome,
    Undecidable,
)
from ringfence.semantics.knowledge import EVERYTHING_KNOWN, Knowledge, Unknown, holder_of, node_of
from ringfence.semantics.miss import Match, Miss, RuleMiss
from ringfence.semantics.nearest import policy_lacks, rule_miss


@dataclass(frozen=True, slots=True)
class _Reading:
    """One policy, read for one flow: whom it selects, and its rules up to the first that matches for certain."""

    policy: Policy
    selects: Match
    misses: tuple[Miss, ...]
    unknowns: tuple[Unknown, ...]
    rules: tuple[tuple[Action, RuleMiss], ...]

    @property
    def sure(self) -> tuple[Action, RuleMiss] | None:
        """The rule that matches for certain, if any."""
        last = self.rules[-1] if self.rules else None
        return last if last is not None and last[1].match is Match.YES else None

    @property
    def doubts(self) -> tuple[Unknown, ...]:
        """Everything that is not known about this policy."""
        return (*self.unknowns, *(unknown for _, rule in self.rules for unknown in rule.unknowns))

    @property
    def finding(self) -> Finding:
        """What the policy, alone, makes of the flow."""
        ref = self.policy.ref
        if self.selects is Match.NO:
            return NotApplicable(ref, self.misses)
        if self.selects is Match.UNKNOWN:
            return Undecidable(ref, self.doubts)
        if self.sure is not None and len({action for action, rule in self.rules if rule.match is not Match.NO}) == 1:
            action, rule = self.sure
            return Matches(ref, rule.origin, action)
        if self.doubts:
            return Undecidable(ref, self.doubts)
        nearest = min((rule for _, rule in self.rules), key=lambda rule: rule.distance, default=None)
        return DoesNotMatch(ref, nearest)


def judge(
    flow: Flow,
    direction: Direction,
    cluster: Cluster,
    policies: PolicySet,
    known: Knowledge = EVERYTHING_KNOWN,
    *,
    settings: Settings = DEFAULTS,
) -> JudgedHalf:
    """Judge the half of a flow that one end's policies decide: egress at the source, ingress at the destination."""
    near, far = flow.source, flow.destination
    if direction is Direction.INGRESS:
        near, far = far, near
    subject = cluster.endpoint_at(near)
    if subject is None:
        return _judge_nobodys(near, direction, policies, known)
    readings = [
        [
            _read(policy, subject, flow, direction, cluster, known)
            for policy in tier.policies
            if _concerns(policy, subject)
        ]
        for tier in policies.tiers
    ]
    findings = tuple(reading.finding for tier in readings for reading in tier)
    isolated_by = tuple(_isolating(policies.tiers, readings))
    told = JudgedHalf(direction, Outcome.ALLOWED, subject, None, isolated_by, findings=findings)
    if cluster.endpoint_at(far) is subject:
        return replace(told, reason=Reason.SELF)
    doubts: tuple[Unknown, ...] = ()
    privilege = _own_node_reason(direction, settings)
    if privilege is not None:
        local = _is_own_node(far, subject, cluster, known)
        if local is Match.YES:
            return replace(told, reason=privilege)
        if local is Match.UNKNOWN:
            doubts = (_whether_own_node(far, subject, known),)
    return _concluded(told, _ask_tiers(policies.tiers, readings), doubts)


def _isolating(tiers: Sequence[Tier], readings: Sequence[Sequence[_Reading]]) -> Iterator[ObjectRef]:
    for tier, members in zip(tiers, readings, strict=True):
        if tier.default is Action.DENY:
            yield from (reading.policy.ref for reading in members if reading.selects is Match.YES)


def _judge_nobodys(near: Address, direction: Direction, policies: PolicySet, known: Knowledge) -> JudgedHalf:
    """Judge the half of an end that is no pod, unless it may be one after all and some policy could isolate it."""
    if near in known.strangers and any(policy.rules(direction) is not None for policy in policies.policies()):
        unknown = holder_of(near, f"the {direction.value} policies of a pod would apply to it")
        return JudgedHalf(direction, Outcome.UNDECIDABLE, None, None, unknowns=(unknown,))
    return JudgedHalf(direction, Outcome.ALLOWED, None, Reason.NOT_A_POD)


def _own_node_reason(direction: Direction, settings: Settings) -> Reason | None:
    """Return why a pod and its own node reach each other whatever the policy (SEMANTICS 23, 24), None if it decides."""
    if direction is Direction.INGRESS:
        return Reason.OWN_NODE if settings.node_probes is NodeProbes.ALLOW else None
    return Reason.TO_OWN_NODE if settings.own_node_egress is OwnNodeEgress.ALLOW else None


def _is_own_node(far: Address, subject: Endpoint, cluster: Cluster, known: Knowledge) -> Match:
    """Tell whether an address is, or stands for, one of the node on which the subject runs (SEMANTICS 23)."""
    node = cluster.nodes.get(subject.node)
    if node is not None and far in node.addresses:
        return Match.YES
    if far in known.on_host:
        names = {known.on_host[far], subject.node}
        return Match.UNKNOWN if "" in names else Match.YES if len(names) == 1 else Match.NO
    if far in known.strangers:
        return Match.NO if node is not None and node.addresses else Match.UNKNOWN
    unplaced = subject.key in known.unplaced and cluster.node_at(far) is not None
    return Match.UNKNOWN if unplaced else Match.NO


def _whether_own_node(far: Address, subject: Endpoint, known: Knowledge) -> Unknown:
    if far in known.strangers:
        return holder_of(far, f"the node that {subject.key} runs on always reaches it")
    host = known.stand_ins.get(far)
    why = f"its own node always reaches it, and {host or far} may be {'on it' if host else 'that'}"
    return node_of(subject.key if subject.key in known.unplaced else host, why)


def _concerns(policy: Policy, subject: Endpoint) -> bool:
    """Tell whether a person who asks about a pod may have this policy in mind: other namespaces' never select it."""
    scope = policy.subject.scope
    return not isinstance(scope, InNamespace) or scope.name == subject.key.namespace


def _read(
    policy: Policy, subject: Endpoint, flow: Flow, direction: Direction, cluster: Cluster, known: Knowledge
) -> _Reading:
    rules = policy.rules(direction)
    misses, unknowns = policy_lacks(policy, subject, direction, cluster, known)
    if rules is None or misses:
        return _Reading(policy, Match.NO, misses, (), ())
    read: list[tuple[Action, RuleMiss]] = []
    for rule in rules:
        miss = rule_miss(rule, flow, direction, cluster, known)
        read.append((rule.action, miss))
        if miss.match is Match.YES:
            break
    return _Reading(policy, Match.UNKNOWN if unknowns else Match.YES, (), unknowns, tuple(read))


@dataclass(frozen=True, slots=True)
class _Answer:
    """What tiers may say, and the rule that does where all that is not known makes no difference."""

    actions: frozenset[Action]
    reason: Reason
    rule: Origin | None
    doubts: tuple[Unknown, ...]


def _ask_tiers(tiers: Sequence[Tier], readings: Sequence[Sequence[_Reading]]) -> _Answer:
    """Ask the tiers in their order until one decides, whatever the unknown turns out to be."""
    possible: set[Action] = set()
    doubts: list[Unknown] = []
    reason = Reason.NOT_ISOLATED
    for tier, members in zip(tiers, readings, strict=True):
        answer = _ask_tier(tier, members)
        doubts += answer.doubts
        possible |= answer.actions - {Action.PASS}
        if Action.PASS not in answer.actions:
            return _Answer(frozenset(possible), answer.reason, answer.rule, tuple(doubts))
        if any(reading.selects is Match.YES for reading in members):
            reason = Reason.PASSED
    # After the last tier a flow is allowed.
    return _Answer(frozenset(possible | {Action.ALLOW}), reason, None, tuple(doubts))


def _ask_tier(tier: Tier, members: Sequence[_Reading]) -> _Answer:
    """Return all that a tier may say; ``PASS`` also stands for having nothing to say."""
    actions: set[Action] = set()
    doubts: list[Unknown] = []
    for reading in members:
        doubts += reading.doubts
        actions |= {action for action, rule in reading.rules if rule.match is not Match.NO}
        if reading.selects is Match.YES and reading.sure is not None:
            return _Answer(frozenset(actions), Reason.RULE, reading.sure[1].origin, tuple(doubts))
    if any(reading.selects is Match.YES for reading in members):
        actions.add(tier.default)
    else:
        # Nobody may have been asked; or one of those was that may select the pod and have no rule for the flow.
        actions.add(Action.PASS)
        if any(reading.selects is Match.UNKNOWN and reading.sure is None for reading in members):
            actions.add(tier.default)
    return _Answer(frozenset(actions), Reason.DEFAULT, None, tuple(doubts))


def _concluded(told: JudgedHalf, answer: _Answer, doubts: tuple[Unknown, ...]) -> JudgedHalf:
    actions = answer.actions | ({Action.ALLOW} if doubts else set())
    if len(actions) > 1:
        unknowns = tuple(dict.fromkeys((*doubts, *answer.doubts)))
        return replace(told, outcome=Outcome.UNDECIDABLE, unknowns=unknowns)
    outcome = Outcome.ALLOWED if Action.ALLOW in actions else Outcome.DENIED
    return replace(told, outcome=outcome, reason=answer.reason, decided_by=answer.rule)
