# SPDX-License-Identifier: Apache-2.0
"""What the controllers know, and the loop that they share."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from ringfence.errors import ClusterError
from ringfence.kube.client import Client
from ringfence.kube.config import ClusterAccess
from ringfence.lab.controllers.actions import Hands, Stale
from ringfence.lab.controllers.loop import Loop, Outcome
from ringfence.lab.controllers.resources import (
    EVENTS,
    NODES,
    PODS,
    Object,
    Resource,
    distinct,
    of_definition,
    watchable,
)
from ringfence.lab.controllers.world import World, controller_of, key_of


def obj(name: str, version: int, uid: str = "u", **meta: Any) -> Object:
    """Return a pod at a version."""
    return {"metadata": {"name": name, "namespace": "d", "uid": uid, "resourceVersion": str(version), **meta}}


def test_older_states_never_replace_newer_ones() -> None:
    """A watch may tell late what an answer told before."""
    world = World()
    world.follow(PODS)
    world.put(PODS, "d/p", obj("p", 5))
    world.put(PODS, "d/p", obj("p", 4))

    assert world.get(PODS, "d/p") == obj("p", 5)


def test_what_is_gone_does_not_come_back() -> None:
    """An answer that is overtaken by the object's end is not believed; a new object of the name is."""
    world = World()
    world.follow(PODS)
    world.put(PODS, "d/p", obj("p", 5))
    world.remove(PODS, "d/p", "u")
    world.put(PODS, "d/p", obj("p", 6))
    assert world.get(PODS, "d/p") is None
    world.put(PODS, "d/p", obj("p", 7, uid="v"))
    world.remove(PODS, "d/p", "u")

    assert world.get(PODS, "d/p") == obj("p", 7, uid="v")


def test_a_relist_tells_what_is_gone_and_what_is_new() -> None:
    """Who watches hears of each difference once."""
    told: list[tuple[str, bool, bool]] = []
    world = World(lambda _, key, old, new: told.append((key, old is not None, new is not None)))
    world.replace(PODS, {"d/a": obj("a", 1, "1"), "d/b": obj("b", 2, "2")})
    told.clear()
    world.replace(PODS, {"d/b": obj("b", 3, "2"), "d/c": obj("c", 4, "3")})

    assert sorted(told) == [("d/a", True, False), ("d/b", True, True), ("d/c", False, True)]


def test_indices_follow_the_objects() -> None:
    """Owners, namespaces and uids are found as long as the object is there, and no longer."""
    world = World()
    owner = {"uid": "o", "controller": True}
    world.replace(PODS, {"d/p": obj("p", 1, ownerReferences=[owner])})
    assert [key for _, key, _ in world.dependents("o")] == ["d/p"]
    assert world.of_uid("u") == (PODS, "d/p")
    assert world.count_in_namespace(PODS, "d") == 1
    assert [key for key, _ in world.controlled({"metadata": {"uid": "o"}}, PODS)] == ["d/p"]
    world.put(PODS, "d/p", obj("p", 2))
    assert list(world.dependents("o")) == []
    world.forget(PODS)

    assert world.count_in_namespace(PODS, "d") == 0
    assert world.of_uid("u") is None
    assert world.resources == []
    world.put(PODS, "d/p", obj("p", 3, uid="w"))
    assert world.get(PODS, "d/p") is None, "a late answer of a kind that is gone"
    assert world.of_kind("v1", "Pod") is None


