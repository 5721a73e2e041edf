# SPDX-License-Identifier: Apache-2.0
"""Events about pods, as a kubelet records them: in order, the same one counted, and never in anybody's way."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ringfence.errors import ClusterError
from ringfence.kube.client import Client
from ringfence.lab.nodes.status import timestamp

Json = Mapping[str, Any]
_MOST_WAITING = 5000
_MOST_REMEMBERED = 4096


class _Event(NamedTuple):
    pod: Json
    reason: str
    message: str
    warning: bool
    container: str
    node: str
    now: float


class Recorder:
    """Writes events; run ``write`` as a task."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: asyncio.Queue[_Event] = asyncio.Queue(_MOST_WAITING)
        self._seen: dict[tuple[str, ...], tuple[str, int]] = {}  # what was said -> (event's path, count)
        self._number = time.time_ns()

    def record(
        self, pod: Json, node: str, reason: str, message: str, *, container: str = "", warning: bool = False
    ) -> None:
        """Queue an event about a pod or one of its containers (a field path: ``spec.containers{web}``)."""
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(_Event(pod, reason, message, warning, container, node, time.time()))

    async def write(self) -> None:
        """Write what is queued, for ever."""
        while True:
            event = await self._queue.get()
            with contextlib.suppress(ClusterError):  # the pod's namespace may be gone; events are a courtesy
                await self._write(event)

    async def _write(self, event: _Event) -> None:
        metadata = event.pod["metadata"]
        key = (metadata["uid"], event.reason, event.message, event.container)
        known = self._seen.get(key)
        if known is not None:
            path, count = known
            self._seen[key] = (path, count + 1)
            with contextlib.suppress(ClusterError):  # it may have expired
                patch = {"count": count + 1, "lastTimestamp": timestamp(event.now)}
                await self._client.patch(path, patch)
            return
        self._number += 1
        name = f"{metadata['name']}.{self._number:x}"
        collection = f"/api/v1/namespaces/{metadata['namespace']}/events"
        await self._client.create(collection, _object(event, name))
        if len(self._seen) >= _MOST_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (f"{collection}/{name}", 1)


def _object(event: _Event, name: str) -> dict[str, Any]:
    metadata = event.pod["metadata"]
    about = {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    if event.container:
        about["fieldPath"] = event.container
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "involvedObject": about,
        "reason": event.reason,
        "message": event.message,
        "type": "Warning" if event.warning else "Normal",
        "source": {"component": "kubelet", "host": event.node},
        "reportingComponent": "kubelet",
        "reportingInstance": event.node,
        "firstTimestamp": timestamp(event.now),
        "lastTimestamp": timestamp(event.now),
        "count": 1,
    }
