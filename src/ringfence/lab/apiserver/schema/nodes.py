# SPDX-License-Identifier: Apache-2.0
"""One node of a schema: what a value may hold, how lists and maps of it merge, and who may own which part.

A node is a view of an OpenAPI v3 schema with its Kubernetes extensions; children are made when first asked for,
since a pod's schema has thousands and a request needs dozens. What a value does wrong is told by ``decoding`` (built-in
kinds, in the words of Go's decoder) and ``structural`` (custom resources, in the words of CRD validation).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

_REF = "#/components/schemas/"


class Form(enum.Enum):
    """What kind of value a node describes."""

    STRUCT = "struct"  # an object with named fields
    MAP = "map"  # an object with any keys, all values alike
    LIST = "list"
    SCALAR = "scalar"
    ANY = "any"  # whatever JSON can say


class ListKind(enum.Enum):
    """How two lists merge (``x-kubernetes-list-type``)."""

    ATOMIC = "atomic"
    SET = "set"
    MAP = "map"


class Schema:
    """A node. ``raw`` is its OpenAPI schema with references resolved; ``name`` its component, empty if it is inline."""

    __slots__ = ("_children", "_definitions", "_items", "_usage", "_values", "form", "has_status", "name", "raw")

    def __init__(
        self, node: Mapping[str, Any], definitions: Mapping[str, Any], *, has_status: bool | None = None
    ) -> None:
        self._definitions = definitions
        self._usage = node  # the property itself: its extensions come before those of what it refers to
        self.name, self.raw = _resolve(node, definitions)
        self._children: dict[str, Schema] = {}
        self._items: Schema | None = None
        self._values: Schema | None = None
        self.form = _form(self.raw)
        # of a kind: status is written on a path of its own. Every built-in kind with a status does; definitions choose
        self.has_status = "status" in self.properties if has_status is None else has_status

    def __repr__(self) -> str:
        return f"Schema({self.name or self.form.value})"

    @property
    def is_built_in(self) -> bool:
        """Tell whether this is a Go type of Kubernetes, not a custom resource or a part of one."""
        return bool(self.name)

    def extension(self, name: str) -> Any:
        """Return ``x-kubernetes-NAME`` of the property, else of the type that it refers to."""
        key = f"x-kubernetes-{name}"
        return self._usage[key] if key in self._usage else self.raw.get(key)

    @property
    def properties(self) -> Mapping[str, Any]:
        """The named fields, unresolved; use ``field`` for one."""
        properties: Mapping[str, Any] = self.raw.get("properties") or {}
        return properties

    def field(self, name: str) -> Schema | None:
        """Return the node of a named field, None if there is no such field."""
        child = self._children.get(name)
        if child is None:
            node = self.properties.get(name)
            if node is None:
                return None
            child = self._children[name] = Schema(node, self._definitions)
        return child

    def child(self, name: str) -> Schema | None:
        """Return the node of a key, be it a named field or one of a map; None if the key is unknown or anything."""
        return self.field(name) or self.values

    @property
    def values(self) -> Schema | None:
        """The node of a map's values, None if they may be anything or there is no map."""
        if self._values is None:
            node = self.raw.get("additionalProperties")
            if isinstance(node, Mapping):
                self._values = Schema(node, self._definitions)
        return self._values

    @property
    def items(self) -> Schema | None:
        """The node of a list's items, None if they may be anything or there is no list."""
        if self._items is None:
            node = self.raw.get("items")
            if isinstance(node, Mapping):
                self._items = Schema(node, self._definitions)
        return self._items

    @property
    def keeps_unknown(self) -> bool:
        """Tell whether fields that are not named are kept as they are."""
        return bool(self.extension("preserve-unknown-fields"))

    @property
    def list_kind(self) -> ListKind:
        """How lists here merge under server-side apply; atomic unless said otherwise."""
        return ListKind(self.extension("list-type") or "atomic")

    @property
    def list_keys(self) -> tuple[str, ...]:
        """The fields that tell the items of a ``map`` list apart."""
        return tuple(self.extension("list-map-keys") or ())

    @property
    def is_atomic(self) -> bool:
        """Tell whether the whole value has one owner: atomic lists and maps, scalars, and what has no schema inside."""
        match self.form:
            case Form.LIST:
                return self.list_kind is ListKind.ATOMIC
            case Form.STRUCT | Form.MAP:
                return bool(self.extension("map-type") == "atomic")
            case Form.SCALAR:
                return True
            case Form.ANY:
                return not self.keeps_unknown

    @property
    def merge_key(self) -> str:
        """The field by which a strategic merge patch finds items of a list; empty if it has none."""
        return self.extension("patch-merge-key") or ""

    @property
    def patch_strategies(self) -> tuple[str, ...]:
        """What a strategic merge patch does here: ``merge``, ``replace``, ``retainKeys``."""
        strategy = self.extension("patch-strategy")
        return tuple(strategy.split(",")) if strategy else ()

    @property
    def default(self) -> Any:
        """The default of the property, None if it has none."""
        return self._usage.get("default", self.raw.get("default"))

    def key_default(self, key: str) -> Any:
        """Return the value of an item's key field that is left out (``protocol``: TCP); None if it has none."""
        field = self.items.field(key) if self.items else None
        return field.default if field else None


def _resolve(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    reference = node.get("$ref")
    if reference is None:
        wrapped = node.get("allOf")
        # a wrapped reference: see tools/trim_schemas.py; an allOf of a custom resource never holds one
        if not wrapped or "$ref" not in wrapped[0]:
            return "", node
        reference = wrapped[0]["$ref"]
    name = reference.removeprefix(_REF)
    return name, definitions[name]


def _form(raw: Mapping[str, Any]) -> Form:
    kind = raw.get("type")
    if kind is None:
        # without a type: the built-in unions of scalars (IntOrString, Quantity), int-or-string, or anything at all
        scalar = raw.get("x-kubernetes-int-or-string") or "oneOf" in raw
        return Form.SCALAR if scalar and "properties" not in raw else Form.ANY
    if kind == "object":
        return Form.STRUCT if raw.get("properties") else Form.MAP
    return Form.LIST if kind == "array" else Form.SCALAR
