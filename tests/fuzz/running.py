# SPDX-License-Identifier: Apache-2.0
"""Runs fuzzers for a number of examples or for a time, and tells what came of it."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import hypothesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from tests.fuzz.agreement import Disagreement
from tests.fuzz.casefile import case_text
from tests.fuzz.fuzzers import FUZZERS, Bench

SHRINK_SECONDS = 60.0
_ROUND = 50


class _TimeIsUp(KeyboardInterrupt):
    """Stops hypothesis where it is, as Ctrl-C does: anything else that is raised it takes for an example's outcome."""


@dataclass(frozen=True)
class Outcome:
    """What one fuzzer did: how many examples and verdicts, and what it found: in words, and as a case file."""

    fuzzer: str
    seed: int
    examples: int
    verdicts: int
    found: str = ""
    case: str = ""


def fuzz(
    name: str,
    bench: Bench,
    *,
    seed: int,
    examples: int,
    until: float = float("inf"),
    shrink_seconds: float = SHRINK_SECONDS,
) -> Outcome:
    """Run a fuzzer on a number of examples, or until a time comes (``time.monotonic``). What it finds is shrunk."""
    ran = 0
    last: Exception | None = None  # while shrinking, only smaller examples are tried: the last is the smallest

    def example(data: st.DataObject) -> None:
        nonlocal ran, last, until
        if time.monotonic() > until:
            raise _TimeIsUp
        ran += 1
        try:
            FUZZERS[name](bench, data)
        except Exception as error:
            if last is None:
                until = time.monotonic() + shrink_seconds
            last = error
            raise

    bench.verdicts = 0
    try:
        _run(example, seed=seed, examples=examples)
    except _TimeIsUp:
        pass
    except Exception:
        if last is None:
            raise
    match last:
        case None:
            return Outcome(name, seed, ran, bench.verdicts)
        case Disagreement():
            return Outcome(name, seed, ran, bench.verdicts, str(last), case_text(last))
        case _:  # a crash is a finding like any other
            return Outcome(name, seed, ran, bench.verdicts, "".join(traceback.format_exception(last)))


def fuzz_for(name: str, bench: Bench, *, seed: int, seconds: float) -> Outcome:
    """Run a fuzzer for a time, in rounds that each start from a seed of their own, until it finds something."""
    deadline = time.monotonic() + seconds
    total = Outcome(name, seed, 0, 0)
    while time.monotonic() < deadline:
        done = fuzz(name, bench, seed=seed, examples=_ROUND, until=deadline)
        counts = total.examples + done.examples, total.verdicts + done.verdicts
        total = Outcome(name, seed, *counts, done.found, done.case)
        if done.found:
            break
        seed += 1
    return total


def fuzz_all(names: Sequence[str], *, seed: int, seconds: float) -> list[Outcome]:
    """Run fuzzers one after the other in this process, each for its share of the time that is left."""
    deadline = time.monotonic() + seconds
    outcomes = []
    bench = Bench()
    try:
        for index, name in enumerate(names):
            share = max(0.0, deadline - time.monotonic()) / (len(names) - index)
            outcome = fuzz_for(name, bench, seed=seed, seconds=share)
            found = "FOUND something" if outcome.found else "nothing found"
            print(f"{name}: {outcome.examples:,} examples, {found}", file=sys.stderr, flush=True)  # noqa: T201
            outcomes.append(outcome)
    finally:
        bench.close()
    return outcomes


def _run(example: Callable[[st.DataObject], None], *, seed: int, examples: int) -> None:
    options = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=False,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    hypothesis.seed(seed)(options(given(st.data())(example)))()
