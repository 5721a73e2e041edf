# SPDX-License-Identifier: Apache-2.0
"""The measurements run and report. What they say is asserted nowhere: it depends on the machine and on the hour."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.rows import Rows
from bench.run import BENCHES

ROOT = Path(__file__).parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the benches."""
    command = [sys.executable, "-m", "bench.run", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.kernel
def test_quick_measurements_report_every_figure() -> None:
    """All that need no lab have rows with medians; traffic has ratios to no enforcement."""
    done = bench("--quick", "-o", "json", "step", "commit", "traffic", "packet", "load", "increment")

    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout)["rows"]
    assert {row["bench"] for row in rows} == {"step", "commit", "traffic", "packet", "load", "increment"}
    assert all(row["median"] > 0 and row["min"] <= row["median"] <= row["max"] for row in rows)
    assert all("ratio" in row for row in rows if row["bench"] == "traffic")


def test_unknown_benches_are_refused_by_name() -> None:
    """The refusal lists those that there are."""
    done = bench("speed")

    assert done.returncode == 2
    assert "there is no bench speed" in done.stderr
    assert all(name in done.stderr for name in BENCHES)


def test_ratios_are_of_pairs() -> None:
    """A ratio is the median of the ratios of values that were measured in the same round."""
    rows = Rows(quiet=True, bench="x")
    rows.row("what", [0.002, 0.004, 0.03], against=[0.001, 0.004, 0.01])

    assert rows.rows[0] | {"bench": "x"} == {
        "bench": "x",
        "what": "what",
        "unit": "ms",
        "median": 4.0,
        "min": 2.0,
        "max": 30.0,
        "runs": 3,
        "ratio": 2.0,
    }
