# SPDX-License-Identifier: Apache-2.0
"""What pods, workloads, data, endpoint slices and nodes may look like, and what of them may change."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.status import Failure
from tests.apiserver.writes import Requests, causes, deployment, pod

Object = dict[str, Any]


@pytest.fixture
def req(api: Api) -> Requests:
    """Make requests."""
    return Requests(api)


def container(**more: Any) -> Object:
    """Return a container."""
    return {"name": "c", "image": "i", **more}


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"containers": []}, "spec.containers", "Required value"),
        ({"containers": [{"image": "i"}]}, "spec.containers[0].name", "Required value"),
        ({"containers": [{"name": "C", "image": "i"}]}, "spec.containers[0].name", "a lowercase RFC 1123 label must"),
        ({"containers": [container(), container()]}, "spec.containers[1].name", 'Duplicate value: "c"'),
        ({"initContainers": [container()]}, "spec.initContainers[0].name", 'Duplicate value: "c"'),
        ({"containers": [{"name": "c"}]}, "spec.containers[0].image", "Required value"),
        ({"containers": [{"name": "c", "image": " i"}]}, "spec.containers[0].image", "leading or trailing whitespace"),
        ({"containers": [container(imagePullPolicy="No")]}, "spec.containers[0].imagePullPolicy", '"Always", "IfNot'),
        ({"containers": [container(ports=[{}])]}, "spec.containers[0].ports[0].containerPort", "Required value"),
        (
            {"containers": [container(ports=[{"containerPort": 70000}])]},
            "spec.containers[0].ports[0].containerPort",
            "Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            {"containers": [container(ports=[{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}])]},
            "spec.containers[0].ports[1].name",
            'Duplicate value: "a"',
        ),
        (
            {"containers": [container(ports=[{"containerPort": 1, "protocol": "udp"}])]},
            "spec.containers[0].ports[0].protocol",
            'Unsupported value: "udp": supported values: "SCTP", "TCP", "UDP"',
        ),
        (
            {"hostNetwork": True, "containers": [container(ports=[{"containerPort": 1, "hostPort": 2}])]},
            "spec.containers[0].ports[0].containerPort",
            "must match `hostPort` when `hostNetwork` is true",
        ),
        ({"containers": [container(env=[{"value": "x"}])]}, "spec.containers[0].env[0].name", "Required value"),
        ({"containers": [container(env=[{"name": "a=b"}])]}, "spec.containers[0].env[0].name", "printable ASCII"),
        (
            {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/v"}])]},
            "spec.containers[0].volumeMounts[0].name",
            'Not found: "v"',
        ),
        (
            {"volumes": [{"name": "v"}], "containers": [container(volumeMounts=[{"name": "v"}])]},
            "spec.containers[0].volumeMounts[0].mountPath",
            "Required value",
        ),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, "spec.volumes[1].name", "Duplicate value"),
        ({"restartPolicy": "Never!"}, "spec.restartPolicy", '"Always", "Never", "OnFailure"'),
        ({"dnsPolicy": "x"}, "spec.dnsPolicy", "Unsupported value"),
        ({"terminationGracePeriodSeconds": -1}, "spec.terminationGracePeriodSeconds", "greater than or equal to 0"),
        ({"nodeSelector": {"a b": "c"}}, "spec.nodeSelector", "name part must consist of"),
        ({"nodeName": "A"}, "spec.nodeName", "RFC 1123 subdomain"),
        ({"hostname": "a.b"}, "spec.hostname", "must not contain dots"),
        ({"tolerations": [{"operator": "Like"}]}, "spec.tolerations[0].operator", '"Equal", "Exists"'),
    ],
)
def test_pods_that_cannot_be_are_refused(req: Requests, spec: Object, field: str, words: str) -> None:
    """422, the field, and kube-apiserver's words; the same below a workload's template."""
    with pytest.raises(Failure) as refused:
        req.create("pods", pod(**spec))
    assert refused.value.code == 422
    found = causes(refused.value)
    assert any(f == field and words in message for f, message in found), found
    body = deployment()
    body["spec"]["template"]["spec"] = pod(**spec)["spec"]
    with pytest.raises(Failure) as refused:
        req.create("deployments", body)
    assert field.replace("spec.", "spec.template.spec.", 1) in {f for f, _ in causes(refused.value)}


def test_a_pod_starts_pending_with_its_class(req: Requests) -> None:
    """Whatever status was sent; the quality of service follows from requests and limits."""
    made = req.create("pods", {**pod(), "status": {"phase": "Running"}})
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    some = container(resources={"requests": {"cpu": "1"}})
    assert req.create("pods", pod("b", containers=[some]))["status"]["qosClass"] == "Burstable"
    full = container(resources={"limits": {"cpu": "1", "memory": "1Gi"}})
    assert req.create("pods", pod("g", containers=[full]))["status"]["qosClass"] == "Guaranteed"


def test_a_pod_needs_its_service_account_unless_it_is_the_default(req: Requests) -> None:
    """403 from the admission plugin; "default" may come later."""
    with pytest.raises(Failure, match='serviceaccount "robot" not found') as refused:
        req.create("pods", pod(serviceAccountName="robot"))
    assert refused.value.code == 403
    req.create("serviceaccounts", {"metadata": {"name": "robot"}})
    assert req.create("pods", pod(serviceAccountName="robot"))["spec"]["serviceAccount"] == "robot"
    assert req.create("pods", pod("d"))["spec"]["serviceAccountName"] == "default"


def test_of_a_pod_only_images_and_deadlines_change(req: Requests) -> None:
    """And tolerations may be added."""
    made = req.create("pods", pod())
    kept = made["spec"]["tolerations"]
    more = [*kept, {"key": "k", "operator": "Exists"}]
    req.patch("pods", "web", {"spec": {"tolerations": more, "activeDeadlineSeconds": 60}})
    req.patch("pods", "web", {"spec": {"containers": [{"name": "c", "image": "new"}]}}, kind="strategic-merge")
    for change in (
        {"nodeName": "n"},
        {"tolerations": kept[:1]},
        {"containers": [container(command=["x"])]},
        {"hostNetwork": True},
    ):
        with pytest.raises(Failure, match="pod updates may not change fields other than") as refused:
            req.patch("pods", "web", {"spec": change})
        assert refused.value.code == 422
    assert req.patch("pods", "web", {"metadata": {"labels": {"app": "x"}}})["metadata"]["labels"] == {"app": "x"}


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"replicas": -1}, "spec.replicas", "must be greater than or equal to 0"),
        ({"selector": None}, "spec.selector", "Required value"),
        ({"selector": {}}, "spec.selector", "empty selector is invalid for deployment"),
        (
            {"selector": {"matchLabels": {"a": "b"}}},
            "spec.template.metadata.labels",
            "`selector` does not match template",
        ),
        ({"strategy": {"type": "Slow"}}, "spec.strategy.type", '"Recreate", "RollingUpdate"'),
        (
            {"template": {"metadata": {"labels": {"app": "web"}}, "spec": {**pod()["spec"], "restartPolicy": "Never"}}},
            "spec.template.spec.restartPolicy",
            'Unsupported value: "Never": supported values: "Always"',
        ),
    ],
)
def test_workloads_that_cannot_be_are_refused(req: Requests, spec: Object, field: str, words: str) -> None:
    """422."""
    with pytest.raises(Failure) as refused:
        req.create("deployments", deployment(**spec))
    assert any(f == field and words in message for f, message in causes(refused.value)), causes(refused.value)


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "app", "operator": "In", "values": ["web", "db"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["web"]}, False),
        ({"key": "tier", "operator": "NotIn", "values": ["x"]}, True),
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "app", "operator": "DoesNotExist"}, False),
    ],
)
def test_expressions_of_a_selector_must_match_the_template_too(req: Requests, expression: Object, fits: bool) -> None:  # noqa: FBT001 - a table
    """All four operators."""
    body = deployment(selector={"matchExpressions": [expression]})
    if fits:
        assert req.create("replicasets", body)["metadata"]["name"] == "web"
    else:
        with pytest.raises(Failure, match="does not match template"):
            req.create("replicasets", body)


def test_a_workload_keeps_its_selector(req: Requests) -> None:
    """Immutable, in the words that one searches for."""
    made = req.create("deployments", deployment())
    made["spec"]["selector"] = {"matchLabels": {"app": "web", "x": "y"}}
    made["spec"]["template"]["metadata"]["labels"]["x"] = "y"
    words = (
        'spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string{"app":"web", "x":"y"}, '
        "MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable"
    )
    with pytest.raises(Failure) as refused:
        req.update("deployments", made)
    assert words in refused.value.message


def test_config_keys_can_be_file_names_and_data_can_be_frozen(req: Requests) -> None:
    """And a frozen map cannot be thawed."""
    with pytest.raises(Failure, match="a valid config key must consist of"):
        req.create("configmaps", {"metadata": {"name": "c"}, "data": {"a/b": "x"}})
    req.create("configmaps", {"metadata": {"name": "c"}, "data": {"a": "x"}, "immutable": True})
    with pytest.raises(Failure, match="field is immutable when `immutable` is set"):
        req.patch("configmaps", "c", {"data": {"a": "y"}})
    with pytest.raises(Failure, match="immutable: Forbidden"):
        req.patch("configmaps", "c", {"immutable": None})


def test_strings_of_a_secret_become_data(req: Requests) -> None:
    """Once, in base64; the type stays."""
    made = req.create("secrets", {"metadata": {"name": "s"}, "stringData": {"k": "v"}})
    assert (made["data"], made["type"], "stringData" in made) == ({"k": "dg=="}, "Opaque", False)
    again = req.patch("secrets", "s", {"stringData": {"l": "w"}})
    assert again["data"] == {"k": "dg==", "l": "dw=="}
    with pytest.raises(Failure, match="type: Invalid value"):
        req.patch("secrets", "s", {"type": "other"})
    with pytest.raises(Failure, match="illegal base64|must be base64"):
        req.create("secrets", {"metadata": {"name": "t"}, "data": {"k": "?"}})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"endpoints": []}, "addressType"),
        ({"addressType": "IPv5", "endpoints": []}, "addressType"),
        ({"addressType": "IPv4", "endpoints": [{"addresses": []}]}, "endpoints[0].addresses"),
        ({"addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}]}, "endpoints[0].addresses[0]"),
        ({"addressType": "IPv6", "endpoints": [{"addresses": ["::1"] * 101}]}, "endpoints[0].addresses"),
    ],
)
def test_endpoint_slices_hold_addresses_of_one_type(req: Requests, body: Object, field: str) -> None:
    """422."""
    with pytest.raises(Failure) as refused:
        req.create("endpointslices", {"metadata": {"name": "e"}, **body})
    assert field in {f for f, _ in causes(refused.value)}


def test_an_endpoint_slice_keeps_its_type_and_counts_its_changes(req: Requests) -> None:
    """Its generation grows with its endpoints, not with its labels."""
    slice_ = {"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.1.1"]}]}
    req.create("endpointslices", slice_)
    req.patch("endpointslices", "e", {"metadata": {"labels": {"a": "b"}}})
    changed = req.patch("endpointslices", "e", {"endpoints": [{"addresses": ["10.1.1.2"]}]})
    assert changed["metadata"]["generation"] == 2
    with pytest.raises(Failure, match="addressType: Invalid value"):
        req.patch("endpointslices", "e", {"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1"]}]})


def test_a_node_registers_with_its_status_and_keeps_its_network(req: Requests) -> None:
    """The kubelet sends all of it at once."""
    node = {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.1.0.0/24"}, "status": {"nodeInfo": {"osImage": "x"}}}
    assert req.create("nodes", node)["status"]["nodeInfo"]["osImage"] == "x"
    assert req.patch("nodes", "n", {"spec": {"unschedulable": True}})["spec"]["unschedulable"]
    with pytest.raises(Failure, match="node updates may not change podCIDR"):
        req.patch("nodes", "n", {"spec": {"podCIDR": "10.2.0.0/24"}})
