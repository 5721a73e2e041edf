# SPDX-License-Identifier: Apache-2.0
"""When a pod's traffic may start: with a real API server whose watches stand still when told to."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ringfence.agent.logs import open_log
from ringfence.agent.loop import Agent
from ringfence.agent.metrics import Metrics
from ringfence.agent.podgate import Ground, Opening, PodGate, PodStart, Question
from ringfence.agent.policies import PolicyReader
from ringfence.agent.reconcile import Kind, local_pods
from ringfence.agent.standing import Standing
from ringfence.dataplanes.memory.apply import MemoryDataplane
from ringfence.errors import HostRefused
from ringfence.kube.client import Client, Patience
from ringfence.kube.config import ClusterAccess
from ringfence.kube.testing import ApiServer

PODS, POLICIES = Kind.PODS.value, Kind.POLICIES.value
LISTS = f"GET {POLICIES.replace('/networkpolicies', '/namespaces/demo/networkpolicies')}"


class Node:
    """An agent in this process, its gate, and the API server that it follows."""

    def __init__(self, api: ApiServer, client: Client, start: PodStart) -> None:
        self.api = api
        self.standing = Standing()
        self.metrics = Metrics("memory", "n1")
        self.dataplane = MemoryDataplane()
        self.agent = Agent(
            "n1", client, self.dataplane, standing=self.standing, metrics=self.metrics, log=open_log("json")
        )
        self.reader = PolicyReader(client)
        self.gate = PodGate(
            self.standing, self.reader, metrics=self.metrics, start=start, behind=self.agent.follow_anew
        )

    async def ask(self, name: str, address: str | None = None, seconds: float = 5.0) -> Opening:
        """Ask for a pod."""
        return await self.gate.ask(Question("demo", name, f"uid-{name}", (address,) if address else ()), seconds)

    def enforces(self, name: str) -> bool:
        """Tell whether the dataplane has a pod."""
        return self.dataplane.program is not None and f"uid-{name}" in local_pods(self.dataplane.program)

    def put_pod(self, name: str, address: str | None, **labels: str) -> None:
        """Put a pod on the node."""
        status = {"podIP": address, "podIPs": [{"ip": address}]} if address else {}
        meta = {"namespace": "demo", "name": name, "uid": f"uid-{name}", "labels": labels}
        self.api.put(PODS, {"metadata": meta, "spec": {"nodeName": "n1"}, "status": status})

    def put_policy(self, name: str, namespace: str = "demo", **subject: str) -> None:
        """Put a policy that lets nobody in."""
        meta = {"namespace": namespace, "name": name, "uid": f"uid-{name}"}
        self.api.put(POLICIES, {"metadata": meta, "spec": {"podSelector": {"matchLabels": subject}}})

    def isolated(self, name: str) -> bool:
        """Tell whether the program in force isolates a pod."""
        assert self.dataplane.program is not None
        return any(entry.uid == f"uid-{name}" and entry.ingress for entry in self.dataplane.program.endpoints)

    def count(self, name: str, **labels: str) -> float:
        """Return the value of a metric."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch, start: PodStart = PodStart.CLOSED) -> AsyncIterator[Node]:
    """Run an agent until the end of the block."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    api = ApiServer(collections={kind.value: {} for kind in Kind})
    api.put(Kind.NAMESPACES.value, {"metadata": {"name": "demo"}})
    async with api.serving(), Client(ClusterAccess(server=api.url), patience=Patience(first_retry=0.01)) as client:
        node = Node(api, client, start)
        stop = asyncio.Event()
        task = asyncio.create_task(node.agent.run(stop))
        async with asyncio.timeout(5):
            while node.standing.committed is None or not all(api.watching(kind.value) for kind in Kind):  # noqa: ASYNC110 - what is waited for happens in the loop's own time
                await asyncio.sleep(0.002)
        try:
            yield node
        finally:
            await node.reader.close()
            stop.set()
            await task


async def test_pod_does_not_start_under_older_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch of policies stands still while the one of pods goes on: the pod is known, and even committed, but no
    gate opens until the policy that was there before the pod is in force; and then it is, by a new list.
    """
    async with running(monkeypatch) as node:
        node.api.stalled_paths.add(POLICIES)
        node.put_policy("deny", app="web")
        node.put_pod("web", "10.1.0.5", app="web")
        opening = await node.ask("web", "10.1.0.5", seconds=0.3)
        assert opening == Opening(None, in_force=False, reason="the network policy demo/deny is not in force yet")
        assert node.enforces("web")
        assert not node.isolated("web")

        assert (await node.ask("web", "10.1.0.5", seconds=10)).ground is Ground.IN_FORCE
        assert node.isolated("web")
        assert node.count("ringfence_watches_behind_total") == 1


async def test_pod_that_the_watch_does_not_tell_of_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch of pods stands still: the pod waits until a new list has it, and not until the watch ends. A pod that
    the API server does not have is no reason for a new list.
    """
    async with running(monkeypatch) as node:
        node.put_policy("deny", app="web")
        node.api.stalled_paths.add(PODS)
        assert (await node.ask("nobody", "10.1.0.5", seconds=2.5)).ground is None
        assert node.count("ringfence_watches_behind_total") == 0
        node.put_pod("web", "10.1.0.5", app="web")
        assert (await node.ask("web", "10.1.0.5", seconds=10)).ground is Ground.IN_FORCE
        assert node.count("ringfence_watches_behind_total") == 1


async def test_deleted_policy_is_as_good_as_an_older_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a policy allowed is not allowed any more when the pod starts."""
    async with running(monkeypatch) as node:
        node.put_policy("deny", app="web")
        node.put_policy("more", app="web")
        node.put_pod("web", "10.1.0.5", app="web")
        assert (await node.ask("web", "10.1.0.5")).ground is Ground.IN_FORCE
        node.api.stalled_paths.add(POLICIES)
        node.api.remove(POLICIES, "demo/more")
        node.put_pod("next", "10.1.0.6", app="web")
        opening = await node.ask("next", "10.1.0.6", seconds=0.3)

        assert opening.reason == "the network policy demo/more is in force and was deleted"


