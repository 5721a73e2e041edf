# SPDX-License-Identifier: Apache-2.0
"""Objects seen through their schema as fields that somebody can own: which there are, and which differ between two.

Atomic values (scalars, atomic lists and maps) are owned whole. Maps and keyed lists are owned part by part. Without a
schema maps are owned by key and lists whole, which is what structured-merge-diff deduces too.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from ringfence.lab.apiserver.applying.paths import FieldSet, Path, field, keyed, under, valued
from ringfence.lab.apiserver.schema.nodes import Form, ListKind, Schema


class Shape(enum.Enum):
    """How a value is owned."""

    LEAF = "leaf"
    MAP = "map"
    LIST = "list"


class _Missing(enum.Enum):
    MISSING = enum.auto()


_MISSING = _Missing.MISSING


def shape(schema: Schema | None, value: Any) -> Shape:
    """Tell how a value at a node of the schema is owned."""
    if schema is None or (schema.form is Form.ANY and schema.keeps_unknown):
        return Shape.MAP if isinstance(value, Mapping) else Shape.LEAF
    if schema.is_atomic:
        return Shape.LEAF
    if isinstance(value, Mapping) and schema.form in (Form.STRUCT, Form.MAP):
        return Shape.MAP
    if isinstance(value, list) and schema.form is Form.LIST:
        return Shape.LIST
    return Shape.LEAF


def child(schema: Schema | None, key: str) -> Schema | None:
    """Return the schema of a field or key; None where anything goes."""
    return schema.child(key) if schema else None


def element(schema: Schema, item: Any) -> str:
    """Return the path element of an item of a list that merges; raises ``ValueError`` if it lacks its keys."""
    if schema.list_kind is ListKind.SET:
        return valued(item)
    if not isinstance(item, Mapping):
        raise ValueError(f"associative list with keys may not have non-map elements: {item!r}")  # noqa: TRY004
    keys = {}
    for key in schema.list_keys:
        value = item.get(key)
        value = schema.key_default(key) if value is None else value
        if value is not None:
            keys[key] = value
    if not keys:
        names = ", ".join(f'"{key}"' for key in schema.list_keys)
        raise ValueError(
            f"associative list with keys has an element that omits key field {names} (and doesn't have default value)"
        )
    return keyed(keys)


def fields_of(schema: Schema | None, value: Any) -> FieldSet:
    """Return what an applier of this value owns: leaves, list items, keys of maps and what is empty."""
    return frozenset(_fields(schema, value, ()))


def _fields(schema: Schema | None, value: Any, path: Path) -> Iterator[Path]:
    match shape(schema, value):
        case Shape.LEAF:
            yield path
        case Shape.MAP:
            for key, below in value.items():
                inner = (*path, field(key))
                # a struct's field exists as long as something in it does; a map's key is worth owning in itself
                if below in (None, {}) or schema is None or schema.field(key) is None:
                    yield inner
                yield from _fields(child(schema, key), below, inner)
        case Shape.LIST:
            assert schema is not None
            for item in value:
                inner = (*path, element(schema, item))
                yield inner
                yield from _fields(schema.items, item, inner)
        case other:
            assert_never(other)


def with_named_fields(schema: Schema | None, fields: FieldSet) -> FieldSet:
    """Return the set with every named struct field on the way to one of its paths.

    Sets hold ``f:spec`` only if it is empty; for taking parts away, a struct counts as there while its parts are.
    """
    found = set(fields)
    for path in fields:
        node = schema
        for depth, step in enumerate(path[:-1]):
            if node is None:
                break
            if step.startswith("f:"):
                named = node.field(step[2:])
                if named is not None:
                    found.add(path[: depth + 1])
                node = named or node.values
            else:
                node = node.items
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between an old and a new object."""

    added: FieldSet
    modified: FieldSet
    removed: FieldSet

    @property
    def taken(self) -> FieldSet:
        """What whoever made the change now answers for."""
        return self.added | self.modified

    def without(self, roots: Sequence[Path]) -> Comparison:
        """Return the comparison without anything at or below some paths."""
        return Comparison(*(_outside(part, roots) for part in (self.added, self.modified, self.removed)))


def _outside(fields: FieldSet, roots: Sequence[Path]) -> FieldSet:
    return frozenset(path for path in fields if not under(path, roots)) if roots else fields


def compare(schema: Schema | None, old: Any, new: Any) -> Comparison:
    """Compare two objects of one kind, part by part; everything between and including a new part's parents is added."""
    walk = _Walk()
    walk.visit(schema, old, new, ())
    return Comparison(frozenset(walk.added), frozenset(walk.modified), frozenset(walk.removed))


class _Walk:
    def __init__(self) -> None:
        self.added: set[Path] = set()
        self.modified: set[Path] = set()
        self.removed: set[Path] = set()

    def visit(self, schema: Schema | None, old: Any, new: Any, path: Path) -> None:
        if old is new:
            return
        old_shape = Shape.LEAF if old is _MISSING else shape(schema, old)
        new_shape = Shape.LEAF if new is _MISSING else shape(schema, new)
        if old is not _MISSING and new is not _MISSING and old_shape is not new_shape:
            self._note(old, new, path)
            self._descend(schema, old_shape, old, _MISSING, path)
            self._descend(schema, new_shape, _MISSING, new, path)
            return
        known = new_shape if old is _MISSING else old_shape
        if known is Shape.LEAF or (_is_empty(old) and _is_empty(new)):
            self._note(old, new, path)
            return
        self._descend(schema, known, old, new, path)
        if old is _MISSING or new is _MISSING:
            self._note(old, new, path)

    def _note(self, old: Any, new: Any, path: Path) -> None:
        if old is _MISSING:
            self.added.add(path)
        elif new is _MISSING:
            self.removed.add(path)
        elif not same(old, new):
            self.modified.add(path)

    def _descend(self, schema: Schema | None, known: Shape, old: Any, new: Any, path: Path) -> None:
        match known:
            case Shape.MAP:
                before = {} if old is _MISSING else old
                after = {} if new is _MISSING else new
                for key in {**before, **after}:
                    below = (*path, field(key))
                    self.visit(child(schema, key), before.get(key, _MISSING), after.get(key, _MISSING), below)
            case Shape.LIST:
                assert schema is not None
                before = {} if old is _MISSING else by_element(schema, old)
                after = {} if new is _MISSING else by_element(schema, new)
                for name in {**before, **after}:
                    below = (*path, name)
                    self.visit(schema.items, before.get(name, _MISSING), after.get(name, _MISSING), below)
            case Shape.LEAF:
                return
            case _:
                assert_never(known)


def by_element(schema: Schema, items: Sequence[Any]) -> dict[str, Any]:
    """Return a list's items by their path element; of items with the same keys the first counts."""
    found: dict[str, Any] = {}
    for index, item in enumerate(items):
        try:
            name = element(schema, item)
        except ValueError:
            name = f"i:{index}"  # kept as it is; validation tells the author
        found.setdefault(name, item)
    return found


def same(old: Any, new: Any) -> bool:
    """Tell whether two JSON values are the same: as Python's equality, but true is not 1."""
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


def _is_empty(value: Any) -> bool:
    return value is _MISSING or value is None or value in ({}, [])
