# SPDX-License-Identifier: Apache-2.0
"""Real kubectls, in the ordinary way: every command that people type, with the words that they know."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.apiserver.apiservers import Ran, RunningServer

Kubectl = Callable[..., Ran]

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "example.com/agnhost:2.33", ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80, protocol: TCP}]}]
"""


class Session:
    """A kubectl that works in one namespace."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl = kubectl
        self.namespace = namespace

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that succeeds; returns what it printed."""
        ran = self._kubectl("-n", self.namespace, *arguments, stdin=stdin)
        assert ran.code == 0, (arguments, ran)
        return ran.out

    def fails(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that fails; returns what it complained."""
        ran = self._kubectl("-n", self.namespace, *arguments, stdin=stdin)
        assert ran.code != 0, (arguments, ran)
        return ran.err

    def json(self, *arguments: str) -> Any:
        """Return what ``get -o json`` shows."""
        return json.loads(self("get", *arguments, "-o", "json"))


@pytest.fixture
def k(kubectl: Kubectl, namespace: str) -> Session:
    """Run kubectl in the test's namespace."""
    return Session(kubectl, namespace)


def test_namespaces_are_created_labelled_and_deleted(kubectl: Kubectl) -> None:
    """Created as protobuf; a deletion without a namespace controller stays at Terminating."""
    assert kubectl("create", "namespace", "kn").out == "namespace/kn created\n"
    assert kubectl("label", "namespace", "kn", "team=a").out == "namespace/kn labeled\n"
    assert kubectl("create", "namespace", "kn").err.startswith(
        'Error from server (AlreadyExists): namespaces "kn" already'
    )
    assert kubectl("get", "ns", "-l", "team=a", "-o", "name").out == "namespace/kn\n"
    assert 'namespace "kn" deleted' in kubectl("delete", "namespace", "kn", "--wait=false").out
    assert kubectl("get", "ns", "kn", "--no-headers").out.split()[1] == "Terminating"
    refused = kubectl("run", "x", "-n", "kn", "--image=i").err
    assert "unable to create new content in namespace kn because it is being terminated" in refused
    raw = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kn"}, "spec": {}})
    kubectl("replace", "--raw", "/api/v1/namespaces/kn/finalize", "-f", "-", stdin=raw)
    assert 'namespaces "kn" not found' in kubectl("get", "ns", "kn").err


def test_run_makes_a_pod_that_get_shows(k: Session) -> None:
    """With labels, a port, a command; the columns of -o wide as people know them."""
    k("run", "server", "--image=x/agnhost:2.33", "--labels=app=server", "--port=80", "--command", "--", "/agnhost", "x")
    header, row = k("get", "pod", "--output=wide").splitlines()
    assert header.split("  ")[0] == "NAME"
    assert header.split() == [
        "NAME",
        "READY",
        "STATUS",
        "RESTARTS",
        "AGE",
        "IP",
        "NODE",
        "NOMINATED",
        "NODE",
        "READINESS",
        "GATES",
    ]
    assert row.split()[:4] == ["server", "0/1", "Pending", "0"]
    spec = k.json("pod", "server")["spec"]
    assert spec["containers"][0]["command"] == ["/agnhost", "x"]
    assert spec["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert spec["restartPolicy"] == "Always"


def test_apply_creates_leaves_and_configures(k: Session) -> None:
    """A manifest that mixes kinds; applied twice it is unchanged."""
    created = k("apply", "-f", "-", stdin=MANIFEST).splitlines()
    assert created == [
        "deployment.apps/web created", "service/web created", "networkpolicy.networking.k8s.io/web created",
    ]  # fmt: skip
    again = k("apply", "-f", "-", stdin=MANIFEST).splitlines()
    assert all(line.endswith(" unchanged") for line in again)
    changed = k("apply", "-f", "-", stdin=MANIFEST.replace("replicas: 2", "replicas: 3")).splitlines()
    assert changed[0] == "deployment.apps/web configured"
    dry = k("apply", "--dry-run=server", "-f", "-", stdin=MANIFEST).splitlines()
    assert dry[0] == "deployment.apps/web configured (server dry run)"
    assert k.json("deployment", "web")["spec"]["replicas"] == 3
    diff = k.fails("diff", "-f", "-", stdin=MANIFEST)
    assert diff == ""


def test_server_side_apply_takes_over_from_client_side(k: Session) -> None:
    """Managed fields are migrated; another manager conflicts until it forces."""
    k("apply", "-f", "-", stdin=MANIFEST)
    assert k("apply", "--server-side", "-f", "-", stdin=MANIFEST).count("serverside-applied") == 3
    managers = {
        (f["manager"], f["operation"])
        for f in json.loads(k("get", "deploy", "web", "--show-managed-fields", "-o", "json"))["metadata"][
            "managedFields"
        ]
    }
    assert managers == {("kubectl", "Apply"), ("kubectl-last-applied", "Apply")}
    other = MANIFEST.replace("replicas: 2", "replicas: 5")
    conflict = k.fails("apply", "--server-side", "--field-manager=other", "-f", "-", stdin=other)
    assert 'conflict with "kubectl": .spec.replicas' in conflict
    k("apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-", stdin=other)
    assert k.json("deployment", "web")["spec"]["replicas"] == 5


@pytest.mark.parametrize("how", [("apply",), ("create",), ("apply", "--server-side")])
def test_unknown_fields_are_told_before_anything_happens(k: Session, how: tuple[str, ...]) -> None:
    """Strictly by default, as a warning if asked, not at all if not."""
    body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndat: {a: b}\n"
    complaint = k.fails(*how, "-f", "-", stdin=body)
    assert "dat" in complaint
    if how[-1] != "--server-side":
        assert 'strict decoding error: unknown field "dat"' in complaint
        k(*how, "--validate=warn", "-f", "-", stdin=body)


def test_get_selects_sorts_and_prints_in_every_way(k: Session) -> None:
    """Labels, fields, names, JSON paths, custom columns, all kinds."""
    for name, tier in (("b", "x"), ("a", "z")):
        k("create", "configmap", name, "--from-literal=k=v")
        k("label", "configmap", name, f"tier={tier}")
    assert k("get", "cm", "-l", "tier in (z)", "-o", "name") == "configmap/a\n"
    assert k("get", "cm", "--field-selector", "metadata.name=b", "-o", "name") == "configmap/b\n"
    assert k("get", "cm", "--sort-by=.metadata.creationTimestamp", "-o", "name").split() != []
    assert k("get", "cm", "a", "-o", "jsonpath={.data.k}") == "v"
    assert k("get", "cm", "-o", "custom-columns=N:.metadata.name", "--no-headers") == "a\nb\n"
    assert "tier=x" in k("get", "cm", "--show-labels")
    assert "NAMESPACE" in k("get", "cm", "-A")
    assert k("get", "all") == ""
    assert "kind: ConfigMap" in k("get", "cm", "a", "-o", "yaml")
    assert 'configmaps "zz" not found' in k.fails("get", "cm", "zz")
    assert "the server doesn't have a resource type" in k.fails("get", "nonsense")


def test_labels_annotations_patches_and_images_change_objects(k: Session) -> None:
    """Label, annotate, patch in three forms, set image, scale, replace, edit."""
    k("apply", "-f", "-", stdin=MANIFEST)
    assert k("label", "deploy", "web", "a=b") == "deployment.apps/web labeled\n"
    assert k("label", "deploy", "web", "a=b") in ("deployment.apps/web not labeled\n", "deployment.apps/web labeled\n")
    assert "already has a value" in k.fails("label", "deploy", "web", "a=c")
    assert k("label", "deploy", "web", "a-") == "deployment.apps/web unlabeled\n"
    assert k("annotate", "deploy", "web", "note=x") == "deployment.apps/web annotated\n"
    k("patch", "deploy", "web", "-p", '{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"x:1"}]}}}}')
    k("patch", "deploy", "web", "--type=json", "-p", '[{"op":"replace","path":"/spec/replicas","value":4}]')
    k("patch", "deploy", "web", "--type=merge", "-p", '{"spec":{"minReadySeconds":7}}')
    k("patch", "deploy", "web", "--subresource=status", "--type=merge", "-p", '{"status":{"replicas":4}}')
    found = k.json("deploy", "web")
    spec = found["spec"]
    assert (spec["replicas"], spec["minReadySeconds"], found["status"]) == (4, 7, {"replicas": 4})
    container = spec["template"]["spec"]["containers"][0]
    assert (container["image"], container["ports"][0]["containerPort"]) == ("x:1", 80)
    k("set", "image", "deploy/web", "c=x:2")
    k("scale", "deploy/web", "--replicas=1")
    again = k.json("deploy", "web")
    assert again["spec"]["template"]["spec"]["containers"][0]["image"] == "x:2"
    again["spec"]["replicas"] = 6
    assert k("replace", "-f", "-", stdin=json.dumps(again)) == "deployment.apps/web replaced\n"
    assert "the object has been modified" in k.fails("replace", "-f", "-", stdin=json.dumps(again))
    assert k.json("deploy", "web")["status"] == {"replicas": 4}


def test_create_makes_what_it_can(k: Session) -> None:
    """The generators of kubectl send protobuf."""
    assert k("create", "deployment", "d", "--image=x", "--replicas=2") == "deployment.apps/d created\n"
    assert k("create", "service", "clusterip", "s", "--tcp=80:8080") == "service/s created\n"
    assert k("create", "serviceaccount", "a") == "serviceaccount/a created\n"
    assert k("create", "secret", "generic", "t", "--from-literal=k=v") == "secret/t created\n"
    assert k("expose", "deployment", "d", "--port=80") == "service/d exposed\n"
    assert k.json("svc", "s")["spec"]["ports"][0]["targetPort"] == 8080
    assert k.json("svc", "d")["spec"]["selector"] == {"app": "d"}


def test_deletions_wait_until_the_object_is_gone(k: Session) -> None:
    """By name, by label, by file, all of a kind."""
    for name in ("a", "b", "c", "d"):
        k("create", "configmap", name)
    k("label", "cm", "b", "x=y")
    assert k("delete", "cm", "a").startswith('configmap "a" deleted')
    assert k("delete", "cm", "-l", "x=y").startswith('configmap "b" deleted')
    assert k("delete", "cm", "--all").count("deleted") == 2
    k("apply", "-f", "-", stdin=MANIFEST)
    assert k("delete", "-f", "-", stdin=MANIFEST).count("deleted") == 3
    assert 'configmaps "a" not found' in k.fails("delete", "cm", "a")
    assert k("delete", "cm", "a", "--ignore-not-found") == ""


def test_a_pod_is_deleted_with_grace_and_without(k: Session, server: RunningServer) -> None:
    """Kubectl waits for the kubelet; --force does not."""
    k("run", "p", "--image=x")
    path = f"/api/v1/namespaces/{k.namespace}/pods/p"
    server.post(f"{path}/binding", {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}})
    server.patch(f"{path}/status", {"status": {"phase": "Running"}})

    def kubelet() -> None:
        while "deletionTimestamp" not in server.get(path).json["metadata"]:
            time.sleep(0.02)
        server.request("DELETE", path, {"gracePeriodSeconds": 0})

    helper = threading.Thread(target=kubelet)
    helper.start()
    assert k("delete", "pod", "p").startswith('pod "p" deleted')
    helper.join()
    assert server.get(path).code == 404


def test_wait_sees_conditions_and_deletions(k: Session, server: RunningServer) -> None:
    """For a condition, a field, and the end."""
    k("run", "p", "--image=x")
    path = f"/api/v1/namespaces/{k.namespace}/pods/p"
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running", "podIP": "10.1.1.1"}
    later = threading.Timer(0.3, server.patch, (f"{path}/status", {"status": ready}))
    later.start()
    assert k("wait", "pod/p", "--for=condition=Ready", "--timeout=20s") == "pod/p condition met\n"
    assert k("wait", "pod/p", "--for=jsonpath={.status.phase}=Running", "--timeout=20s") == "pod/p condition met\n"
    gone = threading.Timer(0.3, server.request, ("DELETE", path))
    gone.start()
    assert k("wait", "pod/p", "--for=delete", "--timeout=20s").startswith("pod/p ")


def test_watching_shows_changes_as_rows(k: Session) -> None:
    """``get -w`` prints the header once."""
    k("create", "configmap", "a")
    later = threading.Timer(0.5, k, ("create", "configmap", "b"))
    later.start()
    shown = k("get", "cm", "-w", "--request-timeout=2s").splitlines()
    later.join()
    assert [line.split()[0] for line in shown] == ["NAME", "a", "b"]


def test_describe_and_explain_tell_about_policies(k: Session) -> None:
    """From the object, and from the schemas."""
    k("apply", "-f", "-", stdin=MANIFEST)
    told = k("describe", "networkpolicy", "web")
    assert "PodSelector:     app=web" in told
    assert "Allowing ingress traffic:" in told
    assert "app=web" in k("describe", "service", "web")
    assert "Pods Status" in k("describe", "deployment", "web") or "Replicas:" in k("describe", "deployment", "web")
    assert "Labels:" in k("describe", "namespace", k.namespace)
    assert "podSelector\t<LabelSelector>" in k("explain", "networkpolicy.spec")
    assert "matchExpressions" in k("explain", "netpol.spec.ingress", "--recursive")


def test_edit_sends_what_the_editor_leaves(k: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """With sed as the editor."""
    k("create", "configmap", "a", "--from-literal=k=v")
    monkeypatch.setenv("KUBE_EDITOR", "sed -i s/k:.v/k:\\ w/")
    assert k("edit", "cm", "a") == "configmap/a edited\n"
    assert k.json("cm", "a")["data"] == {"k": "w"}


def test_custom_kinds_are_known_as_soon_as_they_are_defined(k: Session) -> None:
    """Get by short name with columns of one's own, explain, apply; a broken object is refused."""
    group = f"{k.namespace}.example.com"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "description": "What the widget is.",
                                    "properties": {"size": {"type": "integer", "minimum": 1}},
                                }
                            },
                        }
                    },
                }
            ],
        },
    }
    k("apply", "-f", "-", stdin=json.dumps(definition))
    k("wait", f"crd/widgets.{group}", "--for=condition=Established", "--timeout=10s")
    widget = {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 2}}
    plural = f"widgets.{group}"
    assert k("apply", "-f", "-", stdin=json.dumps(widget)) == f"widget.{group}/w created\n"
    assert k("apply", "-f", "-", stdin=json.dumps(widget)) == f"widget.{group}/w unchanged\n"
    assert [line.split() for line in k("get", plural).splitlines()] == [["NAME", "SIZE"], ["w", "2"]]
    bad = json.dumps({**widget, "spec": {"size": 0}})
    assert "spec.size in body should be greater than or equal to 1" in k.fails("apply", "-f", "-", stdin=bad)
    assert "What the widget is." in k("explain", f"{plural}.spec")
    k("delete", "crd", f"widgets.{group}")
    assert "the server doesn't have a resource type" in k.fails("get", plural, "--cache-dir=/nonexistent/cache")


