# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from ringfence.agent import loop, reports, standing
from ringfence.agent.logs import open_log
from ringfence.agent.metrics import Metrics
from ringfence.agent.reconcile import Event, Kind, State, Step, local_pods, reconcile
from ringfence.agent.standing import Standing
from ringfence.compiler.program import Program
from ringfence.dataplanes.base import Applied
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


async def test_event_waits_for_a_server_that_is_ill(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be told is told later, once; what is no problem any more by then is not told."""
    monkeypatch.setattr(reports, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(reports, "LAST_RETRY_SECONDS", 0.02)
    await until(lambda: running.standing.unready() is None)
    await until(lambda: all(running.api.watching(kind.value) == 1 for kind in Kind))
    running.api.refuse(503, times=1000)
    for name in ("first", "second"):
        wrong = {"metadata": {"namespace": "demo", "name": name, "uid": name}, "spec": {"policyTypes": ["Up"]}}
        running.api.put(Kind.POLICIES.value, wrong)
    await until(lambda: running.errors("report") > 5)
    running.api.remove(Kind.POLICIES.value, "demo/second")
    await until(lambda: "a problem is gone" in running.messages())
    running.api.forgive()
    await until(lambda: "/api/v1/namespaces/demo/events" in running.api.collections)
    running.api.put(Kind.POLICIES.value, {**wrong, "metadata": {"namespace": "demo", "name": "third", "uid": "third"}})
    await until(lambda: len(running.api.collections["/api/v1/namespaces/demo/events"]) == 2)
    events = running.api.collections["/api/v1/namespaces/demo/events"].values()

    assert sorted(event["involvedObject"]["name"] for event in events) == ["first", "third"]


class Slow(MemoryDataplane):
    """A dataplane that can be held up, and that remembers what was put in force."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.applied: list[Program] = []

    def apply(self, program: Program) -> Applied:
        """Wait until nobody holds us up, and apply."""
        self.free.wait(5)
        self.applied.append(program)
        return super().apply(program)


@pytest.fixture
async def slow(running: Running, monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Put a slow dataplane in an agent's hands that has settled."""
    await until(lambda: all(running.api.watching(kind.value) == 1 for kind in Kind))
    await until(lambda: running.standing.unready() is None)
    slow = Slow()
    monkeypatch.setattr(running.agent._enforcer, "_dataplane", slow)
    running.dataplane = slow
    return slow


def put_policy(api: ApiServer, name: str, **labels: str) -> None:
    """Put a policy that lets nobody in to pods with these labels."""
    meta = {"namespace": "demo", "name": name, "uid": f"uid-{name}"}
    api.put(Kind.POLICIES.value, {"metadata": meta, "spec": {"podSelector": {"matchLabels": labels}}})


async def test_policies_and_pods_of_one_batch_are_put_in_force_one_after_the_other(
    running: Running, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order in which they were stored, whichever is heard of first; each is a state that the API
    server had; and no gate opens on the way.
    """
    slow.free.clear()
    put_pod(running.api, "first", "10.1.0.1")  # holds the loop up
    await until(lambda: "uid-first" in (running.standing.latest or State("n1")).objects.get(Kind.PODS, {}))
    opened: list[State] = []
    commit = running.standing.commit

    def committed(state: State) -> None:
        opened.append(state)
        commit(state)

    monkeypatch.setattr(running.standing, "commit", committed)
    put_policy(running.api, "deny")
    put_pod(running.api, "second", "10.1.0.2")
    await until(lambda: running.agent._queue.qsize() == 2)
    slow.free.set()
    await until(lambda: running.protected() == {"uid-first", "uid-second"})
    await until(lambda: running.standing.committed is running.standing.latest)

    assert [(len(local_pods(each)), len(each.rulesets)) for each in slow.applied] == [(1, 0), (1, 1), (2, 1)]
    assert [len(state.objects[Kind.POLICIES]) + len(state.objects[Kind.PODS]) for state in opened] == [1, 3]


async def test_commit_that_hangs_is_no_readiness(running: Running, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in force may be old by then, and nobody would say so."""
    monkeypatch.setattr(standing, "BUSY_SECONDS", 0.05)
    slow.free.clear()
    put_pod(running.api, "first", "10.1.0.1")
    await until(lambda: "has been under way" in (running.standing.unready() or ""))
    slow.free.set()
    await until(lambda: running.standing.unready() is None)
