# SPDX-License-Identifier: Apache-2.0
"""Built-in kinds: what is unknown, repeated or of a wrong type, in the decoder's words; and what decoding loses."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.lab.apiserver.defaults import apply_defaults
from ringfence.lab.apiserver.resources import BUILT_IN
from ringfence.lab.apiserver.schema import KindSchema, duplicate_fields, of_kind
from ringfence.lab.apiserver.schema.definitions import definitions, kinds

Object = dict[str, Any]


def kind(name: str, api_version: str = "v1") -> KindSchema:
    """Return a built-in kind's schema."""
    schema = of_kind(api_version, name)
    assert schema is not None
    return schema


def pod(**spec: Any) -> Object:
    """Return a pod with one container and this spec."""
    containers = [{"name": "c", "image": "i"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers, **spec}}


def test_every_served_kind_has_a_schema() -> None:
    """A kind that the server has and the data lacks would be accepted whatever its shape."""
    assert [r.kind for r in BUILT_IN if of_kind(r.api_version, r.kind) is None] == []
    assert of_kind("v1", "Gadget") is None


def test_schemas_load_quickly() -> None:
    """Start-up does not wait for the schemas: reading all of them takes milliseconds."""
    definitions.cache_clear()
    began = time.perf_counter()
    definitions()

    assert time.perf_counter() - began < 0.25
    assert ("apps", "v1", "Deployment") in kinds()


def test_unknown_fields_are_told_with_their_places() -> None:
    """The words and paths of the API server's strict decoding, in the order of the object."""
    said = pod(foo=1)
    said["spec"]["containers"][0]["bar"] = 2
    said["metadata"]["labels"] = {"any": "thing"}
    said["zap"] = {}

    assert kind("Pod").unknown_fields(said) == [
        'unknown field "spec.containers[0].bar"',
        'unknown field "spec.foo"',
        'unknown field "zap"',
    ]


def test_unknown_fields_are_found_in_maps_of_structs() -> None:
    """Values of maps have schemas too: the properties of a definition's schema."""
    said = {"spec": {"versions": [{"schema": {"openAPIV3Schema": {"properties": {"a": {"typ": "string"}}}}}]}}

    assert kind("CustomResourceDefinition", "apiextensions.k8s.io/v1").unknown_fields(said) == [
        'unknown field "spec.versions[0].schema.openAPIV3Schema.properties.a.typ"'
    ]
    assert kind("Pod").unknown_fields({"spec": {"containers": "x"}}) == []


def test_repeated_fields_are_told() -> None:
    """JSON with a field twice is ambiguous: it is reported with its path, inside lists too."""
    text = '{"a": 1, "b": {"c": 1, "c": 2, "c": 3}, "l": [{"x": 1, "x": 1}], "a": 2}'

    assert duplicate_fields(text) == [
        'duplicate field "a"',
        'duplicate field "b.c"',
        'duplicate field "b.c"',
        'duplicate field "l[0].x"',
    ]
    assert duplicate_fields("a: 1") == []


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"nodeName": 5}, "cannot unmarshal number into Go struct field PodSpec.spec.nodeName of type string"),
        ({"hostNetwork": "yes"}, "cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool"),
        ({"priority": "1"}, "cannot unmarshal string into Go struct field PodSpec.spec.priority of type int32"),
        ({"priority": True}, "cannot unmarshal bool into Go struct field PodSpec.spec.priority of type int32"),
        ({"priority": 1.5}, "cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32"),
        ({"priority": 2**31}, "cannot unmarshal number 2147483648 into Go struct field PodSpec.spec.priority of"),
        ({"terminationGracePeriodSeconds": []}, "cannot unmarshal array into Go struct field"),
        (
            {"containers": {}},
            "cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            {"containers": [5]},
            "cannot unmarshal number into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        (
            {"nodeSelector": []},
            "array into Go struct field PodSpec.spec.nodeSelector of type map[string]string",
        ),
        (
            {"nodeSelector": {"a": True}},
            "cannot unmarshal bool into Go struct field PodSpec.spec.nodeSelector of type string",
        ),
        (
            {"restartPolicy": 1},
            "number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            {"containers": [{"ports": [{"containerPort": "80"}]}]},
            "string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            {"containers": [{"livenessProbe": {"httpGet": {"port": True}}}]},
            "bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.httpGet.port of type int32",
        ),
        ({"containers": [{"resources": {"limits": {"cpu": "much"}}}]}, "quantities must match the regular expression"),
        ({"containers": [{"resources": {"limits": {"cpu": True}}}]}, "quantities must match the regular expression"),
        ({"containers": [{"command": "sh"}]}, "of type []string"),
        (5, "cannot unmarshal number into Go struct field Pod.spec of type v1.PodSpec"),
    ],
)
def test_wrong_types_are_told_in_go_words(spec: Any, complaint: str) -> None:
    """People search for these sentences."""
    said = {"apiVersion": "v1", "kind": "Pod", "spec": spec}

    assert any(complaint in error for error in kind("Pod").type_errors(said)), kind("Pod").type_errors(said)


