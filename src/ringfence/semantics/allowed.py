# SPDX-License-Identifier: Apache-2.0
"""What is allowed between the classes of a space, for all traffic at once.

``evaluate`` judges one flow; here rules are applied to sets of spans, so that a pair of classes costs one walk over the
rules of the subject, and pairs that ask the same are walked once. The answer of every cell, its reason and the rule
that decided are ``evaluate``'s own; the tests hold that on every cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.model.policy import Action, Direction, ObjectRef, Origin, PolicySet, Rule
from ringfence.model.ports import Protocol
from ringfence.model.settings import DEFAULTS, NodeProbes, OwnNodeEgress, Settings
from ringfence.semantics.evaluate import Reason
from ringfence.semantics.questions import Answers, NamedNumber, Questions
from ringfence.semantics.relations import Relation
from ringfence.semantics.space import AddressClass, Holder, Space

_FROM_NODE = frozenset({Relation.FROM_OWN_NODE, Relation.EACH_OTHERS_NODE})
_TO_NODE = frozenset({Relation.TO_OWN_NODE, Relation.EACH_OTHERS_NODE})


@dataclass(frozen=True, slots=True)
class Ruling:
    """One decision about a set of spans: as ``evaluate.Half``, for each of them."""

    spans: int
    allowed: bool
    reason: Reason
    decided_by: Origin | None = None


@dataclass(frozen=True, slots=True)
class HalfAllowed:
    """The rulings of one direction, about disjoint sets of spans that together are all; and who isolates."""

    rulings: tuple[Ruling, ...]
    isolated_by: tuple[ObjectRef, ...]
    allowed: int


@dataclass(frozen=True, slots=True)
class PairAllowed:
    """What a pair of classes may exchange, by half; ``allowed`` is the set of spans that both halves allow."""

    egress: HalfAllowed
    ingress: HalfAllowed

    @property
    def allowed(self) -> int:
        """The spans that pass."""
        return self.egress.allowed & self.ingress.allowed


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule with its questions numbered: ``peers`` None is any peer; ``names`` are looked up on the destination."""

    action: Action
    peers: int | None
    spans: int
    names: tuple[tuple[str, Protocol], ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Policy:
    ref: ObjectRef
    subject: int
    rules: tuple[_Rule, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The part of a tier that concerns a subject in a direction: rules in their order, and what the tier ends with."""

    default: Action
    rules: tuple[_Rule, ...]


class Allowed:
    """What one policy set allows in a space, which must have been made with it."""

    def __init__(self, space: Space, policies: PolicySet, settings: Settings = DEFAULTS) -> None:
        self.space = space
        self._settings = settings
        self._tiers = {direction: _tiers(space.questions, policies, direction) for direction in Direction}
        self._asked: dict[tuple[Direction, int], tuple[tuple[_Asked, ...], tuple[ObjectRef, ...]]] = {}
        self._pairs: dict[tuple[int, int, Relation], PairAllowed] = {}
        self._whole: dict[tuple[Reason, tuple[ObjectRef, ...]], HalfAllowed] = {}
        self._halves: dict[tuple[Direction, int, int, frozenset[NamedNumber]], HalfAllowed] = {}

    def between(self, source: AddressClass, destination: AddressClass, relation: Relation) -> PairAllowed:
        """Return what addresses of two classes that have a relation may exchange."""
        key = source.number, destination.number, relation
        found = self._pairs.get(key)
        if found is None:
            found = self._pairs[key] = PairAllowed(
                self._half(Direction.EGRESS, source, destination, relation),
                self._half(Direction.INGRESS, source, destination, relation),
            )
        return found

    def _half(
        self, direction: Direction, source: AddressClass, destination: AddressClass, relation: Relation
    ) -> HalfAllowed:
        subject, far = (source, destination) if direction is Direction.EGRESS else (destination, source)
        if subject.holder is not Holder.POD:
            return self._wholly(Reason.NOT_A_POD, ())
        tiers, isolated_by = self._concerning(direction, subject.answers)
        if relation is Relation.ITSELF:
            return self._wholly(Reason.SELF, isolated_by)
        if direction is Direction.INGRESS:
            if relation in _FROM_NODE and self._settings.node_probes is NodeProbes.ALLOW:
                return self._wholly(Reason.OWN_NODE, isolated_by)
        elif relation in _TO_NODE and self._settings.own_node_egress is OwnNodeEgress.ALLOW:
            return self._wholly(Reason.TO_OWN_NODE, isolated_by)
        # A port name is looked up on the destination in both directions.
        key = direction, subject.answers.subjects, far.answers.peers, destination.answers.ports
        found = self._halves.get(key)
        if found is None:
            rulings = tuple(self._rulings(tiers, far.answers.peers, destination.answers))
            allowed = sum(ruling.spans for ruling in rulings if ruling.allowed)
            found = self._halves[key] = HalfAllowed(rulings, isolated_by, allowed)
        return found

    def _wholly(self, reason: Reason, isolated_by: tuple[ObjectRef, ...]) -> HalfAllowed:
        found = self._whole.get((reason, isolated_by))
        if found is None:
            spans = self.space.spans.all
            found = self._whole[reason, isolated_by] = HalfAllowed((Ruling(spans, True, reason),), isolated_by, spans)
        return found

    def _concerning(self, direction: Direction, subject: Answers) -> tuple[tuple[_Asked, ...], tuple[ObjectRef, ...]]:
        """Return what of the tiers concerns a subject, and the policies that isolate it."""
        found = self._asked.get((direction, subject.subjects))
        if found is None:
            asked: list[_Asked] = []
            isolated_by: list[ObjectRef] = []
            for default, policies in self._tiers[direction]:
                selecting = [policy for policy in policies if policy.subject & subject.subjects]
                if selecting:
                    asked.append(_Asked(default, tuple(rule for policy in selecting for rule in policy.rules)))
                    if default is Action.DENY:
                        isolated_by += (policy.ref for policy in selecting)
            found = self._asked[direction, subject.subjects] = tuple(asked), tuple(isolated_by)
        return found

    def _rulings(self, tiers: tuple[_Asked, ...], far: int, destination: Answers) -> Iterator[Ruling]:
        """Ask the tiers in their order; each decides some of the traffic that those before it left undecided."""
        undecided = self.space.spans.all
        for tier in tiers:
            in_tier, undecided = undecided, 0
            for rule in tier.rules:
                if rule.peers is not None and not rule.peers & far:
                    continue
                matched = self._matched(rule, destination) & in_tier
                in_tier &= ~matched
                if rule.action is Action.PASS:
                    undecided |= matched
                elif matched:
                    yield Ruling(matched, rule.action is Action.ALLOW, Reason.RULE, rule.origin)
            if tier.default is Action.PASS:
                undecided |= in_tier
            elif in_tier:
                yield Ruling(in_tier, False, Reason.DEFAULT)
        if undecided:
            yield Ruling(undecided, True, Reason.PASSED if tiers else Reason.NOT_ISOLATED)

    def _matched(self, rule: _Rule, destination: Answers) -> int:
        matched = rule.spans
        if rule.names:
            for port in destination.ports:
                if (port.name, port.protocol) in rule.names:
                    matched |= 1 << self.space.spans.number(port.protocol, port.number)
        return matched


def _tiers(
    questions: Questions, policies: PolicySet, direction: Direction
) -> tuple[tuple[Action, tuple[_Policy, ...]], ...]:
    """Return the tiers with those of their policies that speak of a direction."""
    return tuple(
        (
            tier.default,
            tuple(
                _Policy(policy.ref, questions.subject_bit(policy.subject), tuple(_rule(questions, r) for r in rules))
                for policy in tier.policies
                if (rules := policy.rules(direction)) is not None
            ),
        )
        for tier in policies.tiers
    )


def _rule(questions: Questions, rule: Rule) -> _Rule:
    return _Rule(rule.action, questions.peers_bit(rule), *questions.traffic(rule), rule.origin)
