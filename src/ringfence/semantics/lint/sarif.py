# SPDX-License-Identifier: Apache-2.0
"""Findings in the form that code-scanning services read: SARIF 2.1.0 (OASIS), one run.

Columns count characters, as ours do. A finding of a live object has no file: it then has a logical location only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from ringfence import __version__
from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.rules import LintRule, Severity
from ringfence.semantics.lint.summary import API_VERSION

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def log(findings: Sequence[Finding], rules: Iterable[LintRule]) -> dict[str, Any]:
    """Return findings as a SARIF log; ``rules`` are all that were asked."""
    listed = list(rules)
    index = {rule.name: number for number, rule in enumerate(listed)}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {"name": "ringfence", "version": __version__, "rules": [_rule(rule) for rule in listed]}
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(finding, index) for finding in findings],
                "properties": {"apiVersion": API_VERSION},
            }
        ],
    }


def _rule(rule: LintRule) -> dict[str, Any]:
    why = f'"{rule.sentence}" ({rule.stands_in})'
    return {
        "id": rule.name,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": f"{rule.title[:1].upper()}{rule.title[1:]}. {why}"},
        "help": {
            "text": f"{why}\n\nTo do: {rule.remedy}.",
            "markdown": f"> {rule.sentence}\n\n{rule.stands_in}\n\n**To do:** {rule.remedy}.",
        },
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _result(finding: Finding, index: dict[str, int]) -> dict[str, Any]:
    where = f"{finding.object} {finding.path}".strip()
    location: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": where, "kind": "object"}],
    }
    if finding.place is not None:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": _uri(finding.place.file)},
            "region": {"startLine": finding.place.line, "startColumn": finding.place.column},
        }
    return {
        "ruleId": finding.rule.name,
        "ruleIndex": index[finding.rule.name],
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{where}: {finding.message}. To do: {finding.advice}."},
        "locations": [location],
    }


def _uri(file: str) -> str:
    path = PurePath(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
