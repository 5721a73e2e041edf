# SPDX-License-Identifier: Apache-2.0
"""What an API server refuses of each kind of object that stands beside policies."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.apis.refusals import judges, refusals

TYPES = '"ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'


def obj(kind: str, api_version: str = "v1", *, name: str | None = "x", **rest: Any) -> dict[str, Any]:
    """Return an object."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name} if name else {}, **rest}


def texts(given: dict[str, Any]) -> list[str]:
    """Return the complaints about an object, short."""
    return [str(error).partition(" (e.g.")[0] for error in refusals(given)]


def deployment(kind: str = "Deployment", **spec: Any) -> dict[str, Any]:
    """Return a workload."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main"}]}}
    return obj(kind, "apps/v1", spec={"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec})


@pytest.mark.parametrize(
    "good",
    [
        obj("NetworkPolicy", "networking.k8s.io/v1", spec={"podSelector": {}}),
        obj("Namespace"),
        obj("Node", spec={"podCIDR": "10.0.0.0/24"}),
        obj("Pod", spec={"containers": [{"name": "main", "ports": [{"containerPort": 80}]}]}),
        obj("Service", spec={"ports": [{"port": 80, "targetPort": "http"}], "selector": {"app": "web"}}),
        obj("Service", spec={"type": "ExternalName", "externalName": "example.com."}),
        obj("Service", spec={"clusterIP": "None", "selector": {"app": "web"}}),
        deployment(),
        deployment("StatefulSet"),
        obj("Job", "batch/v1", spec={"template": {"spec": {}}}),
    ],
    ids=lambda each: each["kind"],
)
def test_what_is_valid_is_not_complained_about(good: dict[str, Any]) -> None:
    """A namespace that is missing comes from the request."""
    assert judges(good)
    assert refusals(good) == []


def test_policies_are_judged_with_their_unknown_fields() -> None:
    """As kubectl's strict validation does."""
    given = obj("NetworkPolicy", "networking.k8s.io/v1", spec={"podSelectors": {}, "ingress": [{"from": [{}]}]})

    assert texts(given) == [
        'spec.podSelectors: unknown field "spec.podSelectors"',
        "spec.ingress[0].from[0]: Required value: must specify a peer",
    ]


@pytest.mark.parametrize("version", ["extensions/v1beta1", "networking.k8s.io/v1beta1"])
def test_versions_that_are_gone_are_told(version: str) -> None:
    """In kubectl's words, with the one that there is."""
    assert texts(obj("NetworkPolicy", version)) == [
        f'apiVersion: no matches for kind "NetworkPolicy" in version "{version}"; it is networking.k8s.io/v1 now'
    ]


@pytest.mark.parametrize("other", [obj("NetworkPolicy", "projectcalico.org/v3"), obj("ConfigMap"), {}])
def test_other_kinds_are_not_judged(other: dict[str, Any]) -> None:
    """Calico has a NetworkPolicy of its own."""
    assert not judges(other)
    assert refusals(other) == []


def test_names_and_labels_of_every_kind_are_judged() -> None:
    """Of Namespaces and Services by stricter rules."""
    assert texts(obj("Namespace", name="a.b"))[0] == 'metadata.name: Invalid value: "a.b": must not contain dots'
    assert texts(obj("Service", name="1a", spec={"ports": [{"port": 80}]}))[0].startswith(
        'metadata.name: Invalid value: "1a": a DNS-1035 label'
    )
    assert texts(obj("Pod", name=None)) == ["metadata.name: Required value: name or generateName is required"]
    labelled = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", "labels": {"a": True}, "label": {}},
    }
    assert [text.partition(":")[0] for text in texts(labelled)] == [
        "metadata.label",
        "metadata.labels.a",
    ]


def test_a_namespace_has_no_namespace() -> None:
    """Nor has a node."""
    given = obj("Namespace")
    given["metadata"]["namespace"] = "shop"

    assert texts(given)[0].startswith("metadata.namespace: Forbidden")


def test_a_name_may_be_made_up_by_the_server() -> None:
    """After a prefix; then nothing is missing."""
    given = obj("Pod")
    given["metadata"] = {"generateName": "web-"}

    assert refusals(given) == []


def test_pods_and_nodes_must_have_the_types_that_we_read() -> None:
    """Each kind at the field that it is about."""
    assert texts(obj("Pod", spec={"hostNetwork": "yes"}))[0].startswith(
        "spec.hostNetwork: Invalid value: Expected `bool"
    )
    assert texts(obj("Node", status={"addresses": {}}))[0].startswith(
        "status.addresses: Invalid value: Expected `array"
    )


def test_workloads_are_judged_by_selector_and_template() -> None:
    """Several pods of one are broken alike, and told of once."""
    assert texts(obj("Deployment", "apps/v1", spec={})) == ["spec.selector: Required value"]
    assert texts(deployment(selector={"matchLabels": {"a": "-"}}))[0].startswith(
        "spec.selector.matchLabels: Invalid value"
    )
    ill = {"metadata": {"labels": {"a": "-"}}, "spec": {}}
    assert texts(deployment(template=ill))[0].startswith('spec.template.labels: Invalid value: "-"')
    odd = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}}
    (text,) = texts(deployment(template=odd, replicas=3))
    assert text.startswith("spec.template.spec.containers[0].ports[0].containerPort: Invalid value: Expected `int`")
    (text,) = texts(obj("CronJob", "batch/v1", spec={"jobTemplate": {"spec": {"template": odd}}}))
    assert text.startswith("spec.jobTemplate.spec.template.spec.containers[0]")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ["spec.ports: Required value"]),
        ({"type": "ExternalName"}, ["spec.externalName: Required value"]),
        ({"type": "Cluster", "ports": [{"port": 80}]},
         [f'spec.type: Unsupported value: "Cluster": supported values: {TYPES}']),
        ({"ports": [{"port": 80}, {"name": "b", "port": 80}]},
         ["spec.ports[0].name: Required value", 'spec.ports[1]: Duplicate value: {"protocol":"TCP","port":80}']),
        ({"ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]}, ['spec.ports[1].name: Duplicate value: "a"']),
        ({"ports": [{"port": 0}]}, ["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"]),
        ({"ports": [{"port": 1, "targetPort": 0}]},
         ["spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive"]),
        ({"ports": [{"port": 1, "targetPort": "80"}]},
         ['spec.ports[0].targetPort: Invalid value: "80": must contain at least one letter (a-z)']),
        ({"ports": [{"port": 1, "protocol": "tcp"}]},
         ['spec.ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"']),
        ({"ports": [{"port": 1, "targetport": 2}]},
         ['spec.ports[0].targetport: unknown field "spec.ports[0].targetport"']),
        ({"ports": [{"port": "80"}]},
         ['spec.ports[0].port: Invalid value: "string": spec.ports[0].port in body must be of type integer: "string"']),
        ({"ports": "80"},
         ['spec.ports: Invalid value: "string": spec.ports in body must be of type array: "string"']),
    ],
)  # fmt: skip
def test_services_are_judged_by_their_spec(spec: dict[str, Any], expected: list[str]) -> None:
    """The rules that decide where connections go."""
    assert texts(obj("Service", spec=spec)) == expected