def test_values_of_other_wrong_types_are_told() -> None:
    """Times, lists of named strings, floats, and objects that are none at all."""
    meta = kind("ConfigMap").type_errors({"metadata": {"creationTimestamp": "soon"}})
    assert meta == ['parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006"']
    policy = kind("NetworkPolicy", "networking.k8s.io/v1")
    assert policy.type_errors({"spec": {"policyTypes": "Ingress"}})[0].endswith("of type []v1.PolicyType")
    crd = kind("CustomResourceDefinition", "apiextensions.k8s.io/v1")
    schema = {"spec": {"versions": [{"schema": {"openAPIV3Schema": {"maximum": "5", "minimum": 1.5, "example": {}}}}]}}
    assert [error.rsplit(" ", 1)[-1] for error in crd.type_errors(schema)] == ["float64"]
    assert kind("Pod").type_errors("x") == ["json: cannot unmarshal string into Go value of type v1.Pod"]
    assert crd.type_errors({"spec": {"versions": [{"subresources": {"status": 1}}]}})[0].endswith(
        "of type v1.CustomResourceSubresourceStatus"
    )
    assert kind("ConfigMap").type_errors({"metadata": {"managedFields": [{"fieldsV1": []}]}})[0].endswith("v1.FieldsV1")


def test_right_types_and_nulls_are_no_errors() -> None:
    """Everything that a good manifest has passes: int-or-string either way, quantities, times, nulls."""
    container = {"resources": {"limits": {"cpu": "500m", "memory": 5}}, "livenessProbe": {"httpGet": {"port": "http"}}}
    said = pod(containers=[container], terminationGracePeriodSeconds=2**40, nodeName=None)
    said["metadata"] = {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": None}

    assert kind("Pod").type_errors(said) == []


def test_decoding_loses_what_go_does_not_keep() -> None:
    """Unknown fields, nulls, empty lists and maps go; empty structs and required lists stay."""
    said = {
        "metadata": {"labels": {}, "name": "n", "creationTimestamp": None, "annotations": {"a": None}},
        "spec": {
            "podSelector": {},
            "ingress": [],
            "egress": [{"to": [{"podSelector": {}}], "ports": None}, None],
            "x": 1,
        },
        "y": 2,
    }

    assert kind("NetworkPolicy", "networking.k8s.io/v1").prune(said) == {
        "metadata": {"name": "n", "annotations": {"a": ""}},
        "spec": {"podSelector": {}, "egress": [{"to": [{"podSelector": {}}]}, {}]},
    }
    slices = kind("EndpointSlice", "discovery.k8s.io/v1")
    assert slices.prune({"addressType": "IPv4", "endpoints": [], "ports": []}) == {
        "addressType": "IPv4",
        "endpoints": [],
    }


def test_nulls_in_lists_and_free_values_become_what_go_makes_of_them() -> None:
    """A null string is empty, a null number stays for validation to refuse; free objects are kept whole."""
    said = {
        "spec": {"containers": [{"args": ["a", None]}], "x": 1},
        "metadata": {"managedFields": [{"fieldsV1": {"f:a": {}}}]},
    }
    pruned = kind("Pod").prune(said)
    assert pruned["spec"]["containers"][0]["args"] == ["a", ""]
    assert pruned["metadata"] == said["metadata"]
    crd = kind("CustomResourceDefinition", "apiextensions.k8s.io/v1")
    schema = {"dependencies": {"a": None}, "enum": [None], "required": "a", "properties": "odd"}
    free = {"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}}
    assert crd.prune(free)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] == "odd"
    rules = {"status": {"nonResourceRules": [], "resourceRules": [{"verbs": None, "apiGroups": ["a"]}]}}
    assert kind("SelfSubjectRulesReview", "authorization.k8s.io/v1").prune(rules)["status"]["nonResourceRules"] == []


names = st.sampled_from(["metadata", "spec", "status", "labels", "containers", "ports", "name", "foo"])
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**33) | st.floats(0, 1) | st.sampled_from(["", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(names, anything, max_size=4))
def test_no_object_breaks_the_checks(said: Object) -> None:
    """Whatever JSON comes, it is judged, not crashed upon; pruning is idempotent and leaves nothing unknown."""
    schema = kind("Pod")
    schema.type_errors(said)
    pruned = schema.prune(said)

    assert schema.unknown_fields(pruned) == []
    assert schema.prune(pruned) == pruned or schema.type_errors(said)


def test_built_in_kinds_have_no_rules_in_their_schema() -> None:
    """Their rules and defaults are code; the schema offers neither."""
    assert kind("Pod").violations(pod()) == []
    assert kind("Pod").with_defaults(pod()) == pod()
    assert "Pod" in repr(kind("Pod"))


DEFAULTED = [
    pod(),
    {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}},
    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}},
    {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}},
    {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"egress": [{"ports": [{"port": 1}]}]}},
    {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "ports": [{"port": 1}]},
    {"apiVersion": "v1", "kind": "Endpoints", "subsets": [{"ports": [{"port": 1}]}]},
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}},
    {"apiVersion": "v1", "kind": "Secret"},
]


