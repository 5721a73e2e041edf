# SPDX-License-Identifier: Apache-2.0
"""JSON types of objects, and how values are printed in complaints."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.apis import fields, shapes
from ringfence.apis.shapes import ListOf, MapOf, Record, Scalar, conform, unknown_fields

SHAPE = Record(
    {
        "text": Scalar.STRING,
        "count": Scalar.INTEGER,
        "flag": Scalar.BOOLEAN,
        "port": Scalar.INTEGER_OR_STRING,
        "any": Scalar.ANYTHING,
        "list": ListOf(Record({"text": Scalar.STRING})),
        "map": MapOf(Scalar.STRING),
    }
)


def test_a_well_typed_object_is_left_as_it_is() -> None:
    """Nothing is lost, nothing complained about."""
    value = {"text": "a", "count": 1, "flag": True, "port": "x", "any": [1], "list": [{"text": "a"}], "map": {"a": "b"}}

    assert conform(value, SHAPE, "") == (value, [])


@pytest.mark.parametrize(
    ("field", "value", "expected", "actual"),
    [
        ("text", 1, "string", "integer"),
        ("count", True, "integer", "boolean"),
        ("count", "1", "integer", "string"),
        ("count", 1.5, "integer", "number"),
        ("flag", 1, "boolean", "integer"),
        ("port", False, "integer or string", "boolean"),
        ("list", {}, "array", "object"),
        ("map", [], "object", "array"),
    ],
)
def test_an_ill_typed_field_is_left_out_and_complained_about(
    field: str, value: Any, expected: str, actual: str
) -> None:
    """The API server's wording for objects with a schema."""
    left, errors = conform({field: value}, SHAPE, "")

    assert left == {}
    assert [str(e) for e in errors] == [
        f'{field}: Invalid value: "{actual}": {field} in body must be of type {expected}: "{actual}"'
    ]
    assert errors[0].reason == fields.TYPE_INVALID


def test_items_of_lists_keep_their_index() -> None:
    """An ill-typed item is a hole, a null one the zero value that Go would decode."""
    left, errors = conform({"list": [5, None, {"text": "a"}], "map": {"a": None, "b": 5}}, SHAPE, "top")

    assert left == {"list": [None, {}, {"text": "a"}], "map": {"a": ""}}
    assert [e.path for e in errors] == ["top.list[0]", "top.map.b"]


@pytest.mark.parametrize(
    ("shape", "zero"),
    [
        (Scalar.STRING, ""),
        (Scalar.INTEGER, 0),
        (Scalar.INTEGER_OR_STRING, 0),
        (Scalar.BOOLEAN, False),
        (Scalar.ANYTHING, None),
        (ListOf(Scalar.STRING), []),
        (MapOf(Scalar.STRING), {}),
        (SHAPE, {}),
    ],
)
def test_null_is_the_zero_value(shape: Any, zero: Any) -> None:
    """As in Go; and so is what is left of an ill-typed whole."""
    assert conform(None, shape, "x") == (zero, [])
    if shape is not Scalar.ANYTHING:
        assert conform(object(), shape, "x")[0] == zero


def test_unknown_fields_are_found_at_every_depth() -> None:
    """Not in maps, whose keys are the user's."""
    value = {"textt": 1, "list": [{"text": "a"}, {"txt": 1}, 5], "map": {"whatever": "x"}, "any": {"x": 1}}

    assert [e.path for e in unknown_fields(value, SHAPE, "")] == ["list[1].txt", "textt"]


@pytest.mark.parametrize(
    ("path", "ancestor", "within"),
    [
        ("a.b", "a.b", True),
        ("a.b.c", "a.b", True),
        ("a.b[0]", "a.b", True),
        ("a.bc", "a.b", False),
        ("a", "a.b", False),
        ("a", "", True),
    ],
)
def test_a_path_is_within_itself_and_its_ancestors(path: str, ancestor: str, within: bool) -> None:  # noqa: FBT001
    """Names are compared whole."""
    assert fields.within(path, ancestor) is within


def test_values_are_printed_as_the_api_server_prints_them() -> None:
    """Strings quoted, the rest as compact JSON; half a surrogate pair must not break printing."""
    assert fields.printed('a"b\n') == '"a\\"b\\n"'
    assert fields.printed(["a", 1, None, {"b": True}]) == '["a",1,null,{"b":true}]'
    assert fields.printed("é\ud800") == '"é?"'


def test_the_remaining_complaints_have_their_words() -> None:
    """Duplicates are not used here yet; the lab's API server says them."""
    assert str(fields.duplicate("a", "b")) == 'a: Duplicate value: "b"'
    values: tuple[object, ...] = (None, True, 1, 1.5, "", [], {})
    types = ["null", "boolean", "integer", "number", "string", "array", "object"]
    assert [fields.json_type(value) for value in values] == types


_PEER = Record({"block": Record({"cidr": Scalar.STRING, "port": Scalar.INTEGER_OR_STRING}), "any": Scalar.ANYTHING})
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.floats(0, 1) | st.sampled_from(("a", "b")),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(
            st.sampled_from(("cidr", "port", "block", "any", "more", "labels", "peers")), parts, max_size=3
        )
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "peers": st.lists(st.fixed_dictionaries({}, optional={"block": _VALUES, "any": _VALUES}) | _VALUES),
            "labels": st.lists(st.dictionaries(st.sampled_from(("a", "b")), _VALUES)) | _VALUES,
        },
    )
)
def test_items_that_fit_are_taken_as_they_are_and_nothing_else_is(value: Any) -> None:
    """The short way to well-formed items of lists leads where the long one does."""
    shape = Record({"peers": ListOf(_PEER), "labels": ListOf(MapOf(Scalar.STRING))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "_fits", lambda _value, _shape: False)
        wanted = conform(value, shape, "")

    assert conform(value, shape, "") == wanted
