# SPDX-License-Identifier: Apache-2.0
"""Writes a line for each verdict that the dataplane tells of: "denied" and, if wanted, "allowed".

A flood of them must cost the agent next to nothing. The dataplane is read in batches with a rest between them, whatever
comes meanwhile waits in the kernel, and what is more than the log takes in a second is counted, denials last.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import Sequence
from typing import Any

from ringfence.agent.denials import Wording
from ringfence.agent.logs import Log
from ringfence.agent.metrics import Metrics
from ringfence.agent.reconcile import State
from ringfence.agent.retry import InWorker
from ringfence.agent.standing import Standing
from ringfence.dataplanes.verdicts import Reports, VerdictEvent

LINES_A_SECOND = 50
REST_SECONDS = 0.05
RETRY_SECONDS = 5.0


class VerdictLog:
    """Reads one dataplane's events. ``in_worker`` runs where no state is made meanwhile."""

    def __init__(
        self, reports: Reports, in_worker: InWorker, *, standing: Standing, metrics: Metrics, log: Log
    ) -> None:
        self._reports = reports
        self._in_worker = in_worker
        self._standing = standing
        self._metrics = metrics
        self._log = log
        self._wording = Wording()
        self._room, self._room_until = 0, 0.0
        self._left_out = 0
        metrics.verdicts.counts = reports.verdict_counts

    async def run(self) -> None:
        """Read and write, forever; what fails is told and tried again, for the rules' keeper runs beside this."""
        while True:
            await self._readable(until=self._room_until if self._left_out else None)
            try:
                await self._take(self._reports.read())
            except Exception:  # noqa: BLE001 - a bug in telling must not take the rules' keeper away
                self._metrics.sync_errors.labels(stage="report").inc()
                self._log.exception("verdicts cannot be told; policy is enforced", retry_in=RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(REST_SECONDS)

    async def _readable(self, *, until: float | None) -> None:
        """Wait for an event, or until a time."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._reports.fileno(), ready.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await ready.wait()
        finally:
            loop.remove_reader(self._reports.fileno())

    async def _take(self, events: Sequence[VerdictEvent]) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._room_until:
            self._room, self._room_until = LINES_A_SECOND, now + 1
            if self._left_out:
                self._log.warning("more verdicts than the log takes", left_out=self._left_out)
                self._left_out = 0
        if len(events) > self._room:
            events = sorted(events, key=lambda event: event.allowed)
        told, rest = events[: self._room], events[self._room :]
        self._room -= len(told)
        self._left_out += len(rest)
        self._metrics.verdict_events_lost.inc(len(rest) + sum(event.lost for event in events))
        if told:
            for event, facts in zip(told, await self._in_worker(lambda: self._facts(told)), strict=True):
                self._log.info("allowed" if event.allowed else "denied", at=_at(event.at_ns), **facts)

    def _facts(self, events: Sequence[VerdictEvent]) -> list[dict[str, Any]]:
        state = self._standing.latest or State("")
        return [self._wording.facts(event, state) for event in events]


def _at(monotonic_ns: int) -> str:
    """Return the time of day that a moment of the monotonic clock was, as the log writes times."""
    ago = datetime.timedelta(microseconds=(time.monotonic_ns() - monotonic_ns) // 1000)
    return (datetime.datetime.now(datetime.UTC) - ago).isoformat(timespec="milliseconds").replace("+00:00", "Z")
