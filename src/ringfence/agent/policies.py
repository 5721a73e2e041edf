# SPDX-License-Identifier: Apache-2.0
"""Asks the API server how things are now: the policies of a namespace, which are the gate's evidence, and a pod.

Everybody who asks before a request goes out shares its answer. Who asks while one is under way needs the next one:
an answer may be older than a question that came after its request. So a burst of pods costs two requests, not many.
"""

from __future__ import annotations

import asyncio
import functools

from ringfence.agent.evidence import Evidence
from ringfence.agent.reconcile import Kind, Told, decode
from ringfence.apis.core import Pod
from ringfence.errors import ClusterError
from ringfence.kube.client import Client
from ringfence.kube.reflector import list_whole

ANSWER_SECONDS = 5.0


class PolicyReader:
    """Reads policies, namespace by namespace."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._running: dict[str, asyncio.Task[Evidence]] = {}
        self._next: dict[str, asyncio.Task[Evidence]] = {}

    async def now(self, namespace: str) -> Evidence:
        """Return the policies by an answer to a request that is sent after this call; raises ``ClusterError``."""
        task = self._next.get(namespace)
        if task is None:
            task = asyncio.create_task(self._read(namespace, self._running.get(namespace)))
            self._next[namespace] = task
            task.add_done_callback(functools.partial(self._done, namespace))
        return await asyncio.shield(task)

    async def _read(self, namespace: str, before: asyncio.Task[Evidence] | None) -> Evidence:
        if before is not None:
            await asyncio.wait((before,))
        self._running[namespace] = self._next.pop(namespace)
        group, _, resource = Kind.POLICIES.value.rpartition("/")
        path = f"{group}/namespaces/{namespace}/{resource}"
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                version, policies = await list_whole(self._client, path, _decode)
        except TimeoutError:
            raise ClusterError(f"no answer to {path} within {ANSWER_SECONDS:g} s", reason="Timeout") from None
        return Evidence(namespace, version, policies)

    async def knows(self, namespace: str, name: str, uid: str) -> bool:
        """Tell whether the API server has this very pod; not if it does not answer."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                raw = await self._client.get_bytes(f"/api/v1/namespaces/{namespace}/pods/{name}")
        except (TimeoutError, ClusterError):
            return False
        pod = decode(Kind.PODS, raw)
        return isinstance(pod, Pod) and pod.metadata.uid == uid

    def _done(self, namespace: str, task: asyncio.Task[Evidence]) -> None:
        if self._running.get(namespace) is task:
            del self._running[namespace]
        if not task.cancelled():
            task.exception()  # whoever waited for it has heard it; perhaps nobody does any more

    async def close(self) -> None:
        """Give up whatever is under way."""
        tasks = [*self._running.values(), *self._next.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _decode(raw: bytes) -> Told:
    return decode(Kind.POLICIES, raw)
