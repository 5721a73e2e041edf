# SPDX-License-Identifier: Apache-2.0
"""Custom resources: what their definition's structural schema prunes, reports as unknown, and fills in.

"Structural" means that every field's type is said at its own place, so that pruning and defaulting can follow the
schema as they follow Go types for built-in kinds. Whether values are right is ``constraints``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.lab.apiserver.schema import decoding
from ringfence.lab.apiserver.schema.nodes import Form, Schema

_OBJECT_META = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_TYPE_FIELDS = ("apiVersion", "kind", "metadata")
TYPE_META: dict[str, Any] = {
    "apiVersion": {
        "description": "APIVersion defines the versioned schema of this representation of an object.",
        "type": "string",
    },
    "kind": {
        "description": "Kind is a string value representing the REST resource this object represents.",
        "type": "string",
    },
    "metadata": {"description": "Standard object's metadata.", "allOf": [{"$ref": _OBJECT_META}]},
}


def root(schema: Mapping[str, Any] | None, *, preserve_unknown: bool = False) -> dict[str, Any]:
    """Return a definition's schema with what every object has: apiVersion, kind and metadata."""
    made: dict[str, Any] = {"type": "object", **(schema or {})}
    made["properties"] = {**(made.get("properties") or {}), **TYPE_META}
    if schema is None or preserve_unknown:
        made["x-kubernetes-preserve-unknown-fields"] = True
    return made


def prune(schema: Schema, value: Any) -> Any:
    """Return the value without the fields that the schema does not name, unless it says to keep them."""
    if schema.is_built_in:
        return decoding.prune(schema, value)
    if isinstance(value, Mapping):
        kept = {}
        for name, below in value.items():
            child = schema.child(name)
            if child is not None:
                kept[name] = prune(child, below)
            elif _keeps(schema, name):
                kept[name] = below
        return kept
    if isinstance(value, list) and schema.items is not None:
        return [prune(schema.items, item) for item in value]
    return value


def unknown_fields(schema: Schema, value: Any) -> list[str]:
    """Return ``unknown field "spec.foo"`` for everything that pruning takes away."""
    return [f'unknown field "{path}"' for path in _unknown(schema, value, "")]


def _unknown(schema: Schema, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, below in value.items():
            inner = f"{path}.{name}" if path else name
            child = schema.child(name)
            if child is not None:
                yield from _unknown(child, below, inner)
            elif not _keeps(schema, name):
                yield inner
    elif isinstance(value, list) and schema.items is not None:
        for index, item in enumerate(value):
            yield from _unknown(schema.items, item, f"{path}[{index}]")


def _keeps(schema: Schema, name: str) -> bool:
    if schema.keeps_unknown or schema.raw.get("additionalProperties") is True or schema.form is Form.SCALAR:
        return True
    if schema.is_built_in and schema.form is not Form.STRUCT:
        return True
    return bool(schema.extension("embedded-resource")) and name in _TYPE_FIELDS


def with_defaults(schema: Schema, value: Any) -> Any:
    """Return the value with the schema's defaults in it: for fields that are missing, or null and not nullable."""
    if isinstance(value, Mapping):
        filled = {}
        for name, below in value.items():
            child = schema.child(name)
            if below is None and child is not None and child.default is not None and not child.raw.get("nullable"):
                continue  # the default takes its place below
            filled[name] = with_defaults(child, below) if child is not None else below
        for name in schema.properties:
            child = schema.field(name)
            if name not in filled and child is not None and child.default is not None:
                filled[name] = with_defaults(child, copy.deepcopy(child.default))
        return filled
    if isinstance(value, list) and schema.items is not None:
        return [with_defaults(schema.items, item) for item in value]
    return value
