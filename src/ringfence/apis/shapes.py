# SPDX-License-Identifier: Apache-2.0
"""The JSON types that an API object must have, and what is left of an object without its ill-typed parts.

An API server decodes into typed structs and refuses the object at the first value of the wrong type. We look at
whole objects: every wrong type is reported with its field path, and everything else can still be read, so that one
bad value neither crashes nor hides the rest.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from ringfence.apis.fields import type_invalid, unknown_field
from ringfence.errors import FieldError


class Scalar(enum.Enum):
    """A JSON value without parts; the value is what an error calls it."""

    STRING = "string"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    INTEGER_OR_STRING = "integer or string"
    ANYTHING = "anything"


@dataclass(frozen=True, slots=True)
class ListOf:
    """An array, all items of one shape."""

    item: Shape


@dataclass(frozen=True, slots=True)
class MapOf:
    """An object with keys of the user's choice, all values of one shape."""

    value: Shape


@dataclass(frozen=True, slots=True)
class Record:
    """An object with fields that the API names."""

    fields: Mapping[str, Shape]


Shape = Scalar | ListOf | MapOf | Record

_HOLE = object()
_STRING = Scalar.STRING


def conform(value: object, shape: Shape, path: str) -> tuple[Any, list[FieldError]]:
    """Return what is left of a value without ill-typed parts, and a complaint for each of those.

    Fields that are null, ill-typed or unknown are left out; items of lists keep their index: an ill-typed one is
    None, a null one the zero value, as Go decodes it. The value itself, if ill-typed, becomes the zero value.
    """
    errors: list[FieldError] = []
    left = _conform(value, shape, path, errors)
    return (_zero(shape) if left is _HOLE else left), errors


def unknown_fields(value: object, shape: Shape, path: str) -> list[FieldError]:
    """Return a complaint for each field that a shape does not name (``fieldValidation=Strict``)."""
    match shape, value:
        case Record(fields), Mapping():
            errors = []
            for key in sorted(map(str, value)):
                if key in fields:
                    errors += unknown_fields(value.get(key), fields[key], child(path, key))
                else:
                    errors.append(unknown_field(child(path, key)))
            return errors
        case ListOf(item), list():
            return [e for i, part in enumerate(value) for e in unknown_fields(part, item, f"{path}[{i}]")]
        case _:
            return []


def child(path: str, key: str) -> str:
    """Return the path of a field of an object; the empty path is the object that a file or request holds."""
    return f"{path}.{key}" if path else key


def _conform(value: object, shape: Shape, path: str, errors: list[FieldError]) -> Any:
    if value is None:
        return _zero(shape)
    match shape, value:
        case Scalar(), _ if _is_scalar(value, shape):
            return value
        case ListOf(item), list():
            parts = [
                part if _fits(part, item) else _conform(part, item, f"{path}[{i}]", errors)
                for i, part in enumerate(value)
            ]
            return [None if part is _HOLE else part for part in parts]
        case MapOf(item), Mapping():
            entries = {str(k): _conform(v, item, child(path, str(k)), errors) for k, v in value.items()}
            return {key: part for key, part in entries.items() if part is not _HOLE}
        case Record(fields), Mapping():
            present = {key: value[key] for key in fields if value.get(key) is not None}
            record = {key: _conform(part, fields[key], child(path, key), errors) for key, part in present.items()}
            return {key: part for key, part in record.items() if part is not _HOLE}
        case _:
            errors.append(type_invalid(path, value, _type_name(shape)))
            return _HOLE


def _fits(value: object, shape: Shape) -> bool:
    """Tell whether a value is what would be left of it; items of lists are asked, of which there may be thousands."""
    # By exact types, not by ``match``: this runs for every part of every policy.
    if isinstance(shape, Record):
        if type(value) is not dict:
            return False
        for key, part in value.items():
            inner = shape.fields.get(key)
            if inner is None or not (type(part) is str if inner is _STRING else _fits(part, inner)):
                return False
        return True
    if isinstance(shape, ListOf):
        return type(value) is list and all(_fits(part, shape.item) for part in value)
    if isinstance(shape, MapOf):
        return type(value) is dict and all(type(k) is str and _fits(v, shape.value) for k, v in value.items())
    return value is not None and _is_scalar(value, shape)


def _is_scalar(value: object, shape: Scalar) -> bool:
    match shape:
        case Scalar.STRING:
            return isinstance(value, str)
        case Scalar.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case Scalar.BOOLEAN:
            return isinstance(value, bool)
        case Scalar.INTEGER_OR_STRING:
            return isinstance(value, (int, str)) and not isinstance(value, bool)
        case Scalar.ANYTHING:
            return True
        case _:
            assert_never(shape)


def _zero(shape: Shape) -> Any:
    match shape:
        case Scalar.STRING:
            return ""
        case Scalar.INTEGER | Scalar.INTEGER_OR_STRING:
            return 0
        case Scalar.BOOLEAN:
            return False
        case Scalar.ANYTHING:
            return None
        case ListOf():
            return []
        case MapOf() | Record():
            return {}
        case _:
            assert_never(shape)


def _type_name(shape: Shape) -> str:
    match shape:
        case Scalar():
            return shape.value
        case ListOf():
            return "array"
        case MapOf() | Record():
            return "object"
        case _:
            assert_never(shape)
