# SPDX-License-Identifier: Apache-2.0
"""Server-side apply: its laws for any pods, and the situations that people meet."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.lab.apiserver.applying import ApplyConflict, ApplyInvalid, apply, only_times_differ, track_update
from ringfence.lab.apiserver.applying.merging import without
from ringfence.lab.apiserver.applying.paths import decode, encode, shown
from ringfence.lab.apiserver.schema import KindSchema, of_definition, of_kind

Object = dict[str, Any]
T0, T1, T2 = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def kind(name: str, api_version: str = "v1") -> KindSchema:
    """Return a built-in kind's schema."""
    schema = of_kind(api_version, name)
    assert schema is not None
    return schema


def config_map(**data: str) -> Object:
    """Return a ConfigMap with this data."""
    made: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d"}}
    return {**made, "data": data} if data else made


def applied(live: Object | None, said: Object, manager: str, *, force: bool = False, now: str = T0) -> Object:
    """Apply an object of a built-in kind."""
    schema = kind(said["kind"], said["apiVersion"])
    return apply(live, said, manager=manager, force=force, schema=schema, now=now)


def updated(live: Object | None, new: Object, manager: str, *, now: str = T0, subresource: str = "") -> Object:
    """Write an object of a built-in kind in another way than by applying."""
    schema = kind(new["kind"], new["apiVersion"])
    return track_update(live, new, manager=manager, now=now, schema=schema, subresource=subresource)


def entries(obj: Object) -> dict[str, Object]:
    """Return the managedFields entries by manager and operation."""
    return {f"{e['manager']} {e['operation']}": e for e in obj["metadata"].get("managedFields", ())}


def fields(obj: Object, who: str) -> Object:
    """Return what a manager owns."""
    owned: Object = entries(obj)[who]["fieldsV1"]
    return owned


def changed(obj: Object, **data: str) -> Object:
    """Return a ConfigMap with more or other data."""
    made = copy.deepcopy(obj)
    made["data"] = {**made.get("data", {}), **data}
    return made


containers: st.SearchStrategy[Object] = st.fixed_dictionaries(
    {"name": st.sampled_from("abc")},
    optional={
        "image": st.sampled_from(["i", "j"]),
        "args": st.lists(st.sampled_from("xy"), max_size=2),
        "ports": st.lists(
            st.fixed_dictionaries({"containerPort": st.integers(80, 82)}, optional={"name": st.sampled_from("gh")}),
            max_size=2,
            unique_by=lambda port: port["containerPort"],
        ),
    },
)
pods = st.builds(
    lambda labels, finalizers, items: {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "d", "labels": labels, "finalizers": finalizers},
        "spec": {"containers": items},
    },
    st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3),
    st.lists(st.sampled_from(["x/a", "x/b"]), max_size=2, unique=True),
    st.lists(containers, min_size=1, max_size=3, unique_by=lambda container: container["name"]),
)


@given(pods)
def test_applying_the_same_twice_changes_nothing(pod: Object) -> None:
    """An apply that changes nothing returns the very object, times included."""
    once = applied(None, pod, "m", now=T0)

    assert applied(once, pod, "m", now=T1) == once


@given(pods, pods)
def test_an_applier_gets_what_it_applied_last(first: Object, second: Object) -> None:
    """With one manager the history does not matter: the second apply leaves what it alone would have made."""
    after = applied(applied(None, first, "m"), second, "m")
    alone = applied(None, second, "m")

    assert after == alone


@settings(max_examples=60)
@given(pods, pods)
def test_force_takes_what_it_states_and_nobody_else_keeps_it(first: Object, second: Object) -> None:
    """After a forced apply, applying again is no conflict, and the other manager's own apply is one iff they differ."""
    mine = applied(applied(None, first, "a"), second, "b", force=True)

    assert applied(mine, second, "b") == mine
    for manager in ("a Apply", "b Apply"):
        if manager in entries(mine):
            decode(fields(mine, manager))


@given(pods, pods)
def test_a_conflict_leaves_no_trace_and_agreement_is_none(first: Object, second: Object) -> None:
    """Two managers that state the same values both own them; where values differ the second is refused."""
    live = applied(None, first, "a")
    before = copy.deepcopy(live)
    try:
        both = applied(live, second, "b")
    except ApplyConflict:
        assert live == before
        return
    again = applied(both, first, "a")  # no conflict, and at most another order of lists
    assert sorted(map(str, again["spec"]["containers"])) == sorted(map(str, both["spec"]["containers"]))


