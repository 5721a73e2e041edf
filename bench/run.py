# SPDX-License-Identifier: Apache-2.0
"""``make bench``: how long everything takes, on this machine, in this run.

Nothing here passes or fails. Each figure is a median with its extremes; where a baseline makes sense it is measured in
the same run, in turn with the figure, and the ratio is printed beside it. Aims are printed for comparison only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.commits import bench_commit
from bench.labs import bench_help, bench_lab_up, bench_pods, bench_policy
from bench.loading import bench_increment, bench_load
from bench.packets import bench_packet
from bench.rows import Rows
from bench.standing import bench_hooks
from bench.steps import bench_step
from bench.traffic import bench_traffic

BENCHES: Mapping[str, Callable[[Rows], None]] = {
    "help": bench_help,
    "lab-up": bench_lab_up,
    "pods": bench_pods,
    "policy": bench_policy,
    "step": bench_step,
    "commit": bench_commit,
    "traffic": bench_traffic,
    "packet": bench_packet,
    "hooks": bench_hooks,
    "load": bench_load,
    "increment": bench_increment,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for, everything by default."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Measure; nothing passes or fails.")
    parser.add_argument("what", nargs="*", help=f"which of: {', '.join(BENCHES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small numbers and few runs: does it work at all?")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    chosen = parser.parse_args(arguments)
    unknown = sorted(set(chosen.what) - BENCHES.keys())
    if unknown:
        parser.error(f"there is no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    rows = Rows(quiet=chosen.output == "json", quick=chosen.quick)
    rows.say(_machine())
    with tempfile.TemporaryDirectory(prefix="rfb-", dir="/tmp") as home:
        os.environ["RINGFENCE_HOME"] = home
        for name in chosen.what or BENCHES:
            rows.begin(name)
            BENCHES[name](rows)
    if chosen.output == "json":
        sys.stdout.write(json.dumps({"machine": _machine(), "rows": rows.rows}, indent=2) + "\n")
    return 0


def _machine() -> str:
    model = next(
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    software = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} CPUs, {memory:.0f} GiB, {software}"


if __name__ == "__main__":
    sys.exit(main())
