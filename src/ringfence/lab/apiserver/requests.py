# SPDX-License-Identifier: Apache-2.0
"""What a request asks for: its path as kind, namespace, name and subresource, its query as options, its Accept header.

Everything here is text in, values out; a request that cannot be understood raises ``Failure``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ringfence.apis import fields
from ringfence.errors import FieldError
from ringfence.lab.apiserver.registry import Registry
from ringfence.lab.apiserver.resources import Resource
from ringfence.lab.apiserver.status import bad_request, invalid, not_acceptable


@dataclass(frozen=True, slots=True)
class Target:
    """What a path leads to. ``name`` is empty for the collection, ``subresource`` for the object itself."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse_path(path: str, registry: Registry) -> Target | None:
    """Return what a path under ``/api`` or ``/apis`` leads to, None if nothing is there."""
    parts = path.strip("/").split("/")
    match parts:
        case ["api", version, *rest] if rest:
            return _target(registry, "", version, rest)
        case ["apis", group, version, *rest] if rest:
            return _target(registry, group, version, rest)
        case _:
            return None


def _target(registry: Registry, group: str, version: str, rest: Sequence[str]) -> Target | None:
    match rest:
        # namespaces/NAME/status is a part of the namespace, not a kind called status within it
        case ["namespaces", namespace, plural, *more] if registry.find(group, version, plural):
            resource = registry.find(group, version, plural)
            assert resource is not None
            if not resource.namespaced or not namespace:
                return None
        case [plural, *more] if registry.find(group, version, plural):
            resource = registry.find(group, version, plural)
            assert resource is not None
            namespace = ""
            if resource.namespaced and more:
                return None
        case _:
            return None
    name, subresource, *beyond = [*more, "", ""]
    if any(beyond) or (subresource and subresource not in resource.subresources):
        return None
    return Target(resource, namespace, name, subresource)


class FieldValidation(enum.Enum):
    """What to do about unknown and repeated fields (``fieldValidation``); ``Warn`` unless the client says otherwise."""

    STRICT = "Strict"
    WARN = "Warn"
    IGNORE = "Ignore"


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How to write: who writes, for real or not, how strictly; ``force`` takes fields from other appliers."""

    manager: str
    dry_run: bool = False
    validation: FieldValidation = FieldValidation.WARN
    force: bool = False


def write_options(query: Mapping[str, str], user_agent: str, *, applying: bool = False) -> WriteOptions:
    """Read ``fieldManager``, ``dryRun``, ``fieldValidation`` and ``force``; raises ``Failure`` where they are wrong."""
    errors: list[FieldError] = []
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        errors.append(fields.not_supported("dryRun", dry_run, ("All",)))
    validation = query.get("fieldValidation") or FieldValidation.WARN.value
    if validation not in FieldValidation._value2member_map_:
        errors.append(fields.not_supported("fieldValidation", validation, ("", *(v.value for v in FieldValidation))))
    manager = query.get("fieldManager", "")
    if applying and not manager:
        errors.append(fields.required("fieldManager", "is required for apply patch"))
    if query.get("force") and not applying:
        errors.append(fields.forbidden("force", "may not be specified for non-apply patch"))
    if errors:
        raise invalid("meta.k8s.io", "PatchOptions" if applying else "CreateOptions", "", errors)
    return WriteOptions(
        # "If not specified, the user agent up to the first slash": what kube-apiserver calls nameless writers
        manager=manager or user_agent.partition("/")[0] or "unknown",
        dry_run=dry_run == "All",
        validation=FieldValidation(validation),
        force=_is_true(query.get("force", "")),
    )


@dataclass(frozen=True, slots=True)
class ListOptions:
    """How to list or watch, as the query says it."""

    watch: bool = False
    labels: str = ""
    fields: str = ""
    limit: int = 0
    continuation: str = ""
    revision: str = ""
    revision_match: str = ""
    timeout: int | None = None
    bookmarks: bool = False
    initial_events: bool | None = None


def list_options(query: Mapping[str, str]) -> ListOptions:
    """Read the options of a list or watch; raises ``Failure`` 400 where a number is none."""
    initial = query.get("sendInitialEvents", "")
    return ListOptions(
        watch=_is_true(query.get("watch", "")),
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        limit=_number(query, "limit") or 0,
        continuation=query.get("continue", ""),
        revision=query.get("resourceVersion", ""),
        revision_match=query.get("resourceVersionMatch", ""),
        timeout=_number(query, "timeoutSeconds"),
        bookmarks=_is_true(query.get("allowWatchBookmarks", "")),
        initial_events=_is_true(initial) if initial else None,
    )


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "true", "t")


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


class Form(enum.Enum):
    """How objects are written: as they are, as rows for people, or their metadata alone."""

    OBJECT = "object"
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


def negotiate(accept: str) -> Form:
    """Return the first form that the client accepts and the server writes, always as JSON; raises ``Failure`` 406.

    An example: ``application/json;as=Table;v=v1;g=meta.k8s.io,application/json``.
    """
    if not accept:
        return Form.OBJECT
    for clause in accept.split(","):
        media, *params = (part.strip() for part in clause.split(";"))
        if media not in ("application/json", "application/*", "*/*"):
            continue
        wanted = dict(param.split("=", 1) for param in params if "=" in param)
        match wanted.get("as"), wanted.get("v", "v1"), wanted.get("g", "meta.k8s.io"):
            case None, _, _:
                return Form.OBJECT
            case "Table", "v1", "meta.k8s.io":
                return Form.TABLE
            case (("PartialObjectMetadata" | "PartialObjectMetadataList"), "v1", "meta.k8s.io"):
                return Form.METADATA
            case _:
                continue
    raise not_acceptable(("application/json",))