@given(pods)
def test_fields_v1_is_read_as_it_was_written(pod: Object) -> None:
    """What managedFields says is read back to the same set."""
    owned = fields(applied(None, pod, "m"), "m Apply") if entries(applied(None, pod, "m")) else {}

    assert encode(decode(owned)) == owned


def test_a_conflict_names_the_manager_and_the_field_as_kubernetes_does() -> None:
    """One conflict is one line, several are grouped by manager; both can be read by tools."""
    live = updated(None, config_map(a="1", b="2"), "kubectl-client-side-apply")

    with pytest.raises(ApplyConflict) as one:
        applied(live, config_map(a="x"), "kubectl")
    assert str(one.value) == (
        'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using v1: .data.a'
    )
    assert one.value.conflicts == (('"kubectl-client-side-apply" using v1', ".data.a"),)
    with pytest.raises(ApplyConflict) as two:
        applied(live, config_map(a="x", b="y"), "kubectl")
    assert str(two.value) == (
        'Apply failed with 2 conflicts: conflicts with "kubectl-client-side-apply" using v1:\n- .data.a\n- .data.b'
    )


def test_conflicts_with_appliers_and_subresources_say_so() -> None:
    """An applier has no version in messages; a manager of a subresource has its subresource."""
    live = applied(None, config_map(a="1"), "other")
    with pytest.raises(ApplyConflict, match=r'conflict with "other": \.data\.a'):
        applied(live, config_map(a="2"), "me")
    scaled = track_update(None, config_map(a="1"), manager="hpa", now=T0, schema=kind("ConfigMap"), subresource="scale")
    with pytest.raises(ApplyConflict, match='conflict with "hpa" with subresource "scale" using v1'):
        applied(scaled, config_map(a="2"), "me")


def test_what_is_no_longer_applied_goes_unless_another_owns_it() -> None:
    """Fields leave with their last owner."""
    live = applied(None, config_map(a="1", b="2", c="3"), "m")
    live = applied(live, config_map(b="2"), "other")
    live = applied(live, config_map(a="1"), "m")

    assert live["data"] == {"a": "1", "b": "2"}
    assert fields(live, "other Apply") == {"f:data": {"f:b": {}}}


def test_an_emptied_map_goes_too() -> None:
    """With the last of its fields a map goes; nobody asked for an empty one."""
    live = applied(None, config_map(a="1"), "m")

    assert "data" not in applied(live, config_map(), "m")


def test_a_new_owner_of_old_values_is_noted() -> None:
    """Applying what is there already changes no field, but shares their ownership from then on."""
    live = applied(None, config_map(a="1"), "m", now=T0)
    both = applied(live, config_map(a="1"), "n", now=T1)

    assert both["data"] == live["data"]
    assert entries(both)["n Apply"]["time"] == T1
    assert entries(both)["m Apply"]["time"] == T0


def test_updates_take_over_fields_and_leave_the_rest() -> None:
    """Whoever changes a field owns it; who had it no longer does."""
    live = applied(None, config_map(a="1", b="2"), "m", now=T0)
    live = updated(live, changed(live, a="x"), "kubectl-edit", now=T1)

    assert fields(live, "m Apply") == {"f:data": {"f:b": {}}}
    assert fields(live, "kubectl-edit Update") == {"f:data": {"f:a": {}}}
    assert entries(live)["m Apply"]["time"] == T0
    with pytest.raises(ApplyConflict, match='"kubectl-edit" using v1: .data.a'):
        applied(live, config_map(a="1", b="2"), "m")
    forced = applied(live, config_map(a="1", b="2"), "m", force=True)
    assert list(entries(forced)) == ["m Apply"]


def test_an_update_that_changes_nothing_leaves_the_managers_alone() -> None:
    """A no-op changes neither times nor owners."""
    live = updated(None, config_map(a="1"), "m", now=T0)

    assert updated(live, copy.deepcopy(live), "other", now=T1) == live


def test_times_alone_are_no_change() -> None:
    """A write after which only managers' times differ is none; any other difference is one."""
    one = updated(applied(None, config_map(a="1"), "m", now=T0), config_map(a="1", b="2"), "n", now=T1)
    two = updated(applied(None, config_map(a="1"), "m", now=T2), config_map(a="1", b="2"), "n", now=T0)

    assert one != two
    assert only_times_differ(one, two)
    assert not only_times_differ(one, changed(two, a="x"))


