# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - printing is what it does
"""``make fuzz SECONDS=600 [SEED=n]``: all fuzzers in turn, on every core; exit code 1 if any finds something."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.fuzz.fuzzers import FUZZERS, NEED_A_KERNEL
from tests.fuzz.running import Outcome, fuzz_all

FOUND = Path("build/fuzz")


def main() -> int:
    """Fuzz, print the counts, write down what was found."""
    arguments = _arguments()
    names = arguments.only or [n for n in FUZZERS if os.geteuid() == 0 or n not in NEED_A_KERNEL]
    for name in sorted(set(FUZZERS) - set(names)):
        print(f"left out: {name}" + (" (needs root)" if os.geteuid() and name in NEED_A_KERNEL else ""))
    workers = os.cpu_count() or 1
    print(f"seed {arguments.seed}, {arguments.seconds:.0f} s on {workers} cores", flush=True)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(fuzz_all, _turned(names, w), seed=arguments.seed + 10**6 * w, seconds=arguments.seconds)
            for w in range(workers)
        ]
        outcomes = [outcome for job in jobs for outcome in job.result()]
    return _report(outcomes)


def _turned(names: list[str], worker: int) -> list[str]:
    """Return the fuzzers in another order for each worker, so that a run that is cut short has tried more of them."""
    first = worker * len(names) // 2 % len(names)
    return names[first:] + names[:first]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", action="append", choices=list(FUZZERS), help="only this fuzzer (repeatable)")
    return parser.parse_args()


def _report(outcomes: list[Outcome]) -> int:
    by_name: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_name[outcome.fuzzer].append(outcome)
    print(f"\n{'fuzzer':<15}{'examples':>12}{'verdicts':>16}")
    for name, each in sorted(by_name.items()):
        print(f"{name:<15}{sum(o.examples for o in each):>12,}{sum(o.verdicts for o in each):>16,}")
    print(f"{'all':<15}{sum(o.examples for o in outcomes):>12,}{sum(o.verdicts for o in outcomes):>16,}")
    found = [outcome for outcome in outcomes if outcome.found]
    for outcome in found:
        print(f"\n{outcome.fuzzer} (seed {outcome.seed}) found:\n{outcome.found}")
        if outcome.case:
            path = FOUND / f"{outcome.fuzzer}-{hashlib.sha256(outcome.case.encode()).hexdigest()[:8]}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(outcome.case, encoding="utf-8")
            print(f"written as a case to {path}:\n{outcome.case}")
    print(f"\n{len(found)} found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
