# SPDX-License-Identifier: Apache-2.0
"""Who may ask, what paths there are, and how refusals and warnings look on the wire."""

from __future__ import annotations

import json

import pytest

from tests.apiserver.apiservers import RunningServer
from tests.apiserver.writes import pod

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


def test_without_the_token_there_is_nothing_but_health_and_version(server: RunningServer) -> None:
    """401 with a Status; probes and the version need no token."""
    for wrong in ("", "Bearer nonsense", "Basic eDp5", "Bearer"):
        answer = server.get("/api/v1/pods", Authorization=wrong)
        assert (answer.code, answer.json["reason"]) == (401, "Unauthorized")
    for path in ("/healthz", "/livez", "/readyz"):
        assert (server.get(path, Authorization="").code, server.get(path).raw) == (200, b"ok")
    assert server.get("/version", Authorization="").json["gitVersion"].startswith("v1.32.")


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/api/v2", "/api/v1/nothings", "/apis/nothing", "/apis/apps/v7", "/api/v1/namespaces/a/pods/b/nothing",
     "/apis/apps/v1/namespaces/a/deployments/b/c/d", "/openapi/v2", "/openapi/v3/apis/nothing/v1", "/api/v1/pods/a"],
)  # fmt: skip
def test_paths_that_lead_nowhere_are_not_found(server: RunningServer, path: str) -> None:
    """404; clients make the words."""
    assert server.get(path).code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/namespaces/default/pods/a"),
        ("PUT", "/api/v1/namespaces/default/pods"),
        ("DELETE", "/api/v1/namespaces"),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        ("POST", "/api/v1/pods"),
        ("GET", "/api/v1/namespaces/default/pods/a/binding"),
    ],
)
def test_verbs_that_a_resource_does_not_have_are_refused(server: RunningServer, method: str, path: str) -> None:
    """405 MethodNotAllowed."""
    answer = server.request(method, path, {} if method != "GET" else None)
    assert (answer.code, answer.json["reason"]) == (405, "MethodNotAllowed")