def test_removed_fields_belong_to_nobody() -> None:
    """A removal by one manager takes the field from all."""
    live = updated(None, config_map(a="1", b="2"), "m")
    less = config_map(a="1")

    assert fields(updated(live, less, "other"), "m Update") == {"f:data": {".": {}, "f:a": {}}}


def test_status_and_spec_have_managers_of_their_own() -> None:
    """What a path cannot write it cannot own: status on the main path, everything else on ``/status``."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}
    live = updated(None, {**pod, "status": {"phase": "Pending"}}, "kubectl")
    assert "f:status" not in fields(live, "kubectl Update")
    live = updated(live, {**live, "status": {"phase": "Running"}}, "kubelet", subresource="status")

    assert fields(live, "kubelet Update") == {"f:status": {"f:phase": {}}}
    assert entries(live)["kubelet Update"]["subresource"] == "status"
    said = {**pod, "status": {"phase": "Failed"}, "spec": {"containers": []}}
    again = apply(live, said, manager="k", force=True, schema=kind("Pod"), now=T1, subresource="status")
    assert again["status"] == {"phase": "Failed"}
    assert again["spec"] == live["spec"]
    assert "status" not in applied(None, said, "m")


def test_migration_from_client_side_apply_is_no_conflict() -> None:
    """Kubectl may take over what it applied itself, as its annotation tells; what others changed since stays theirs."""
    said = config_map(a="1", b="2")
    text = json.dumps(said)
    live = {**said, "metadata": {**said["metadata"], "annotations": {LAST_APPLIED: text}}}
    live = updated(None, live, "kubectl-client-side-apply")

    moved = applied(live, config_map(a="x", b="2"), "kubectl")
    assert moved["data"]["a"] == "x"
    assert json.loads(moved["metadata"]["annotations"][LAST_APPLIED])["data"] == {"a": "x", "b": "2"}
    edited = updated(live, changed(live, a="hers"), "kubectl-edit")
    with pytest.raises(ApplyConflict, match=r"kubectl-edit.*\.data\.a"):
        applied(edited, config_map(a="x"), "kubectl")
    broken = {**live, "metadata": {**live["metadata"], "annotations": {LAST_APPLIED: "{"}}}
    with pytest.raises(ApplyConflict):
        applied(broken, config_map(a="x"), "kubectl")


def test_managed_fields_can_be_rewritten_and_reset_but_not_applied() -> None:
    """Kubectl's migration patches managedFields; ``[{}]`` forgets all; what cannot be read keeps the old ones."""
    live = updated(None, config_map(a="1"), "m")
    renamed = copy.deepcopy(live)
    renamed["metadata"]["managedFields"][0]["manager"] = "n"
    reset = copy.deepcopy(live)
    reset["metadata"]["managedFields"] = [{}]
    garbled = copy.deepcopy(live)
    garbled["metadata"]["managedFields"] = [{"operation": "Steal", "apiVersion": "v1"}]

    assert list(entries(updated(live, renamed, "x"))) == ["n Update"]
    assert entries(updated(live, reset, "x")) == {}
    assert list(entries(updated(live, garbled, "x"))) == ["m Update"]
    assert list(entries(updated(live, renamed, "x", subresource="status"))) == ["m Update"]
    with pytest.raises(ApplyInvalid, match="metadata.managedFields must be nil") as refused:
        applied(live, live, "x")
    assert refused.value.code == 400


