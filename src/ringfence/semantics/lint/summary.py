# SPDX-License-Identifier: Apache-2.0
"""Findings as lines for people, and as a document for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.rules import LintRule, Severity

API_VERSION = "ringfence.io/v1alpha1"


def headline(finding: Finding) -> str:
    """Say what was found and where, in one line that begins with its place as editors and compilers have it."""
    place = f"{finding.place}: " if finding.place else ""
    name = str(finding.object).strip()
    where = f"{name} {finding.path}" if finding.path else name
    return f"{place}{finding.severity.word}[{finding.rule.name}] {where}: {finding.message}"


def reasons(finding: Finding) -> tuple[str, str]:
    """Say on which sentence a finding rests, and what to do."""
    rule = finding.rule
    return f'"{rule.sentence}" ({rule.stands_in})', f"to do: {finding.advice}"


def counted(findings: Sequence[Finding], what: str) -> str:
    """Sum up, for those who look at the last line only."""
    counts = Counter(finding.severity for finding in findings)
    parts = [
        _number(counts[severity], severity.word) for severity in sorted(Severity, reverse=True) if counts[severity]
    ]
    return f"{', '.join(parts) or 'nothing found'} in {what}"


def of(number: int, noun: str, plural: str) -> str:
    """Return a number of things."""
    return f"{number} {noun if number == 1 else plural}"


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 or word == "info" else f"{count} {word}s"


def described(rule: LintRule) -> list[str]:
    """Tell of a rule: what it finds, on which sentence it rests, and what to do."""
    return [
        f"{rule.name} ({rule.severity.word})",
        f"  {rule.title}",
        f'  "{rule.sentence}" ({rule.stands_in})',
        f"  to do: {rule.remedy}",
    ]


def document(findings: Sequence[Finding], kind: str, *, policies: int) -> dict[str, Any]:
    """Return findings as a document."""
    counts = Counter(finding.severity for finding in findings)
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "networkPolicies": policies,
        "errors": counts[Severity.ERROR],
        "warnings": counts[Severity.WARNING],
        "infos": counts[Severity.INFO],
        "findings": [_entry(finding) for finding in findings],
    }


def _entry(finding: Finding) -> dict[str, Any]:
    place = finding.place
    return {
        "rule": finding.rule.name,
        "severity": finding.severity.word,
        "object": {"kind": finding.object.kind, "namespace": finding.object.namespace, "name": finding.object.name},
        "path": finding.path,
        "message": finding.message,
        "remedy": finding.advice,
        "sentence": finding.rule.sentence,
        "source": finding.rule.stands_in,
        **({"file": place.file, "line": place.line, "column": place.column} if place else {}),
    }
