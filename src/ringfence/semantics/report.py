# SPDX-License-Identifier: Apache-2.0
"""An explanation as plain text for a person, and as JSON for a program. Nothing is decided here.

The text's first line is the whole answer; each half follows, the deciding rule or the nearest miss below it. The JSON
is stable: ``apiVersion`` changes when a field changes its meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_never

from ringfence.model.policy import Action
from ringfence.semantics.evaluate import Reason
from ringfence.semantics.explain import (
    DoesNotMatch,
    End,
    Explanation,
    Finding,
    HalfExplanation,
    Matches,
    NotApplicable,
)
from ringfence.semantics.nearest import RuleMiss

API_VERSION = "ringfence.io/v1alpha1"
_SAYS = {Action.ALLOW: "admits", Action.DENY: "denies", Action.PASS: "passes on"}


def headline(explanation: Explanation) -> str:
    """Return the answer in one line: ``demo/client -> demo/server TCP/80: DENIED``."""
    flow = explanation.flow
    traffic = flow.protocol.value if flow.port is None else f"{flow.protocol.value}/{flow.port}"
    word = "ALLOWED" if explanation.allowed else "DENIED"
    return f"{explanation.source} -> {explanation.destination} {traffic}: {word}"


def text(explanation: Explanation, *, every_policy: bool = False) -> str:
    """Return the explanation as lines of plain text; ``every_policy`` adds what each policy makes of the flow."""
    lines = [headline(explanation)]
    for side, end in ((explanation.egress, explanation.source), (explanation.ingress, explanation.destination)):
        lines += (f"  {line}" for line in _half_lines(side, end))
        if every_policy:
            lines += (f"    - {_finding_text(finding)}" for finding in side.findings)
    lines += (f"  note: {note}" for note in explanation.notes)
    return "\n".join(lines)


def _half_lines(side: HalfExplanation, end: End) -> Iterator[str]:
    yield f"{side.half.direction.value} of {end}: {_because(side)}"
    nearest = side.nearest
    if nearest is not None:
        yield f"  nearest rule: {nearest.origin}"
        for miss in nearest.misses:
            yield f"    {miss}"
        for remedy in (miss.remedy for miss in nearest.misses if miss.remedy is not None):
            yield f"    to match it: {remedy}"


def _because(side: HalfExplanation) -> str:
    half = side.half
    word = "allowed" if half.allowed else "denied"
    match half.reason:
        case Reason.RULE:
            return f"{word} by {half.decided_by}"
        case Reason.DEFAULT:
            rules = any(isinstance(f, DoesNotMatch) and f.nearest is not None for f in side.findings)
            tail = "and no rule matches" if rules else f"with no {half.direction.value} rule at all"
            return f"{word}, isolated by {', '.join(map(str, half.isolated_by))}, {tail}"
        case Reason.NOT_ISOLATED:
            unselecting = sum(isinstance(f, NotApplicable) for f in side.findings)
            count = f" ({unselecting} in its namespace do not apply to it)" if unselecting else ""
            return f"{word}, no policy isolates it{count}"
        case Reason.NOT_A_POD | Reason.SELF | Reason.OWN_NODE | Reason.TO_OWN_NODE | Reason.PASSED:
            return f"{word}, {half.reason.value!s}"
        case _:
            assert_never(half.reason)


def _finding_text(finding: Finding) -> str:
    match finding:
        case NotApplicable(policy, misses):
            why = "; ".join(map(str, misses)) or "it is not about this direction"
            return f"{policy} does not apply: {why}"
        case Matches(policy, rule, action):
            return f"{policy} {_SAYS[action]} it: {rule.path}"
        case DoesNotMatch(policy, nearest):
            if nearest is None:
                return f"{policy} isolates, and has no rules"
            return f"{policy} isolates; {nearest.origin.path}: {'; '.join(map(str, nearest.misses))}"
        case _:
            assert_never(finding)


def document(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as a JSON object."""
    flow = explanation.flow
    return {
        "apiVersion": API_VERSION,
        "kind": "Explanation",
        "allowed": explanation.allowed,
        "flow": {
            "source": str(flow.source),
            "destination": str(flow.destination),
            "protocol": flow.protocol.value,
            "port": flow.port,
        },
        "source": _end_document(explanation.source),
        "destination": _end_document(explanation.destination),
        "egress": _half_document(explanation.egress),
        "ingress": _half_document(explanation.ingress),
        "notes": list(explanation.notes),
    }


def _end_document(end: End) -> dict[str, Any]:
    return {
        "address": str(end.address),
        "pod": str(end.endpoint.key) if end.endpoint else None,
        "node": end.node.name if end.node else None,
        "hostNetworkPods": list(end.host_network),
    }


def _half_document(side: HalfExplanation) -> dict[str, Any]:
    half = side.half
    return {
        "allowed": half.allowed,
        "reason": half.reason.name.lower(),
        "isolatedBy": [str(ref) for ref in half.isolated_by],
        "decidedBy": str(half.decided_by) if half.decided_by else None,
        "nearest": _miss_document(side.nearest),
        "policies": [_finding_document(finding) for finding in side.findings],
    }


def _miss_document(miss: RuleMiss | None) -> dict[str, Any] | None:
    if miss is None:
        return None
    return {
        "rule": str(miss.origin),
        "misses": [
            {"aspect": m.aspect.value, "needs": m.needs, "found": m.found, "remedy": m.remedy} for m in miss.misses
        ],
    }


def _finding_document(finding: Finding) -> dict[str, Any]:
    match finding:
        case NotApplicable(policy, misses):
            return {"policy": str(policy), "finding": "notApplicable", "because": [str(miss) for miss in misses]}
        case Matches(policy, rule, action):
            return {
                "policy": str(policy),
                "finding": "admits" if action is Action.ALLOW else action.value,
                "rule": str(rule),
            }
        case DoesNotMatch(policy, nearest):
            return {"policy": str(policy), "finding": "doesNotAdmit", "nearest": _miss_document(nearest)}
        case _:
            assert_never(finding)
