# SPDX-License-Identifier: Apache-2.0
"""Runs the controllers: watches every kind that the server has, and gives each controller its loop.

Nobody acts before the whole state is known. An API server that goes away stops nothing here: watches reconnect by
themselves, what could not be done is tried again. Kinds that CustomResourceDefinitions add are followed as they come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from ringfence.errors import ClusterError
from ringfence.kube.client import Client, Patience
from ringfence.kube.config import ClusterAccess
from ringfence.kube.reflector import Listed, Removed, Upserted, reflect
from ringfence.lab.controllers.actions import Hands
from ringfence.lab.controllers.deployments import Deployments
from ringfence.lab.controllers.endpointslices import EndpointSlices
from ringfence.lab.controllers.garbage import GarbageCollector
from ringfence.lab.controllers.loop import Controller, Loop
from ringfence.lab.controllers.namespaces import Namespaces
from ringfence.lab.controllers.nodes import NodeLifecycle
from ringfence.lab.controllers.replicasets import ReplicaSets
from ringfence.lab.controllers.resources import (
    DEFINITIONS,
    Object,
    Resource,
    distinct,
    of_definition,
    watchable,
)
from ringfence.lab.controllers.scheduler import Scheduler
from ringfence.lab.controllers.world import World

_log = logging.getLogger("ringfence.controllers")
_RETRY = 0.2  # seconds between attempts to reach an API server that is not up yet
_PATIENCE = Patience(first_retry=0.05, last_retry=2.0)  # the server is on this machine: it comes back quickly


async def run_controllers(access: ClusterAccess) -> None:
    """Run all controllers against an API server until cancelled."""
    async with Client(access, patience=_PATIENCE, user_agent="ringfence-lab-controllers") as client:
        await _Manager(client, _root_ca(access)).run()


def _root_ca(access: ClusterAccess) -> str:
    match access.ca:
        case Path() as path:
            return path.read_text()
        case bytes() as pem:
            return pem.decode()
        case None:
            return ""


def controllers(root_ca: str) -> list[Controller]:
    """Return one of each."""
    return [
        Scheduler(),
        ReplicaSets(),
        Deployments(),
        EndpointSlices(),
        Namespaces(root_ca),
        GarbageCollector(),
        NodeLifecycle(),
    ]


class _Manager:
    def __init__(self, client: Client, root_ca: str) -> None:
        self._client = client
        self._world = World(self._changed)
        self._loops = [
            Loop(controller, self._world, Hands(client, self._world, manager=controller.manager))
            for controller in controllers(root_ca)
        ]
        self._watches: dict[Resource, asyncio.Task[None]] = {}
        self._unlisted: set[Resource] = set()
        self._complete = asyncio.Event()
        self._custom: dict[str, Resource] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for resource in await discover(self._client):
                self._follow(resource)
            await self._complete.wait()
            for loop in self._loops:
                tasks.create_task(loop.run(), name=loop.controller.name)

    def _follow(self, resource: Resource) -> None:
        if resource in self._watches or self._tasks is None:
            return
        self._world.follow(resource)
        self._unlisted.add(resource)
        self._watches[resource] = self._tasks.create_task(self._watch(resource), name=f"watch {resource.plural}")

    def _forget(self, resource: Resource) -> None:
        task = self._watches.pop(resource, None)
        if task is not None:
            task.cancel()
        self._world.forget(resource)
        self._listed(resource)

    async def _watch(self, resource: Resource) -> None:
        async for change in reflect(self._client, resource.everywhere, _reader(resource)):
            match change:
                case Listed(items=items):
                    self._world.replace(resource, items)
                    self._listed(resource)
                case Upserted(key=key, object=obj):
                    self._world.put(resource, key, obj)
                case Removed(key=key, object=obj):
                    self._world.remove(resource, key, obj["metadata"].get("uid", ""))

    def _listed(self, resource: Resource) -> None:
        self._unlisted.discard(resource)
        if not self._unlisted:
            self._complete.set()

    def _changed(self, resource: Resource, key: str, old: Object | None, new: Object | None) -> None:
        for loop in self._loops:
            loop.changed(resource, key, old, new)
        if resource == DEFINITIONS:
            self._definition_changed(key, new)

    def _definition_changed(self, name: str, definition: Object | None) -> None:
        now = of_definition(definition) if definition is not None else None
        before = self._custom.get(name)
        if before is not None and before != now:
            self._forget(self._custom.pop(name))
        if now is not None:
            self._custom[name] = now
            self._follow(now)


def _reader(resource: Resource) -> Any:
    """Return what decodes one object; items of lists do not say their kind."""
    decoder = msgspec.json.Decoder()
    identity = {"apiVersion": resource.api_version, "kind": resource.kind}

    def read(raw: bytes) -> Object:
        obj: Object = decoder.decode(raw)
        return obj if "kind" in obj else {**identity, **obj}

    return read


async def discover(client: Client) -> list[Resource]:
    """Return every built-in kind that can be watched; waits for the server to be up.

    Kinds of CustomResourceDefinitions are left out: they are followed as their definitions say.
    """
    told = False
    while True:
        try:
            return await _discovered(client)
        except ClusterError as error:
            if not told:
                _log.info("waiting for the API server: %s", error)
            told = True
            await asyncio.sleep(_RETRY)


async def _discovered(client: Client) -> list[Resource]:
    groups = (await client.get("/apis"))["groups"]
    paths = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]
    lists = await asyncio.gather(*(client.get(path) for path in paths))
    found = distinct(resource for answer in lists for resource in watchable(answer))
    custom = set(await _custom_kinds(client, found))
    return [resource for resource in found if (resource.group, resource.kind) not in custom]


async def _custom_kinds(client: Client, found: Iterable[Resource]) -> list[tuple[str, str]]:
    if DEFINITIONS not in found:
        return []
    answer = await client.get(DEFINITIONS.everywhere)
    return [(item["spec"]["group"], item["spec"]["names"]["kind"]) for item in answer.get("items") or ()]


__all__ = ["controllers", "discover", "run_controllers"]
