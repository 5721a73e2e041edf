# SPDX-License-Identifier: Apache-2.0
"""Create, update and patch: from a body to a stored object, or to a refusal that leaves everything as it was.

One pipeline for all kinds: shape, defaults, metadata, the kind's strategy, validation, field ownership, store.
Everything here is synchronous, so no other write comes between reading an object and writing it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ringfence.errors import FieldError
from ringfence.lab.apiserver import applying, bodies, metadata, patches
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.defaults import apply_defaults
from ringfence.lab.apiserver.kinds.registered import strategy_of
from ringfence.lab.apiserver.objects import Object, copy, is_terminating, name_of, namespace_of
from ringfence.lab.apiserver.requests import FieldValidation, Target, WriteOptions
from ringfence.lab.apiserver.resources import Resource
from ringfence.lab.apiserver.schema import duplicate_fields
from ringfence.lab.apiserver.status import (
    Failure,
    already_exists,
    apply_conflict,
    bad_request,
    invalid,
    not_found,
    unsupported_media_type,
)
from ringfence.lab.apiserver.store import Key, Record

_NAME_ATTEMPTS = 8
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(slots=True)
class Write:
    """One write request: where to, how, and what the client is to be warned of."""

    api: Api
    target: Target
    options: WriteOptions
    warnings: list[str] = field(default_factory=list)

    @property
    def resource(self) -> Resource:
        """The kind that is written."""
        return self.target.resource


@dataclass(frozen=True, slots=True)
class Written:
    """The object after the write, in the version of the request, and whether it is new."""

    object: Object
    created: bool = False


def create(write: Write, body: Any, raw: bytes | None = None) -> Written:
    """Store a new object; raises ``Failure``."""
    resource = write.resource
    obj = bodies.as_object(body, api_version=resource.api_version, kind=resource.kind)
    obj = bodies.conform(resource, obj, raw=raw, validation=write.options.validation, warnings=write.warnings)
    metadata.place(write.target, obj)
    return _create(write, obj, tracked=False)


def _create(write: Write, obj: Object, *, tracked: bool) -> Written:
    api, resource = write.api, write.resource
    strategy = strategy_of(resource)
    metadata.admit(api, write.target, name_of(obj))
    if resource.has_status and not strategy.keeps_status_on_create:
        obj.pop("status", None)
    _name(write, obj)
    obj = _with_defaults(resource, obj)
    strategy.before_create(api, obj)
    _refuse(resource, obj, metadata.errors(resource, obj, None) + _rules(write, obj, None))
    if api.store.get(_key(resource, obj)) is not None:
        raise already_exists(resource.group, resource.plural, name_of(obj))
    if not tracked:
        obj = _tracked(write, None, obj)
    if write.options.dry_run:
        return Written(obj, created=True)
    record = api.store.put(_key(resource, obj), resource.is_kept(obj))
    strategy.written(api, record.object)
    return Written(resource.is_shown(record.object), created=True)


def _name(write: Write, obj: Object) -> None:
    """Give the object its identity, and a generated name that is free."""
    for _ in range(_NAME_ATTEMPTS):
        generated = not obj["metadata"].get("name")
        metadata.begin(write.api, write.resource, obj)
        if not generated or write.api.store.get(_key(write.resource, obj)) is None:
            return
        obj["metadata"].pop("name", None)


def update(write: Write, body: Any, raw: bytes | None = None) -> Written:
    """Replace an object, or its status; raises ``Failure``."""
    resource = write.resource
    old = existing(write.api, write.target)
    new = bodies.as_object(body, api_version=resource.api_version, kind=resource.kind)
    new = bodies.conform(resource, new, raw=raw, validation=write.options.validation, warnings=write.warnings)
    if strategy_of(resource).needs_revision and not (new.get("metadata") or {}).get("resourceVersion"):
        why = "Invalid value: 0x0: must be specified for an update"
        raise invalid(
            resource.group,
            resource.kind,
            write.target.name,
            [FieldError("metadata.resourceVersion", why, "FieldValueInvalid")],
        )
    return _update(write, new, old, tracked=False)


def _update(write: Write, new: Object, old: Record, *, tracked: bool) -> Written:
    api, resource = write.api, write.resource
    strategy = strategy_of(resource)
    shown = resource.is_shown(old.object)
    metadata.place(write.target, new)
    metadata.carry_over(write.target, new, shown)
    new = _merged_parts(write, new, shown)
    if write.target.subresource == "status":
        found = strategy.status_errors(api, new, shown)
    else:
        new = _with_defaults(resource, new)
        strategy.before_update(api, new, shown)
        metadata.bump_generation(resource, new, shown)
        found = metadata.errors(resource, new, shown) + _rules(write, new, shown)
    _refuse(resource, new, found)
    if not tracked:
        new = _tracked(write, shown, new)
    return store(write, new, old)


def replace(write: Write, new: Object, old: Record) -> Written:
    """Replace an object that is in shape already; raises ``Failure`` 409 or 422."""
    return _update(write, new, old, tracked=False)


def store(write: Write, new: Object, old: Record) -> Written:
    """Store the next state of an object, unless nothing changed; removes it if that was all that kept it."""
    api, resource = write.api, write.resource
    strategy = strategy_of(resource)
    shown = resource.is_shown(old.object)
    if _is_last(new, old.object) and not strategy.holds(new):
        if not write.options.dry_run:
            gone = api.store.remove(old.key, resource.is_kept(new))
            strategy.removed(api, gone.object)
        return Written(new)
    if new == shown or write.options.dry_run:
        return Written(new)
    if applying.only_times_differ(shown, new):
        return Written(shown)
    record = api.store.put(old.key, resource.is_kept(new))
    strategy.written(api, record.object)
    return Written(resource.is_shown(record.object))


def _is_last(new: Object, old: Object) -> bool:
    """Tell whether an object that is being deleted has lost what kept it: its finalizers, and time to end in."""
    meta = new["metadata"]
    return is_terminating(old) and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds")


def _merged_parts(write: Write, new: Object, old: Object) -> Object:
    """Take from a write what its path may change: the status on ``/status``, everything else elsewhere."""
    if write.target.subresource == "status":
        merged = copy(old)
        meta = new["metadata"]
        if "managedFields" in meta:
            merged["metadata"]["managedFields"] = meta["managedFields"]
        merged.pop("status", None)
        if "status" in new:
            merged["status"] = new["status"]
        return merged
    if write.resource.has_status:
        new.pop("status", None)
        if "status" in old:
            new["status"] = copy(old["status"])
    return new


def patch(write: Write, body: Any, content_type: str, raw: bytes | None = None) -> Written:
    """Patch an object, or its status; raises ``Failure``. Server-side apply makes the object if there is none."""
    if content_type == APPLY_PATCH:
        return _apply(write, body, raw)
    old = existing(write.api, write.target)
    resource = write.resource
    live = copy(resource.is_shown(old.object))
    patched = patched_object(live, body, content_type, resource)
    new = bodies.as_object(patched, api_version=resource.api_version, kind=resource.kind)
    new = _conform_patched(write, new, body, raw)
    return _update(write, new, old, tracked=False)


def patched_object(live: Object, body: Any, content_type: str, resource: Resource | None) -> Object:
    """Return an object with a patch applied; raises ``Failure`` 400, 415 or 422."""
    schema = resource.shape() if resource else None
    try:
        match content_type:
            case "application/json-patch+json":
                return patches.json_patch(live, body)
            case "application/merge-patch+json":
                return patches.merge_patch(live, body)
            case "application/strategic-merge-patch+json" if resource is None or not resource.custom:
                return patches.strategic_merge(live, body, schema)
            case _:
                known = (
                    JSON_PATCH,
                    MERGE_PATCH,
                    *(() if resource and resource.custom else (STRATEGIC_PATCH,)),
                    APPLY_PATCH,
                )
                raise unsupported_media_type(known)
    except patches.PatchError as error:
        if error.code == 422:
            raise Failure(422, "Invalid", error.message) from None
        raise bad_request(error.message) from None


def _conform_patched(write: Write, new: Object, body: Any, raw: bytes | None) -> Object:
    """Check and prune what a patch made; a strict complaint is about the patch: 422, not 400 as for whole objects."""
    resource, validation = write.resource, write.options.validation
    shape = resource.shape()
    if shape is None:
        return new
    shown = "" if raw is None else raw.decode(errors="replace")
    problems = shape.type_errors(new)
    if not problems and validation is not FieldValidation.IGNORE:
        found = bodies.strictness_errors(resource, new, raw if isinstance(body, dict) else None)
        if validation is FieldValidation.WARN:
            write.warnings += found
        elif found:
            problems = [bodies.strict(found)]
    if problems:
        why = f"Invalid value: {_quoted(shown)}: {problems[0]}"
        raise invalid("", "", "", [FieldError("patch", why, "FieldValueInvalid")])
    return shape.prune(new)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _apply(write: Write, body: Any, raw: bytes | None) -> Written:
    """Apply: the object says what this manager wants, and no more (server-side apply)."""
    api, resource, target = write.api, write.resource, write.target
    applied = bodies.as_object(body, api_version=resource.api_version, kind=resource.kind)
    metadata.place(target, applied)
    if raw and write.options.validation is FieldValidation.STRICT and (found := duplicate_fields(raw)):
        raise bad_request(f"error strict decoding YAML: {', '.join(found)}")
    old = api.store.get(Key(resource.storage, target.namespace, target.name))
    if old is None and target.subresource:
        raise not_found(resource.group, resource.plural, target.name)
    live = None if old is None else resource.is_shown(old.object)
    merged = _merged_by_owner(write, live, applied)
    shape = resource.shape()
    new = shape.prune(merged) if shape else merged
    if old is None:
        metadata.place(target, new)
        return _create(write, new, tracked=True)
    return _update(write, new, old, tracked=True)


def _merged_by_owner(write: Write, live: Object | None, applied: Object) -> Object:
    options, resource = write.options, write.resource
    shape = resource.shape()
    if shape and (wrong := shape.type_errors(applied)):
        raise bad_request(wrong[0])
    try:
        return applying.apply(
            live,
            applied,
            manager=options.manager,
            force=options.force,
            schema=shape,
            now=write.api.now(),
            subresource=write.target.subresource,
        )
    except applying.ApplyConflict as clash:
        raise apply_conflict(str(clash), clash.conflicts) from None
    except applying.ApplyInvalid as error:
        raise Failure(error.code, "BadRequest" if error.code == 400 else "", error.message) from None
    except ValueError as error:  # a list that merges by key holds an item without one: stored before it was checked
        raise Failure(500, "", f"failed to create typed live object: {error}") from None


def existing(api: Api, target: Target) -> Record:
    """Return the record that a path names; raises ``Failure`` 404."""
    resource = target.resource
    record = api.store.get(Key(resource.storage, target.namespace, target.name))
    if record is None:
        raise not_found(resource.group, resource.plural, target.name)
    return record


def _with_defaults(resource: Resource, obj: Object) -> Object:
    shape = resource.shape()
    return shape.with_defaults(obj) if resource.custom and shape else apply_defaults(obj)


def _rules(write: Write, new: Object, old: Object | None) -> list[FieldError]:
    shape = write.resource.shape()
    found = shape.violations(new) if write.resource.custom and shape else []
    return found + strategy_of(write.resource).errors(write.api, new, old)


def _refuse(resource: Resource, obj: Object, errors: list[FieldError]) -> None:
    if errors:
        # some rules are asked for by the kind and by the metadata alike
        unique = list(dict.fromkeys(errors))
        raise invalid(resource.group, resource.kind, name_of(obj) or obj["metadata"].get("generateName", ""), unique)


def _tracked(write: Write, old: Object | None, new: Object) -> Object:
    return applying.track_update(
        old,
        new,
        manager=write.options.manager,
        now=write.api.now(),
        schema=write.resource.shape(),
        subresource=write.target.subresource,
    )


def _key(resource: Resource, obj: Object) -> Key:
    return Key(resource.storage, namespace_of(obj), name_of(obj))
