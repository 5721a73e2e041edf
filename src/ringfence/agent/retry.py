# SPDX-License-Identifier: Apache-2.0
"""What failed is tried again: later each time, until it works."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

R = TypeVar("R")

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.1, 30.0


class InWorker(Protocol):
    """Runs a function in the one thread that may touch the dataplane."""

    def __call__(self, work: Callable[[], R]) -> Awaitable[R]:
        """Return what the function returns, or raise what it raises."""
        ...


class Retry:
    """When something that failed is tried again: later each time, until it works."""

    def __init__(self) -> None:
        self.due = float("inf")
        self._delay = FIRST_RETRY_SECONDS

    def failed(self, now: float) -> float:
        """Note a failure and return in how many seconds the next attempt is due."""
        delay, self._delay = self._delay, min(2 * self._delay, LAST_RETRY_SECONDS)
        self.due = now + delay
        return delay

    def worked(self) -> None:
        """Note that it worked."""
        self.due, self._delay = float("inf"), FIRST_RETRY_SECONDS
