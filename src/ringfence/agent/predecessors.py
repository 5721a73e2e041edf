# SPDX-License-Identifier: Apache-2.0
"""Takes away what another engine left in force on this node, once the chosen one is in force.

The order is the point: until then both judge, and a packet passes only if both let it; so there is no moment of
neither. Killed in between, the next agent finds the same two and goes on. What is in force is looked at once more right
before, and by one agent at a time: of two that take each other for the predecessor, one always stays. An agent of the
other engine that still runs writes its rules again, and may be ended later; so it is looked for now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from ringfence.agent.logs import Log
from ringfence.agent.metrics import Metrics
from ringfence.agent.retry import InWorker, Retry
from ringfence.agent.standing import Stage, Standing
from ringfence.dataplanes.registry import Engine
from ringfence.errors import HostRefused, RingfenceError
from ringfence.host.turns import turn

TURN = "ringfence-switch"


class Predecessors:
    """The engines that may be in force beside the one named ``successor``; ``seconds``: how often that is looked at."""

    def __init__(
        self,
        engines: Sequence[Engine],
        in_worker: InWorker,
        *,
        successor: str,
        seconds: float,
        standing: Standing,
        metrics: Metrics,
        log: Log,
    ) -> None:
        self._engines = engines
        self._in_worker = in_worker
        self._successor = successor
        self._seconds = seconds
        self._standing = standing
        self._metrics = metrics
        self._log = log
        self._retry = Retry()
        self._look_due = float("-inf")
        self._alone = not engines

    @property
    def due(self) -> float:
        """When ``dismissed`` wants to be called again (the event loop's clock)."""
        return self._look_due if self._engines and self._look_due > 0 else float("inf")

    async def dismissed(self, whole: Callable[[], Awaitable[bool]]) -> bool:
        """Take them away if they are there, unless it was just looked; return whether they are gone.

        To be called whenever the chosen engine is in force; ``whole`` looks whether it really is.
        """
        if not self._engines or _now() < self._look_due:
            return self._alone
        try:
            found = await self._in_worker(lambda: [engine for engine in self._engines if engine.present()])
            if found:
                await self._replace(found, whole)
        except Exception as error:  # noqa: BLE001 - whatever it is, both stay in force and it is tried again
            self._failed(error)
            return False
        self._alone = True
        self._look_due = _now() + self._seconds
        self._retry.worked()
        self._standing.clear(Stage.SWITCH)
        return True

    async def _replace(self, found: Sequence[Engine], whole: Callable[[], Awaitable[bool]]) -> None:
        with contextlib.ExitStack() as stack:
            await self._in_worker(lambda: stack.enter_context(turn(TURN)))
            if not await whole():
                raise HostRefused(f"the {self._successor} dataplane is not in force itself", asked="look", answered="")
            for engine in found:
                self._log.info(
                    "in force; taking away what another dataplane left", dataplane=self._successor, removed=engine.name
                )
                await self._in_worker(engine.remove)

    def _failed(self, error: Exception) -> None:
        self._alone = False
        self._metrics.sync_errors.labels(stage="switch").inc()
        seconds = self._retry.failed(_now())
        self._look_due = self._retry.due
        complain = self._log.error if isinstance(error, RingfenceError | OSError) else self._log.exception
        complain(
            "what another dataplane left in force cannot be taken away; connections pass only if both allow them",
            error=str(error) or type(error).__name__,
            dataplane=self._successor,
            retry_in=round(seconds, 2),
        )
        self._standing.refuse(Stage.SWITCH, f"another dataplane's rules are still in force: {error}")


def _now() -> float:
    return asyncio.get_running_loop().time()
