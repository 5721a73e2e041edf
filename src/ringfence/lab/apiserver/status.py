# SPDX-License-Identifier: Apache-2.0
"""Refusals: meta/v1 Status objects with the reasons, codes, details and words that clients know from kube-apiserver."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ringfence.errors import FieldError
from ringfence.lab.apiserver.objects import Object

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


class Failure(Exception):
    """A refused request. ``status`` is the Status object to answer with; ``code`` its HTTP status code."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        self.code = code
        self.reason = reason
        self.message = message
        self.status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.status["message"] = message
        if reason:
            self.status["reason"] = reason
        if details:
            self.status["details"] = {key: value for key, value in details.items() if value not in ("", [])}
        self.status["code"] = code
        super().__init__(message)


def success(*, group: str, plural: str, name: str, uid: str) -> Object:
    """Return the Status that says that something is done: the answer to an immediate deletion."""
    details = {"name": name, "group": group, "kind": plural, "uid": uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }


def qualified(name: str, group: str) -> str:
    """Return a kind or resource with its group: ``pods``, ``deployments.apps``."""
    return f"{name}.{group}" if group else name


def not_found(group: str, plural: str, name: str) -> Failure:
    """Say that there is no object of this name."""
    message = f'{qualified(plural, group)} "{name}" not found'
    return Failure(404, "NotFound", message, {"name": name, "group": group, "kind": plural})


def already_exists(group: str, plural: str, name: str) -> Failure:
    """Say that there is an object of this name already."""
    message = f'{qualified(plural, group)} "{name}" already exists'
    return Failure(409, "AlreadyExists", message, {"name": name, "group": group, "kind": plural})


def conflict(group: str, plural: str, name: str, why: str = MODIFIED) -> Failure:
    """Say that the object is not what the caller took it to be: a resourceVersion or a precondition differs."""
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return Failure(409, "Conflict", message, {"name": name, "group": group, "kind": plural})


def apply_conflict(message: str, conflicts: Sequence[tuple[str, str]]) -> Failure:
    """Say that server-side apply would take fields from other managers: (manager, field) each."""
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": field}
        for manager, field in conflicts
    ]
    return Failure(409, "Conflict", message, {"causes": causes})


def invalid(group: str, kind: str, name: str, errors: Iterable[FieldError]) -> Failure:
    """Say that the object breaks its kind's rules; every broken rule is a cause."""
    causes = [{"reason": e.reason, "message": e.message, "field": e.path} for e in errors]
    texts = list(dict.fromkeys(f"{c['field']}: {c['message']}" for c in causes))
    listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    message = f'{qualified(kind, group)} "{name}" is invalid: {listed}'
    return Failure(422, "Invalid", message, {"name": name, "group": group, "kind": kind, "causes": causes})


def bad_request(message: str) -> Failure:
    """Say that the request cannot be understood."""
    return Failure(400, "BadRequest", message)


def unauthorized() -> Failure:
    """Say that the bearer token is missing, or not this lab's."""
    return Failure(401, "Unauthorized", "Unauthorized")


def forbidden(group: str, plural: str, name: str, why: str, *, cause: Object | None = None) -> Failure:
    """Say that an admission rule refuses it."""
    message = f'{qualified(plural, group)} "{name}" is forbidden: {why}'
    details: Object = {"name": name, "group": group, "kind": plural, "causes": [cause] if cause else []}
    return Failure(403, "Forbidden", message, details)


def method_not_allowed(group: str, plural: str, verb: str) -> Failure:
    """Say that the resource has no such verb."""
    message = f'{verb} is not supported on resources of kind "{qualified(plural, group)}"'
    return Failure(405, "MethodNotAllowed", message, {"group": group, "kind": plural})


def expired(message: str) -> Failure:
    """Say that the asked resourceVersion is older than what the server remembers: list again."""
    return Failure(410, "Expired", message)


def too_large(asked: int, current: int) -> Failure:
    """Say that the asked resourceVersion has not happened yet."""
    message = f"Too large resource version: {asked}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return Failure(504, "Timeout", message, {"retryAfterSeconds": 1, "causes": causes})


def unsupported_media_type(accepted: Sequence[str]) -> Failure:
    """Say that the body is in a format that the server does not read."""
    listed = ", ".join(accepted)
    message = f"the body of the request was in an unknown format - accepted media types include: {listed}"
    return Failure(415, "UnsupportedMediaType", message)


def not_acceptable(accepted: Sequence[str]) -> Failure:
    """Say that the client accepts none of the formats that the server writes."""
    return Failure(406, "NotAcceptable", f"only the following media types are accepted: {', '.join(accepted)}")


def internal(message: str) -> Failure:
    """Say that the server failed: a bug, or something below it."""
    return Failure(500, "InternalError", f"Internal error occurred: {message}")
