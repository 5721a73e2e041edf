# SPDX-License-Identifier: Apache-2.0
"""``python -m tools.torture``: see ``docs/torture.md``. Exit code 0 if all that must be zero is, 1 if not, 2 if it
could not run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ringfence.errors import RingfenceError
from ringfence.lab.lifecycle import require_namespaces
from tools.torture.misfortune import Fault
from tools.torture.report import Outcome
from tools.torture.rules import ENGINES
from tools.torture.run import Options, torture

_PROGRESS_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="make torture", description="Real agents under fire.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="which changes; default: another one each time")
    parser.add_argument("--nodes", type=int, default=2, help="at least 2 (default: %(default)s)")
    parser.add_argument("--pods", type=int, default=5, help="on each node (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=800.0, help="new connections a second (default: %(default)s)")
    parser.add_argument("--kill-every", type=float, default=4.0, help="mean seconds; 0: never (default: %(default)s)")
    parser.add_argument("--outage-every", type=float, default=15.0, help="of the API server (default: %(default)s)")
    parser.add_argument("--tamper-every", type=float, default=12.0, help="with our rules (default: %(default)s)")
    parser.add_argument("--dataplane", choices=list(ENGINES), default="nftables", help="default: %(default)s")
    parser.add_argument("--switch-every", type=float, default=0.0, help="to the other dataplane (default: never)")
    parser.add_argument("--fault", choices=[each.value for each in Fault], default="none", help=argparse.SUPPRESS)
    parser.add_argument("--evidence", type=Path, default=Path("torture-evidence.json"), help="default: %(default)s")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    chosen = parser.parse_args(arguments)
    options = Options(
        seconds=chosen.seconds,
        seed=random.randrange(1 << 31) if chosen.seed is None else chosen.seed,
        nodes=max(2, chosen.nodes),
        pods=chosen.pods,
        rate=chosen.rate,
        kill_every=chosen.kill_every,
        outage_every=chosen.outage_every,
        tamper_every=chosen.tamper_every,
        dataplane=chosen.dataplane,
        switch_every=chosen.switch_every,
        fault=Fault(chosen.fault),
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: everything that was made is taken away
    try:
        require_namespaces()
        outcome = asyncio.run(torture(options, _Progress()))
    except RingfenceError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 2
    sys.stdout.write((json.dumps(outcome.as_json(), indent=2) if chosen.output == "json" else outcome.table()) + "\n")
    return _conclude(outcome, chosen.evidence)


def _conclude(outcome: Outcome, path: Path) -> int:
    if outcome.clean:
        return 0
    found = {"outcome": outcome.as_json(), "evidence": list(outcome.evidence), "logs": dict(outcome.logs)}
    path.write_text(json.dumps(found, indent=1))
    sys.stderr.write(f"not all that must be zero is; the evidence is in {path}\n")
    return 1


class _Progress:
    """Lines on stderr, one in a few seconds."""

    def __init__(self) -> None:
        self._said = float("-inf")

    def __call__(self, words: str) -> None:
        now = time.monotonic()
        if now - self._said >= _PROGRESS_SECONDS:
            self._said = now
            sys.stderr.write(f"{words}\n")
            sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
