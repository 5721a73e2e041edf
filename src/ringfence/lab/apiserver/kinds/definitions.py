# SPDX-License-Identifier: Apache-2.0
"""CustomResourceDefinitions: what they declare is served at once, and gone, objects and all, when they are deleted."""

from __future__ import annotations

from ringfence.errors import FieldError
from ringfence.lab.apiserver import customresources
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds import definitionrules
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.objects import Object, copy, is_terminating, name_of, spec_of, status_of
from ringfence.lab.apiserver.status import Failure
from ringfence.lab.apiserver.store import Key

STORAGE = "customresourcedefinitions"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


class Definitions(Strategy):
    """The server does here what apiextensions-apiserver does in controllers: a moment earlier, with the same result."""

    needs_revision = True

    def before_create(self, api: Api, new: Object) -> None:
        """Accept the names, or say why not."""
        new["status"] = {"storedVersions": _stored(new)}
        _judge(api, new)

    def before_update(self, api: Api, new: Object, old: Object) -> None:
        """Judge the names again, and remember versions that objects may be stored in."""
        known = status_of(old).get("storedVersions") or []
        added = [version for version in _stored(new) if version not in known]
        new["status"] = {**(new.get("status") or {}), "storedVersions": [*known, *added]}
        _judge(api, new)

    def errors(self, api: Api, new: Object, old: Object | None) -> list[FieldError]:  # noqa: ARG002 - as declared
        """Return what is wrong with the definition; its scope and names never change."""
        return definitionrules.errors(new, old)

    def before_deletion(self, api: Api, new: Object) -> None:
        """Stay until all objects of the kind are gone."""
        if api.store.count(customresources.storage_of(new)):
            finalizers = new["metadata"].get("finalizers") or []
            new["metadata"]["finalizers"] = [*finalizers, CLEANUP]
            now = api.now()
            _set(
                new,
                _condition(
                    "Terminating", True, "InstanceDeletionPending", "CustomResourceDefinition marked for deletion", now
                ),
            )

    def written(self, api: Api, obj: Object) -> None:
        """Serve what it says; if it is going away, delete its objects."""
        if not is_terminating(obj):
            if _is_established(obj):
                customresources.register(api.registry, obj)
            return
        if CLEANUP in (obj["metadata"].get("finalizers") or ()):
            _delete_objects(api, obj)

    def removed(self, api: Api, obj: Object) -> None:
        """Serve it no more."""
        customresources.unregister(api.registry, obj)


class CustomObjects(Strategy):
    """Objects of custom kinds: their definition's schema is all that is known of them."""

    needs_revision = True

    def before_create(self, api: Api, new: Object) -> None:
        """Refuse new objects of a kind that is going away."""
        definition = definition_of(api, new)
        if definition is not None and is_terminating(definition):
            message = "create not allowed while custom resource definition is terminating"
            raise Failure(405, "MethodNotAllowed", message)

    def removed(self, api: Api, obj: Object) -> None:
        """Let the definition go, if it was only waiting for this object."""
        definition = definition_of(api, obj)
        if definition is not None and is_terminating(definition):
            release(api, definition)


def definition_of(api: Api, obj: Object) -> Object | None:
    """Return the definition of a custom object's kind."""
    resource = api.registry.of_kind(obj["apiVersion"], obj["kind"])
    return api.get(STORAGE, "", f"{resource.plural}.{resource.group}") if resource else None


def release(api: Api, definition: Object) -> None:
    """Remove the clean-up finalizer of a terminating definition without objects, and it, if nothing else holds it."""
    if api.store.count(customresources.storage_of(definition)):
        return
    new = copy(definition)
    left = [name for name in new["metadata"].get("finalizers") or () if name != CLEANUP]
    key = Key(STORAGE, "", name_of(new))
    if left:
        new["metadata"]["finalizers"] = left
        api.store.put(key, new)
    else:
        new["metadata"].pop("finalizers", None)
        api.store.remove(key, new)
        customresources.unregister(api.registry, new)


def _delete_objects(api: Api, definition: Object) -> None:
    for record in api.all(customresources.storage_of(definition)):
        obj = copy(record.object)
        if not obj["metadata"].get("finalizers"):
            api.store.remove(record.key, obj)
        elif not is_terminating(obj):
            obj["metadata"]["deletionTimestamp"] = api.now()
            obj["metadata"]["deletionGracePeriodSeconds"] = 0
            api.store.put(record.key, obj)
    release(api, definition)


def _stored(definition: Object) -> list[str]:
    return [v.get("name", "") for v in spec_of(definition).get("versions") or () if v.get("storage")]


def _is_established(definition: Object) -> bool:
    conditions = status_of(definition).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def _judge(api: Api, definition: Object) -> None:
    """Set the conditions NamesAccepted and Established, and the names that are accepted."""
    now, clash = api.now(), _clash(api, definition)
    if clash:
        _set(definition, _condition("NamesAccepted", False, "KindConflict", clash, now))
        _set(definition, _condition("Established", False, "NotAccepted", "not all names are accepted", now))
        definition["status"].setdefault("acceptedNames", {"plural": "", "kind": ""})
        return
    definition["status"]["acceptedNames"] = spec_of(definition).get("names") or {}
    _set(definition, _condition("NamesAccepted", True, "NoConflicts", "no conflicts found", now))
    _set(
        definition, _condition("Established", True, "InitialNamesAccepted", "the initial names have been accepted", now)
    )


def _clash(api: Api, definition: Object) -> str:
    """Return which name of another kind in the group is also this kind's, empty if none is."""
    spec = spec_of(definition)
    names = spec.get("names") or {}
    for other in api.registry.all():
        if other.group != spec.get("group") or other.plural == names.get("plural"):
            continue
        if names.get("kind") in (other.kind, other.list_kind):
            return f'"{names["kind"]}" is already in use'
        taken = {other.plural, other.singular, *other.short_names}
        wanted = {names.get("singular"), *(names.get("shortNames") or ())}
        if both := sorted(taken & (wanted - {None})):
            return f'"{both[0]}" is already in use'
    return ""


def _condition(kind: str, status: bool, reason: str, message: str, now: str) -> Object:  # noqa: FBT001 - what it says
    word = "True" if status else "False"
    return {"type": kind, "status": word, "lastTransitionTime": now, "reason": reason, "message": message}


def _set(definition: Object, condition: Object) -> None:
    """Set a condition; the time of its last transition stays where it says what it said before."""
    conditions = definition["status"].setdefault("conditions", [])
    for index, known in enumerate(conditions):
        if known["type"] == condition["type"]:
            if known["status"] == condition["status"]:
                condition = {**condition, "lastTransitionTime": known["lastTransitionTime"]}
            conditions[index] = condition
            return
    conditions.append(condition)