async def test_pod_that_no_policy_could_select_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for the dataplane, which refuses everything, nor for policies of other pods and namespaces."""
    async with running(monkeypatch) as node:
        monkeypatch.setattr(node.dataplane, "apply", _refused)
        node.put_policy("deny", app="web")
        node.put_policy("elsewhere", namespace="other")
        node.put_pod("db", "10.1.0.6", app="db")
        assert await node.ask("db", "10.1.0.6") == Opening(Ground.UNSELECTED, in_force=False)
        node.put_pod("web", "10.1.0.7", app="web")
        assert (await node.ask("web", "10.1.0.7", seconds=0.2)).ground is None
        assert node.count("ringfence_pod_starts_total", ground="unselected") == 1
        assert node.count("ringfence_pod_starts_total", ground="refused") == 1


async def test_pod_whose_labels_are_unknown_waits_where_there_is_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent has not heard of the pod: without any policy it may start, with one it may not."""
    async with running(monkeypatch) as node:
        node.api.stalled_paths.add(PODS)
        node.put_pod("db", "10.1.0.6", app="db")
        assert (await node.ask("db", "10.1.0.6")).ground is Ground.UNSELECTED
        node.put_policy("deny", app="web")
        opening = await node.ask("db", "10.1.0.6", seconds=0.2)
        assert opening.reason == "the agent has not seen the pod demo/db with uid uid-db"


async def test_unselected_pod_waits_while_its_address_means_its_last_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last holder is let in by a rule that is in force: the next one must not be."""
    async with running(monkeypatch) as node:
        node.put_pod("old", "10.1.0.5")
        assert (await node.ask("old", "10.1.0.5")).ground is not None
        async with asyncio.timeout(5):
            while not node.enforces("old"):  # noqa: ASYNC110 - what is waited for happens in the loop's own time
                await asyncio.sleep(0.002)
        monkeypatch.setattr(node.dataplane, "apply", _refused)
        node.api.remove(PODS, "demo/old")
        node.put_pod("new", "10.1.0.5")
        assert (await node.ask("new", "10.1.0.5", seconds=0.2)).ground is None
        assert (await node.ask("new", "10.1.0.9", seconds=0.2)).ground is Ground.UNSELECTED


async def test_silence_of_the_api_server_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a list there is no proof, though the pod's program is in force; the answer says so."""
    async with running(monkeypatch) as node:
        node.put_pod("web", "10.1.0.5")
        async with asyncio.timeout(5):
            while not node.enforces("web"):  # noqa: ASYNC110 - what is waited for happens in the loop's own time
                await asyncio.sleep(0.002)
        node.api.refuse(503, times=100)
        opening = await node.ask("web", "10.1.0.5", seconds=0.4)
        assert opening.ground is None
        assert "the API server does not say which policies there are" in opening.reason
        node.api.forgive()


async def test_who_asks_without_waiting_finds_what_was_proven_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer without patience is a no, and starts the proof; a later one is a yes. What was proven once needs
    no API server any more.
    """
    async with running(monkeypatch) as node:
        node.put_policy("deny", app="web")
        node.put_pod("web", "10.1.0.5", app="web")
        assert (await node.ask("web", "10.1.0.5", seconds=0)).ground is None
        async with asyncio.timeout(5):
            while (await node.ask("web", "10.1.0.5", seconds=0)).ground is None:  # noqa: ASYNC110 - as one who polls
                await asyncio.sleep(0.01)
        node.api.refuse(503, times=100)
        assert await node.ask("web", "10.1.0.5", seconds=0) == Opening(Ground.IN_FORCE, in_force=True)
        node.api.forgive()


async def test_a_burst_of_pods_costs_few_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks at one time shares the answer."""
    async with running(monkeypatch) as node:
        node.put_policy("deny", app="web")
        for number in range(50):
            node.put_pod(f"p{number}", f"10.1.0.{number}", app="web")
        openings = await asyncio.gather(*(node.ask(f"p{number}", f"10.1.0.{number}") for number in range(50)))
        lists = [request for request in node.api.requests if request.startswith(LISTS)]

        assert {opening.ground for opening in openings} == {Ground.IN_FORCE}
        assert len(lists) <= 3


async def test_open_start_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever would rather start than be safe is not kept, and is told that nothing is in force."""
    async with running(monkeypatch, PodStart.OPEN) as node:
        node.api.stalled_paths.update({PODS, POLICIES})
        node.put_policy("deny", app="web")
        node.put_pod("web", "10.1.0.5", app="web")
        began = time.monotonic()
        assert await node.ask("web", "10.1.0.5") == Opening(Ground.SETTING, in_force=False)
        assert time.monotonic() - began < 1.0
        assert node.count("ringfence_pod_starts_total", ground="setting") == 1


def _refused(_: Any) -> Any:
    raise HostRefused("the kernel said no", asked="", answered="")
