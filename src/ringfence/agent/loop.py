# SPDX-License-Identifier: Apache-2.0
"""The loop around ``agent.reconcile``: follow the API server, step, enforce. Nothing is decided here.

::

    reflectors (4) --> queue --> reconcile --> Enforcer --> dataplane
                                    |             |            |
                                 Reporter      Standing    VerdictLog
                                                  |
                                          gate, readiness

A change that comes alone is taken up at once. Changes that come while a step runs wait and are taken up together
(policies and the cluster one after the other: ``batches``), and a loop that is never idle rests between steps as long
as a step takes (at most ``REST_SECONDS``), so a burst costs a few steps. Steps and commits run in one worker thread:
the gate answers meanwhile, and the dataplane is never entered twice. The loss of the API server changes nothing
(SEMANTICS 39): no event, no step.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from ringfence.agent.batches import Heard, parts
from ringfence.agent.enforcer import Enforcer
from ringfence.agent.logs import Log
from ringfence.agent.metrics import Metrics
from ringfence.agent.predecessors import Predecessors
from ringfence.agent.reconcile import Event, Kind, State, Step, decode, local_pods, reconcile
from ringfence.agent.reports import Reporter
from ringfence.agent.retry import Retry
from ringfence.agent.standing import Stage, Standing
from ringfence.agent.verdictlog import VerdictLog
from ringfence.apis.core import Pod
from ringfence.dataplanes.base import Dataplane
from ringfence.dataplanes.registry import Engine
from ringfence.dataplanes.verdicts import Reports
from ringfence.errors import RingfenceError
from ringfence.kube.changes import Removed, Upserted
from ringfence.kube.client import Client
from ringfence.kube.reflector import reflect
from ringfence.model.settings import DEFAULTS, Settings

R = TypeVar("R")

REST_SECONDS = 0.05
DRIFT_SECONDS = 5.0
ANEW_SECONDS = 10.0
"""Between two new lists of a kind that a gate asked for: many pods may wait for the same."""


class Touched(Protocol):
    """Tells at once that somebody has touched what a dataplane keeps; ``host.nftwatch`` is one."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        ...

    def touched(self) -> bool:
        """Read what there is to read, and tell whether it was about our rules."""
        ...


