# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.errors import UsageError
from ringfence.kube.config import ClusterAccess, ExecPlugin, in_cluster, load_access


def write(path: Path, **parts: Any) -> Path:
    """Write a kubeconfig: keyword ``clusters={"name": {...}}`` and so on."""
    one = {"clusters": "cluster", "users": "user", "contexts": "context"}
    content: dict[str, Any] = {"apiVersion": "v1", "kind": "Config"}
    for key, value in parts.items():
        if key in one:
            content[key] = [{"name": name, one[key]: entry} for name, entry in value.items()]
        else:
            content[key.replace("_", "-")] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def simple(path: Path, *, server: str = "https://one:6443", user: Any = None, **cluster: Any) -> Path:
    """Write a kubeconfig with one of everything."""
    return write(
        path,
        clusters={"c": {"server": server, **cluster}},
        users={"u": user or {"token": "t"}},
        contexts={"x": {"cluster": "c", "user": "u"}},
        current_context="x",
    )


def test_context_says_server_token_and_namespace(tmp_path: Path) -> None:
    """The current context's cluster, user and namespace make the access; the URL loses its trailing slash."""
    path = write(
        tmp_path / "config",
        clusters={"c": {"server": "https://one:6443/", "insecure-skip-tls-verify": True, "tls-server-name": "real"}},
        users={"u": {"token": "secret", "as": "jane", "as-groups": ["a", "b"]}},
        contexts={"x": {"cluster": "c", "user": "u", "namespace": "demo"}, "y": {"cluster": "c", "user": ""}},
        current_context="x",
    )
    assert load_access(str(path)) == ClusterAccess(
        server="https://one:6443",
        insecure=True,
        tls_server_name="real",
        token="secret",
        headers=(("Impersonate-User", "jane"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b")),
        default_namespace="demo",
    )
    assert load_access(str(path), context="y").token is None


def test_inline_data_win_over_files_and_files_are_relative_to_their_kubeconfig(tmp_path: Path) -> None:
    """Paths start at the directory of the file that names them; ``…-data`` is taken before a path."""
    path = simple(
        tmp_path / "sub" / "config",
        user={"client-certificate": "me.crt", "client-key": str(tmp_path / "me.key"), "tokenFile": "token"},
        **{"certificate-authority": "ca.crt", "certificate-authority-data": base64.b64encode(b"PEM").decode()},
    )
    access = load_access(str(path))

    assert access.ca == b"PEM"
    assert access.certificate == tmp_path / "sub" / "me.crt"
    assert access.key == tmp_path / "me.key"
    assert access.token_file == tmp_path / "sub" / "token"


def test_first_file_of_the_list_wins_per_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG's files are merged: the first to set an entry wins it whole, missing files are passed over."""
    first = write(
        tmp_path / "a" / "config",
        clusters={"shared": {"server": "https://first:1", "certificate-authority": "ca.crt"}},
        contexts={"x": {"cluster": "shared", "user": "u"}},
    )
    second = write(
        tmp_path / "b" / "config",
        clusters={"shared": {"server": "https://second:1", "tls-server-name": "n"}, "other": {"server": "https://o:1"}},
        users={"u": {"tokenFile": "token"}},
        contexts={"x": {"cluster": "other", "user": "u"}, "y": {"cluster": "other", "user": "u"}},
        current_context="x",
    )
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(tmp_path / "none"), str(first), "", str(second)]))
    access = load_access()

    assert access.server == "https://first:1"
    assert access.ca == tmp_path / "a" / "ca.crt"
    assert access.tls_server_name is None
    assert access.token_file == tmp_path / "b" / "token"
    assert load_access(context="y").server == "https://o:1"


def test_home_is_looked_in_when_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --kubeconfig and KUBECONFIG it is ~/.kube/config; JSON is as good as YAML."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(
        '{"clusters":[{"name":"c","cluster":{"server":"http://h:1"}}],"users":null,'
        '"contexts":[{"name":"x","context":{"cluster":"c"}}],"current-context":"x"}'
    )
    assert load_access().server == "http://h:1"


