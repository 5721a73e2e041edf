# SPDX-License-Identifier: Apache-2.0
"""Outcomes as one JSON document. ``apiVersion`` changes when a field changes its meaning."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ringfence.cases.outcome import Explained, Outcome, Status, StepOutcome

API_VERSION = "ringfence.io/v1alpha1"
_STATUSES = {Status.PASSED: "passed", Status.DIFFERS: "differs", Status.BROKEN: "broken", Status.NOT_RUN: "notRun"}


def render(outcomes: Sequence[Outcome], *, dataplane: str, seconds: float) -> str:
    """Return the document as text."""
    counts = Counter(outcome.status for outcome in outcomes)
    whole = {
        "apiVersion": API_VERSION,
        "kind": "TestReport",
        "dataplane": dataplane,
        "seconds": round(seconds, 3),
        "answers": sum(outcome.answers for outcome in outcomes),
        **{word: counts[status] for status, word in _STATUSES.items()},
        "cases": [_case(outcome) for outcome in outcomes],
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _case(outcome: Outcome) -> dict[str, Any]:
    case: dict[str, Any] = {
        "name": outcome.name,
        "file": outcome.file,
        "shows": outcome.shows,
        "status": _STATUSES[outcome.status],
        "answers": outcome.answers,
        "seconds": round(outcome.seconds, 3),
        "differences": [_difference(step, each) for step in outcome.steps for each in step.differences],
    }
    return case | ({"error": outcome.error} if outcome.error else {})


def _difference(step: StepOutcome, explained: Explained) -> dict[str, Any]:
    difference, probe = explained.difference, explained.difference.probe
    return {
        "step": step.step + 1,
        "say": step.say,
        "from": str(probe.source),
        "to": str(probe.destination),
        "protocol": probe.protocol.value,
        "port": probe.port,
        "family": probe.destination.address.version,
        "asks": probe.asks.value,
        "connection": None if difference.connection is None else difference.connection.name,
        "expected": difference.expected,
        "seen": difference.got,
        "explanation": dict(explained.document) or None,
    }
