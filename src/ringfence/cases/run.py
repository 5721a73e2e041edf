# SPDX-License-Identifier: Apache-2.0
"""A case run on an engine: what came out other than expected, in words that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ringfence.cases.build import Expected, Loaded
from ringfence.cases.script import Connection, Engine, Fate, Probe, Script, ScriptStep

_VERDICTS = ("deny", "allow")
_OPENING = ("not opened", "opened")


@dataclass(frozen=True, slots=True)
class Answers:
    """What an engine said in one step, in the order of the step's questions."""

    opened: tuple[bool, ...]
    fates: tuple[Fate, ...]
    probes: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One question whose answer is not the expected one; ``step`` counts from 0, ``expected`` and ``got`` are words.

    ``connection`` is the connection that was asked for, None where ``probe`` was a new one.
    """

    step: int
    say: str
    probe: Probe
    expected: str
    got: str
    connection: Connection | None = None

    def __str__(self) -> str:
        after = f" ({self.say})" if self.say else ""
        what = self.probe if self.connection is None else f"connection {self.connection}"
        return f"step {self.step + 1}{after}: {what}: expected {self.expected}, got {self.got}"


def answers(script: Script, engine: Engine) -> Iterator[Answers]:
    """Run a script, step by step. The engine is closed at the end, and when the iterator is closed."""
    try:
        for step in script.steps:
            engine.change(step.events)
            opened = tuple(engine.open(step.opens)) if step.opens else ()
            fates = tuple(engine.established(step.established)) if step.established else ()
            probes = tuple(engine.verdicts(step.probes)) if step.probes else ()
            given = (len(opened), len(fates), len(probes))
            assert given == (len(step.opens), len(step.established), len(step.probes)), "an engine answers everything"
            yield Answers(opened, fates, probes)
    finally:
        engine.close()


def verdicts(script: Script, engine: Engine) -> list[list[bool]]:
    """Run a script to its end: for each step, a verdict for each probe."""
    return [list(step.probes) for step in answers(script, engine)]


def run(case: Loaded, engine: Engine) -> list[Difference]:
    """Run a case; no differences means that the engine did what the case expects."""
    return [difference for step in run_steps(case, engine) for difference in step]


def run_steps(case: Loaded, engine: Engine) -> Iterator[list[Difference]]:
    """Run a case and return what differs after each step."""
    for index, given in enumerate(answers(case.script, engine)):
        yield list(_compare(index, case.script.steps[index], case.expected[index], given))


def _compare(index: int, step: ScriptStep, expected: Expected, given: Answers) -> Iterator[Difference]:
    for connection, opened in zip(step.opens, given.opened, strict=True):
        if not opened:
            yield Difference(index, expected.say, connection.probe, _OPENING[True], _OPENING[False], connection)
    for connection, wanted, fate in zip(step.established, expected.fates, given.fates, strict=True):
        if fate is not wanted:
            yield Difference(index, expected.say, connection.probe, wanted.value, fate.value, connection)
    for probe, allowed, got in zip(step.probes, expected.probes, given.probes, strict=True):
        if got is not allowed:
            yield Difference(index, expected.say, probe, _VERDICTS[allowed], _VERDICTS[got])
