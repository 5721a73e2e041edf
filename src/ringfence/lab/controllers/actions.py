# SPDX-License-Identifier: Apache-2.0
"""What a controller wants done, as values; and the one place that does it and tells the world how it went.

A refusal that only says that the controller was behind (409, and 404 for what should go) is raised as ``Stale``: look
again. What was written is known at once (``World.put``), before the watch tells it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from ringfence.errors import ClusterError
from ringfence.kube.client import Client
from ringfence.lab.controllers.resources import EVENTS, NAMESPACES, PODS, Object, Resource
from ringfence.lab.controllers.world import World, key_of

_log = logging.getLogger("ringfence.controllers")
_AT_ONCE = 12  # requests in flight for one list of actions


@dataclass(frozen=True, slots=True)
class Record:
    """Tell people what happened: an Event, nobody waits for it."""

    event: Object


@dataclass(frozen=True, slots=True)
class Create:
    """Make an object; one that is there already is left as it is. ``tell`` makes an event of what was made."""

    resource: Resource
    object: Object
    tell: Callable[[Object], Record] | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """Change an object by a merge patch."""

    resource: Resource
    key: str
    patch: Object
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the object with this uid, no other that took its name.

    ``unless`` (kind, key, uid) names an object that the server must not have any more: asked first.
    """

    resource: Resource
    key: str
    uid: str
    options: Object = field(default_factory=dict)
    unless: tuple[Resource, str, str] | None = None


@dataclass(frozen=True, slots=True)
class DeleteAll:
    """Delete all objects of a kind in a namespace, each in its own way; dependents follow."""

    resource: Resource
    namespace: str


@dataclass(frozen=True, slots=True)
class Bind:
    """Give a pod to a node. ``told`` is recorded only if the pod takes it: it may have a node already."""

    key: str
    uid: str
    node: str
    told: Record


@dataclass(frozen=True, slots=True)
class FinalizeNamespace:
    """Let a namespace go, if the server too says that nothing is left in it."""

    name: str
    resources: tuple[Resource, ...]


Action = Create | Patch | Delete | DeleteAll | Bind | Record | FinalizeNamespace


class Stale(Exception):
    """The world has moved on since the controller looked: look again."""


class Hands:
    """Performs actions for one controller (``manager``, as managedFields call it)."""

    def __init__(self, client: Client, world: World, *, manager: str) -> None:
        self._client = client
        self._world = world
        self._params = {"fieldManager": manager}
        self._recording: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def perform(self, actions: Sequence[Action]) -> None:
        """Do all of it, several at once. Raises what the first failed action raised, after all have been tried."""
        if len(actions) == 1:
            await self._one(actions[0])
            return
        results = await asyncio.gather(*(self._limited(action) for action in actions), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _limited(self, action: Action) -> None:
        async with self._slots:
            await self._one(action)

    async def _one(self, action: Action) -> None:
        if isinstance(action, Record):
            self._tell(action)
            return
        try:
            await self._do(action)
        except ClusterError as error:
            if error.code in (404, 409):
                raise Stale(str(error)) from error
            raise

    def _tell(self, action: Record) -> None:
        task = asyncio.create_task(self._record(action))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def _record(self, action: Record) -> None:
        path = EVENTS.collection(action.event["metadata"]["namespace"])
        try:
            await self._client.create(path, action.event, self._params)
        except ClusterError as error:
            _log.debug("the event %s is lost: %s", action.event.get("reason"), error)

    async def _do(self, action: Create | Patch | Delete | DeleteAll | Bind | FinalizeNamespace) -> None:
        match action:
            case Create():
                await self._create(action)
            case Patch():
                path = action.resource.path(action.key, action.subresource)
                self._know(action.resource, await self._client.patch(path, action.patch, params=self._params))
            case Delete():
                await self._delete(action)
            case DeleteAll():
                options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
                await self._client.delete(action.resource.collection(action.namespace), options)
            case Bind():
                namespace, _, name = action.key.rpartition("/")
                binding = {
                    "apiVersion": "v1",
                    "kind": "Binding",
                    "metadata": {"name": name, "namespace": namespace, "uid": action.uid},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": action.node},
                }
                await self._client.create(PODS.path(action.key, "binding"), binding, self._params)
                self._tell(action.told)
            case FinalizeNamespace():
                await self._finalize(action)
            case _:
                assert_never(action)

    async def _create(self, action: Create) -> None:
        namespace = action.object["metadata"].get("namespace", "")
        try:
            made = await self._client.create(action.resource.collection(namespace), action.object, self._params)
        except ClusterError as error:
            if error.code == 409 and error.reason == "AlreadyExists":
                return
            raise
        self._know(action.resource, made)
        if action.tell is not None:
            self._tell(action.tell(made))

    async def _exists(self, resource: Resource, key: str, uid: str) -> bool:
        try:
            found = await self._client.get(resource.path(key))
        except ClusterError as error:
            if error.code == 404:
                return False
            raise
        return bool(found["metadata"]["uid"] == uid)

    async def _delete(self, action: Delete) -> None:
        if action.unless is not None and await self._exists(*action.unless):
            raise Stale(f"{action.unless[0].kind} {action.unless[1]} is there after all")
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": action.uid}, **action.options}
        try:
            answer = await self._client.delete(action.resource.path(action.key), options)
        except ClusterError as error:
            if error.code in (404, 409):  # gone, or another has its name: either way this one is not there
                return
            raise
        if answer and answer.get("kind") == action.resource.kind and answer["metadata"].get("deletionTimestamp"):
            self._know(action.resource, answer)

    async def _finalize(self, action: FinalizeNamespace) -> None:
        left = await asyncio.gather(*(self._has_any(resource, action.name) for resource in action.resources))
        if any(left):
            raise Stale(f"namespace {action.name} is not empty")
        namespace = await self._client.get(NAMESPACES.path(action.name))
        if namespace["metadata"].get("deletionTimestamp"):
            namespace["spec"] = {"finalizers": []}
            await self._client.replace(NAMESPACES.path(action.name, "finalize"), namespace)

    async def _has_any(self, resource: Resource, namespace: str) -> bool:
        try:
            answer = await self._client.get(resource.collection(namespace), {"limit": "1"})
        except ClusterError as error:
            if error.code == 404:  # the kind itself is gone
                return False
            raise
        return bool(answer.get("items"))

    def _know(self, resource: Resource, obj: Any) -> None:
        if isinstance(obj, dict) and obj.get("kind") == resource.kind:
            self._world.put(resource, key_of(obj), obj)
