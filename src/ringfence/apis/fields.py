# SPDX-License-Identifier: Apache-2.0
"""The complaints of kube-apiserver about one field, in its own words.

One constructor for each kind of complaint (k8s.io/apimachinery, util/validation/field): the same wording, the same
machine-readable reason, the same way to print the offending value. What is complained about is decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ringfence.errors import FieldError

INVALID = "FieldValueInvalid"
REQUIRED = "FieldValueRequired"
FORBIDDEN = "FieldValueForbidden"
NOT_SUPPORTED = "FieldValueNotSupported"
DUPLICATE = "FieldValueDuplicate"
TOO_LONG = "FieldValueTooLong"
TYPE_INVALID = "FieldValueTypeInvalid"
UNKNOWN_FIELD = "UnknownField"
"""Ours: kube-apiserver tells of unknown fields as a decoding error, which has no cause of its own."""


def printed(value: object) -> str:
    """Print a value as the API server does: strings quoted, everything else as compact JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    # JSON may carry half of a surrogate pair; an error message must still be printable.
    return text.encode("utf-8", "replace").decode("utf-8")


def invalid(path: str, value: object, detail: str) -> FieldError:
    """Complain of a malformed value."""
    return FieldError(path, _with(f"Invalid value: {printed(value)}", detail), INVALID)


def required(path: str, detail: str = "") -> FieldError:
    """Complain of a value that must be there and is not."""
    return FieldError(path, _with("Required value", detail), REQUIRED)


def forbidden(path: str, detail: str) -> FieldError:
    """Complain of a value that may not be there."""
    return FieldError(path, _with("Forbidden", detail), FORBIDDEN)


def not_supported(path: str, value: object, supported: Sequence[str]) -> FieldError:
    """Complain of a value that is not one of a list."""
    choices = ", ".join(printed(choice) for choice in supported)
    return FieldError(path, f"Unsupported value: {printed(value)}: supported values: {choices}", NOT_SUPPORTED)


def duplicate(path: str, value: object) -> FieldError:
    """Complain of a value that stands there twice."""
    return FieldError(path, f"Duplicate value: {printed(value)}", DUPLICATE)


def too_long(path: str, limit: int) -> FieldError:
    """Complain of a value of more bytes than the limit; the value itself is not repeated."""
    return FieldError(path, f"Too long: may not be more than {limit} bytes", TOO_LONG)


def type_invalid(path: str, value: object, expected: str) -> FieldError:
    """Complain of a JSON value of the wrong type, as the API server does for objects that have a schema."""
    actual = printed(json_type(value))
    return FieldError(
        path, f"Invalid value: {actual}: {path} in body must be of type {expected}: {actual}", TYPE_INVALID
    )


def unknown_field(path: str) -> FieldError:
    """Complain of a field that the API does not have."""
    return FieldError(path, f"unknown field {printed(path)}", UNKNOWN_FIELD)


def invalids(path: str, value: object, details: Iterable[str]) -> list[FieldError]:
    """Complain of a malformed value once for each detail."""
    return [invalid(path, value, detail) for detail in details]


def json_type(value: object) -> str:
    """Return the JSON schema name of a decoded value's type."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def within(path: str, ancestor: str) -> bool:
    """Tell whether a field path is another one, or lies below it."""
    if not ancestor:
        return True
    return path == ancestor or (path.startswith(ancestor) and path[len(ancestor)] in ".[")


def _with(head: str, detail: str) -> str:
    return f"{head}: {detail}" if detail else head