def test_discovery_says_the_same_in_both_forms(server: RunningServer) -> None:
    """Aggregated in two requests, or one by one."""
    found = set()
    for root in ("/api", "/apis"):
        answer = server.get(root, Accept=AGGREGATED)
        assert answer.headers["Content-Type"] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        for group in answer.json["items"]:
            for version in group["versions"]:
                for kind in version["resources"]:
                    found.add((group["metadata"].get("name", ""), version["version"], kind["resource"]))
    listed = set()
    groups = [(g["name"], v["version"]) for g in server.get("/apis").json["groups"] for v in g["versions"]]
    assert server.get("/api").json["versions"] == ["v1"]
    for name, version in [("", "v1"), *groups]:
        path = f"/apis/{name}/{version}" if name else "/api/v1"
        for kind in server.get(path).json["resources"]:
            if "/" not in kind["name"]:
                listed.add((name, version, kind["name"]))
    assert found == listed
    assert ("networking.k8s.io", "v1", "networkpolicies") in found
    assert server.get("/apis/apps").json["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}


def test_openapi_tells_of_every_group(server: RunningServer) -> None:
    """The index leads to documents with the parameters that kubectl looks for."""
    index = server.get("/openapi/v3").json["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/networking.k8s.io/v1"} <= set(index)
    document = server.get(index["apis/networking.k8s.io/v1"]["serverRelativeURL"]).json
    patch = document["paths"]["/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{name}"]["patch"]
    assert {"fieldValidation", "fieldManager", "dryRun"} <= {p["name"] for p in patch["parameters"]}


def test_warnings_come_as_headers(server: RunningServer, namespace: str) -> None:
    """One for each unknown or repeated field."""
    raw = b'{"metadata":{"name":"c","name":"c"},"dat":{}}'
    answer = server.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", raw)
    assert answer.code == 201
    assert answer.headers.get_all("Warning") == [
        '299 - "duplicate field \\"metadata.name\\""',
        '299 - "unknown field \\"dat\\""',
    ]


@pytest.mark.parametrize(
    ("media", "body", "code"),
    [
        ("application/json", b"{", 400),
        ("application/json", b"[]", 400),
        ("application/json", b"", 400),
        ("text/plain", b"x", 415),
        ("application/vnd.kubernetes.protobuf", b"nonsense", 415),
        ("application/yaml", b"metadata: {name: from-yaml}", 201),
        ("application/yaml", b"a: [", 400),
    ],
)
def test_bodies_are_read_by_their_type(
    server: RunningServer, namespace: str, media: str, body: bytes, code: int
) -> None:
    """JSON, YAML, protobuf; anything else is 415, nonsense 400."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    assert server.request("POST", path, body, {"Content-Type": media}).code == code


def test_patches_need_a_type_that_patches_have(server: RunningServer, namespace: str) -> None:
    """415 for others; kinds of one's own know no strategic merge."""
    path = f"/api/v1/namespaces/{namespace}/configmaps/c"
    assert server.request("PATCH", path, {}).code == 415
    assert server.patch(path, [{"op": "bad"}], "json-patch+json").code == 404


def test_a_body_may_not_be_too_large(server: RunningServer, namespace: str) -> None:
    """413 beyond three megabytes; two are fine for the request, too much for a ConfigMap."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    assert server.post(path, {"metadata": {"name": "big"}, "data": {"x": "y" * 4_000_000}}).code == 413
    answer = server.post(path, {"metadata": {"name": "big"}, "data": {"x": "y" * 2_000_000}})
    assert answer.code == 422
    assert "Too long: may not be more than 1048576 bytes" in answer.json["message"]


def test_questions_about_oneself_are_answered(server: RunningServer) -> None:
    """May I, who am I."""
    asked = {"spec": {"resourceAttributes": {"verb": "create", "resource": "pods"}}}
    review = server.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", asked)
    assert (review.code, review.json["status"]["allowed"]) == (201, True)
    me = server.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {}).json
    assert "system:masters" in me["status"]["userInfo"]["groups"]


def test_the_manager_is_named_after_the_client_unless_it_says(server: RunningServer, namespace: str) -> None:
    """fieldManager, else what the User-Agent begins with."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    made = server.post(path, {"metadata": {"name": "c"}, "data": {"a": "1"}}).json
    assert [f["manager"] for f in made["metadata"]["managedFields"]] == ["tester"]
    changed = server.patch(f"{path}/c?fieldManager=me", {"data": {"b": "2"}}).json
    assert {f["manager"] for f in changed["metadata"]["managedFields"]} == {"tester", "me"}


@pytest.mark.parametrize("query", ["dryRun=Some", "fieldValidation=Sometimes", "force=true"])
def test_write_options_that_mean_nothing_are_invalid(server: RunningServer, namespace: str, query: str) -> None:
    """422, with the field."""
    answer = server.post(f"/api/v1/namespaces/{namespace}/configmaps?{query}", {"metadata": {"name": "c"}})
    assert (answer.code, answer.json["details"]["causes"][0]["field"]) == (422, query.partition("=")[0])


def test_both_apis_show_the_same_events(server: RunningServer, namespace: str) -> None:
    """Written through one, read through the other, under that one's names."""
    about = {"kind": "Pod", "name": "web", "namespace": namespace}
    server.post(
        f"/api/v1/namespaces/{namespace}/events",
        {"metadata": {"name": "e"}, "involvedObject": about, "message": "hello", "reason": "R", "type": "Normal"},
    )
    path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    event = server.get(f"{path}/e").json
    assert (event["apiVersion"], event["regarding"], event["note"]) == ("events.k8s.io/v1", about, "hello")
    server.patch(f"{path}/e", {"note": "changed"})
    assert server.get(f"/api/v1/namespaces/{namespace}/events/e").json["message"] == "changed"
    query = "fieldSelector=involvedObject.name%3Dweb,reason%3DR"
    assert len(server.get(f"/api/v1/namespaces/{namespace}/events?{query}").json["items"]) == 1
    assert len(server.get(f"{path}?fieldSelector=regarding.name%3Dother").json["items"]) == 0
    elsewhere = {"metadata": {"name": "x"}, "involvedObject": {**about, "namespace": "other"}}
    assert server.post(f"/api/v1/namespaces/{namespace}/events", elsewhere).code == 422


def test_an_invalid_policy_is_refused_in_kubernetes_words(server: RunningServer, namespace: str) -> None:
    """422 Invalid with every complaint as a cause."""
    spec = {"podSelector": {}, "ingress": [{"ports": [{"port": 99999, "protocol": "tcp"}], "from": [{}]}]}
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    answer = server.post(path, {"metadata": {"name": "bad"}, "spec": spec})
    assert answer.code == 422
    status = answer.json
    assert status["details"]["kind"] == "NetworkPolicy"
    assert status["details"]["group"] == "networking.k8s.io"
    assert [c["field"] for c in status["details"]["causes"]] == [
        "spec.ingress[0].ports[0].protocol",
        "spec.ingress[0].ports[0].port",
        "spec.ingress[0].from[0]",
    ]
    assert json.dumps(status["message"]).startswith('"NetworkPolicy.networking.k8s.io \\"bad\\" is invalid: [')


def test_deleting_pods_answers_with_the_pod(server: RunningServer, namespace: str) -> None:
    """Other kinds answer with a Status."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    server.post(path, pod())
    assert server.request("DELETE", f"{path}/web").json["kind"] == "Pod"
