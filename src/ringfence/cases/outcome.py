# SPDX-License-Identifier: Apache-2.0
"""What came of a case, as a value that every kind of report is written from: what differs, and why.

The explanation of a difference is the oracle's: which policy decides by the letter, or which rule came nearest. So a
wrong expectation is told from an engine that errs: there the explanation says the same as the engine, here it does not.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.apis.manifests import cluster_from_objects
from ringfence.cases.build import Loaded, load
from ringfence.cases.grid import Grid, grids
from ringfence.cases.run import Difference, run_steps
from ringfence.cases.script import Asks, Engine, Objects
from ringfence.cases.selection import case_name
from ringfence.errors import RingfenceError
from ringfence.model.settings import Settings
from ringfence.semantics import report
from ringfence.semantics.explain import explain

MakeEngine = Callable[[Settings], Engine]


class Status(enum.Enum):
    """How a case ended."""

    PASSED = "passed"
    DIFFERS = "differs"
    BROKEN = "broken"  # it is no case, or the engine could not run it
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Explained:
    """A difference, and what the policies say of its flow: as text, and as plain JSON values."""

    difference: Difference
    text: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What differs after one step: all of it as tables of expected against seen, and one by one."""

    step: int
    say: str
    grids: tuple[Grid, ...]
    differences: tuple[Explained, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case. ``answers`` counts what was compared; ``error`` says what was broken."""

    name: str
    file: str
    status: Status
    shows: str = ""
    answers: int = 0
    seconds: float = 0.0
    steps: tuple[StepOutcome, ...] = ()
    error: str = ""

    @property
    def differing(self) -> int:
        """How many answers were not the expected ones."""
        return sum(len(step.differences) for step in self.steps)


def not_run(path: Path) -> Outcome:
    """Return the outcome of a case that was not begun."""
    return Outcome(case_name(path), str(path), Status.NOT_RUN)


def run_case(path: Path, make_engine: MakeEngine) -> Outcome:
    """Load a case, run it on a new engine, and explain what differs. Nothing that is wrong with a case is raised."""
    began = time.monotonic()
    name, file = case_name(path), str(path)
    try:
        case = load(path)
        steps = tuple(_steps(case, make_engine(case.script.settings)))
    except RingfenceError as error:
        return Outcome(name, file, Status.BROKEN, seconds=time.monotonic() - began, error=str(error))
    except OSError as error:
        complaint = f"{file}: cannot be read: {error.strerror}"
        return Outcome(name, file, Status.BROKEN, seconds=time.monotonic() - began, error=complaint)
    status = Status.DIFFERS if steps else Status.PASSED
    return Outcome(name, file, status, case.shows, case.count, time.monotonic() - began, steps)


def _steps(case: Loaded, engine: Engine) -> Iterator[StepOutcome]:
    objects = Objects()
    for number, differences in enumerate(run_steps(case, engine)):
        step = case.script.steps[number]
        objects.change(step.events)
        if differences:
            seen = grids(step.probes, case.expected[number].probes, differences)
            yield StepOutcome(
                number, case.expected[number].say, seen, tuple(_explained(differences, objects, case.script.settings))
            )


def _explained(differences: Sequence[Difference], objects: Objects, settings: Settings) -> Iterator[Explained]:
    cluster, policies, _ = cluster_from_objects(objects.all())
    for difference in differences:
        ways = difference.probe.ways
        if difference.probe.asks is Asks.FORGED or not ways:
            yield Explained(difference, "", {})
            continue
        way = ways[0]
        explanation = explain(way.incoming, cluster, policies, leaving=way.outgoing, settings=settings)
        yield Explained(difference, report.text(explanation), report.document(explanation))