@pytest.mark.parametrize("said", DEFAULTED, ids=lambda said: said["kind"])
def test_defaulting_twice_is_defaulting_once(said: Object) -> None:
    """Defaults fit their kind, are stable, and leave the argument alone."""
    before = dict(said)
    once = apply_defaults(said)

    assert once != said
    assert said == before
    assert apply_defaults(once) == once
    schema = kind(said["kind"], said["apiVersion"])
    assert schema.type_errors(once) == []
    assert schema.unknown_fields(once) == []


def test_pods_get_what_the_api_server_gives_them() -> None:
    """The defaults that kubectl describe and the kubelet rely on."""
    probe = {"httpGet": {"port": 80}}
    container = {
        "name": "c",
        "image": "registry:5000/a/b:v1",
        "ports": [{"containerPort": 80}],
        "livenessProbe": probe,
        "lifecycle": {"preStop": {"httpGet": {"port": 1}}},
        "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "F"}],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
    }
    volumes = [{"name": "e"}, {"name": "h", "hostPath": {"path": "/"}}, {"name": "s", "secret": {"secretName": "s"}}]
    spec = apply_defaults(pod(containers=[container], hostNetwork=True, volumes=volumes))["spec"]

    assert spec["restartPolicy"] == "Always"
    assert spec["dnsPolicy"] == "ClusterFirst"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert [toleration["tolerationSeconds"] for toleration in spec["tolerations"]] == [300, 300]
    made = spec["containers"][0]
    assert made["imagePullPolicy"] == "IfNotPresent"
    assert made["ports"] == [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]
    assert made["livenessProbe"]["httpGet"] == {"port": 80, "path": "/", "scheme": "HTTP"}
    assert made["livenessProbe"]["failureThreshold"] == 3
    assert made["lifecycle"]["preStop"]["httpGet"]["scheme"] == "HTTP"
    assert made["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert made["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}
    assert spec["volumes"][0] == {"name": "e", "emptyDir": {}}
    assert spec["volumes"][1]["hostPath"] == {"path": "/", "type": ""}
    assert spec["volumes"][2]["secret"]["defaultMode"] == 420


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("a@sha256:1", "IfNotPresent"),
        ("h:5/a", "Always"),
    ],
)
def test_images_that_may_change_are_always_pulled(image: str, policy: str) -> None:
    """Only a tag other than ``latest``, or a digest, says which image is meant."""
    made = apply_defaults(pod(containers=[{"name": "c", "image": image}]))

    assert made["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_what_is_said_is_not_defaulted() -> None:
    """A toleration, an account or a type of one's own stays."""
    said = pod(tolerations=[{"operator": "Exists"}], serviceAccount="mine", restartPolicy="Never")
    spec = apply_defaults(said)["spec"]

    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["serviceAccountName"] == "mine"
    assert spec["restartPolicy"] == "Never"
    recreate = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"strategy": {"type": "Recreate"}}}
    assert apply_defaults(recreate)["spec"]["strategy"] == {"type": "Recreate"}


def test_services_are_defaulted_by_their_type() -> None:
    """Traffic policies and affinity depend on what kind of Service it is."""

    def service(**spec: Any) -> Object:
        made: Object = apply_defaults({"apiVersion": "v1", "kind": "Service", "spec": spec})["spec"]
        return made

    assert service(ports=[{"port": 80}])["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert service()["internalTrafficPolicy"] == "Cluster"
    assert "internalTrafficPolicy" not in service(type="ExternalName")
    assert service(type="NodePort")["externalTrafficPolicy"] == "Cluster"
    assert service(type="LoadBalancer")["allocateLoadBalancerNodePorts"] is True
    assert service(sessionAffinity="ClientIP")["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}


def test_policy_types_follow_the_rules() -> None:
    """Ingress always, Egress if there are egress rules; what is said stays."""

    def types(**spec: Any) -> Any:
        policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec}
        return apply_defaults(policy)["spec"]["policyTypes"]

    assert types() == ["Ingress"]
    assert types(egress=[]) == ["Ingress"]
    assert types(egress=[{}]) == ["Ingress", "Egress"]
    assert types(policyTypes=["Egress"]) == ["Egress"]


def test_namespaces_without_names_and_definitions_are_defaulted() -> None:
    """A generated name comes later; a definition's names follow from its kind."""
    assert "labels" not in apply_defaults({"apiVersion": "v1", "kind": "Namespace", "metadata": {}})["metadata"]
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"names": {"kind": "Foo"}},
    }
    assert apply_defaults(definition)["spec"]["names"] == {"kind": "Foo", "singular": "foo", "listKind": "FooList"}
    assert "singular" not in apply_defaults({**definition, "spec": {}})["spec"]["names"]
    widget = {"apiVersion": "e.x/v1", "kind": "Widget"}
    assert apply_defaults(widget) is widget
