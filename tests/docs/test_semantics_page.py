# SPDX-License-Identifier: Apache-2.0
"""``docs/semantics.md`` says every statement, marks every choice, and names the cases that prove it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STATEMENTS = range(1, 40)
CHOSEN = {10, 15, 21, 24, 33}
"""Where the API leaves something open: who changes this changes what a policy means."""

PAGE = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
SECTIONS = {
    int(number): text
    for number, text in re.findall(r"^### (\d+)\. (.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
}


def test_every_statement_is_there_once() -> None:
    """1 to 39, none missing, none twice, and with words of its own."""
    assert sorted(SECTIONS) == list(STATEMENTS)
    assert len(re.findall(r"^### ", PAGE, flags=re.MULTILINE)) == len(STATEMENTS)
    assert [number for number, text in SECTIONS.items() if len(text.partition("\n")[2].split()) < 12] == []


def test_every_choice_is_marked() -> None:
    """And nothing else is."""
    assert {number for number, text in SECTIONS.items() if "**Chosen.**" in text} == CHOSEN


@pytest.mark.parametrize("number", STATEMENTS)
def test_every_statement_names_its_cases(number: int) -> None:
    """By the pattern of their names."""
    assert f"`np-{number:02}-*`" in SECTIONS[number]


def test_every_numbered_case_is_of_a_statement() -> None:
    """A case that proves nothing which is written here is misnamed."""
    names = [path.name for path in (ROOT / "tests" / "cases").rglob("np-*.yaml")]
    numbers = {int(found[1]) for name in names if (found := re.match(r"np-(\d\d)-", name))}

    assert numbers - {0} <= set(SECTIONS)
    assert len(numbers) > 1