class Agent:
    """The agent of one node."""

    def __init__(
        self,
        node: str,
        client: Client,
        dataplane: Dataplane,
        *,
        standing: Standing,
        metrics: Metrics,
        log: Log,
        settings: Settings = DEFAULTS,
        drift_seconds: float = DRIFT_SECONDS,
        touched: Touched | None = None,
        predecessors: Sequence[Engine] = (),
        fatal: tuple[type[RingfenceError], ...] = (),
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._log = log
        self._standing = standing
        self._state = State(node, settings=settings)
        self._queue: asyncio.Queue[Heard | None] = asyncio.Queue()  # None only wakes
        self._following: dict[Kind, asyncio.Task[None]] = {}
        self._anew: dict[Kind, float] = {}
        self._waiting: list[Heard] = []  # heard, and in no state yet
        self._retry = Retry()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="dataplane")
        self._reporter = Reporter(client, node, metrics, log)
        self._pods = _PodClock(node, metrics)
        self._touched = touched
        self._verdicts: VerdictLog | None = None
        if isinstance(dataplane, Reports):
            self._verdicts = VerdictLog(dataplane, self._aside, standing=standing, metrics=metrics, log=log)
        self._enforcer = Enforcer(
            dataplane,
            self._in_worker,
            standing=standing,
            metrics=metrics,
            log=log,
            drift_seconds=drift_seconds,
            fatal=fatal,
            predecessors=Predecessors(
                predecessors,
                self._in_worker,
                successor=dataplane.name,
                seconds=drift_seconds,
                standing=standing,
                metrics=metrics,
                log=log,
            ),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Enforce until asked to stop. What is in the kernel then stays there."""
        if self._touched is not None:
            asyncio.get_running_loop().add_reader(self._touched.fileno(), self._wake_for_touch, self._touched)
        tasks = [asyncio.create_task(self._follow(kind)) for kind in Kind]
        tasks += [asyncio.create_task(work) for work in (self._work(), self._reporter.run())]
        if self._verdicts is not None:
            tasks.append(asyncio.create_task(self._verdicts.run()))
        tasks.append(asyncio.create_task(_until(stop)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task  # the stop ends by itself; whatever else did has an exception to tell
        finally:
            if self._touched is not None:
                asyncio.get_running_loop().remove_reader(self._touched.fileno())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # a commit that has begun is finished: the worker is waited for, not interrupted
            await asyncio.to_thread(self._worker.shutdown)

    def follow_anew(self, kind: Kind) -> None:
        """Give up a watch that was proven to be late, and list again; not twice within ``ANEW_SECONDS``."""
        now = asyncio.get_running_loop().time()
        if now - self._anew.get(kind, float("-inf")) < ANEW_SECONDS:
            return
        self._anew[kind] = now
        self._metrics.watches_behind.inc()
        self._log.warning(
            "a watch does not tell what the API server has; listing anew, and what is enforced stays in force",
            collection=kind.value,
        )
        self._following[kind].cancel()

    def _wake_for_touch(self, touched: Touched) -> None:
        if touched.touched():
            self._enforcer.look_soon()
            self._queue.put_nowait(None)

    async def _follow(self, kind: Kind) -> None:
        while True:
            self._following[kind] = asyncio.create_task(self._reflect(kind))
            try:
                await self._following[kind]
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise

    async def _reflect(self, kind: Kind) -> None:
        clock = asyncio.get_running_loop().time

        def trouble(error: RingfenceError, seconds: float) -> None:
            self._metrics.sync_errors.labels(stage="follow").inc()
            self._log.warning(
                "cannot follow the API server; what is enforced stays in force",
                collection=kind.value,
                error=str(error),
                retry_in=round(seconds, 2),
            )

        changes = reflect(self._client, kind.value, functools.partial(decode, kind), on_trouble=trouble)
        async with contextlib.aclosing(changes):
            async for change in changes:
                self._queue.put_nowait(Heard(clock(), Event(kind, change)))

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            heard = await self._arrivals(until=min(self._enforcer.due, self._retry.due))
            began = clock()
            self._pods.hear(heard)
            self._waiting += heard
            await self._take_up()
            if not self._queue.empty():
                await asyncio.sleep(min(REST_SECONDS, clock() - began))

    async def _take_up(self) -> None:
        """Bring what was heard into force, part by part; with nothing heard, look after what is in force."""
        cut = parts(self._waiting) if self._state.complete else (tuple(self._waiting),)
        for number, part in enumerate(cut or ((),), start=1):
            took = not part or await self._step([each.event for each in part])
            if took:
                self._waiting = [each for later in cut[number:] for each in later]
            if self._state.program is not None:
                heard_at = min((each.at for each in part if took), default=None)
                await self._enforcer.enforce(self._state, heard_at, passing=bool(self._waiting))
                self._pods.look(self._standing.committed)
            if not took:
                return

    async def _step(self, events: Sequence[Event]) -> bool:
        """Take events up; False if that failed: they then stay waiting, and the last program in force."""
        try:
            step: Step = await self._in_worker(functools.partial(reconcile, self._state, events))
        except Exception as error:  # noqa: BLE001 - a bug in a step must not take the rules' keeper away
            seconds = self._retry.failed(asyncio.get_running_loop().time())
            self._metrics.sync_errors.labels(stage="compile").inc()
            self._log.exception(
                "changes cannot be compiled; the last program stays in force", retry_in=round(seconds, 2)
            )
            self._standing.refuse(Stage.COMPILE, f"changes cannot be compiled: {error!r}")
            return False
        self._retry.worked()
        self._standing.clear(Stage.COMPILE)
        if step.state.complete and not self._state.complete:
            gc.freeze()  # a cluster stays: collections need not walk over it each time (a second at 100,000 pods)
        self._state = step.state
        self._standing.know(step.state)
        if step.program is not None:
            self._reporter.tell(step.problems)
        return True

    async def _arrivals(self, *, until: float) -> list[Heard]:
        """Wait for an event, and take all that are there; none if the time comes first."""
        loop = asyncio.get_running_loop()
        heard: list[Heard | None] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(None if until == float("inf") else max(until, loop.time())):
                heard.append(await self._queue.get())
        while not self._queue.empty():
            heard.append(self._queue.get_nowait())
        return [each for each in heard if each is not None]

    async def _in_worker(self, work: Callable[[], R]) -> R:
        with self._standing.busy():
            return await self._aside(work)

    async def _aside(self, work: Callable[[], R]) -> R:
        """Run in the worker what nobody waits for: readiness does not mind how long that takes."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


class _PodClock:
    """Measures how long new local pods wait for their policy: from hearing of an address to the commit."""

    def __init__(self, node: str, metrics: Metrics) -> None:
        self._node = node
        self._metrics = metrics
        self._since: dict[str, float | None] = {}  # by uid; None once measured

    def hear(self, heard: list[Heard]) -> None:
        """Note pods that got an address. Pods of a list may have had theirs long ago."""
        for each in heard:
            match each.event.change:
                case Upserted(_, Pod() as pod) if pod.spec.nodeName == self._node and pod.status.podIP:
                    self._since.setdefault(pod.metadata.uid, each.at)
                case Removed(_, Pod() as pod):
                    self._since.pop(pod.metadata.uid, None)
                case _:
                    pass

    def look(self, committed: State | None) -> None:
        """Measure the pods that came into force."""
        if committed is None or committed.program is None or not any(self._since.values()):
            return
        now = asyncio.get_running_loop().time()
        for uid in local_pods(committed.program) & self._since.keys():
            since, self._since[uid] = self._since[uid], None
            if since is not None:
                self._metrics.pod_gate_seconds.observe(now - since)
