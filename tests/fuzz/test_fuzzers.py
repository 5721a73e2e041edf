# SPDX-License-Identifier: Apache-2.0
"""Every fuzzer on a fixed budget from a fixed seed. ``make fuzz`` runs the same ones for as long as one likes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.fuzzers import FUZZERS, NEED_A_KERNEL, Bench
from tests.fuzz.running import fuzz

pytestmark = pytest.mark.search

EXAMPLES = {
    "meaning": 30,
    "rules": 15,
    "tidings": 25,
    "breakage": 20,
    "rubbish": 20,
    "bodies": 15,
    "lookups": 8,
    "packets": 30,
    "journeys": 12,
    "changes": 12,
    "packets_ebpf": 20,
    "journeys_ebpf": 10,
    "changes_ebpf": 10,
}
SEED = 20240601


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """One bench for all fuzzers."""
    made = Bench()
    yield made
    made.close()


BUDGETS = [
    pytest.param(name, EXAMPLES[name], marks=[pytest.mark.kernel] if name in NEED_A_KERNEL else [], id=name)
    for name in FUZZERS
]


@pytest.mark.parametrize(("name", "examples"), BUDGETS)
def test_nothing_is_found(bench: Bench, name: str, examples: int) -> None:
    """What the fuzzer holds true is true of so many random examples, and something was compared."""
    outcome = fuzz(name, bench, seed=SEED, examples=examples)

    assert not outcome.found, f"{outcome.found}\n{outcome.case}"
    assert outcome.examples >= examples
    assert outcome.verdicts >= examples
