# SPDX-License-Identifier: Apache-2.0
"""An explanation as plain text for a person, and as JSON for a program. Nothing is decided here.

The text's first line is the whole answer; each half follows, the deciding rule or the nearest miss below it. The JSON
is stable: ``apiVersion`` changes when a field changes its meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, assert_never

import yaml

from ringfence.model.flow import Flow
from ringfence.model.policy import Action, Direction
from ringfence.semantics.evaluate import Reason
from ringfence.semantics.explain import End, Explanation
from ringfence.semantics.findings import (
    DoesNotMatch,
    Finding,
    JudgedHalf,
    Matches,
    NotApplicable,
    Undecidable,
)
from ringfence.semantics.knowledge import Unknown
from ringfence.semantics.miss import Miss, RuleMiss
from ringfence.semantics.suggest import suggestion

API_VERSION = "ringfence.io/v1alpha1"
_SAYS = {Action.ALLOW: "Admits", Action.DENY: "Denies", Action.PASS: "PassesOn"}


def headline(explanation: Explanation) -> str:
    """Return the answer in one line: ``demo/client -> demo/server TCP/80: DENIED``."""
    answer = explanation.outcome.value.upper()
    leaving = explanation.leaving
    through = "" if leaving == explanation.flow else f" (through {leaving.destination} port {leaving.port})"
    return f"{explanation.source} -> {explanation.destination} {_traffic(explanation.flow)}{through}: {answer}"


def _traffic(flow: Flow) -> str:
    return flow.protocol.value if flow.port is None else f"{flow.protocol.value}/{flow.port}"


def text(explanation: Explanation, *, every_policy: bool = False) -> str:
    """Return the explanation as lines of plain text; ``every_policy`` adds what each policy makes of the flow."""
    lines = [headline(explanation)]
    source, destination = explanation.source, explanation.destination
    for side, end in ((explanation.egress, source), (explanation.ingress, destination)):
        lines += (f"  {line}" for line in _half_lines(side, end))
        if every_policy:
            lines += (f"    - {_finding_text(finding)}" for finding in side.findings)
            lines += (f"    {line}" for line in _suggestion_lines(_suggested(explanation, side)))
    lines += (f"  note: {note}" for note in explanation.notes)
    return "\n".join(lines)


def _suggested(explanation: Explanation, side: JudgedHalf) -> dict[str, Any] | None:
    if side.direction is Direction.EGRESS:
        return suggestion(side, explanation.leaving, explanation.destination)
    arrives_as_it_left = explanation.leaving.source == explanation.flow.source
    return suggestion(side, explanation.flow, explanation.source) if arrives_as_it_left else None


def _suggestion_lines(policy: dict[str, Any] | None) -> Iterator[str]:
    if policy is not None:
        yield "a policy that would allow it:"
        yield from (f"  {line}" for line in yaml.safe_dump(policy, sort_keys=False).splitlines())


def unknown_lines(unknowns: Iterable[Unknown]) -> Iterator[str]:
    """Yield what would have to be known, and how it could be."""
    for unknown in unknowns:
        yield f"would have to be known: {unknown.fact}"
        yield f"  to know it: {unknown.remedy}"


def _half_lines(side: JudgedHalf, end: End) -> Iterator[str]:
    yield f"{side.direction.value} of {end}: {_because(side)}"
    yield from (f"  {line}" for line in unknown_lines(side.unknowns))
    nearest = side.nearest
    if nearest is not None:
        yield f"  nearest rule: {nearest.origin}"
        for miss in nearest.misses:
            yield f"    {miss}"
        if nearest.closable:
            yield from (f"    to match it: {miss.remedy}" for miss in nearest.misses)


def _because(side: JudgedHalf) -> str:
    word = side.outcome.value.lower()
    match side.reason:
        case Reason.RULE:
            return f"{word} by {side.decided_by}"
        case Reason.DEFAULT:
            rules = any(isinstance(f, DoesNotMatch) and f.nearest is not None for f in side.findings)
            tail = "and no rule matches" if rules else f"with no {side.direction.value} rule at all"
            return f"{word}, isolated by {_listed(side)}, {tail}"
        case Reason.NOT_ISOLATED:
            unselecting = sum(isinstance(f, NotApplicable) for f in side.findings)
            count = f" ({unselecting} in its namespace do not apply to it)" if unselecting else ""
            return f"{word}, no policy isolates it{count}"
        case None:
            return f"{word}, isolated by {_listed(side)}" if side.isolated_by else word
        case Reason.NOT_A_POD | Reason.SELF | Reason.OWN_NODE | Reason.TO_OWN_NODE | Reason.PASSED:
            return f"{word}, {side.reason.value!s}"
        case _:
            assert_never(side.reason)


def _listed(side: JudgedHalf) -> str:
    return ", ".join(map(str, side.isolated_by))


def finding_word(finding: Finding) -> str:
    """Return the one word for what a policy makes of a flow."""
    match finding:
        case NotApplicable():
            return "NotApplicable"
        case Matches():
            return _SAYS[finding.action]
        case DoesNotMatch():
            return "DoesNotAdmit"
        case Undecidable():
            return "Undecidable"
        case _:
            assert_never(finding)


def _finding_text(finding: Finding) -> str:
    head = f"{finding.policy}: {finding_word(finding)}"
    match finding:
        case NotApplicable(_, misses):
            return f"{head}: {'; '.join(map(str, misses)) or 'it is not about this direction'}"
        case Matches(_, rule, _):
            return f"{head}: {rule.path}"
        case DoesNotMatch(_, nearest):
            if nearest is None:
                return f"{head}: it isolates, and has no rules"
            return f"{head}: {nearest.origin.path}: {'; '.join(map(str, nearest.misses))}"
        case Undecidable(_, unknowns):
            return f"{head}: {'; '.join(unknown.fact for unknown in unknowns)}"
        case _:
            assert_never(finding)


def document(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as a JSON object."""
    flow, leaving = explanation.flow, explanation.leaving
    return {
        "apiVersion": API_VERSION,
        "kind": "Explanation",
        "verdict": explanation.outcome.value,
        "allowed": explanation.allowed,
        "family": flow.destination.version,
        "protocol": flow.protocol.value,
        "port": flow.port,
        "source": _end_document(explanation.source),
        "destination": _end_document(explanation.destination),
        "through": None if leaving == flow else {"address": str(leaving.destination), "port": leaving.port},
        "egress": _half_document(explanation, explanation.egress),
        "ingress": _half_document(explanation, explanation.ingress),
        "notes": list(explanation.notes),
    }


