# SPDX-License-Identifier: Apache-2.0
"""Lists over HTTP: one revision for all pages, selectors, tables and metadata."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.reading import list_page
from ringfence.lab.apiserver.requests import ListOptions, Target
from ringfence.lab.apiserver.status import Failure
from tests.apiserver.apiservers import RunningServer
from tests.apiserver.writes import Requests, pod

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"


def fill(server: RunningServer, namespace: str, *names: str, **labels: str) -> str:
    """Make config maps; returns the path of their collection."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for name in names:
        assert server.post(path, {"metadata": {"name": name, "labels": labels}}).code == 201
    return path


def names(answer: Any) -> list[str]:
    """Return the names in a list."""
    return [item["metadata"]["name"] for item in answer["items"]]


def test_pages_show_the_state_of_the_first_one(server: RunningServer, namespace: str) -> None:
    """What is written between pages is not in the later ones."""
    path = fill(server, namespace, "a", "b", "c", "d", "e")
    first = server.get(f"{path}?limit=2").json
    assert (names(first), first["metadata"]["remainingItemCount"]) == (["a", "b"], 3)
    server.request("DELETE", f"{path}/c")
    fill(server, namespace, "bb", "z")
    token = first["metadata"]["continue"]
    second = server.get(f"{path}?limit=2&continue={token}").json
    assert names(second) == ["c", "d"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    last = server.get(f"{path}?limit=2&continue={second['metadata']['continue']}").json
    assert names(last) == ["e"]
    assert "continue" not in last["metadata"]


def test_an_expired_token_is_gone_but_offers_another(api: Api) -> None:
    """410 Expired with a token that goes on with the present state, as kube-apiserver does."""
    req = Requests(api)
    for name in ("a", "b", "c"):
        req.create("configmaps", {"metadata": {"name": name}})
    target = Target(req.resource("configmaps"), "default")
    token = list_page(api, target, ListOptions(limit=1)).metadata["continue"]
    req.create("configmaps", {"metadata": {"name": "bb"}})
    api.store.forget(api.store.revision)
    with pytest.raises(Failure) as refused:
        list_page(api, target, ListOptions(limit=1, continuation=token))
    assert (refused.value.code, refused.value.reason) == (410, "Expired")
    fresh = refused.value.status["metadata"]["continue"]
    page = list_page(api, target, ListOptions(continuation=fresh))
    assert [r.key.name for r in page.records] == ["b", "bb", "c"]


def test_a_list_can_be_of_an_exact_revision(server: RunningServer, namespace: str) -> None:
    """resourceVersionMatch=Exact looks back, NotOlderThan does not."""
    path = fill(server, namespace, "a")
    then = server.get(path).json["metadata"]["resourceVersion"]
    fill(server, namespace, "b")
    assert names(server.get(f"{path}?resourceVersion={then}&resourceVersionMatch=Exact").json) == ["a"]
    assert names(server.get(f"{path}?resourceVersion={then}&resourceVersionMatch=NotOlderThan").json) == ["a", "b"]
    assert names(server.get(f"{path}?resourceVersion=0").json) == ["a", "b"]


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("resourceVersion=99999999", 504, "Timeout"),
        ("resourceVersion=abc", 400, "BadRequest"),
        ("continue=nonsense", 400, "BadRequest"),
        ("limit=many", 400, "BadRequest"),
        ("labelSelector=a%3D%3Db%3D", 400, "BadRequest"),
        ("fieldSelector=spec.foo%3Dbar", 400, "BadRequest"),
    ],
)
def test_lists_that_cannot_be_given_are_refused(server: RunningServer, query: str, code: int, reason: str) -> None:
    """Each with the code and reason that clients act on."""
    answer = server.get(f"/api/v1/pods?{query}")
    assert (answer.code, answer.json["reason"]) == (code, reason)


def test_a_forgotten_revision_is_gone(api: Api) -> None:
    """410 Expired for a list of exactly that revision."""
    api.store.forget(api.store.revision)
    target = Target(Requests(api).resource("pods"))
    with pytest.raises(Failure) as refused:
        list_page(api, target, ListOptions(revision="1", revision_match="Exact"))
    assert (refused.value.code, refused.value.reason) == (410, "Expired")


def test_selectors_choose(server: RunningServer, namespace: str) -> None:
    """By labels and by fields, in one namespace or all."""
    path = fill(server, namespace, "a", "b", app="x")
    fill(server, namespace, "c", app="y")
    assert names(server.get(f"{path}?labelSelector={quote('app in (x)')}").json) == ["a", "b"]
    assert names(server.get(f"{path}?fieldSelector=metadata.name%3Db").json) == ["b"]
    everywhere = server.get(f"/api/v1/configmaps?fieldSelector=metadata.namespace%3D{namespace}").json
    assert names(everywhere) == ["a", "b", "c"]
    assert everywhere["kind"] == "ConfigMapList"


def test_tables_have_columns_and_rows(server: RunningServer, namespace: str) -> None:
    """Rows carry the metadata, the object, or nothing along."""
    pods = f"/api/v1/namespaces/{namespace}/pods"
    server.post(pods, pod())
    table = server.get(pods, Accept=TABLE).json
    assert table["kind"] == "Table"
    shown = [(c["name"], c["priority"]) for c in table["columnDefinitions"]]
    assert shown == [
        ("Name", 0), ("Ready", 0), ("Status", 0), ("Restarts", 0), ("Age", 0),
        ("IP", 1), ("Node", 1), ("Nominated Node", 1), ("Readiness Gates", 1),
    ]  # fmt: skip
    row = table["rows"][0]
    assert row["cells"][:4] == ["web", "0/1", "Pending", "0"]
    assert row["object"]["kind"] == "PartialObjectMetadata"
    whole = server.get(f"{pods}?includeObject=Object", Accept=TABLE).json
    assert whole["rows"][0]["object"]["kind"] == "Pod"
    one = server.get(f"{pods}/web?includeObject=None", Accept=TABLE).json
    assert one["rows"][0]["object"] is None
    assert one["metadata"]["resourceVersion"]


def test_metadata_alone_is_a_form_too(server: RunningServer, namespace: str) -> None:
    """What garbage collectors ask for."""
    path = fill(server, namespace, "a")
    answer = server.get(path, Accept=METADATA).json
    assert answer["kind"] == "PartialObjectMetadataList"
    assert answer["items"][0].keys() == {"kind", "apiVersion", "metadata"}


def test_forms_that_the_server_does_not_write_are_not_acceptable(server: RunningServer) -> None:
    """406, unless the client also takes JSON."""
    assert server.get("/api/v1/pods", Accept="application/vnd.kubernetes.protobuf").code == 406
    assert server.get("/api/v1/pods", Accept="application/vnd.kubernetes.protobuf,application/json").code == 200


def test_a_collection_is_deleted_by_selector(server: RunningServer, namespace: str) -> None:
    """The answer lists what was there."""
    path = fill(server, namespace, "a", "b", app="x")
    fill(server, namespace, "c")
    assert names(server.request("DELETE", f"{path}?labelSelector=app%3Dx").json) == ["a", "b"]
    assert names(server.get(path).json) == ["c"]
