# SPDX-License-Identifier: Apache-2.0
"""The three patch formats: what they change, what they refuse, and laws that hold for any object."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.lab.apiserver.patches import PatchError, json_patch, merge_patch, strategic_merge
from ringfence.lab.apiserver.schema import KindSchema, of_kind

Object = dict[str, Any]

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


def kind(name: str, api_version: str = "v1") -> KindSchema:
    """Return a built-in kind's schema."""
    schema = of_kind(api_version, name)
    assert schema is not None
    return schema


def pod(*names: str, **spec: Any) -> Object:
    """Return a pod with containers of these names."""
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": name, "image": "i"} for name in names], **spec}}


def names(obj: Object) -> list[str]:
    """Return the names of a pod's containers, in order."""
    return [container["name"] for container in obj["spec"]["containers"]]


def without_nulls(value: Any) -> Any:
    """Return JSON without null fields."""
    if isinstance(value, dict):
        return {key: without_nulls(below) for key, below in value.items() if below is not None}
    return value


# RFC 7386, appendix A
RFC_7386 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7386)
def test_merge_patches_do_as_the_rfc_says(target: Object, patch: Object, result: Object) -> None:
    """The examples of RFC 7386 hold."""
    assert merge_patch(target, patch) == result


@given(objects, objects)
def test_a_merge_patch_applied_twice_changes_nothing_more(target: Object, patch: Object) -> None:
    """Merging is idempotent, and leaves its arguments alone."""
    before = copy.deepcopy((target, patch))
    once = merge_patch(target, patch)

    assert merge_patch(once, patch) == once
    assert (target, patch) == before


@given(objects, objects)
def test_strategic_merge_without_a_schema_is_a_merge_patch(target: Object, patch: Object) -> None:
    """Where no schema names a merge key, lists replace, as in a merge patch. (Nulls inside new lists are dropped.)"""
    assert without_nulls(strategic_merge(target, {}, None)) == without_nulls(target)
    assert strategic_merge(target, patch, None).keys() == merge_patch(target, patch).keys()


@pytest.mark.parametrize("patch", [[], "x", None])
def test_a_patch_of_the_wrong_shape_is_refused(patch: Any) -> None:
    """Merge patches are objects, JSON patches lists of operations."""
    with pytest.raises(PatchError):
        merge_patch({}, patch)
    with pytest.raises(PatchError):
        strategic_merge({}, patch, None)
    with pytest.raises(PatchError):
        json_patch({}, {"op": "add"})


def test_json_patch_does_all_or_nothing() -> None:
    """Operations apply in order; a failing one, or a failing test, refuses the whole patch with 422."""
    obj = {"metadata": {"labels": {"a": "b"}}, "list": [1]}
    good = [
        {"op": "test", "path": "/metadata/labels/a", "value": "b"},
        {"op": "replace", "path": "/metadata/labels/a", "value": "c"},
        {"op": "add", "path": "/list/-", "value": 2},
        {"op": "remove", "path": "/list/0"},
    ]

    assert json_patch(obj, good) == {"metadata": {"labels": {"a": "c"}}, "list": [2]}
    assert obj["list"] == [1]
    for bad in (
        [{"op": "test", "path": "/metadata/labels/a", "value": "x"}],
        [{"op": "remove", "path": "/nothing"}],
        [{"op": "replace", "path": "", "value": []}],
    ):
        with pytest.raises(PatchError) as refused:
            json_patch(obj, bad)
        assert refused.value.code == 422
    for malformed in ([{"op": "jump", "path": "/a"}], [{"path": "/a"}], ["add"]):
        with pytest.raises(PatchError) as refused:
            json_patch(obj, malformed)
        assert refused.value.code == 400


def test_items_are_found_by_their_merge_key() -> None:
    """An item of the same key is merged in its place; what the patch does not name stays."""
    patched = strategic_merge(pod("a", "b"), {"spec": {"containers": [{"name": "b", "image": "new"}]}}, kind("Pod"))

    assert patched["spec"]["containers"] == [{"name": "a", "image": "i"}, {"name": "b", "image": "new"}]


def test_items_can_be_deleted_and_lists_replaced() -> None:
    """``$patch: delete`` takes an item away, ``$patch: replace`` anywhere in the list replaces all of it."""
    delete = {"spec": {"containers": [{"name": "a", "$patch": "delete"}, {"name": "c"}]}}
    replace = {"spec": {"containers": [{"name": "z"}, {"$patch": "replace"}]}}

    assert sorted(names(strategic_merge(pod("a", "b"), delete, kind("Pod")))) == ["b", "c"]
    assert names(strategic_merge(pod("a", "b"), replace, kind("Pod"))) == ["z"]