def test_list_items_are_owned_by_their_keys() -> None:
    """Items of keyed lists have owners of their own, keys with defaults included."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80, "targetPort": 8080}]},
    }
    live = applied(None, service, "m")
    key = 'k:{"port":80,"protocol":"TCP"}'

    assert fields(live, "m Apply")["f:spec"]["f:ports"] == {key: {".": {}, "f:port": {}, "f:targetPort": {}}}
    live["spec"]["ports"][0]["protocol"] = "TCP"  # defaulting
    more = {**service, "spec": {"ports": [{"port": 81, "protocol": "TCP"}]}}
    both = applied(live, more, "n")
    assert [port["port"] for port in both["spec"]["ports"]] == [80, 81]
    with pytest.raises(ApplyConflict, match=r'\.spec\.ports\[port=80,protocol="TCP"\]\.targetPort'):
        applied(both, {**service, "spec": {"ports": [{"port": 80, "targetPort": 1}]}}, "n")


def test_order_is_the_appliers_where_lists_share_items() -> None:
    """Applied items are in the applied order; live ones that nobody mentions keep their places."""

    def pod(*names: str) -> Object:
        spec = {"containers": [{"name": name} for name in names]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}

    live = applied(None, pod("a", "b", "c"), "m")
    both = applied(live, pod("c", "x", "a"), "n")
    assert [container["name"] for container in both["spec"]["containers"]] == ["b", "c", "x", "a"]


def test_atomic_values_have_one_owner() -> None:
    """Selectors and plain lists are owned and replaced whole."""
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "n"},
        "spec": {"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"]},
    }
    live = applied(None, policy, "m")

    assert fields(live, "m Apply") == {"f:spec": {"f:podSelector": {}, "f:policyTypes": {}}}


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"foo": 1}, ".spec.foo: field not declared in schema"),
        ({"replicas": "3"}, ".spec.replicas: expected numeric (int or float), got string"),
        ({"replicas": True}, ".spec.replicas: expected numeric (int or float), got bool"),
        ({"replicas": [3]}, ".spec.replicas: expected numeric (int or float), got []interface {}"),
        ({"replicas": {}}, ".spec.replicas: expected numeric (int or float), got map[string]interface {}"),
        ({"paused": "no"}, '.spec.paused: expected boolean, got "no"'),
        ({"selector": []}, ".spec.selector: expected map, got &{[]}"),
        ({"strategy": {"type": 5}}, ".spec.strategy.type: expected string, got 5"),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": []}}},
            ".spec.strategy.rollingUpdate.maxSurge: expected any scalar",
        ),
        ({"template": {"spec": {"containers": {}}}}, ".spec.template.spec.containers: expected list, got &{{}}"),
        (
            {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}},
            '.spec.template.spec.containers: duplicate entries for key [name="a"]',
        ),
        (
            {"template": {"spec": {"containers": [{"image": "a"}]}}},
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field",
        ),
        (
            {"template": {"spec": {"containers": ["a"]}}},
            "element 0: associative list with keys may not have non-map elements",
        ),
        (
            {"template": {"spec": {"tolerations": [{"x": 1}]}}},
            ".spec.template.spec.tolerations[0].x: field not declared",
        ),
        (5, ".spec: expected map, got &{5}"),
    ],
)
def test_misfits_are_told_in_the_words_of_structured_merge_diff(spec: Any, complaint: str) -> None:
    """What does not fit the schema is refused with its path, whatever fieldValidation says."""
    said = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": spec}
    with pytest.raises(ApplyInvalid) as refused:
        applied(None, said, "m")

    assert refused.value.message.startswith("failed to create typed patch object (n/d; apps/v1, Kind=Deployment): ")
    assert complaint in refused.value.message


def test_several_misfits_are_listed() -> None:
    """All complaints come at once; nulls complain of nothing."""
    said = {**config_map(a="1"), "datum": 1, "binaryData": [], "immutable": None}
    with pytest.raises(ApplyInvalid) as refused:
        applied(None, said, "m")

    complaints = "\n  .datum: field not declared in schema\n  .binaryData: expected map, got &{[]}"
    assert refused.value.message.endswith(f"(d/c; /v1, Kind=ConfigMap): errors:{complaints}")


def test_nulls_say_nothing() -> None:
    """Kubectl sends ``creationTimestamp: null``; it neither owns nor clears the field."""
    said = config_map(a="1")
    said["metadata"]["creationTimestamp"] = None
    live = applied(None, config_map(a="1"), "m")
    live["metadata"]["creationTimestamp"] = T0

    assert applied(live, said, "m") == live


def test_custom_resources_are_owned_by_their_schema() -> None:
    """Lists of a definition merge as it says; where it keeps unknown fields, maps are owned by key."""
    definition = {
        "spec": {
            "versions": [
                {
                    "name": "v1",
                    "subresources": {"status": {}},
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "properties": {
                                        "set": {
                                            "type": "array",
                                            "items": {"type": "string"},
                                            "x-kubernetes-list-type": "set",
                                        },
                                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                        "any": {"x-kubernetes-preserve-unknown-fields": True},
                                        "bag": {"type": "array"},
                                    },
                                },
                                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                            },
                        }
                    },
                }
            ]
        }
    }
    schema = of_definition(definition)["v1"]

    def widget(**spec: Any) -> Object:
        return {"apiVersion": "e.x/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}

    said = widget(set=["a"], free={"x": {"y": 1}}, any={"z": [1]}, bag=[1, {}])
    live = apply(None, said, manager="m", force=False, schema=schema, now=T0)
    assert fields(live, "m Apply") == {
        "f:spec": {
            "f:any": {"f:z": {}},
            "f:bag": {},
            "f:free": {"f:x": {".": {}, "f:y": {}}},
            "f:set": {'v:"a"': {}},
        }
    }
    more = apply(live, widget(set=["b"]), manager="n", force=False, schema=schema, now=T0)
    assert more["spec"]["set"] == ["a", "b"]
    less = apply(more, widget(set=["a"]), manager="m", force=False, schema=schema, now=T0)
    assert less["spec"] == {"set": ["a", "b"]}
    gone = apply(less, widget(), manager="m", force=False, schema=schema, now=T0)
    assert gone["spec"] == {"set": ["b"]}


def test_without_a_schema_maps_are_owned_by_key_and_lists_whole() -> None:
    """What no schema names is treated as structured-merge-diff deduces it."""
    said = {"apiVersion": "x/v1", "kind": "Y", "metadata": {"name": "y"}, "spec": {"l": [1], "m": {"k": "v"}}}
    live = apply(None, said, manager="m", force=False, schema=None, now=T0)

    assert fields(live, "m Apply") == {"f:spec": {".": {}, "f:l": {}, "f:m": {".": {}, "f:k": {}}}}
    assert list(entries(track_update(None, said, manager="m", now=T0))) == ["m Update"]
    scaled = track_update(None, said, manager="m", now=T0, subresource="status")
    assert entries(scaled) == {}


def test_a_value_that_changes_its_shape_is_modified() -> None:
    """Without a schema a map may become a plain value; whoever did that owns it, and the parts are nobody's."""
    base = {"apiVersion": "x/v1", "kind": "Y", "metadata": {"name": "y"}}
    live = apply(None, {**base, "a": {"b": 1}}, manager="m", force=False, schema=None, now=T0)
    after = track_update(live, {**live, "a": 5}, manager="n", now=T0)

    assert fields(after, "n Update") == {"f:a": {}}
    assert "m Apply" not in entries(after)
    replaced = apply(live, {**base, "a": 7}, manager="m", force=False, schema=None, now=T0)
    assert replaced["a"] == 7