def test_the_dead_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of objects that are gone has a bound."""
    monkeypatch.setattr("ringfence.lab.controllers.world._REMEMBERED", 3)
    world = World()
    world.follow(PODS)
    for number in range(10):
        world.put(PODS, "d/p", obj("p", number, uid=str(number)))
        world.remove(PODS, "d/p")

    assert list(world._gone) == ["7", "8", "9"]


def test_versions_that_are_no_numbers_are_taken_as_they_come() -> None:
    """Without an order the latest word counts."""
    world = World()
    world.follow(NODES)
    world.put(NODES, "n", {"metadata": {"name": "n", "resourceVersion": "x"}})
    world.put(NODES, "n", {"metadata": {"name": "n", "resourceVersion": "a"}})

    assert world.all(NODES)["n"]["metadata"]["resourceVersion"] == "a"
    assert key_of({"metadata": {"name": "n"}}) == "n"
    assert controller_of({"metadata": {}}) is None


def test_discovery_gives_each_kind_once() -> None:
    """Subresources are no kinds, reviews cannot be watched, events are not followed twice."""
    verbs = ["list", "watch"]
    answer = {
        "groupVersion": "v1",
        "resources": [
            {"name": "pods", "kind": "Pod", "namespaced": True, "verbs": verbs},
            {"name": "pods/status", "kind": "Pod", "namespaced": True, "verbs": ["get"]},
            {"name": "reviews", "kind": "Review", "namespaced": False, "verbs": ["create"]},
            {"name": "events", "kind": "Event", "namespaced": True, "verbs": verbs},
        ],
    }
    newer = {"groupVersion": "events.k8s.io/v1", "resources": answer["resources"][3:]}
    found = distinct([*watchable(answer), *watchable(newer), *watchable(answer)])

    assert found == [PODS, EVENTS]
    assert PODS.path("d/p", "status") == "/api/v1/namespaces/d/pods/p/status"
    assert NODES.path("n") == "/api/v1/nodes/n"
    assert Resource("apps", "v1", "Deployment", "deployments").everywhere == "/apis/apps/v1/deployments"


def definition(*, established: bool = True, served: bool = True, **meta: Any) -> Object:
    """Return a CustomResourceDefinition."""
    return {
        "metadata": {"name": "widgets.e.x", **meta},
        "spec": {
            "group": "e.x",
            "scope": "Cluster",
            "names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v2", "served": served}, {"name": "v1", "served": served, "storage": True}],
        },
        "status": {"conditions": [{"type": "Established", "status": str(established)}]},
    }


def test_definitions_add_kinds_when_they_are_established() -> None:
    """Not before, not when nothing is served, and not while they go."""
    assert of_definition(definition()) == Resource("e.x", "v1", "Widget", "widgets", namespaced=False)
    assert of_definition(definition(established=False)) is None
    assert of_definition(definition(served=False)) is None
    assert of_definition(definition(deletionTimestamp="2026-01-01T00:00:00Z")) is None


class Scripted:
    """A controller that does what a test says, and counts its looks."""

    name = "scripted"
    manager = "test"

    def __init__(self, answer: Callable[[int], Outcome]) -> None:
        self.looks: list[str] = []
        self._answer = answer

    def affected(
        self, world: World, resource: Resource, key: str, old: Object | None, new: Object | None
    ) -> Iterable[str]:
        """Look at what changed."""
        del world, resource, old, new
        return [key]

    def reconcile(self, world: World, key: str, now: datetime.datetime) -> Outcome:
        """Answer with what the test says."""
        del world, now
        self.looks.append(key)
        return self._answer(len(self.looks))


@asynccontextmanager
async def running(controller: Scripted, *, workers: int = 16) -> AsyncIterator[Loop]:
    """Run a controller's loop."""
    world = World()
    client = Client(ClusterAccess("https://127.0.0.1:9"))
    loop = Loop(controller, world, Hands(client, world, manager="test"), workers=workers)
    task = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - polls behaviour, whatever brings it about
            await asyncio.sleep(0.002)


async def test_changes_are_looked_at() -> None:
    """A change marks keys, and each marked key is looked at."""
    controller = Scripted(lambda _: Outcome())
    async with running(controller, workers=1) as loop:
        loop.changed(PODS, "a", None, {})
        loop.changed(PODS, "b", None, {})
        loop.changed(PODS, "a", None, {})
        await until(lambda: sorted(controller.looks) == ["a", "b"])


@pytest.mark.parametrize("failure", [Stale("behind"), ClusterError("refused"), RuntimeError("a bug")])
async def test_failures_come_back(failure: Exception) -> None:
    """What could not be done is tried again, soon and then later; a bug in one look ends nothing."""

    def answer(number: int) -> Outcome:
        if number < 6:
            raise failure
        return Outcome()

    controller = Scripted(answer)
    async with running(controller) as loop:
        loop.mark("k")
        await until(lambda: len(controller.looks) == 6)
        assert loop._failures == {} or loop._failures.get("k", 0) == 5


async def test_a_look_can_ask_for_another() -> None:
    """Time passes too: a controller may want to look again without any change."""
    controller = Scripted(lambda number: Outcome(again=0.001 if number < 3 else None))
    async with running(controller) as loop:
        loop.mark("k")
        await until(lambda: len(controller.looks) == 3)


async def test_a_change_replaces_a_planned_look() -> None:
    """A look that was planned for later is not made twice."""
    controller = Scripted(lambda number: Outcome(again=60 if number == 1 else None))
    async with running(controller) as loop:
        loop.mark("k")
        await until(lambda: len(controller.looks) == 1 and not loop._busy)
        assert loop._timers.keys() == {"k"}
        loop.mark("k")
        await until(lambda: len(controller.looks) == 2 and not loop._busy)
        assert loop._timers == {}
