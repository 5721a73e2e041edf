# SPDX-License-Identifier: Apache-2.0
"""Tells people what is wrong with stored objects: a log line, a Kubernetes Event and a metric (SEMANTICS 37).

Each problem is told once while it lasts. Every node sees every problem, so an Event's name is a digest of what it
says: the first agent creates it, the others find it there. Nothing is told of a problem that is gone meanwhile.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from collections.abc import Iterable
from typing import Any

from ringfence.agent.logs import Log
from ringfence.agent.metrics import Metrics
from ringfence.agent.reconcile import Problem
from ringfence.errors import ClusterError, RingfenceError
from ringfence.kube.client import Client

COMPONENT = "ringfence-agent"
_API_VERSIONS = {"NetworkPolicy": "networking.k8s.io/v1"}
_NAME_LIMIT = 253
_MESSAGE_LIMIT = 1024
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 60.0


class Reporter:
    """Compares the problems that there are with those that were told."""

    def __init__(self, client: Client, node: str, metrics: Metrics, log: Log) -> None:
        self._client = client
        self._node = node
        self._metrics = metrics
        self._log = log
        self._told: frozenset[Problem] = frozenset()
        self._queue: asyncio.Queue[Problem] = asyncio.Queue()

    def tell(self, problems: Iterable[Problem]) -> None:
        """Take the problems that there are now; returns at once."""
        current = frozenset(problems)
        for problem in sorted(current - self._told):
            self._log.warning(
                "a stored object is invalid; what is broken in it matches nothing, and the rest is enforced",
                object=str(problem.object),
                problem=str(problem),
            )
            self._queue.put_nowait(problem)
        for problem in sorted(self._told - current):
            self._log.info("a problem is gone", object=str(problem.object), problem=str(problem))
        self._told = current
        self._metrics.policy_problems.set(len(current))

    async def run(self) -> None:
        """Create the Events, one after the other, forever."""
        while True:
            await self._report(await self._queue.get())

    async def _report(self, problem: Problem) -> None:
        """Create an Event. What the API server refuses is given up; its absence is waited out, while there is cause."""
        delay = FIRST_RETRY_SECONDS
        while problem in self._told:
            try:
                await self._create(problem)
            except RingfenceError as error:
                self._metrics.sync_errors.labels(stage="report").inc()
                if isinstance(error, ClusterError) and 400 <= error.code < 500:
                    self._log.warning(
                        "no Event could be created for an invalid object",
                        object=str(problem.object),
                        error=str(error),
                    )
                    return
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_RETRY_SECONDS)
            else:
                return

    async def _create(self, problem: Problem) -> None:
        event = event_of(problem, self._node, datetime.datetime.now(datetime.UTC))
        try:
            await self._client.create(f"/api/v1/namespaces/{event['metadata']['namespace']}/events", event)
        except ClusterError as error:
            if error.code != 409:  # another node's agent, or this one before it was restarted, said so already
                raise


def event_of(problem: Problem, node: str, now: datetime.datetime) -> dict[str, Any]:
    """Return the Event (core/v1) that tells of a problem; the same name for the same problem on every node."""
    about = problem.object
    digest = hashlib.sha256("\0".join((about.kind, problem.uid, str(problem))).encode()).hexdigest()[:16]
    namespace = about.namespace or "default"
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    involved = {"apiVersion": _API_VERSIONS.get(about.kind, "v1"), "kind": about.kind, "name": about.name}
    if about.namespace:
        involved["namespace"] = about.namespace
    if problem.uid:
        involved["uid"] = problem.uid
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about.name[: _NAME_LIMIT - 17]}.{digest}", "namespace": namespace},
        "involvedObject": involved,
        "type": "Warning",
        "reason": "InvalidField",
        "message": f"{problem} (what is broken matches nothing; isolation stands)"[:_MESSAGE_LIMIT],
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
