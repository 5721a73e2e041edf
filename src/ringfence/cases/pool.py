# SPDX-License-Identifier: Apache-2.0
"""Runs cases, several at a time in processes of their own, and hands their outcomes back in order.

Cases wait far more than they compute, and share nothing: each makes its own namespaces, under names that hold its
process's id. Whatever ends this process early, or a worker, a case that is under way takes away what it made.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ringfence.cases.outcome import Outcome

_PR_SET_PDEATHSIG = 1

RunCase = Callable[[Path], Outcome]


def run_all(files: Sequence[Path], run: RunCase, *, jobs: int) -> Generator[Outcome]:
    """Yield the outcome of each file's case, in order, with up to ``jobs`` of them under way.

    When the caller stops taking them, cases that have begun are ended by themselves and no other is begun. ``run`` is
    sent to other processes, and must raise nothing that is to be told.
    """
    if jobs == 1:
        with _ending_cleanly():
            yield from map(run, files)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), _begin_worker) as pool, _ending_cleanly():
        waiting = deque(files)
        running: deque[Future[Outcome]] = deque()
        try:
            while waiting or running:
                # A few more than there are workers, so that none has to wait for the oldest case to be handed back.
                while waiting and len(running) < 3 * jobs:
                    running.append(pool.submit(run, waiting.popleft()))
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Have a request to end (SIGTERM) raise, so that everything is given back on the way out."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _begin_worker() -> None:
    """End with the process that started this one, but not with the terminal's Ctrl-C: the case is finished first."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal handlers are called
    raise SystemExit(128 + number)
