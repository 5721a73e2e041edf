# SPDX-License-Identifier: Apache-2.0
"""CustomResourceDefinitions: served at once, with their schemas; their objects end with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.bootstrap import restore
from ringfence.lab.apiserver.printing import custom
from ringfence.lab.apiserver.status import Failure
from ringfence.lab.apiserver.store import Store
from tests.apiserver.writes import Requests, causes

Object = dict[str, Any]

SCHEMA: Object = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1},
                "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
                "replicas": {"type": "integer"},
            },
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}},
    },
}


def version(name: str = "v1", **more: Any) -> Object:
    """Return a version of the widgets' definition."""
    return {"name": name, "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}, **more}


def definition(*versions: Object, **names: Any) -> Object:
    """Return the definition of widgets."""
    return {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], **names},
            "versions": list(versions) or [version(subresources={"status": {}})],
        },
    }


def widget(name: str = "w", **spec: Any) -> Object:
    """Return a widget."""
    return {"metadata": {"name": name}, "spec": {"size": 1, **spec}}


@pytest.fixture
def req(api: Api) -> Requests:
    """Make requests."""
    return Requests(api)


def test_a_definition_is_established_and_served_at_once(req: Requests) -> None:
    """Names are defaulted, accepted and in discovery."""
    made = req.create("customresourcedefinitions", definition())
    conditions = {c["type"]: c["status"] for c in made["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert made["status"]["acceptedNames"]["listKind"] == "WidgetList"
    assert made["status"]["storedVersions"] == ["v1"]
    assert req.resource("widgets").short_names == ("wd",)
    assert req.create("widgets", widget())["apiVersion"] == "example.com/v1"


def test_objects_follow_their_schema(req: Requests) -> None:
    """Defaults are filled in, unknown fields pruned, broken rules told with their field."""
    req.create("customresourcedefinitions", definition())
    made = req.create("widgets", widget(extra=1), validation="Ignore")
    assert made["spec"] == {"size": 1, "color": "red"}
    with pytest.raises(Failure, match='strict decoding error: unknown field "spec.extra"'):
        req.create("widgets", widget("x", extra=1))
    with pytest.raises(Failure) as refused:
        req.create("widgets", {"metadata": {"name": "x"}, "spec": {"size": 0, "color": "green"}})
    assert refused.value.code == 422
    assert refused.value.message.startswith('Widget.example.com "x" is invalid: [')
    assert {field for field, _ in causes(refused.value)} == {"spec.size", "spec.color"}


def test_status_has_its_own_path_if_the_definition_says_so(req: Requests) -> None:
    """With the subresource the main path ignores it; without, it is a field like others."""
    req.create("customresourcedefinitions", definition())
    made = req.create("widgets", {**widget(), "status": {"replicas": 1}})
    assert "status" not in made
    done = req.patch("widgets", "w", {"status": {"replicas": 2}, "spec": {"size": 5}}, sub="status")
    assert (done["status"], done["spec"]["size"], done["metadata"]["generation"]) == ({"replicas": 2}, 1, 1)
    assert req.patch("widgets", "w", {"spec": {"size": 5}})["metadata"]["generation"] == 2


def test_custom_objects_scale_by_the_paths_of_their_definition(req: Requests) -> None:
    """specReplicasPath, statusReplicasPath and labelSelectorPath."""
    paths = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    req.create("customresourcedefinitions", definition(version(subresources={"status": {}, "scale": paths})))
    req.create("widgets", widget(replicas=1))
    req.patch("widgets", "w", {"status": {"replicas": 1, "selector": "a=b"}}, sub="status")
    done = req.patch("widgets", "w", {"spec": {"replicas": 4}}, sub="scale")
    assert (done["spec"], done["status"]) == ({"replicas": 4}, {"replicas": 1, "selector": "a=b"})


def test_each_served_version_shows_the_same_objects(req: Requests) -> None:
    """Written in one, read in another: only the apiVersion differs."""
    old = version("v1beta1", storage=False)
    req.create("customresourcedefinitions", definition(old, version("v1")))
    req.create("widgets", widget(), version="v1beta1")
    stored = req.get("widgets", "w")
    assert stored is not None
    assert stored["apiVersion"] == "example.com/v1"
    shown = req.patch("widgets", "w", {"spec": {"size": 2}}, version="v1beta1")
    assert shown["apiVersion"] == "example.com/v1beta1"
    assert req.get("widgets", "w")["spec"]["size"] == 2  # type: ignore[index]


def test_a_version_that_is_no_longer_served_is_gone(req: Requests) -> None:
    """An update of the definition takes effect at once."""
    made = req.create("customresourcedefinitions", definition(version("v1beta1", storage=False), version("v1")))
    made["spec"]["versions"][0]["served"] = False
    req.update("customresourcedefinitions", made)
    assert req.api.registry.find("example.com", "v1beta1", "widgets") is None
    assert req.api.registry.find("example.com", "v1", "widgets") is not None


def test_deleting_a_definition_deletes_its_objects(req: Requests) -> None:
    """It stays until the last object, held by a finalizer, is gone."""
    req.create("customresourcedefinitions", definition())
    req.create("widgets", widget("a"))
    held = widget("b")
    held["metadata"]["finalizers"] = ["x.io/a"]
    req.create("widgets", held)
    req.delete("customresourcedefinitions", "widgets.example.com")
    assert req.get("widgets", "a") is None
    assert req.get("customresourcedefinitions", "widgets.example.com") is not None
    with pytest.raises(Failure, match="create not allowed while custom resource definition is terminating") as refused:
        req.create("widgets", widget("c"))
    assert refused.value.code == 405
    req.patch("widgets", "b", {"metadata": {"finalizers": None}})
    assert req.get("customresourcedefinitions", "widgets.example.com") is None
    assert req.api.registry.find("example.com", "v1", "widgets") is None


def test_a_definition_without_objects_is_gone_at_once(req: Requests) -> None:
    """And its group with it."""
    req.create("customresourcedefinitions", definition())
    req.delete("customresourcedefinitions", "widgets.example.com")
    assert "example.com" not in req.api.registry.groups()


def test_kinds_that_clash_within_a_group_are_not_served(req: Requests) -> None:
    """NamesAccepted says which name is taken."""
    req.create("customresourcedefinitions", definition())
    other = definition(plural="gadgets", shortNames=[])
    other["metadata"]["name"] = "gadgets.example.com"
    made = req.create("customresourcedefinitions", other)
    accepted = next(c for c in made["status"]["conditions"] if c["type"] == "NamesAccepted")
    assert (accepted["status"], accepted["message"]) == ("False", '"Widget" is already in use')
    assert req.api.registry.find("example.com", "v1", "gadgets") is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"group": "other.com"}, "metadata.name"),
        ({"scope": "Everywhere"}, "spec.scope"),
        ({"versions": []}, "spec.versions"),
        ({"versions": [version(storage=False)]}, "spec.versions"),
        ({"versions": [version(schema=None)]}, "spec.versions[0].schema.openAPIV3Schema"),
        (
            {"versions": [version(schema={"openAPIV3Schema": {"type": "string"}})]},
            "spec.versions[0].schema.openAPIV3Schema.type",
        ),
        (
            {
                "versions": [
                    version(schema={"openAPIV3Schema": {"type": "object", "properties": {"spec": {"items": {}}}}})
                ]
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].type",
        ),
    ],
)
def test_definitions_that_cannot_be_are_refused(req: Requests, change: Object, field: str) -> None:
    """422 with the field that is wrong."""
    body = definition()
    body["spec"].update(change)
    with pytest.raises(Failure) as refused:
        req.create("customresourcedefinitions", body)
    assert refused.value.code == 422
    assert field in {f for f, _ in causes(refused.value)}