def unknown_document(unknown: Unknown) -> dict[str, Any]:
    """Return what is not known as a JSON object."""
    return {"gap": unknown.gap.value, "fact": unknown.fact, "remedy": unknown.remedy}


def _end_document(end: End) -> dict[str, Any]:
    return {
        "address": str(end.address) if end.address else None,
        "pod": str(end.pod) if end.pod else None,
        "node": end.node.name if end.node else None,
        "hostNetworkPods": list(end.host_network),
    }


def _half_document(explanation: Explanation, side: JudgedHalf) -> dict[str, Any]:
    return {
        "verdict": side.outcome.value,
        "reason": side.reason.name.lower() if side.reason else None,
        "isolatedBy": [str(ref) for ref in side.isolated_by],
        "decidedBy": str(side.decided_by) if side.decided_by else None,
        "nearest": _nearest_document(side.nearest),
        "suggested": _suggested(explanation, side),
        "unknowns": [unknown_document(unknown) for unknown in side.unknowns],
        "policies": [_finding_document(finding) for finding in side.findings],
    }


def _nearest_document(miss: RuleMiss | None) -> dict[str, Any] | None:
    return None if miss is None else {"rule": str(miss.origin), "misses": _misses_document(miss.misses)}


def _misses_document(misses: Iterable[Miss]) -> list[dict[str, Any]]:
    return [{"aspect": m.aspect.value, "needs": m.needs, "found": m.found, "remedy": m.remedy} for m in misses]


def _finding_document(finding: Finding) -> dict[str, Any]:
    said: dict[str, Any] = {"rule": None, "misses": [], "unknowns": []}
    match finding:
        case NotApplicable(_, misses):
            said["misses"] = _misses_document(misses)
        case Matches(_, rule, _):
            said["rule"] = str(rule)
        case DoesNotMatch(_, nearest):
            if nearest is not None:
                said |= {"rule": str(nearest.origin), "misses": _misses_document(nearest.misses)}
        case Undecidable(_, unknowns):
            said["unknowns"] = [unknown_document(unknown) for unknown in unknowns]
        case _:
            assert_never(finding)
    return {"policy": str(finding.policy), "finding": finding_word(finding), **said}
