# SPDX-License-Identifier: Apache-2.0
"""Outcomes as JUnit XML, as CI systems read it: a case that differs is a failure, a broken one an error.

Only what the common schema (the xUnit plugin's junit-10.xsd of Jenkins) has; there is no other standard.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from xml.etree import ElementTree as ET

from ringfence.cases.outcome import Outcome, Status
from ringfence.cases.reports.text import details

_UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 may not hold


def render(outcomes: Sequence[Outcome], *, dataplane: str, seconds: float) -> str:
    """Return the document as text."""
    counts = Counter(outcome.status for outcome in outcomes)
    numbers = {
        "tests": str(len(outcomes)),
        "failures": str(counts[Status.DIFFERS]),
        "errors": str(counts[Status.BROKEN]),
    }
    root = ET.Element("testsuites", {"name": "ringfence test", **numbers, "time": f"{seconds:.3f}"})
    skipped = str(counts[Status.NOT_RUN])
    suite = ET.SubElement(
        root, "testsuite", {"name": dataplane, **numbers, "skipped": skipped, "time": f"{seconds:.3f}"}
    )
    for outcome in outcomes:
        suite.append(_case(outcome))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(outcome: Outcome) -> ET.Element:
    folder = ".".join(part for part in PurePath(outcome.file).parent.parts if part != "/") or "cases"
    case = ET.Element(
        "testcase", {"classname": _clean(folder), "name": _clean(outcome.name), "time": f"{outcome.seconds:.3f}"}
    )
    match outcome.status:
        case Status.DIFFERS:
            message = f"{outcome.differing} of {outcome.answers} answers differ"
            _add(case, "failure", message, kind="difference", text="\n".join(details(outcome)))
        case Status.BROKEN:
            first = outcome.error.partition("\n")[0]
            _add(case, "error", first, kind="broken", text=outcome.error)
        case Status.NOT_RUN:
            ET.SubElement(case, "skipped")
        case Status.PASSED:
            pass
    return case


def _add(case: ET.Element, tag: str, message: str, *, kind: str, text: str) -> None:
    ET.SubElement(case, tag, {"message": _clean(message), "type": kind}).text = _clean(text)


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text)
