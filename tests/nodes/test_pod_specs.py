# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from ringfence.lab.nodes.podspec import (
    Placed,
    Unusable,
    config_maps,
    environment,
    expand,
    hostname,
    mounts,
    pod_files,
    process,
)

PLACED = Placed("node-1", ("10.0.1.5", "fd00::5"), ("10.0.0.4", "fd00::4"))
MAPS = {"cm": {"key": "value", "file.txt": "text"}}


def pod(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """Return a pod with one container."""
    metadata = {"namespace": "demo", "name": "web", "uid": "u-1", "labels": {"app": "x"}, "annotations": {"a/b": "c"}}
    return {"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i", **(container or {})}], **spec}}


def environment_of(*variables: dict[str, Any], **container: Any) -> dict[str, str]:
    """Return a container's environment."""
    whole = pod({"env": list(variables), **container})
    return environment(whole, whole["spec"]["containers"][0], PLACED, MAPS)


def field(path: str) -> dict[str, Any]:
    """Return a variable that takes a field."""
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "demo"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "x"),
        ("metadata.annotations['a/b']", "c"),
        ("metadata.labels['none']", ""),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "10.0.1.5"),
        ("status.podIPs", "10.0.1.5,fd00::5"),
        ("status.hostIP", "10.0.0.4"),
        ("status.hostIPs", "10.0.0.4,fd00::4"),
    ],
)
def test_variables_take_the_pods_own_fields(path: str, value: str) -> None:
    """The downward API."""
    assert environment_of(field(path))["X"] == value


def test_variables_may_refer_to_those_before_them_and_to_config_maps() -> None:
    """In order; a whole map with a prefix, or one key; optional ones may be missing."""
    found = environment_of(
        {"name": "A", "value": "a"},
        {"name": "B", "value": "$(A)-$(C)"},
        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "key"}}},
        {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "key", "optional": True}}},
        envFrom=[{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"configMapRef": {"name": "no", "optional": True}}],
    )

    assert (found["B"], found["C"], found["P_key"], "D" in found) == ("a-$(C)", "value", "value", False)
    assert (found["HOSTNAME"], found["KUBERNETES_SERVICE_HOST"]) == ("web", "10.0.0.1")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [("$(A)", "a"), ("$$(A)", "$(A)"), ("$(NO)", "$(NO)"), ("$$$$", "$$"), ("$A ${A}", "$A ${A}"), ("$(A", "$(A")],
)
def test_only_known_names_in_parentheses_are_replaced(text: str, expanded: str) -> None:
    """Two dollars are one; a reference that cannot be resolved stays as it is."""
    assert expand(text, {"A": "a"}) == expanded


@pytest.mark.parametrize(
    ("container", "complaint"),
    [
        ({"envFrom": [{"configMapRef": {"name": "none"}}]}, 'configmap "none" not found'),
        ({"envFrom": [{"secretRef": {"name": "s"}}]}, "the lab has no secrets"),
        ({"env": [field("status.phase")]}, "field status.phase"),
        (
            {"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no"}}}]},
            "couldn't find key no in ConfigMap cm",
        ),
        ({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}, "secretKeyRef"),
    ],
)
def test_what_the_lab_cannot_give_is_said(container: dict[str, Any], complaint: str) -> None:
    """A container that would run with half its configuration does not run."""
    whole = pod(container)
    with pytest.raises(Unusable) as raised:
        environment(whole, whole["spec"]["containers"][0], PLACED, MAPS)

    assert complaint in str(raised.value)


def test_a_containers_security_context_stands_before_its_pods() -> None:
    """User, group, capabilities with and without their prefix."""
    container = {
        "command": ["$(A)"],
        "args": ["b"],
        "tty": True,
        "securityContext": {"runAsUser": 7, "capabilities": {"add": ["NET_ADMIN"], "drop": ["CAP_CHOWN"]}},
    }
    whole = pod(container, securityContext={"runAsUser": 5, "runAsGroup": 6, "supplementalGroups": [8]})
    found = process(whole, whole["spec"]["containers"][0], {"A": "a"})

    assert found.argv == ["a", "b"]
    assert (found.uid, found.gid, found.groups, found.tty) == (7, 6, (8,), True)
    assert (found.add, found.drop) == (("NET_ADMIN",), ("CHOWN",))


def test_a_container_that_must_not_be_root_and_is_does_not_run() -> None:
    """``runAsNonRoot`` without a user: the lab's programs run as root."""
    whole = pod({"command": ["x"]}, securityContext={"runAsNonRoot": True})
    with pytest.raises(Unusable, match="image will run as root"):
        process(whole, whole["spec"]["containers"][0], {})


def test_volumes_are_directories_of_the_pod_and_files_of_config_maps() -> None:
    """EmptyDir with subPath and readOnly; whole maps, chosen items, one key as a file."""
    volumes = [
        {"name": "e", "emptyDir": {}},
        {"name": "all", "configMap": {"name": "cm"}},
        {"name": "some", "configMap": {"name": "cm", "items": [{"key": "key", "path": "dir/k"}]}},
    ]
    container = {
        "volumeMounts": [
            {"name": "e", "mountPath": "/data/"},
            {"name": "e", "mountPath": "/sub", "subPath": "s", "readOnly": True},
            {"name": "all", "mountPath": "/all"},
            {"name": "some", "mountPath": "/some"},
            {"name": "all", "mountPath": "/one.txt", "subPath": "file.txt"},
        ]
    }
    whole = pod(container, volumes=volumes)
    found = mounts(whole, whole["spec"]["containers"][0], "pod-dir", MAPS)

    assert found.volumes == [("pod-dir/volumes/e", "/data", False), ("pod-dir/volumes/e/s", "/sub", True)]
    assert found.files == {
        "/all/key": "value", "/all/file.txt": "text", "/some/dir/k": "value", "/one.txt": "text",
    }  # fmt: skip
    assert config_maps(whole) == {"cm"}


def test_a_kind_of_volume_that_the_lab_lacks_is_named() -> None:
    """HostPath would reach the machine's files."""
    volumes = [{"name": "h", "hostPath": {"path": "/"}}]
    whole = pod({"volumeMounts": [{"name": "h", "mountPath": "/h"}]}, volumes=volumes)
    with pytest.raises(Unusable, match="hostPath"):
        mounts(whole, whole["spec"]["containers"][0], "d", {})


def test_every_pod_finds_its_names_and_its_service_account() -> None:
    """/etc/hosts with its addresses and aliases, no name server, the token unless it is not wanted."""
    whole = pod(hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}])
    files = pod_files(whole, PLACED, {"token": "t", "ca.crt": "c"})
    without = pod_files(pod(automountServiceAccountToken=False), PLACED, {"token": "t"})

    assert "10.0.1.5\tweb\nfd00::5\tweb\n1.2.3.4\ta\tb\n" in files["/etc/hosts"]
    assert "nameserver" not in files["/etc/resolv.conf"]
    assert files["/run/secrets/kubernetes.io/serviceaccount/token"] == "t"
    assert files["/run/secrets/kubernetes.io/serviceaccount/namespace"] == "demo"
    assert sorted(without) == ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]


def test_long_names_make_valid_hostnames() -> None:
    """At most 63 characters, not ending in a dot or hyphen."""
    whole = pod()
    whole["metadata"]["name"] = "a" * 62 + "-b"

    assert hostname(whole) == "a" * 62
    assert hostname(pod(hostname="given")) == "given"
