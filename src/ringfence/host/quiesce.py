# SPDX-License-Identifier: Apache-2.0
"""Waits until no processor is in the midst of a packet that it began before."""

from __future__ import annotations

import ctypes
import platform
import threading
import time

_NUMBERS = {"x86_64": 324, "aarch64": 283, "riscv64": 283}
_GLOBAL = 1  # linux/membarrier.h: MEMBARRIER_CMD_GLOBAL
_LONG_ENOUGH = 0.05

_libc = ctypes.CDLL(None, use_errno=True)


def wait_for_packets() -> None:
    """Return when every packet whose processing had begun before the call is done with. About 8 ms.

    The kernel processes packets in RCU read-side sections, and ``membarrier(MEMBARRIER_CMD_GLOBAL)`` waits for all of
    them (it is a ``synchronize_rcu``). A kernel without it (CONFIG_MEMBARRIER off, or nohz_full processors) gets a
    pause instead that is far longer than a packet takes.
    """
    number = _NUMBERS.get(platform.machine())
    if number is None or _libc.syscall(number, _GLOBAL, 0, 0) != 0:
        time.sleep(_LONG_ENOUGH)


class Quiet:
    """Waits for packets behind the caller's back: whoever changes something begins it, whoever comes next waits for it.

    So a change takes no longer for the wait that has to be between it and the next one.
    """

    def __init__(self) -> None:
        self._waiting: threading.Thread | None = None

    def begin(self) -> None:
        """Start to wait for the packets that are under way now."""
        waiting = threading.Thread(target=wait_for_packets, name="quiesce", daemon=True)
        try:
            waiting.start()
        except RuntimeError:  # no thread is to be had (a limit of the control group): then here and now
            self._waiting = None
            wait_for_packets()
        else:
            self._waiting = waiting

    def wait(self) -> None:
        """Return when all packets are done with that were under way at the last ``begin``."""
        if self._waiting is not None:
            self._waiting.join()
            self._waiting = None
