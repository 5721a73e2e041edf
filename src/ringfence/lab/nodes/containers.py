# SPDX-License-Identifier: Apache-2.0
"""One container's life: start, probes, end, and whether and when it starts again.

Knows no pod beyond the container's own surroundings (``Surroundings``); the order of containers and the pod's end are
``worker``'s. Everything that changes is written into the container's ``Record`` and announced.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ringfence.errors import RingfenceError
from ringfence.lab.images import ImageMissing
from ringfence.lab.nodes import probes
from ringfence.lab.nodes.podspec import Unusable
from ringfence.lab.nodes.runtime import Container, Exit, NotStarted, Process, Runtime
from ringfence.lab.nodes.runtime import Running as RunningProcess
from ringfence.lab.nodes.status import Record, Running, Terminated, Waiting, ended

Json = Mapping[str, Any]

FIRST_BACKOFF, LAST_BACKOFF = 10.0, 300.0
FORGIVEN_AFTER = 600.0  # seconds of running after which the back-off starts over
_CONFIG_RETRY = 5.0
_EAGER = 1.0  # seconds between two looks at a container that is not ready


class Surroundings(Protocol):
    """What a container needs of its pod."""

    runtime: Runtime

    async def describe(self, record: Record) -> Container:
        """Return what to start; raises ``Unusable`` and ``images.ImageMissing``."""

    def spec(self, name: str) -> Json:
        """Return the container's part of the pod's current spec."""

    def host(self) -> str:
        """Return the address to probe."""

    def dialer(self) -> probes.Dialer:
        """Return where sockets that speak from the node come from."""

    def changed(self) -> None:
        """Note that a record has changed."""

    def event(self, reason: str, message: str, *, container: str, warning: bool = False) -> None:
        """Record an event about a container."""

    async def spec_changed(self) -> None:
        """Wait until the pod's spec changes."""

    def identify(self) -> str:
        """Return the pod as messages name it: ``web_demo(UID)``."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A container that an earlier kubelet started and this one takes over."""

    id: str
    pid: int
    started: float
    attempt: int
    exit: Exit | None
    about: Mapping[str, Any]


