# SPDX-License-Identifier: Apache-2.0
"""Whether an applied object fits its schema: in the words of structured-merge-diff, which reports every misfit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, assert_never

from ringfence.lab.apiserver.applying.paths import Path, field, shown, valued
from ringfence.lab.apiserver.applying.typed import element
from ringfence.lab.apiserver.schema.nodes import Form, ListKind, Schema


def misfits(schema: Schema, value: Any) -> list[str]:
    """Return every complaint: ``.spec.foo: field not declared in schema``."""
    return list(_misfits(schema, value, ()))


def _misfits(schema: Schema, value: Any, path: Path) -> Iterator[str]:
    if value is None:
        return
    match schema.form:
        case Form.STRUCT | Form.MAP:
            yield from _of_object(schema, value, path)
        case Form.LIST:
            yield from _of_list(schema, value, path)
        case Form.SCALAR:
            problem = _of_scalar(schema, value)
            if problem:
                yield _at(path, problem)
        case Form.ANY:
            return
        case form:
            assert_never(form)


def _of_object(schema: Schema, value: Any, path: Path) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield _at(path, f"expected map, got &{{{_go(value)}}}")
        return
    for key, below in value.items():
        inner = (*path, field(key))
        known = schema.child(key)
        if known is not None:
            yield from _misfits(known, below, inner)
        elif schema.form is Form.STRUCT and not schema.keeps_unknown:
            yield _at(inner, "field not declared in schema")


def _of_list(schema: Schema, value: Any, path: Path) -> Iterator[str]:
    if not isinstance(value, list):
        yield _at(path, f"expected list, got &{{{_go(value)}}}")
        return
    seen: set[str] = set()
    for index, item in enumerate(value):
        step = valued(index).replace("v:", "i:")
        if schema.list_kind is not ListKind.ATOMIC:
            try:
                step = element(schema, item)
            except ValueError as error:
                yield _at(path, f"element {index}: {error}")
                continue
            if step in seen:
                yield _at(path, f"duplicate entries for key {shown((step,))}")
            seen.add(step)
        if schema.items is not None:
            yield from _misfits(schema.items, item, (*path, step))


def _of_scalar(schema: Schema, value: Any) -> str:
    kind = schema.raw.get("type")
    match kind:
        case "string" if not isinstance(value, str):
            return f"expected string, got {_go(value)}"
        case "boolean" if not isinstance(value, bool):
            return f"expected boolean, got {_go(value)}"
        case "integer" | "number" if isinstance(value, bool) or not isinstance(value, int | float):
            return f"expected numeric (int or float), got {_go_type(value)}"
        case _ if isinstance(value, Mapping | list):
            return f"expected any scalar, got {_go(value)}"
        case _:
            return ""


def _at(path: Path, problem: str) -> str:
    return f"{shown(path)}: {problem}" if path else problem


def _go(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _go_type(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case list():
            return "[]interface {}"
        case _:
            return "map[string]interface {}"