def test_questions_and_versions_are_answered(kubectl: Kubectl) -> None:
    """Version, api-resources, api-versions, auth, cluster-info."""
    assert "Server Version: v1.32." in kubectl("version").out
    resources = kubectl("api-resources", "--no-headers").out
    assert "networkpolicies" in resources
    assert "netpol" in resources
    assert "apps/v1" in kubectl("api-versions").out.split()
    assert kubectl("auth", "can-i", "create", "pods").out == "yes\n"
    assert "system:masters" in kubectl("auth", "whoami").out
    assert "is running at" in kubectl("cluster-info").out


def test_invalid_objects_are_refused_in_the_words_that_people_search_for(k: Session) -> None:
    """One sentence each."""
    policy = MANIFEST.split("---")[2].replace("port: 80", "port: 99999")
    assert k.fails("apply", "-f", "-", stdin=policy) == (
        'The NetworkPolicy "web" is invalid: spec.ingress[0].ports[0].port: Invalid value: 99999: '
        "must be between 1 and 65535, inclusive\n"
    )
    deployment = MANIFEST.split("---", maxsplit=1)[0].replace("labels: {app: web}", "labels: {app: other}")
    assert k.fails("apply", "-f", "-", stdin=deployment) == (
        'The Deployment "web" is invalid: spec.template.metadata.labels: Invalid value: '
        'map[string]string{"app":"other"}: `selector` does not match template `labels`\n'
    )
    assert "spec.containers[0].image: Required value" in k.fails(
        "create", "-f", "-", stdin="apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}\n"
    )
    k("run", "p", "--image=x")
    moved = k.fails("patch", "pod", "p", "-p", '{"spec":{"nodeName":"elsewhere"}}')
    assert "pod updates may not change fields other than" in moved
