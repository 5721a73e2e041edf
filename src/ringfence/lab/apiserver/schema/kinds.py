# SPDX-License-Identifier: Apache-2.0
"""The schema of a whole kind, with what the server asks of it: unknown fields, wrong types, pruning, defaults, rules.

Built-in kinds decode like Go structs; custom kinds follow their definition. The server treats both alike.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from ringfence.errors import FieldError
from ringfence.lab.apiserver.schema import constraints, decoding, structural
from ringfence.lab.apiserver.schema.definitions import definitions, kinds
from ringfence.lab.apiserver.schema.nodes import Schema


class KindSchema(Schema):
    """The schema of a built-in kind."""

    __slots__ = ()

    def unknown_fields(self, obj: Any) -> list[str]:
        """Return ``unknown field "spec.foo"`` for every field that the kind does not have."""
        return decoding.unknown_fields(self, obj)

    def type_errors(self, obj: Any) -> list[str]:
        """Return Go's decoding error for every value of a wrong type; the API server reports the first."""
        return decoding.type_errors(self, obj)

    def prune(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object as it is after decoding and encoding: no unknown fields, nulls or empty collections."""
        pruned: dict[str, Any] = decoding.prune(self, obj)
        return pruned

    def with_defaults(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object with the schema's own defaults; built-in kinds have theirs in code (``defaults``)."""
        return dict(obj)

    def violations(self, obj: Mapping[str, Any]) -> list[FieldError]:  # noqa: ARG002 - custom kinds look at it
        """Return the broken rules that the schema itself holds; those of built-in kinds are in code."""
        return []


class CustomKindSchema(KindSchema):
    """The schema of a custom kind in one version."""

    __slots__ = ()

    def unknown_fields(self, obj: Any) -> list[str]:
        """Return ``unknown field "spec.foo"`` for every field that pruning takes away."""
        return structural.unknown_fields(self, obj)

    def type_errors(self, obj: Any) -> list[str]:
        """Return what is wrong with the metadata's types; other types are rules of the schema (``violations``)."""
        meta = obj.get("metadata") if isinstance(obj, Mapping) else None
        field = self.field("metadata")
        assert field is not None
        return decoding.type_errors(field, meta)

    def prune(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object without the fields that its definition does not name, unless it keeps unknown ones."""
        pruned: dict[str, Any] = structural.prune(self, obj)
        return pruned

    def with_defaults(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object with the defaults of its definition."""
        filled: dict[str, Any] = structural.with_defaults(self, obj)
        return filled

    def violations(self, obj: Mapping[str, Any]) -> list[FieldError]:
        """Return every rule of the definition's schema that the object breaks, in the API server's words."""
        return constraints.violations(self, obj)


@functools.cache
def of_kind(api_version: str, kind: str) -> KindSchema | None:
    """Return the schema of a built-in kind (``apps/v1``, ``Deployment``), None if there is no such kind."""
    group, _, version = api_version.rpartition("/")
    name = kinds().get((group, version, kind))
    return KindSchema({"$ref": f"#/components/schemas/{name}"}, definitions()) if name else None


def of_definition(definition: Mapping[str, Any]) -> dict[str, CustomKindSchema]:
    """Return the schemas of a CustomResourceDefinition (as JSON), by version name."""
    spec = definition["spec"]
    made = {}
    for version in spec["versions"]:
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        node = structural.root(schema, preserve_unknown=bool(spec.get("preserveUnknownFields")))
        has_status = "status" in (version.get("subresources") or {})
        made[version["name"]] = CustomKindSchema(node, definitions(), has_status=has_status)
    return made
