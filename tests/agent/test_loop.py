# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from ringfence.agent import loop
from ringfence.agent.logs import open_log
from ringfence.agent.metrics import Metrics
from ringfence.agent.reconcile import Event, Kind, State, Step, local_pods, reconcile
from ringfence.agent.standing import Standing
from ringfence.dataplanes.memory.apply import MemoryDataplane
from ringfence.kube.client import Client
from ringfence.kube.config import ClusterAccess
from ringfence.kube.testing import ApiServer


class Running:
    """An agent in this process, and what can be seen of it."""

    def __init__(self, api: ApiServer, client: Client, stderr: io.StringIO) -> None:
        self.api = api
        self.standing = Standing()
        self.metrics = Metrics("memory", "n1")
        self.dataplane = MemoryDataplane()
        self.stderr = stderr
        self.agent = loop.Agent(
            "n1", client, self.dataplane, standing=self.standing, metrics=self.metrics, log=open_log("json")
        )

    def protected(self) -> frozenset[str]:
        """Return the uids of the pods in the dataplane's program."""
        return local_pods(self.dataplane.program) if self.dataplane.program else frozenset()

    def messages(self) -> list[str]:
        """Return the messages that were logged."""
        return [json.loads(line)["msg"] for line in self.stderr.getvalue().splitlines()]

    def errors(self, stage: str) -> float:
        """Return the count of errors of a stage."""
        return self.metrics.registry.get_sample_value("ringfence_sync_errors_total", {"stage": stage}) or 0.0


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """Run an agent against a small API server with nothing in it but the collections."""
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    api = ApiServer(collections={kind.value: {} for kind in Kind})
    api.put(Kind.NAMESPACES.value, {"metadata": {"name": "demo"}})
    async with api.serving(), Client(ClusterAccess(server=api.url)) as client:
        made = Running(api, client, stderr)
        stop = asyncio.Event()
        task = asyncio.create_task(made.agent.run(stop))
        yield made
        stop.set()
        await task


async def until(condition: Callable[[], bool]) -> None:
    """Poll until something is so."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the loop's own time
            await asyncio.sleep(0.002)


def put_pod(api: ApiServer, name: str, address: str) -> None:
    """Put a pod on the node."""
    api.put(
        Kind.PODS.value,
        {
            "metadata": {"namespace": "demo", "name": name, "uid": f"uid-{name}"},
            "spec": {"nodeName": "n1"},
            "status": {"podIP": address, "podIPs": [{"ip": address}]},
        },
    )


async def test_step_that_fails_loses_no_event(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a bug keeps changes from being compiled the last program stays and readiness says so; afterwards
    everything that was heard meanwhile is enforced.
    """
    put_pod(running.api, "first", "10.1.0.1")
    await until(lambda: running.protected() == {"uid-first"})
    broken = True

    def failing(state: State, events: Sequence[Event]) -> Step:
        if broken:
            raise ZeroDivisionError("a bug")
        return reconcile(state, events)

    monkeypatch.setattr(loop, "reconcile", failing)
    put_pod(running.api, "second", "10.1.0.2")
    await until(lambda: running.errors("compile") >= 2)
    assert running.protected() == {"uid-first"}
    assert "a bug" in (running.standing.unready() or "")
    put_pod(running.api, "third", "10.1.0.3")
    broken = False
    await until(lambda: running.protected() == {"uid-first", "uid-second", "uid-third"})

    assert running.standing.unready() is None


async def test_problem_is_told_once_and_its_end_too(running: Running) -> None:
    """One line and one Event while it lasts, whatever else changes; one line when it is gone."""
    policies = Kind.POLICIES.value
    wrong: dict[str, Any] = {
        "metadata": {"namespace": "demo", "name": "half", "uid": "u"},
        "spec": {"policyTypes": ["Up"]},
    }
    running.api.put(policies, wrong)
    await until(lambda: "/api/v1/namespaces/demo/events" in running.api.collections)
    put_pod(running.api, "web", "10.1.0.1")
    await until(lambda: running.protected() == {"uid-web"})
    running.api.remove(policies, "demo/half")
    await until(lambda: "a problem is gone" in running.messages())

    told = [message for message in running.messages() if "stored object is invalid" in message]
    assert len(told) == 1
    assert len(running.api.collections["/api/v1/namespaces/demo/events"]) == 1
    assert running.metrics.registry.get_sample_value("ringfence_policy_problems") == 0


async def test_event_that_the_server_refuses_is_given_up(running: Running) -> None:
    """Without the right to create Events the log says so, once, and enforcement goes on."""
    await until(lambda: running.standing.unready() is None)
    # the watches are open already, so the next request is the Event's
    await until(lambda: all(running.api.watching(kind.value) == 1 for kind in Kind))
    running.api.refuse(403)
    wrong = {"metadata": {"namespace": "demo", "name": "half", "uid": "u"}, "spec": {"policyTypes": ["Up"]}}
    running.api.put(Kind.POLICIES.value, wrong)
    await until(lambda: running.errors("report") == 1)

    assert "no Event could be created for an invalid object" in running.messages()
    assert running.standing.unready() is None
