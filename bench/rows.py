# SPDX-License-Identifier: Apache-2.0
"""What was measured: rows of medians with their extremes, and ratios to a baseline of the same run."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_SCALES = {"ns": 1e9, "µs": 1e6, "ms": 1e3, "s": 1.0}


@dataclass(slots=True)
class Rows:
    """Rows of one run, printed as they come, or kept for JSON."""

    quiet: bool = False
    quick: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    bench: str = ""

    def begin(self, bench: str) -> None:
        """Start a bench."""
        self.bench = bench
        self.say(f"\n{bench}")

    def say(self, line: str) -> None:
        """Print a line of the table."""
        if not self.quiet:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def progress(self, what: str) -> None:
        """Say on stderr what takes a while."""
        sys.stderr.write(f"{self.bench}: {what}\n")
        sys.stderr.flush()

    def row(
        self, what: str, values: Sequence[float], *, unit: str = "ms", against: Sequence[float] = (), aim: str = ""
    ) -> None:
        """Add a row of seconds, or of numbers of another unit; ``against`` are the paired values of the baseline."""
        scale = _SCALES.get(unit, 1.0)
        low, middle, high = (scale * each for each in (min(values), statistics.median(values), max(values)))
        row: dict[str, Any] = {
            "bench": self.bench,
            "what": what,
            "unit": unit,
            "median": round(middle, 4),
            "min": round(low, 4),
            "max": round(high, 4),
            "runs": len(values),
        }
        ratio = ""
        if against:
            row["ratio"] = round(statistics.median(a / b for a, b in zip(values, against, strict=True)), 4)
            ratio = f"  {row['ratio']:.3f} x baseline"
        self.rows.append(row)
        note = f"  (aim {aim})" if aim else ""
        extremes = f"[{low:.2f} .. {high:.2f}, {len(values)} runs]"
        self.say(f"  {what:<64} {middle:9.2f} {unit:<4} {extremes}{ratio}{note}")


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
