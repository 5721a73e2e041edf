# SPDX-License-Identifier: Apache-2.0
"""``docs/lint.md`` tells of every rule what the table tells, and its examples are found, and fine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.cli.main import run
from ringfence.semantics.lint.rules import RULES
from ringfence.semantics.lint.run import ANNOTATION, lint
from tests.semantics.lint.linted import objects

PAGE = (Path(__file__).parents[2] / "docs" / "lint.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\S+)\n(.*?)(?=^### |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
EXAMPLES = {
    name: re.findall(r"```yaml\n# (\w+)(, stored)?\n(.*?)```", text, re.DOTALL) for name, text in SECTIONS.items()
}
WITHOUT_EXAMPLE = {"equal-priority"}
"""No kind of policy that is read has priorities."""


def test_every_rule_has_a_section() -> None:
    """In the order of the table, and no other."""
    assert list(SECTIONS) == list(RULES)


@pytest.mark.parametrize("name", RULES)
def test_each_section_says_what_the_table_says(name: str) -> None:
    """Severity, title, sentence, where that stands, and what to do."""
    rule, text = RULES[name], SECTIONS[name]

    assert f"*{rule.severity.word.capitalize()}:* {rule.title}." in text
    assert f"> {rule.sentence}\n>\n> ({rule.stands_in})" in text
    assert f"To do: {rule.remedy}." in text


@pytest.mark.parametrize("name", RULES.keys() - WITHOUT_EXAMPLE)
def test_each_example_is_what_it_is_said_to_be(name: str) -> None:
    """One is found, by its rule alone, and one is fine."""
    (first, stored, found), (second, _, fine) = EXAMPLES[name]

    assert (first, second) == ("found", "fine")
    assert [each.rule.name for each in lint(objects(found), whole=bool(stored))] == [name]
    assert lint(objects(fine), whole=bool(stored)) == []


def test_the_output_that_is_shown_is_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For the example that it is shown for, comment and all."""
    (found,) = re.findall(r"```yaml\n(# found\n.*?)```", SECTIONS["selects-nothing"], re.DOTALL)
    shown = re.findall(r"```\n(policy\.yaml:.*?)```", PAGE, re.DOTALL)
    (tmp_path / "policy.yaml").write_text(found)
    monkeypatch.chdir(tmp_path)

    assert run(["lint", "-f", "policy.yaml"]) == 1
    assert [capsys.readouterr().out] == shown


def _keys(value: object) -> Iterator[str]:
    match value:
        case dict():
            for key, part in value.items():
                yield key
                yield from _keys(part)
        case list():
            for part in value:
                yield from _keys(part)
        case _:
            pass


def test_every_field_of_the_json_is_documented(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the annotation."""
    path = tmp_path / "policy.yaml"
    path.write_text(EXAMPLES["selects-nothing"][0][2])
    run(["lint", "-f", str(path), "-o", "json"])
    document = json.loads(capsys.readouterr().out)

    fields = set(_keys(document)) - {"apiVersion"}
    assert [key for key in sorted(fields) if f"`{key}`" not in PAGE and f"`{key}:" not in PAGE] == []
    assert ANNOTATION in PAGE
