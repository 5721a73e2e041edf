# SPDX-License-Identifier: Apache-2.0
"""Findings as lines, as a document, and as SARIF 2.1.0."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ringfence.errors import FieldError, InvalidObject
from ringfence.semantics.lint import sarif, summary
from ringfence.semantics.lint.findings import Place, unreadable
from ringfence.semantics.lint.rules import RULES
from tests.semantics.lint.linted import findings, policy, workload
from tests.semantics.lint.sarif_form import assert_sarif

FOUND = findings(policy("{podSelector: {matchLabels: {app: website}}}"), workload("shop/web", "{app: web}"))
PLACED = [replace(FOUND[0], place=Place("a b.yaml", 3, 5))]


def test_a_line_begins_with_the_place() -> None:
    """As editors and compilers have it; a live object has none."""
    assert summary.headline(PLACED[0]).startswith(
        "a b.yaml:3:5: warning[selects-nothing] NetworkPolicy shop/p spec.podSelector: no pod"
    )
    assert summary.headline(FOUND[0]).startswith("warning[selects-nothing] NetworkPolicy shop/p spec.podSelector: ")


def test_the_last_line_counts() -> None:
    """By severity, gravest first."""
    info = findings(policy("{ingress: [{from: []}]}"))
    error = findings(policy("{podSelector: 1}"))

    assert summary.counted([], "1 NetworkPolicy") == "nothing found in 1 NetworkPolicy"
    assert summary.counted([*info, *FOUND, *FOUND, *error], "x") == "1 error, 2 warnings, 1 info in x"


def test_what_is_wrong_with_a_file_is_a_finding_of_it() -> None:
    """Text that is no YAML has a place and no object."""
    problem = InvalidObject("file", "x.yaml", [FieldError("", "not YAML", "", 4, 2)], file="x.yaml")
    (finding,) = unreadable(problem)

    assert summary.headline(finding) == "x.yaml:4:2: error[invalid] file x.yaml: not YAML"


def test_sarif_has_the_required_form() -> None:
    """With a file, without one, and empty."""
    for each in (PLACED, FOUND, []):
        assert_sarif(sarif.log(each, RULES.values()))


def test_sarif_tells_where_and_what() -> None:
    """File names are URIs, relative as they were given."""
    run = sarif.log(PLACED, RULES.values())["runs"][0]
    (result,) = run["results"]
    (location,) = result["locations"]

    assert (result["ruleId"], result["level"]) == ("selects-nothing", "warning")
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "selects-nothing"
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "a%20b.yaml"
    assert location["physicalLocation"]["region"] == {"startLine": 3, "startColumn": 5}
    assert location["logicalLocations"][0]["fullyQualifiedName"] == "NetworkPolicy shop/p spec.podSelector"


def test_sarif_has_absolute_files_as_file_uris(tmp_path: Path) -> None:
    """So that a viewer opens them."""
    found = [replace(FOUND[0], place=Place(str(tmp_path / "p.yaml")))]
    location = sarif.log(found, RULES.values())["runs"][0]["results"][0]["locations"][0]

    assert location["physicalLocation"]["artifactLocation"]["uri"] == (tmp_path / "p.yaml").as_uri()


def test_each_rule_is_described() -> None:
    """By its name, its sentence and its remedy."""
    lines = summary.described(RULES["and-or"])

    assert lines[0] == "and-or (warning)"
    assert RULES["and-or"].sentence in lines[2]
