# SPDX-License-Identifier: Apache-2.0
"""``pause``: keeps a container alive until a signal ends it (exit code 1 for SIGINT, 2 for SIGTERM, as agnhost's)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from .flags import Flag, WrongUsage, parse

ABOUT = "Waits until it is told to stop, so that other commands can be run in the container"
USE = "pause"
FLAGS: tuple[Flag, ...] = ()


def main(words: Sequence[str]) -> int:
    """Wait for SIGINT or SIGTERM; raises ``WrongUsage``."""
    _, arguments = parse(words, FLAGS)
    if arguments:
        raise WrongUsage(f'unknown command "{arguments[0]}" for "agnhost pause"')
    os.write(sys.stdout.fileno(), b"Paused\n")
    # As PID 1 of a container the process hears only signals that it asked for.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    return 1 if signal.sigwait((signal.SIGINT, signal.SIGTERM)) == signal.SIGINT else 2
