# SPDX-License-Identifier: Apache-2.0
"""One pod's life on its node: network, gate, containers, and the end.

::

    addresses -> network (closed) -> status with podIP -> the agent's gate -> network open -> init containers
              -> containers, until all are done or the pod is deleted -> stop, remove the network
              -> the end is told, or the object deleted

A pod whose gate does not open stays as it is, closed, and says why; nothing of its traffic has ever passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.errors import ClusterError
from ringfence.lab.nodes import podspec, probes, status
from ringfence.lab.nodes.containers import Adopted, Life
from ringfence.lab.nodes.node import Bell, Node, pod_id
from ringfence.lab.nodes.pod_network import PodNetwork
from ringfence.lab.nodes.runtime import Container
from ringfence.lab.nodes.status import Record, Sandbox, Waiting

Json = Mapping[str, Any]

_log = logging.getLogger("ringfence.lab.nodes")
_RETRY = 1.0
_KILL_PATIENCE = 5.0  # seconds for the kernel to end what was killed
_DEAF_GRACE = 0.2  # seconds for a program that cannot hear SIGTERM: one that was just about to end may


class Worker:
    """Runs one pod. ``update`` brings news of the object, ``forget`` says that it is gone."""

    def __init__(self, node: Node, pod: Json, adopted: Mapping[str, Adopted]) -> None:
        self.id = pod_id(pod)
        self.pod = pod
        self.runtime = node.runtime
        self._node = node
        self._adopted = dict(adopted)
        self._network = PodNetwork(node, self.id, self._event, host=bool(pod["spec"].get("hostNetwork")))
        self.records = [*_records(pod, "initContainers"), *_records(pod, "containers")]
        self.lives: dict[str, Life] = {}
        self._began = time.time()
        self._changed = asyncio.Event()
        self._news = Bell()
        self._moved = Bell()
        self._deleted = asyncio.Event()
        self._forgotten = False
        self._left = False
        self._grace: float | None = None
        if pod["metadata"].get("deletionTimestamp"):
            self.update(pod)

    # -- news from the API server

    def update(self, pod: Json) -> None:
        """Take the object's new state: perhaps its deletion was asked for, or its grace was cut short."""
        if pod["spec"] != self.pod["spec"]:
            self._news.ring()
        self.pod = pod
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp"):
            grace = float(metadata.get("deletionGracePeriodSeconds") or 0)
            self._grace = grace if self._grace is None else min(grace, self._grace)
            self._deleted.set()
            self._moved.ring()

    def forget(self) -> None:
        """End at once: the object is gone."""
        self._forgotten = True
        self._grace = 0.0
        self._deleted.set()
        self._moved.ring()

    # -- the life

    async def run(self) -> None:
        """Live until the pod is deleted, and clean up after it."""
        reporting = asyncio.create_task(self._report())
        living = asyncio.create_task(self._live())
        ending = asyncio.create_task(self._deleted.wait())
        try:
            await asyncio.wait((living, ending), return_when=asyncio.FIRST_COMPLETED)
            if living.done() and living.exception() is not None:
                _log.error("pod %s: %r", self.identify(), living.exception(), exc_info=living.exception())
                self._event("FailedSync", f"error syncing pod: {living.exception()}", warning=True)
            await ending
            await self._end(living)
        finally:
            for task in (living, ending, reporting):
                task.cancel()
            await asyncio.gather(living, ending, reporting, return_exceptions=True)

    async def _live(self) -> None:
        if self.pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return
        self._count_losses()
        known = [entry["ip"] for entry in self.pod.get("status", {}).get("podIPs") or ()]
        began = [adopted.started for adopted in self._adopted.values()]
        await self._network.set_up(known, adopted=bool(began))
        self._began = min(began, default=time.time())
        self._changed.set()
        if not began:
            await self._network.open()
        sidecars: list[asyncio.Task[None]] = []
        try:
            if await self._initialise_all(sidecars):
                await asyncio.gather(*(self._begin(record) for record in self.records if not record.init))
            if self._deleted.is_set():
                return  # whoever asked for that stops and removes everything
            await self._stop_sidecars()
        finally:
            for task in sidecars:
                task.cancel()
            await asyncio.gather(*sidecars, return_exceptions=True)
        await self._leave()
        self._left = True
        self._changed.set()

    async def _initialise_all(self, sidecars: list[asyncio.Task[None]]) -> bool:
        for record in self.records:
            if record.init and not await self._initialise(record, sidecars):
                return False
        return True

    async def _stop_sidecars(self) -> None:
        """Stop what served the other containers, the last one to start first: "in the reverse order"."""
        for record in reversed([record for record in self.records if record.sidecar]):
            life = self.lives.get(record.name)
            if life is None:
                continue
            life.stop()
            if life.running is not None and isinstance(record.state, status.Running):
                await self._stop_container(record, life.running.pid)

    async def _initialise(self, record: Record, sidecars: list[asyncio.Task[None]]) -> bool:
        """Run an init container to its end, or a sidecar to its start; False if the pod has failed by it."""
        task = asyncio.ensure_future(self._begin(record))
        if record.sidecar:
            sidecars.append(task)
            await self.lives[record.name].ready.wait()
            return True
        await task
        return isinstance(record.state, status.Terminated) and record.state.code == 0

    def _begin(self, record: Record) -> asyncio.Task[None]:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        if record.init:
            policy = "Always" if record.sidecar else "OnFailure" if policy == "Always" else policy
        life = Life(record, self, policy)
        self.lives[record.name] = life
        return asyncio.create_task(life.run(self._adopted.pop(record.name, None)))

    def _count_losses(self) -> None:
        """Count a start again for a pod that ran before but whose containers nobody has any more."""
        before = {entry["name"]: entry for kind in ("initContainerStatuses", "containerStatuses")
                  for entry in self.pod.get("status", {}).get(kind) or ()}  # fmt: skip
        for record in self.records:
            old = before.get(record.name, {})
            record.restarts = int(old.get("restartCount", 0))
            if record.name not in self._adopted and "running" in old.get("state", {}):
                now = time.time()
                record.last = status.Terminated(137, 0, "ContainerStatusUnknown", now, now, "the container was lost")
                record.restarts += 1

    # -- what containers need (containers.Surroundings)

    async def describe(self, record: Record) -> Container:
        """Return what to start for a container; raises ``podspec.Unusable`` and ``images.ImageMissing``."""
        spec = self.spec(record.name)
        maps = await self._config_maps()
        addresses = self._network.addresses
        placed = podspec.Placed(self._node.name, addresses, self._node.addresses)
        process = podspec.process(self.pod, spec, podspec.environment(self.pod, spec, placed, maps))
        mounts = podspec.mounts(self.pod, spec, self.id.directory, maps)
        await asyncio.to_thread(self._make_volumes, mounts.volumes)
        files = podspec.pod_files(self.pod, placed, self._node.account) | dict(mounts.files)
        return Container(
            id=self._container_id(record),
            process=process,
            hostname=self._node.name if self._network.host else podspec.hostname(self.pod),
            log=f"{self.id.directory}/{record.name}/{record.restarts}.log",
            network=self._network.path(),
            files=files,
            volumes=mounts.volumes,
            about={
                "namespace": self.id.namespace, "name": self.id.name, "uid": self.id.uid, "node": self._node.name,
                "container": record.name, "attempt": record.restarts, "addresses": list(addresses),
            },
        )  # fmt: skip

    def _container_id(self, record: Record) -> str:
        return f"{self.id.uid}.{record.name}.{record.restarts}"

    async def _config_maps(self) -> podspec.ConfigMaps:
        found: dict[str, dict[str, str]] = {}
        for name in podspec.config_maps(self.pod):
            try:
                one = await self._node.client.get(f"/api/v1/namespaces/{self.id.namespace}/configmaps/{name}")
            except ClusterError as error:
                if error.code != 404:
                    raise
            else:
                found[name] = one.get("data") or {}
        return found

    def _make_volumes(self, volumes: Sequence[tuple[str, str, bool]]) -> None:
        for source, _, _ in volumes:
            path = self._node.directory / source
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o777)

    def spec(self, name: str) -> Json:
        """Return a container's part of the pod's current spec."""
        spec = self.pod["spec"]
        found: Json = next(one for one in [*spec.get("initContainers", ()), *spec["containers"]] if one["name"] == name)
        return found

    def host(self) -> str:
        """Return the address to probe."""
        return self._network.addresses[0]

    def dialer(self) -> probes.Dialer:
        """Return where sockets that speak from the node come from."""
        return self._node.network

    def changed(self) -> None:
        """Note that a record has changed: the API server is told soon."""
        self._changed.set()
        self._moved.ring()

    def event(self, reason: str, message: str, *, container: str, warning: bool = False) -> None:
        """Record an event about a container."""
        kind = (
            "initContainers"
            if any(record.init and record.name == container for record in self.records)
            else "containers"
        )
        field = f"spec.{kind}{{{container}}}"
        self._node.events.record(self.pod, self._node.name, reason, message, container=field, warning=warning)

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._node.events.record(self.pod, self._node.name, reason, message, warning=warning)

    async def spec_changed(self) -> None:
        """Wait until the pod's spec changes."""
        await self._news.wait()

    def identify(self) -> str:
        """Return the pod as messages name it."""
        return f"{self.id.name}_{self.id.namespace}({self.id.uid})"

    # -- the API server is told

    async def _report(self) -> None:
        """Write the pod's status whenever something has changed, the latest state only."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._write_status()

    async def _write_status(self) -> None:
        sandbox = Sandbox(self._network.addresses, self._node.addresses, self._began, self._left)
        now = status.pod_status(self.pod, self.records, sandbox, time.time())
        patch = {"metadata": {"uid": self.id.uid}, "status": now}
        while not self._forgotten:
            try:
                await self._node.client.patch(f"{self.id.path}/status", patch)
            except ClusterError as error:
                if error.code in (404, 409, 422):
                    return  # the pod is gone, or another has its name
                await asyncio.sleep(_RETRY)
                self._changed.set()
            else:
                return

    # -- the end

    async def _end(self, living: asyncio.Task[None]) -> None:
        """Stop everything, remove the network, and let the object go."""
        for record in self.records:
            if record.name in self.lives and self.lives[record.name].running is not None:
                self.event("Killing", f"Stopping container {record.name}", container=record.name)
        await self._stop_containers()
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        await self._leave()
        directory = self._node.directory / self.id.directory
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        if not self._forgotten:
            await self._delete_object()

    async def _stop_containers(self) -> None:
        """Ask every container to end, and end those that have not when the grace period is over."""
        running = [
            (life.record, life.running.pid)
            for life in self.lives.values()
            if life.running is not None and isinstance(life.record.state, status.Running)
        ]
        # Nothing starts again from here on: the lives are told to stop at their next end.
        for life in self.lives.values():
            life.stop()
        await asyncio.gather(*(self._stop_container(record, pid) for record, pid in running))

    async def _stop_container(self, record: Record, pid: int) -> None:
        if self._grace != 0:
            heard = await self.runtime.terminate(record.id, pid)
            await self._wait_for_end(record, limit=None if heard else _DEAF_GRACE)
        await self.runtime.kill(record.id)
        await self._wait_for_end(record, limit=_KILL_PATIENCE)

    async def _wait_for_end(self, record: Record, *, limit: float | None) -> None:
        """Wait until a container has ended, for at most ``limit`` seconds or else the pod's grace, which may shrink."""
        began = time.monotonic()
        while isinstance(record.state, status.Running):
            left = began + (self._patience() if limit is None else limit) - time.monotonic()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._moved.wait()

    def _patience(self) -> float:
        """Return the grace that the deletion gives; without one, that of the pod."""
        return (
            self._grace if self._grace is not None else float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        )

    async def _leave(self) -> None:
        """Give back what the pod holds of the node: containers and network. Its logs stay until it is deleted."""
        for record in self.records:
            # Also one whose start was broken off: it would run without anybody knowing.
            container = self._container_id(record)
            await self.runtime.kill(container)
            await self.runtime.remove(container)
        await self._network.give_back()

    async def _delete_object(self) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.id.uid}}
        while not self._forgotten:
            try:
                await self._node.client.delete(self.id.path, body)
            except ClusterError as error:
                if error.code in (404, 409):
                    return
                await asyncio.sleep(_RETRY)
            else:
                return


def _records(pod: Json, kind: str) -> list[Record]:
    reason = "PodInitializing" if pod["spec"].get("initContainers") and kind == "containers" else "ContainerCreating"
    return [
        Record(
            name=container["name"],
            image=container.get("image", ""),
            init=kind == "initContainers",
            sidecar=kind == "initContainers" and container.get("restartPolicy") == "Always",
            state=Waiting(reason),
        )
        for container in pod["spec"].get(kind) or ()
    ]