def test_objects_can_be_replaced_and_emptied() -> None:
    """``$patch`` in an object speaks of the object that is there; of none, it says nothing."""
    live = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    replace = {"metadata": {"labels": {"$patch": "replace", "c": "3"}}}

    assert strategic_merge(live, replace, kind("Pod"))["metadata"]["labels"] == {"c": "3"}
    assert strategic_merge(live, {"metadata": {"labels": {"$patch": "delete"}}}, kind("Pod"))["metadata"] == {
        "labels": {}
    }
    assert strategic_merge({"metadata": {}}, replace, kind("Pod")) == {"metadata": {}}
    with pytest.raises(PatchError, match="unknown patch type: burn"):
        strategic_merge(live, {"metadata": {"labels": {"$patch": "burn"}}}, kind("Pod"))
    with pytest.raises(PatchError, match="unknown patch type: burn"):
        strategic_merge(pod("a"), {"spec": {"containers": [{"name": "a", "$patch": "burn"}]}}, kind("Pod"))


def test_the_order_of_a_list_can_be_set() -> None:
    """``$setElementOrder`` orders what it names, whether or not the patch changes it; the rest keeps its place."""
    order = {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}

    assert names(strategic_merge(pod("a", "b", "c"), {"spec": order}, kind("Pod"))) == ["b", "c", "a"]
    changed = {"spec": {**order, "containers": [{"name": "c", "image": "x"}]}}
    assert names(strategic_merge(pod("a", "b", "c"), changed, kind("Pod"))) == ["b", "c", "a"]
    # a list that does not merge has no order to set
    tolerations = {"spec": {"$setElementOrder/tolerations": [{"key": "b"}, {"key": "a"}]}}
    live = pod("a", tolerations=[{"key": "a"}, {"key": "b"}])
    assert strategic_merge(live, tolerations, kind("Pod")) == live


def test_a_list_out_of_its_own_order_is_refused() -> None:
    """A patch that lists items in another order than it asks for contradicts itself."""
    order = {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}
    with pytest.raises(PatchError, match="doesn't match"):
        strategic_merge(pod("a"), {"spec": {**order, "containers": [{"name": "b"}, {"name": "a"}]}}, kind("Pod"))


def test_primitive_lists_merge_as_sets() -> None:
    """Lists of plain values with the merge strategy gain what is new and lose what is named for deletion."""
    live = {"metadata": {"finalizers": ["a", "b"]}}
    gain = {"metadata": {"finalizers": ["c", "a", "c"]}}
    lose = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "x"]}}
    order = {"metadata": {"$setElementOrder/finalizers": ["b", "a"]}}

    assert sorted(strategic_merge(live, gain, kind("Pod"))["metadata"]["finalizers"]) == ["a", "b", "c"]
    assert strategic_merge(live, lose, kind("Pod"))["metadata"]["finalizers"] == ["b"]
    assert strategic_merge({"metadata": {}}, lose, kind("Pod")) == {"metadata": {}}
    assert strategic_merge(live, order, kind("Pod"))["metadata"]["finalizers"] == ["b", "a"]


def test_only_the_retained_keys_of_a_union_stay() -> None:
    """``$retainKeys`` drops the members of a union that the patch does not name, such as a former strategy's."""
    live = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    deployment = kind("Deployment", "apps/v1")

    assert strategic_merge(live, patch, deployment)["spec"]["strategy"] == {"type": "Recreate"}
    with pytest.raises(PatchError, match="retainKeys"):
        strategic_merge(live, {"spec": {"strategy": {"$retainKeys": ["x"], "type": "Recreate"}}}, deployment)


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"containers": [{"image": "x"}]}},
        {"spec": {"containers": ["x"]}},
        {"spec": {"$setElementOrder/containers": "x", "containers": []}},
        {"spec": {"$retainKeys": "x"}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}},
    ],
)
def test_directives_and_items_of_the_wrong_shape_are_refused(patch: Object) -> None:
    """An item without its merge key, or a directive that is no list, is the patch's fault: 400."""
    with pytest.raises(PatchError) as refused:
        strategic_merge(pod("a"), patch, kind("Pod"))

    assert refused.value.code == 400


def test_what_a_patch_adds_has_no_directives_left_in_it() -> None:
    """A new value is kept without the directives and nulls that its author put into it."""
    volume = {"name": "v", "$retainKeys": ["name", "hostPath"], "emptyDir": None, "hostPath": {"path": "/x"}}
    patched = strategic_merge(pod("a"), {"spec": {"volumes": [volume], "nodeSelector": {"k": None}}}, kind("Pod"))

    assert patched["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/x"}}]
    assert patched["spec"]["nodeSelector"] == {}


names_of_containers = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)


@given(names_of_containers, names_of_containers)
def test_a_merged_list_has_everything_once(live: list[str], patch: list[str]) -> None:
    """Merging lists neither loses nor doubles an item, and keeps the patch's order among the patch's items."""
    changed = strategic_merge(pod(*live), {"spec": {"containers": [{"name": name} for name in patch]}}, kind("Pod"))

    assert sorted(names(changed)) == sorted({*live, *patch})
    assert [name for name in names(changed) if name in patch] == patch
    assert [name for name in names(changed) if name not in patch] == [name for name in live if name not in patch]
