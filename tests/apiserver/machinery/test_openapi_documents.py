# SPDX-License-Identifier: Apache-2.0
"""OpenAPI v3 documents: whole, consistent, and with what kubectl looks for before it uses a feature."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from ringfence.lab.apiserver import openapi
from ringfence.lab.apiserver.resources import BUILT_IN, Resource
from ringfence.lab.apiserver.schema import of_definition

GROUPS = sorted({(r.group, r.version) for r in BUILT_IN})


def served(group: str, version: str) -> list[Resource]:
    """Return the kinds of a group version."""
    return [r for r in BUILT_IN if (r.group, r.version) == (group, version)]


def widgets(**properties: Any) -> Resource:
    """Return a custom kind."""
    root = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    schema = of_definition({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": root}}]}})["v1"]
    resource = Resource(
        group="example.com", version="v1", kind="Widget", plural="widgets", singular="widget", storage="widgets"
    )
    return dataclasses.replace(resource, custom=True, schema=schema)


def references(node: Any) -> set[str]:
    """Return every reference in a document."""
    if isinstance(node, list):
        return set().union(*map(references, node)) if node else set()
    if not isinstance(node, dict):
        return set()
    found = set().union(*map(references, node.values())) if node else set()
    return found | ({node["$ref"]} if isinstance(node.get("$ref"), str) else set())


@pytest.mark.parametrize(("group", "version"), GROUPS)
def test_every_reference_leads_somewhere(group: str, version: str) -> None:
    """A document is complete in itself."""
    document = openapi.document(group, version, served(group, version))
    schemas = document["components"]["schemas"]

    assert {reference.rsplit("/", 1)[-1] for reference in references(document)} <= schemas.keys()
    json.dumps(document)


def test_kubectl_finds_what_it_looks_for() -> None:
    """The query parameters, the kind on each operation, and the patch formats of built-in kinds."""
    document = openapi.document("apps", "v1", served("apps", "v1"))
    item = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    patch = item["patch"]

    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert {"dryRun", "fieldManager", "fieldValidation", "force"} <= {p["name"] for p in patch["parameters"]}
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]
    assert "gracePeriodSeconds" in {p["name"] for p in item["delete"]["parameters"]}
    collection = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]
    assert {"get", "post", "delete"} <= collection.keys()
    assert "labelSelector" in {p["name"] for p in collection["delete"]["parameters"]}
    assert document["paths"]["/apis/apps/v1/deployments"].keys() == {"get", "parameters"}
    assert "put" in document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/status"]


def test_descriptions_and_merge_keys_are_there() -> None:
    """``kubectl explain`` shows the descriptions, and ``kubectl apply`` merges by the keys."""
    schemas = openapi.document("", "v1", served("", "v1"))["components"]["schemas"]
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]

    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert containers["description"].startswith("List of containers belonging to the pod.")


def test_questions_have_no_items() -> None:
    """Reviews are created and answered: there is nothing to get."""
    paths = openapi.document("authorization.k8s.io", "v1", served("authorization.k8s.io", "v1"))["paths"]

    assert all("{name}" not in path for path in paths)


def test_custom_kinds_have_their_own_schemas_and_no_strategic_patch() -> None:
    """A definition's schema is shown under its reversed group, with its kind."""
    document = openapi.document("example.com", "v1", [widgets(size={"type": "integer"})])
    component = document["components"]["schemas"]["com.example.v1.Widget"]

    assert component["properties"]["spec"]["properties"] == {"size": {"type": "integer"}}
    assert component["x-kubernetes-group-version-kind"] == [{"group": "example.com", "kind": "Widget", "version": "v1"}]
    patch = document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]
    bare = dataclasses.replace(widgets(), schema=None)
    assert openapi.document("example.com", "v1", [bare])["components"]["schemas"]["com.example.v1.Widget"] == {
        "type": "object"
    }


def test_the_index_changes_when_a_document_does() -> None:
    """Clients keep documents by their hash: it is stable, and another one for another schema."""
    one, other = widgets(size={"type": "integer"}), widgets(size={"type": "string"})
    index = openapi.index([("", "v1", served("", "v1")), ("example.com", "v1", [one])])

    assert set(index["paths"]) == {"api/v1", "apis/example.com/v1"}
    assert openapi.fingerprint([one]) == openapi.fingerprint([widgets(size={"type": "integer"})])
    assert openapi.fingerprint([one]) != openapi.fingerprint([other])
    assert openapi.fingerprint([dataclasses.replace(one, schema=None)]) != openapi.fingerprint([one])
