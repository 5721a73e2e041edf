# SPDX-License-Identifier: Apache-2.0
"""The corpus, on every engine that needs no kernel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.cases.build import load
from ringfence.cases.engines import NAMES, engine
from ringfence.cases.run import run
from ringfence.cases.script import Probe

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_engine_gives_the_expected_verdicts(path: Path, name: str) -> None:
    """An engine's verdicts are those of the case, probe by probe, after every step."""
    case = load(path)
    differences = run(case, engine(name, case.script.settings))

    assert differences == [], "\n".join(map(str, differences))


def test_the_corpus_shows_every_statement() -> None:
    """Each statement of SEMANTICS on NetworkPolicy has a case that is named after it."""
    shown = {int(match[1]) for path in FILES if (match := re.match(r"np-(\d+)-", path.stem))}

    assert set(range(1, 40)) - shown == set()


def test_every_case_shows_something_of_its_own_in_one_sentence() -> None:
    """What a case shows is a sentence, and no two cases show the same by word or by content."""
    sentences = {path.stem: load(path).shows for path in FILES}
    contents = [path.read_text().partition("\ncluster:")[2] for path in FILES]

    assert [name for name, shows in sentences.items() if not re.fullmatch(r".*[^.]\.", shows)] == []
    assert [shows for shows, times in Counter(sentences.values()).items() if times > 1] == []
    assert len(set(contents)) == len(FILES)


def test_the_documentation_names_cases_that_there_are() -> None:
    """Whatever cases docs/semantics.md names, by number or by name, there are some."""
    named = re.findall(r"`(np-[^`\s]*)`", (HERE.parents[1] / "docs" / "semantics.md").read_text())

    assert {f"np-{number:02}-*" for number in range(1, 40)} <= set(named)
    assert [pattern for pattern in named if not any(HERE.glob(f"{pattern}.yaml"))] == []


def test_every_case_asks_in_both_families_unless_it_says_otherwise() -> None:
    """Every case asks in both address families, but for the ones that stored blocks of old objects need."""
    lacking = {path.stem for path in FILES if {probe.family for probe in asked(path)} != {"IPv4", "IPv6"}}

    assert lacking == {"np-17-host-bits-are-masked", "np-16-exceptions-may-be-allowed-again"}


def asked(path: Path) -> Iterator[Probe]:
    """Return the connections that a case asks for."""
    for step in load(path).script.steps:
        yield from step.probes
        yield from (connection.probe for connection in step.opens)
