# SPDX-License-Identifier: Apache-2.0
"""Custom resources: their definition's schema prunes, fills in, and judges in the API server's words."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.lab.apiserver.schema import CustomKindSchema, of_definition

Object = dict[str, Any]


def schema(properties: Object | None, **more: Any) -> CustomKindSchema:
    """Return the schema of a kind whose spec has these properties."""
    root = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties or {}, **more}}}
    return of_definition({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": root}}]}})["v1"]


def widget(**spec: Any) -> Object:
    """Return an object."""
    return {"apiVersion": "e.x/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}


def complaints(properties: Object, spec: Object, **more: Any) -> list[str]:
    """Return what is wrong with a spec."""
    return [str(error) for error in schema(properties, **more).violations(widget(**spec))]


def test_what_the_schema_does_not_name_is_pruned_and_told() -> None:
    """Unknown fields go, in lists and maps too; apiVersion, kind and metadata belong to every object."""
    properties = {
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "closed": {"type": "object"},
        "bag": {"type": "array"},
    }
    kind = schema(properties)
    said = widget(list=[{"a": "1", "b": "2"}], map={"k": {"a": "1", "c": 3}}, closed={"d": 1}, e=5, bag=[{"f": 1}])
    said["metadata"]["labels"] = {"x": "y"}

    assert kind.unknown_fields(said) == [
        'unknown field "spec.list[0].b"',
        'unknown field "spec.map.k.c"',
        'unknown field "spec.closed.d"',
        'unknown field "spec.e"',
    ]
    pruned = kind.prune(said)
    assert pruned == {
        **said,
        "spec": {"list": [{"a": "1"}], "map": {"k": {"a": "1"}}, "closed": {}, "bag": [{"f": 1}]},
    }
    assert kind.unknown_fields(pruned) == []


def test_unknown_fields_are_kept_where_the_schema_says_so() -> None:
    """Free objects keep everything, yet what they do name is still pruned; embedded resources have metadata."""
    properties = {
        "free": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}},
        },
        "open": {"type": "object", "additionalProperties": True},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {"type": "object"}}},
    }
    said = widget(
        free={"x": {"y": 1}, "known": {"a": "1", "b": 2}},
        open={"z": 1},
        pod={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "other": 1},
    )

    assert schema(properties).prune(said)["spec"] == {
        "free": {"x": {"y": 1}, "known": {"a": "1"}},
        "open": {"z": 1},
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
    }


def test_a_version_without_a_schema_keeps_everything() -> None:
    """So does a definition that preserves unknown fields as a whole."""
    bare = of_definition({"spec": {"versions": [{"name": "v1"}]}})["v1"]
    old = of_definition({"spec": {"preserveUnknownFields": True, "versions": [{"name": "v1", "schema": {}}]}})["v1"]

    for kind in (bare, old):
        assert kind.prune(widget(a={"b": 1})) == widget(a={"b": 1})
        assert kind.unknown_fields(widget(a=1)) == []
        assert kind.violations(widget(a=1)) == []
    assert not bare.has_status


def test_defaults_fill_what_is_missing() -> None:
    """Defaults nest, reach into lists, and replace nulls that may not be."""
    properties = {
        "size": {"type": "integer", "default": 3},
        "deep": {"type": "object", "default": {}, "properties": {"x": {"type": "string", "default": "y"}}},
        "items": {
            "type": "array",
            "items": {"type": "object", "properties": {"port": {"type": "integer", "default": 80}}},
        },
        "nothing": {"type": "string", "nullable": True, "default": "z"},
        "plain": {"type": "string"},
    }
    filled = schema(properties).with_defaults(widget(size=None, items=[{}, {"port": 1}], nothing=None, extra=1))

    assert filled["spec"] == {
        "size": 3,
        "deep": {"x": "y"},
        "items": [{"port": 80}, {"port": 1}],
        "nothing": None,
        "extra": 1,
    }


@pytest.mark.parametrize(
    ("rule", "value", "complaint"),
    [
        ({"type": "integer"}, "x", 'spec.f: Invalid value: "string": spec.f in body must be of type integer: "string"'),
        ({"type": "integer"}, 1.5, 'Invalid value: "number": spec.f in body must be of type integer: "number"'),
        ({"type": "integer"}, True, 'must be of type integer: "boolean"'),
        ({"type": "number"}, [], 'must be of type number: "array"'),
        ({"type": "string"}, {}, 'must be of type string: "object"'),
        ({"type": "string"}, 5, 'must be of type string: "integer"'),
        ({"type": "boolean"}, "x", 'must be of type boolean: "string"'),
        ({"type": "string"}, None, 'spec.f: Invalid value: "null": spec.f in body must be of type string: "null"'),
        ({"x-kubernetes-int-or-string": True}, 1.5, 'must be of type integer,string: "number"'),
        ({"type": "string", "enum": ["a", "b"]}, "c", 'spec.f: Unsupported value: "c": supported values: "a", "b"'),
        ({"type": "string", "maxLength": 2}, "abc", "spec.f: Too long: may not be more than 2 bytes"),
        ({"type": "string", "minLength": 2}, "a", "spec.f in body should be at least 2 chars long"),
        ({"type": "string", "pattern": "^a$"}, "b", "spec.f: Invalid value: \"b\": spec.f in body should match '^a$'"),
        ({"type": "string", "pattern": "^a$"}, "a\n", "should match"),
        ({"type": "string", "format": "ipv4"}, "x", 'spec.f in body must be of type ipv4: "x"'),
        ({"type": "string", "format": "cidr"}, "10.0.0.0", "must be of type cidr"),
        ({"type": "string", "format": "cidr"}, "x/y", "must be of type cidr"),
        ({"type": "string", "format": "uuid"}, "x", "must be of type uuid"),
        (
            {"type": "integer", "maximum": 5},
            6,
            "spec.f: Invalid value: 6: spec.f in body should be less than or equal to 5",
        ),
        ({"type": "integer", "maximum": 5, "exclusiveMaximum": True}, 5, "should be less than 5"),
        ({"type": "integer", "minimum": 5}, 4, "should be greater than or equal to 5"),
        ({"type": "integer", "minimum": 5, "exclusiveMinimum": True}, 5, "should be greater than 5"),
        ({"type": "integer", "multipleOf": 5}, 6, "should be a multiple of 5"),
        ({"type": "array", "maxItems": 1}, [1, 2], "spec.f: Too many: 2: must have at most 1 items"),
        ({"type": "array", "minItems": 1}, [], "spec.f in body should have at least 1 items"),
        ({"type": "array", "items": {"type": "string"}}, ["a", 1], "spec.f[1] in body must be of type string"),
        ({"type": "array", "uniqueItems": True}, [1, 1], "spec.f[1]: Duplicate value: 1"),
        ({"type": "array", "x-kubernetes-list-type": "set"}, ["a", "a"], 'spec.f[1]: Duplicate value: "a"'),
        (
            {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]},
            [{"n": 1}, {"n": 1, "v": 2}],
            'spec.f[1]: Duplicate value: {"n":1}',
        ),
        ({"type": "object", "required": ["a"]}, {}, "spec.f.a: Required value"),
        ({"type": "object", "maxProperties": 0}, {"a": 1}, "spec.f: Too many: 1: must have at most 0 items"),
        ({"type": "object", "minProperties": 1}, {}, "spec.f in body should have at least 1 properties"),
        (
            {"type": "object", "additionalProperties": {"type": "string"}},
            {"a": 1},
            "spec.f.a in body must be of type string",
        ),
        ({"type": "integer", "allOf": [{"maximum": 5}]}, 6, "should be less than or equal to 5"),
        (
            {"type": "integer", "anyOf": [{"maximum": 1}, {"minimum": 5}]},
            3,
            '"spec.f" must validate at least one schema (anyOf)',
        ),
        ({"type": "integer", "oneOf": [{"maximum": 1}, {"minimum": 5}]}, 3, "(oneOf). Found none valid"),
        ({"type": "integer", "oneOf": [{"maximum": 5}, {"minimum": 1}]}, 3, "(oneOf). Found 2 valid alternatives"),
        ({"type": "integer", "not": {"enum": [3]}}, 3, '"spec.f" must not validate the schema (not)'),
    ],
)
def test_broken_rules_are_told_in_kubernetes_words(rule: Object, value: Any, complaint: str) -> None:
    """Every kind of rule that a structural schema can hold."""
    found = complaints({"f": rule}, {"f": value})

    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ({"type": "integer"}, 5.0),
        ({"type": "number"}, 5),
        ({"type": "string", "nullable": True}, None),
        ({"x-kubernetes-preserve-unknown-fields": True}, None),
        ({"x-kubernetes-int-or-string": True}, "5%"),
        ({"x-kubernetes-int-or-string": True}, 5),
        ({"type": "boolean"}, False),
        ({"type": "string", "pattern": r"^\p{Greek}$"}, "x"),  # RE2's, not Python's: cannot be judged
        ({"type": "string", "pattern": r"^a\z"}, "a"),
        ({"type": "string", "format": "cidr"}, "fd00::/64"),
        ({"type": "string", "format": "date-time"}, "2026-01-01T00:00:00Z"),
        ({"type": "string", "format": "password"}, "x"),
        ({"type": "integer", "maximum": 5, "minimum": 5}, 5),
        ({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]}, [{"n": 1}, {"n": 2}]),
        ({"type": "integer", "oneOf": [{"maximum": 1}, {"minimum": 5}], "not": {"enum": [6]}}, 5),
        ({"type": "integer", "anyOf": [{"maximum": 1}, {"minimum": 5}]}, 5),
    ],
)
def test_good_values_pass(rule: Object, value: Any) -> None:
    """What keeps the rules is no complaint; what cannot be judged is not refused."""
    assert complaints({"f": rule}, {"f": value}) == []


def test_metadata_is_typed_and_the_rest_is_for_the_rules() -> None:
    """Metadata decodes as everywhere; wrong types below it are the schema's to tell."""
    kind = schema({"f": {"type": "integer"}})
    bad = {**widget(f="x"), "metadata": {"labels": {"a": 5}}}

    assert len(kind.type_errors(bad)) == 1
    assert kind.type_errors("x") == []
    assert [error.path for error in kind.violations(bad)] == ["spec.f"]
    assert [str(error) for error in kind.violations({"spec": 5})] == [
        'spec: Invalid value: "integer": spec in body must be of type object: "integer"'
    ]
    assert repr(kind) == "Schema(struct)"
