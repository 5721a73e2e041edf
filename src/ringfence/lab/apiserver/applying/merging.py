# SPDX-License-Identifier: Apache-2.0
"""Putting an applied object into a live one, and taking fields out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from ringfence.lab.apiserver.applying.paths import FieldSet, field
from ringfence.lab.apiserver.applying.typed import Shape, by_element, child, element, shape
from ringfence.lab.apiserver.schema.nodes import Schema


def merged(schema: Schema | None, live: Any, applied: Any) -> Any:
    """Return the live value with the applied one in it: parts merge, atomic values are replaced."""
    known = shape(schema, applied)
    if known is not shape(schema, live):
        return applied
    match known:
        case Shape.LEAF:
            return applied
        case Shape.MAP:
            result = dict(live)
            for key, value in applied.items():
                result[key] = merged(child(schema, key), live[key], value) if key in live else value
            return result
        case Shape.LIST:
            assert schema is not None
            return _merged_list(schema, live, applied)
        case _:
            assert_never(known)


def _merged_list(schema: Schema, live: Sequence[Any], applied: Sequence[Any]) -> list[Any]:
    """Live items keep their places; the applied ones are in the applied order, new ones before the next shared one."""
    ours = by_element(schema, applied)
    theirs = by_element(schema, live)
    waiting = list(ours)
    shared = [name for name in waiting if name in theirs]
    result: list[Any] = []

    def take() -> None:
        name = waiting.pop(0)
        result.append(merged(schema.items, theirs[name], ours[name]) if name in theirs else ours[name])

    for index, item in enumerate(live):
        name = _name(schema, item, index)
        if name not in ours:
            result.append(item)
        elif shared and name == shared[0]:
            while waiting[0] != name:
                take()
            take()
            shared.pop(0)
    while waiting:
        take()
    return result


def without(schema: Schema | None, value: Any, gone: FieldSet, *, keep_emptied: bool = True) -> Any:
    """Return a value without the fields and items of a set.

    What is emptied by that counts as there when owners are told, but the object is better off without it.
    """
    if not gone:
        return value
    match shape(schema, value):
        case Shape.LEAF:
            return value
        case Shape.MAP:
            result = {}
            for key, below in value.items():
                step = field(key)
                if (step,) in gone:
                    continue
                inner, deeper = child(schema, key), _below(gone, step)
                left = without(inner, below, deeper, keep_emptied=keep_emptied)
                # emptied is what lost all it held itself, not what held something that was emptied
                if keep_emptied or not deeper or without(inner, below, deeper) not in ({}, []):
                    result[key] = left
            return result
        case Shape.LIST:
            assert schema is not None
            kept = []
            for index, item in enumerate(value):
                step = _name(schema, item, index)
                if (step,) not in gone:
                    kept.append(without(schema.items, item, _below(gone, step), keep_emptied=keep_emptied))
            return kept
        case other:
            assert_never(other)


def _below(fields: FieldSet, step: str) -> FieldSet:
    return frozenset(path[1:] for path in fields if len(path) > 1 and path[0] == step)


def _name(schema: Schema, item: Any, index: int) -> str:
    try:
        return element(schema, item)
    except ValueError:
        return f"i:{index}"


def without_nulls(value: Any) -> Any:
    """Return a value without its null fields: an applied object says nothing of them (``creationTimestamp``)."""
    if isinstance(value, Mapping):
        return {key: without_nulls(below) for key, below in value.items() if below is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
