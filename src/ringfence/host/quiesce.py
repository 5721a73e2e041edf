# SPDX-License-Identifier: Apache-2.0
"""Waits until no processor is in the midst of a packet that it began before."""

from __future__ import annotations

import ctypes
import platform
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
