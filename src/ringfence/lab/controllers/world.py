# SPDX-License-Identifier: Apache-2.0
"""The cluster as the controllers know it: every object of every kind, indexed by what they ask for.

Filled by watches, and by the answers to the controllers' own writes: a controller that has just created a pod must see
it when it counts again, whether or not the watch has told it yet. Older states never replace newer ones, and what is
gone does not come back: an answer may be overtaken by the watch that tells how the object ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ringfence.lab.controllers.resources import NAMESPACES, Object, Resource

_REMEMBERED = 20_000  # uids of objects that are gone: far more than answers can be on their way

Watcher = Callable[[Resource, str, Object | None, Object | None], None]
"""Told of a change: the kind, the key, the object before and after (None: there is none)."""


class World:
    """Objects by kind and key, owners and namespaces. ``watcher`` hears of every change."""

    def __init__(self, watcher: Watcher = lambda *_: None) -> None:
        self._objects: dict[Resource, dict[str, Object]] = {}
        self._dependents: dict[str, dict[tuple[Resource, str], None]] = {}
        self._in_namespace: dict[tuple[Resource, str], dict[str, None]] = {}
        self._uids: dict[str, tuple[Resource, str]] = {}
        self._gone: dict[str, None] = {}
        self._watcher = watcher

    def watch(self, watcher: Watcher) -> None:
        """Tell somebody else of every change from now on."""
        self._watcher = watcher

    @property
    def resources(self) -> list[Resource]:
        """The kinds that are followed."""
        return list(self._objects)

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """Return the followed kind that an owner reference names; any version of its group."""
        group = api_version.rpartition("/")[0]
        return next((r for r in self._objects if r.kind == kind and r.group == group), None)

    def follow(self, resource: Resource) -> None:
        """Begin with a kind."""
        self._objects.setdefault(resource, {})

    def forget(self, resource: Resource) -> None:
        """End with a kind: its objects are gone."""
        for key in list(self._objects.get(resource, {})):
            self.remove(resource, key)
        self._objects.pop(resource, None)

    def get(self, resource: Resource, key: str) -> Object | None:
        """Return an object, for reading."""
        return self._objects.get(resource, {}).get(key)

    def all(self, resource: Resource) -> Mapping[str, Object]:
        """Return the objects of a kind by key, for reading."""
        return self._objects.get(resource, {})

    def in_namespace(self, resource: Resource, namespace: str) -> Iterator[tuple[str, Object]]:
        """Yield (key, object) for a kind's objects in a namespace."""
        for key in list(self._in_namespace.get((resource, namespace), ())):
            yield key, self._objects[resource][key]

    def count_in_namespace(self, resource: Resource, namespace: str) -> int:
        """Return how many objects of a kind are in a namespace."""
        return len(self._in_namespace.get((resource, namespace), ()))

    def is_ending(self, namespace: str) -> bool:
        """Tell whether a namespace is being deleted: the server takes nothing new in it."""
        found = self.get(NAMESPACES, namespace)
        return found is not None and bool(found["metadata"].get("deletionTimestamp"))

    def dependents(self, uid: str) -> Iterator[tuple[Resource, str, Object]]:
        """Yield what has an owner reference to a uid."""
        for resource, key in list(self._dependents.get(uid, ())):
            yield resource, key, self._objects[resource][key]

    def controlled(self, owner: Object, resource: Resource) -> Iterator[tuple[str, Object]]:
        """Yield (key, object) for the objects of a kind whose controller is the owner."""
        uid = owner["metadata"]["uid"]
        for kind, key, obj in self.dependents(uid):
            if kind == resource and controller_uid(obj) == uid:
                yield key, obj

    def of_uid(self, uid: str) -> tuple[Resource, str] | None:
        """Return where the object with a uid is, None if there is none."""
        return self._uids.get(uid)

    def replace(self, resource: Resource, items: Mapping[str, Object]) -> None:
        """Take note of a kind's whole state."""
        self.follow(resource)
        for key in [key for key in self._objects[resource] if key not in items]:
            self.remove(resource, key)
        for key, obj in items.items():
            self.put(resource, key, obj)

    def put(self, resource: Resource, key: str, obj: Object) -> None:
        """Take note of an object's state, unless a newer one is known."""
        known = self._objects.get(resource)
        if known is None:
            return  # the kind is gone: a late answer
        old = known.get(key)
        if obj["metadata"].get("uid") in self._gone or (old is not None and _is_older(obj, old)):
            return
        if old is not None:
            self._unindex(resource, key, old)
        known[key] = obj
        self._index(resource, key, obj)
        self._watcher(resource, key, old, obj)

    def remove(self, resource: Resource, key: str, uid: str = "") -> None:
        """Take note that an object is gone; with a uid, only if it is that one and not a new one of its name."""
        known = self._objects.get(resource, {})
        if uid and key in known and known[key]["metadata"].get("uid") != uid:
            return
        old = known.pop(key, None)
        if old is not None:
            self._unindex(resource, key, old)
            self._bury(old["metadata"].get("uid", ""))
            self._watcher(resource, key, old, None)

    def _bury(self, uid: str) -> None:
        self._gone[uid] = None
        if len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def _index(self, resource: Resource, key: str, obj: Object) -> None:
        meta = obj["metadata"]
        self._uids[meta.get("uid", "")] = (resource, key)
        for owner in meta.get("ownerReferences") or ():
            self._dependents.setdefault(owner["uid"], {})[(resource, key)] = None
        if meta.get("namespace"):
            self._in_namespace.setdefault((resource, meta["namespace"]), {})[key] = None

    def _unindex(self, resource: Resource, key: str, obj: Object) -> None:
        meta = obj["metadata"]
        self._uids.pop(meta.get("uid", ""), None)
        for owner in meta.get("ownerReferences") or ():
            _discard(self._dependents, owner["uid"], (resource, key))
        if meta.get("namespace"):
            _discard(self._in_namespace, (resource, meta["namespace"]), key)


def _discard(index: dict[Any, dict[Any, None]], at: Any, member: Any) -> None:
    members = index.get(at)
    if members is not None:
        members.pop(member, None)
        if not members:
            del index[at]


def _is_older(new: Object, old: Object) -> bool:
    """Tell whether a state of a name comes before another. Resource versions of one kind grow."""
    try:
        return int(new["metadata"]["resourceVersion"]) < int(old["metadata"]["resourceVersion"])
    except (KeyError, ValueError):
        return False


def controller_uid(obj: Object) -> str:
    """Return the uid of the object's controller, empty if it has none."""
    owner = controller_of(obj)
    return owner["uid"] if owner else ""


def controller_of(obj: Object) -> Object | None:
    """Return the owner reference of the object's controller, None if it has none."""
    return next((owner for owner in obj["metadata"].get("ownerReferences") or () if owner.get("controller")), None)


def key_of(obj: Object) -> str:
    """Return an object's key: ``namespace/name``, or ``name``."""
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])