def test_kubernetes_own_groups_need_an_approval(req: Requests) -> None:
    """Groups under k8s.io carry the annotation of their review."""
    body = definition()
    body["spec"]["group"] = "policy.networking.k8s.io"
    body["metadata"]["name"] = "widgets.policy.networking.k8s.io"
    with pytest.raises(Failure, match="protected groups must have approval annotation"):
        req.create("customresourcedefinitions", body)
    body["metadata"]["annotations"] = {"api-approved.kubernetes.io": "https://example.com"}
    assert req.create("customresourcedefinitions", body)["status"]["acceptedNames"]["kind"] == "Widget"


def test_scope_and_names_never_change(req: Requests) -> None:
    """They are what stored objects are found by."""
    made = req.create("customresourcedefinitions", definition())
    made["spec"]["scope"] = "Cluster"
    with pytest.raises(Failure, match='spec.scope: Invalid value: "Cluster": field is immutable'):
        req.update("customresourcedefinitions", made)


def test_definitions_are_served_again_after_a_restart(tmp_path: Path) -> None:
    """From the store."""
    store = Store(tmp_path / "x.db")
    first = Requests(Api(store))
    first.create("customresourcedefinitions", definition())
    store.close()
    again = Api(Store(tmp_path / "x.db"))
    restore(again)
    assert again.registry.find("example.com", "v1", "widgets") is not None
    again.store.close()


def test_printer_columns_show_what_their_paths_find(req: Requests) -> None:
    """Dates as ages, lists joined, missing values empty, unreadable paths too."""
    columns: list[Object] = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
        {"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts[*]"},
        {"name": "First", "type": "string", "jsonPath": ".spec.hosts[0]", "priority": 1},
        {"name": "Label", "type": "string", "jsonPath": r".metadata.labels.a\.b"},
        {"name": "Flag", "type": "boolean", "jsonPath": ".spec.flag"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Odd", "type": "string", "jsonPath": "{.spec[0:2]}"},
    ]
    layout = custom.layout(columns)
    now = req.api.clock()
    obj = {
        "metadata": {"name": "w", "labels": {"a.b": "c"}, "creationTimestamp": now.isoformat()},
        "spec": {"size": 3, "hosts": ["x", "y"], "flag": True},
        "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
    }
    assert layout.cells(obj, now) == ["w", 3, "True", "x,y", "x", "c", True, "0s", None]
    assert [c.definition()["priority"] for c in layout.columns] == [0, 0, 0, 0, 1, 0, 0, 0, 0]
