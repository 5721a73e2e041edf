# SPDX-License-Identifier: Apache-2.0
"""Policies of one priority that disagree: the API leaves open which of them decides.

Works on the model, for every kind of policy that has an order. NetworkPolicies all have the same, and only ever allow:
they add up, whichever is asked first, so nothing is found among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, groupby

from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.policy import Direction, Policy, PolicySet, Rule
from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.overlap import rules_meet, subjects_meet
from ringfence.semantics.lint.rules import RULES


def equal_priorities(policies: PolicySet, cluster: Cluster, *, whole: bool) -> Iterator[Finding]:
    """Find policies of one tier and order of which rules with different actions may match the same connection."""
    for tier in policies.tiers:
        for order, group in groupby(tier.policies, key=lambda policy: policy.order):
            equals = list(group)
            if len({rule.action for policy in equals for rule in _rules(policy)}) < 2:
                continue  # NetworkPolicies, however many, and whatever else cannot disagree
            for first, second in combinations(equals, 2):
                disagreement = _disagreement(first, second, cluster, whole=whole)
                if disagreement:
                    message = (
                        f"has the priority {order:g} of {second.ref} too, and they disagree: {disagreement};"
                        f" ringfence asks {first.ref.name} first, by name"
                    )
                    yield Finding(RULES["equal-priority"], first.ref, "spec.priority", message)


def _rules(policy: Policy) -> Iterator[Rule]:
    for direction in Direction:
        yield from policy.rules(direction) or ()


def _disagreement(first: Policy, second: Policy, cluster: Cluster, *, whole: bool) -> str:
    if not _select_in_common(first, second, cluster, whole=whole):
        return ""
    for direction in Direction:
        for one in first.rules(direction) or ():
            for other in second.rules(direction) or ():
                if one.action is not other.action and rules_meet(one, other):
                    return (
                        f"{one.origin.path} says {one.action.value}, {other.origin.path} of {second.ref.name}"
                        f" {other.action.value}"
                    )
    return ""


def _select_in_common(first: Policy, second: Policy, cluster: Cluster, *, whole: bool) -> bool:
    """Tell whether some pod may be selected by both: one that there is, where all are known."""
    if not subjects_meet(first.subject, second.subject):
        return False
    both = (e for e in cluster.endpoints.values() if _covered(e, (first, second), cluster))
    return next(both, None) is not None if whole else True


def _covered(endpoint: Endpoint, policies: Iterable[Policy], cluster: Cluster) -> bool:
    return all(policy.subject.covers(endpoint, cluster) for policy in policies)
