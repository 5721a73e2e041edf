# SPDX-License-Identifier: Apache-2.0
"""Object metadata and label selectors, as every kind has them."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.apis.meta import (
    NAME_RULES,
    validate_label_selector,
    validate_object_meta,
    validate_object_meta_update,
)
from ringfence.errors import FieldError


def paths(errors: list[FieldError]) -> list[str]:
    """Return what complaints are about."""
    return [error.path for error in errors]


GOOD: dict[str, Any] = {
    "name": "a.b",
    "namespace": "demo",
    "uid": "1",
    "resourceVersion": "7",
    "generation": 1,
    "creationTimestamp": None,
    "labels": {"example.com/a": "b", "c": ""},
    "annotations": {"Example.com/A": "anything at all\n"},
    "finalizers": ["example.com/a"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1", "controller": True}],
    "managedFields": [{"anything": 1}],
}


def test_good_metadata_gets_no_complaint() -> None:
    """Every field that the API server checks, well-formed."""
    assert validate_object_meta(GOOD, namespaced=True) == []
    assert validate_object_meta({"name": "x", "generateName": "a-"}, namespaced=False) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": ""}, "metadata.name: Required value: name or generateName is required"),
        ({"namespace": ""}, "metadata.namespace: Required value"),
        ({"namespace": "a.b"}, 'metadata.namespace: Invalid value: "a.b": must not contain dots'),
        ({"generation": -1}, "metadata.generation: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"annotations": {"a": "b" * (256 * 1024)}},
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
        (
            {"ownerReferences": [{}]},
            'metadata.ownerReferences.apiVersion: Invalid value: "": version must not be empty',
        ),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "Event", "name": "a", "uid": "1"}]},
            (
                'metadata.ownerReferences: Invalid value: {"apiVersion":"v1","kind":"Event","name":"a","uid":"1"}:'
                " /v1, Kind=Event is disallowed from being an owner"
            ),
        ),
        (
            {"finalizers": ["orphan", "foregroundDeletion"]},
            (
                'metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: finalizer orphan and'
                " foregroundDeletion cannot be both set"
            ),
        ),
        (
            {"labels": {"a": 5}},
            'metadata.labels.a: Invalid value: "integer": metadata.labels.a in body must be of type string: "integer"',
        ),
        (
            {"name": 5},
            'metadata.name: Invalid value: "integer": metadata.name in body must be of type string: "integer"',
        ),
    ],
)
def test_each_field_has_its_complaint(change: dict[str, Any], complaint: str) -> None:
    """In the API server's words."""
    errors = validate_object_meta({**GOOD, **change}, namespaced=True)

    assert str(errors[0]) == complaint


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"generateName": "A"}, "metadata.generateName"),
        ({"labels": {"-": "b"}}, "metadata.labels"),
        ({"labels": {"a": "-"}}, "metadata.labels"),
        ({"annotations": {"-": "b"}}, "metadata.annotations"),
        ({"finalizers": ["-"]}, "metadata.finalizers"),
        ({"finalizers": [5]}, "metadata.finalizers[0]"),
        ({"ownerReferences": [5]}, "metadata.ownerReferences[0]"),
    ],
)
def test_complaints_name_the_field(change: dict[str, Any], path: str) -> None:
    """Maps and lists of names are complained about as a whole, wrong types where they stand."""
    assert set(paths(validate_object_meta({**GOOD, **change}, namespaced=True))) == {path}


def test_two_controllers_are_one_too_many() -> None:
    """An object has at most one managing owner."""
    owner = GOOD["ownerReferences"][0]
    errors = validate_object_meta({**GOOD, "ownerReferences": [owner, owner]}, namespaced=True)

    assert len(errors) == 1
    assert errors[0].message.endswith(
        'Only one reference can have Controller set to true. Found "true" in references for Pod/a and Pod/a'
    )


def test_cluster_wide_kinds_have_no_namespace() -> None:
    """A namespace on a Node is refused."""
    assert [str(e) for e in validate_object_meta({"name": "a", "namespace": "b"}, namespaced=False)] == [
        "metadata.namespace: Forbidden: not allowed on this type"
    ]


@pytest.mark.parametrize(("kind", "bad"), [("Namespace", "a.b"), ("Service", "1a")])
def test_some_kinds_have_rules_of_their_own_for_names(kind: str, bad: str) -> None:
    """Namespaces and Services must be DNS labels."""
    assert validate_object_meta({"name": bad}, namespaced=False) == []
    assert paths(validate_object_meta({"name": bad}, namespaced=False, name_rule=NAME_RULES[kind])) == ["metadata.name"]


@pytest.mark.parametrize("thing", [None, 5, "x", [], {}])
def test_metadata_can_be_anything(thing: object) -> None:
    """Whatever stands in its place is complained about, not tripped over."""
    assert validate_object_meta(thing, namespaced=True) != []


def test_an_update_that_changes_nothing_is_fine() -> None:
    """Labels and annotations may change."""
    assert validate_object_meta_update({**GOOD, "labels": {"x": "y"}}, GOOD) == []


@pytest.mark.parametrize(
    "field", ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
)
def test_an_update_may_not_change_identity(field: str) -> None:
    """What says which object it is, and that it goes, is the server's."""
    value = 5 if field.endswith("Seconds") else "other"
    errors = validate_object_meta_update({**GOOD, field: value}, GOOD)

    assert [str(e).partition(": Invalid value: ")[0] for e in errors] == [f"metadata.{field}"]
    assert errors[0].message.endswith(": field is immutable")


def test_an_update_says_what_it_updates() -> None:
    """Without a resourceVersion, and with new finalizers while the object goes, an update is refused."""
    going = {**GOOD, "deletionTimestamp": "2026-01-01T00:00:00Z"}
    changed = {**going, "resourceVersion": "", "finalizers": ["example.com/a", "example.com/b"]}

    assert [str(e) for e in validate_object_meta_update(changed, going)] == [
        'metadata.resourceVersion: Invalid value: "": must be specified for an update',
        (
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new"
            ' finalizers []string{"example.com/b"}'
        ),
    ]
    assert validate_object_meta_update({**going, "finalizers": []}, going) == []


def test_selectors_are_checked_with_their_types() -> None:
    """A selector of the wrong type is complained about once; a hole in a list hides nothing else."""
    assert validate_label_selector({"matchLabels": {"a": "b"}}, "s") == []
    assert validate_label_selector(None, "s") == []
    assert paths(validate_label_selector(5, "s")) == ["s"]
    assert paths(validate_label_selector({"matchExpressions": [5, {"key": "a", "operator": "?"}]}, "s")) == [
        "s.matchExpressions[0]",
        "s.matchExpressions[1].operator",
    ]
    bad_values = {"matchExpressions": [{"key": "a", "operator": "In", "values": ["-", 5]}]}
    assert paths(validate_label_selector(bad_values, "s")) == [
        "s.matchExpressions[0].values[1]",
        "s.matchExpressions[0].values[0]",
    ]
    assert paths(validate_label_selector(bad_values, "s", allow_invalid_values=True)) == [
        "s.matchExpressions[0].values[1]"
    ]
