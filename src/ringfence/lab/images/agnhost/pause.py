# SPDX-License-Identifier: Apache-2.0
"""``pause``: keeps a container alive until a signal ends it (exit code 1 for SIGINT, 2 for SIGTERM, as agnhost's)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from .flags import Flag, WrongUsage, parse
from .listening import hear, wait_for_signal

ABOUT = "Waits until it is told to stop, so that other commands can be run in the container"
USE = "pause"
FLAGS: tuple[Flag, ...] = ()


def main(words: Sequence[str]) -> int:
    """Wait for SIGINT or SIGTERM; raises ``WrongUsage``."""
    _, arguments = parse(words, FLAGS)
    if arguments:
        raise WrongUsage(f'unknown command "{arguments[0]}" for "agnhost pause"')
    hear(signal.SIGINT, signal.SIGTERM)
    os.write(sys.stdout.fileno(), b"Paused\n")
    number = wait_for_signal(signal.SIGINT, signal.SIGTERM)
    return 1 if number == signal.SIGINT else 2
