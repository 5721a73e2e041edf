# SPDX-License-Identifier: Apache-2.0
"""Outcomes in the Test Anything Protocol, version 14: a line for each case as it ends, reasons in a YAML block."""

from __future__ import annotations

import re

import yaml

from ringfence.cases.outcome import Outcome, Status
from ringfence.cases.reports.text import details

_SPECIAL = re.compile(r"[\\#]")


def start(count: int) -> str:
    """Return the version and the plan."""
    return f"TAP version 14\n1..{count}\n"


def line(number: int, outcome: Outcome) -> str:
    """Return the test point of a case, ``number`` from 1."""
    name = _SPECIAL.sub(r"\\\g<0>", outcome.name)
    match outcome.status:
        case Status.PASSED:
            return f"ok {number} - {name}\n"
        case Status.NOT_RUN:
            return f"ok {number} - {name} # SKIP not run\n"
        case Status.DIFFERS | Status.BROKEN:
            return f"not ok {number} - {name}\n{_block(outcome)}"


def _block(outcome: Outcome) -> str:
    differs = outcome.status is Status.DIFFERS
    said = {
        "message": f"{outcome.differing} of {outcome.answers} answers differ" if differs else "broken",
        "severity": "fail" if differs else "error",
        "file": outcome.file,
        "duration_ms": round(outcome.seconds * 1000),
    }
    text = yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=10000)
    # As a literal block, which safe_dump has none of: so that a person can read the tables in it too.
    block = ("details: |2", *(f"  {each}" for each in details(outcome)))
    return "".join(f"  {each}\n" for each in ("---", *text.splitlines(), *block, "..."))
