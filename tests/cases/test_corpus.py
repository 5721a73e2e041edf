# SPDX-License-Identifier: Apache-2.0
"""The corpus, on every engine that needs no kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringfence.cases.build import load
from ringfence.cases.engines import NAMES, engine
from ringfence.cases.run import run

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_engine_gives_the_expected_verdicts(path: Path, name: str) -> None:
    """An engine's verdicts are those of the case, probe by probe, after every step."""
    case = load(path)
    differences = run(case, engine(name, case.script.settings))

    assert differences == [], "\n".join(map(str, differences))


def test_the_corpus_shows_every_statement_about_verdicts() -> None:
    """Each statement of SEMANTICS on NetworkPolicy has a case that is named after it."""
    shown = {int(match[1]) for path in FILES if (match := re.match(r"np-(\d+)-", path.stem))}

    assert set(range(1, 40)) - shown == set()


def test_every_case_asks_in_both_families_unless_it_says_otherwise() -> None:
    """Every case has probes of both address families, but for the one that stored blocks of old objects need."""
    lacking = {
        path.stem
        for path in FILES
        if {p.destination.address.version for step in load(path).script.steps for p in step.probes} != {4, 6}
    }

    assert lacking == {"np-17-host-bits-are-masked", "np-16-exceptions-may-be-allowed-again"}
