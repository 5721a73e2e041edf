# SPDX-License-Identifier: Apache-2.0
"""The garbage collector: objects whose owners are all gone go too; owners wait for dependents, or let them go.

* Background: the owner is gone; who named it as owner, and no other that still exists, is deleted.
* Foreground (finalizer ``foregroundDeletion``): dependents are deleted first, then the owner.
* Orphan (finalizer ``orphan``): dependents forget the owner, then the owner goes.

Keys are uids: of owners that went or are going, and of dependents whose owners are not known.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from ringfence.lab.controllers.actions import Action, Delete, Patch
from ringfence.lab.controllers.loop import Outcome
from ringfence.lab.controllers.pods import is_terminating
from ringfence.lab.controllers.resources import Object, Resource
from ringfence.lab.controllers.world import World

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_NOTHING: Object = {"metadata": {}}


class GarbageCollector:
    """One key per uid that may have dependents to see to."""

    name = "garbage"
    manager = "kube-controller-manager"

    def affected(
        self,
        world: World,
        resource: Resource,  # noqa: ARG002 - as declared
        key: str,  # noqa: ARG002 - as declared
        old: Object | None,
        new: Object | None,
    ) -> Iterable[str]:
        """Return who is gone or going and may have dependents, and the owners that wait for who is gone."""
        found: set[str] = set()
        if old is not None:
            # an owner that waits is looked at again when a dependent is gone, or has forgotten it
            found.update(set(_owner_uids(old)) - set(_owner_uids(new or _NOTHING)))
            if new is None:
                found.add(old["metadata"]["uid"])
        if new is not None:
            if is_terminating(new) and _finalizers(new) & {FOREGROUND, ORPHAN}:
                found.add(new["metadata"]["uid"])
            found.update(uid for uid in _owner_uids(new) if _needs_look(world, uid))
        return found

    def reconcile(self, world: World, key: str, now: datetime.datetime) -> Outcome:  # noqa: ARG002 - as declared
        """See to the dependents of an owner that is gone, or is going."""
        place = world.of_uid(key)
        if place is None:
            return Outcome([a for kind, at, obj in world.dependents(key) for a in _of_gone(world, kind, at, obj, key)])
        owner = world.get(*place)
        return Outcome(_of_living(world, place, owner)) if owner is not None and is_terminating(owner) else Outcome()


def _owner_uids(obj: Object) -> list[str]:
    return [owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ()]


def _finalizers(obj: Object) -> set[str]:
    return set(obj["metadata"].get("finalizers") or ())


def _needs_look(world: World, uid: str) -> bool:
    place = world.of_uid(uid)
    owner = world.get(*place) if place is not None else None
    return owner is None or is_terminating(owner)


def _of_gone(world: World, resource: Resource, key: str, obj: Object, gone: str) -> list[Action]:
    """Return what becomes of a dependent of an owner that seems to be gone: the server is asked whether it is."""
    reference = next(owner for owner in obj["metadata"]["ownerReferences"] if owner["uid"] == gone)
    kind = world.of_kind(reference["apiVersion"], reference["kind"])
    if kind is None or is_terminating(obj):
        return []  # an owner of a kind that we do not follow may well be there
    namespace = obj["metadata"].get("namespace", "")
    owner_key = f"{namespace}/{reference['name']}" if kind.namespaced else reference["name"]
    others = [owner for owner in obj["metadata"]["ownerReferences"] if owner["uid"] != gone]
    if any(world.of_uid(owner["uid"]) is not None for owner in others):
        # somebody else still owns it: only the reference goes
        return [_with_owners(resource, key, obj, others)]
    background = {"propagationPolicy": "Background"}
    return [Delete(resource, key, obj["metadata"]["uid"], background, unless=(kind, owner_key, gone))]


def _of_living(world: World, place: tuple[Resource, str], owner: Object) -> list[Action]:
    """Return what an owner that is being deleted waits for; if for nothing more, the end of its waiting."""
    resource, key = place
    uid, finalizers = owner["metadata"]["uid"], _finalizers(owner)
    dependents = list(world.dependents(uid))
    if ORPHAN in finalizers:
        if dependents:
            return [
                _with_owners(kind, at, obj, [o for o in obj["metadata"]["ownerReferences"] if o["uid"] != uid])
                for kind, at, obj in dependents
            ]
        return [_without_finalizer(resource, key, owner, ORPHAN)]
    if FOREGROUND in finalizers:
        blocking = [d for d in dependents if _blocks(d[2], uid)]
        if not blocking:
            return [_without_finalizer(resource, key, owner, FOREGROUND)]
        return [
            Delete(kind, at, obj["metadata"]["uid"], {"propagationPolicy": "Foreground"})
            for kind, at, obj in dependents
            if not is_terminating(obj)
        ]
    return []


def _blocks(dependent: Object, uid: str) -> bool:
    return any(o["uid"] == uid and o.get("blockOwnerDeletion") for o in dependent["metadata"]["ownerReferences"])


def _with_owners(resource: Resource, key: str, obj: Object, owners: list[Object]) -> Patch:
    meta = {"ownerReferences": owners or None, "uid": obj["metadata"]["uid"]}
    return Patch(resource, key, {"metadata": meta})


def _without_finalizer(resource: Resource, key: str, obj: Object, finalizer: str) -> Patch:
    left = [name for name in obj["metadata"]["finalizers"] if name != finalizer]
    meta = {"finalizers": left or None, "resourceVersion": obj["metadata"]["resourceVersion"]}
    return Patch(resource, key, {"metadata": meta})