def test_pod_uses_its_service_account(tmp_path: Path) -> None:
    """In a pod: address from the environment (IPv6 in brackets), token file, CA and namespace from the mount."""
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    assert in_cluster(environment, tmp_path) is None
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("kube-system\n")
    access = in_cluster(environment, tmp_path)

    assert access == ClusterAccess(
        server="https://[fd00::1]:443",
        ca=tmp_path / "ca.crt",
        token_file=tmp_path / "token",
        default_namespace="kube-system",
    )
    assert in_cluster({}, tmp_path) is None


def test_exec_plugin_is_taken_over(tmp_path: Path) -> None:
    """Command, arguments, environment, hint and the cluster's own configuration for the plugin."""
    path = simple(
        tmp_path / "config",
        user={
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": "./bin/login",
                "args": ["get"],
                "env": [{"name": "A", "value": "b"}],
                "installHint": "get it",
                "provideClusterInfo": True,
                "interactiveMode": "Never",
            }
        },
        extensions=[{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "me"}}],
    )
    assert load_access(str(path)).plugin == ExecPlugin(
        api_version="client.authentication.k8s.io/v1",
        command=str(tmp_path / "bin" / "login"),
        args=("get",),
        env=(("A", "b"),),
        install_hint="get it",
        provide_cluster_info=True,
        interactive_mode="Never",
        config={"audience": "me"},
    )


V1ALPHA1 = {"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "old"}}
WHENEVER = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "x", "interactiveMode": "Whenever"}}


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        pytest.param({"current_context": "nope"}, 'has no context "nope"; it has these contexts: x', id="context"),
        pytest.param({"current_context": ""}, "has no current context; pass --context", id="no-context"),
        pytest.param({"clusters": {}}, 'names the cluster "c", which', id="cluster"),
        pytest.param({"users": {}}, 'names the user "u", which', id="user"),
        pytest.param({"clusters": {"c": {"server": "one:6443"}}}, "must be a URL such as", id="server"),
        pytest.param({"users": {"u": {"auth-provider": {"name": "azure"}}}}, "kubelogin convert", id="auth-provider"),
        pytest.param({"users": {"u": V1ALPHA1}}, "set it to client.authentication.k8s.io/v1", id="v1alpha1"),
        pytest.param({"users": {"u": WHENEVER}}, "must be one of Never, IfAvailable, Always", id="interactive"),
        pytest.param({"clusters": {"c": {"server": 5}}}, "is not a kubeconfig (Expected `str`", id="type"),
        pytest.param(
            {"clusters": {"c": {"server": "https://h", "certificate-authority-data": "%%"}}}, "is not base64", id="b64"
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, parts: dict[str, Any], complaint: str) -> None:
    """Every mistake names the file or entry and the remedy."""
    whole: dict[str, Any] = {
        "clusters": {"c": {"server": "https://one:6443"}},
        "users": {"u": {"token": "t"}},
        "contexts": {"x": {"cluster": "c", "user": "u"}},
        "current_context": "x",
    }
    path = write(tmp_path / "config", **(whole | parts))
    with pytest.raises(UsageError) as caught:
        load_access(str(path))

    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_yaml_is_said_with_its_place(tmp_path: Path) -> None:
    """A file that is no YAML names line and column."""
    path = tmp_path / "config"
    path.write_text("clusters: [\n  nope: {")
    with pytest.raises(UsageError, match=r"is not a kubeconfig .*line 3, column 1"):
        load_access(str(path))


def test_missing_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was asked for must exist; without any, the message says what to do."""
    with pytest.raises(UsageError, match="there is no kubeconfig file"):
        load_access(str(tmp_path / "none"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UsageError, match="no kubeconfig was found"):
        load_access()
