# SPDX-License-Identifier: Apache-2.0
"""A case run on an engine: what came out other than expected, in words that a person can act on."""

from __future__ import annotations

from dataclasses import dataclass

from ringfence.cases.build import Loaded
from ringfence.cases.script import Engine, Probe, Script


@dataclass(frozen=True, slots=True)
class Difference:
    """One probe whose verdict is not the expected one; ``step`` counts from 0."""

    step: int
    say: str
    probe: Probe
    expected: bool

    def __str__(self) -> str:
        words = ("deny", "allow")
        after = f" ({self.say})" if self.say else ""
        expected, got = words[self.expected], words[not self.expected]
        return f"step {self.step + 1}{after}: {self.probe}: expected {expected}, got {got}"


def verdicts(script: Script, engine: Engine) -> list[list[bool]]:
    """Run a script to its end: for each step, a verdict for each probe. The engine is closed, whatever happens."""
    try:
        answers = []
        for step in script.steps:
            engine.change(step.events)
            answer = engine.verdicts(step.probes)
            assert len(answer) == len(step.probes), "an engine answers every probe"
            answers.append(answer)
        return answers
    finally:
        engine.close()


def run(case: Loaded, engine: Engine) -> list[Difference]:
    """Run a case; no differences means that the engine did what the case expects."""
    answers = verdicts(case.script, engine)
    return [
        Difference(index, case.says[index], probe, expected)
        for index, step in enumerate(case.script.steps)
        for probe, expected, got in zip(step.probes, case.expected[index], answers[index], strict=True)
        if got is not expected
    ]