def test_null_is_a_value_like_any_other() -> None:
    """A map that was null and is filled belongs to whoever filled it."""
    live = {**config_map(), "data": None}

    assert fields(updated(live, config_map(a="1"), "m"), "m Update") == {"f:data": {"f:a": {}, ".": {}}}


def test_taking_away_below_an_atomic_value_takes_nothing() -> None:
    """Paths from a time when the schema was another find nothing in a value that is owned whole."""
    assert without(None, [1, 2], frozenset({("i:0",)})) == [1, 2]


def test_items_without_keys_in_the_live_list_do_no_harm() -> None:
    """A live list may hold what the schema would not let in; it is kept as it is, and compared by place."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"image": "x"}]}}
    said = {**pod, "spec": {"containers": [{"name": "a"}]}}
    live = applied(copy.deepcopy(pod), said, "m")

    assert [c.get("name") for c in live["spec"]["containers"]] == [None, "a"]
    assert "k Update" in entries(updated(pod, live, "k"))


@pytest.mark.parametrize("broken", [{"x:y": {}}, {"f:a": 1}, {"f:a": {"q": {}}}])
def test_fields_v1_that_says_nonsense_is_refused(broken: Object) -> None:
    """Elements are fields, keys, values or indices; anything else is an error, not a field."""
    with pytest.raises(ValueError, match="fieldsV1"):
        decode(broken)


def test_paths_are_shown_as_kubernetes_shows_them() -> None:
    """Fields with dots, keys in brackets, values and places."""
    path = ("f:spec", 'k:{"name":"a","port":80}', "f:tags", 'v:"x"', "i:2")

    assert shown(path) == '.spec[name="a",port=80].tags[="x"][2]'