class Life:
    """Runs one container until it need not run any more. ``running`` is its current process, if it has one."""

    def __init__(self, record: Record, pod: Surroundings, restart_policy: str) -> None:
        self.record = record
        self.running: RunningProcess | None = None
        self._pod = pod
        self._policy = restart_policy
        self._backoff = 0.0
        self._stopping = False
        self.ready = asyncio.Event()
        """Set once the container has started (for a sidecar: its startup probe has passed)."""

    async def run(self, adopted: Adopted | None = None) -> None:
        """Run the container, again and again if its restart policy says so; returns when it is done for good."""
        while True:
            end = await (self._take_over(adopted) if adopted is not None else self._attempt())
            adopted = None
            if end is None:
                continue
            self._ended(end)
            if self._stopping or self._policy == "Never" or (self._policy == "OnFailure" and end.code == 0):
                return
            await self._back_off(end)

    def stop(self) -> None:
        """Do not start again: the pod is being deleted."""
        self._stopping = True

    async def _attempt(self) -> Terminated | None:
        """Start the container once and wait for its end; None if it could not be tried."""
        record = self.record
        try:
            container = await self._pod.describe(record)
        except ImageMissing as error:
            await self._hindered(
                "ErrImagePull", str(error), "Failed", f'Failed to pull image "{record.image}": {error}'
            )
            return None
        except (Unusable, RingfenceError) as error:
            await self._hindered("CreateContainerConfigError", str(error), "Failed", f"Error: {error}")
            return None
        record.image = self._pod.spec(record.name).get("image", record.image)
        self._say("Pulled", f'Container image "{record.image}" already present on machine')
        try:
            self.running = await self._pod.runtime.start(container)
        except (NotStarted, OSError, RingfenceError) as error:
            return self._not_started(str(error), container.id)
        record.id = container.id
        self._say("Created", f"Created container: {record.name}")
        self._say("Started", f"Started container {record.name}")
        return await self._live(container.process, container.id)

    async def _take_over(self, adopted: Adopted) -> Terminated | None:
        record = self.record
        record.id, record.restarts = adopted.id, adopted.attempt
        if adopted.exit is not None:
            return ended(adopted.exit.code, adopted.exit.signal, adopted.started, adopted.exit.finished, adopted.id)
        try:
            container = await self._pod.describe(record)
            self.running = await self._pod.runtime.watch(adopted.id, adopted.pid, adopted.started)
        except (NotStarted, OSError, RingfenceError, Unusable, ImageMissing) as error:
            return self._not_started(str(error), adopted.id)
        return await self._live(container.process, adopted.id)

    async def _live(self, process: Process, container: str) -> Terminated:
        assert self.running is not None
        running, record, spec = self.running, self.record, self._pod.spec(self.record.name)
        record.state = Running(running.started)
        record.started = not spec.get("startupProbe")
        record.ready = record.started and not spec.get("readinessProbe")
        if record.started:
            self.ready.set()
        self._pod.changed()
        watching = asyncio.create_task(self._probe_all(spec, process, container))
        try:
            exit_ = await running.wait()
        except RingfenceError:
            # The runner, and with it every container, was killed.
            exit_ = Exit(137, 9, time.time())
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        self.running = None
        return ended(exit_.code, exit_.signal, running.started, exit_.finished, container)

    def _not_started(self, error: str, container: str) -> Terminated:
        now = time.time()
        message = f"unable to start container process: {error}"
        self._say("Failed", f'Error: failed to start container "{self.record.name}": {message}', warning=True)
        return Terminated(128, 0, "StartError", now, now, message, container)

    def _ended(self, end: Terminated) -> None:
        record = self.record
        done = record.init and end.code == 0  # an init container is ready when it has succeeded
        record.state, record.ready, record.started = end, done, done
        self._pod.changed()

    async def _hindered(self, reason: str, message: str, event: str, told: str) -> None:
        """Say why the container cannot be tried, and wait for what might change that."""
        self.record.state = Waiting(reason, message)
        self._say(event, told, warning=True)
        self._pod.changed()
        with contextlib.suppress(TimeoutError):
            # A missing config map may appear; a wrong image only changes with the pod.
            async with asyncio.timeout(None if reason == "ErrImagePull" else _CONFIG_RETRY):
                await self._pod.spec_changed()

    async def _back_off(self, end: Terminated) -> None:
        """Wait before the next attempt: not at all after the first failure, then 10 s, 20 s, … 300 s."""
        record = self.record
        if end.finished - end.started >= FORGIVEN_AFTER:
            self._backoff = 0.0
        wait = self._backoff
        self._backoff = min(max(FIRST_BACKOFF, self._backoff * 2), LAST_BACKOFF)
        record.last = end
        if wait:
            name = f"failed container={record.name} pod={self._pod.identify()}"
            record.state = Waiting("CrashLoopBackOff", f"back-off {_go_duration(wait)} restarting {name}")
            self._say("BackOff", f"Back-off restarting failed container {record.name} in pod {self._pod.identify()}",
                      warning=True)  # fmt: skip
            self._pod.changed()
            await asyncio.sleep(wait)
        await self._pod.runtime.remove(record.id)
        record.restarts += 1

    def _say(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._pod.event(reason, message, container=self.record.name, warning=warning)

    async def _probe_all(self, spec: Json, process: Process, container: str) -> None:
        """Run the startup probe, and after it the others, until cancelled."""

        def look(probe: Json) -> Coroutine[Any, Any, None]:
            return probes.look(
                probe, spec, host=self._pod.host(), runtime=self._pod.runtime, running=container, env=process,
                dialer=self._pod.dialer(),
            )  # fmt: skip

        if spec.get("startupProbe"):
            await self._probe("Startup", spec["startupProbe"], look, self._startup)
        judges = {"Readiness": self._readiness, "Liveness": self._liveness}
        await asyncio.gather(
            *(
                self._probe(title, spec[f"{title.lower()}Probe"], look, judge)
                for title, judge in judges.items()
                if spec.get(f"{title.lower()}Probe")
            )
        )

    async def _probe(
        self,
        title: str,
        probe: Json,
        look: Callable[[Json], Coroutine[Any, Any, None]],
        judge: Callable[[bool], Coroutine[Any, Any, bool]],
    ) -> None:
        """Look again and again, and judge when as many looks in a row agree as the thresholds ask for; until judged
        final.
        """
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        thresholds = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
        last, in_a_row = None, 0
        while True:
            fine = True
            try:
                await look(probe)
            except probes.Failure as failure:
                fine = False
                self._say("Unhealthy", f"{title} probe failed: {failure}", warning=True)
            in_a_row = in_a_row + 1 if fine == last else 1
            last = fine
            if in_a_row >= thresholds[fine] and await judge(fine):
                return
            period = probe.get("periodSeconds", 10)
            # A server needs a moment to listen; nobody should wait out a whole period for that.
            await asyncio.sleep(period if self.record.ready else min(period, _EAGER))

    async def _startup(self, fine: bool) -> bool:  # noqa: FBT001 - a verdict
        if not fine:
            return await self._unhealthy("startup")
        self.record.started = True
        self.record.ready = not self._pod.spec(self.record.name).get("readinessProbe")
        self.ready.set()
        self._pod.changed()
        return True

    async def _readiness(self, fine: bool) -> bool:  # noqa: FBT001 - a verdict
        if self.record.ready != fine:
            self.record.ready = fine
            self._pod.changed()
        return False

    async def _liveness(self, fine: bool) -> bool:  # noqa: FBT001 - a verdict
        return False if fine else await self._unhealthy("liveness")

    async def _unhealthy(self, kind: str) -> bool:
        self._say("Killing", f"Container {self.record.name} failed {kind} probe, will be restarted")
        await self._pod.runtime.kill(self.record.id)
        return True


def _go_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
