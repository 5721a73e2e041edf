# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import HostLacks, HostRefused, UsageError
from ringfence.kube import credentials
from ringfence.kube.config import ClusterAccess, ExecPlugin
from ringfence.kube.credentials import CredentialSource

V1 = "client.authentication.k8s.io/v1"
V1BETA1 = "client.authentication.k8s.io/v1beta1"


def plugin(directory: Path, status: dict[str, Any], *, api_version: str = V1, **options: Any) -> ExecPlugin:
    """Write a credential plugin (a real program) that counts its runs and keeps what it was told."""
    script = directory / "plugin.py"
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, os, pathlib\n"
        f"here = pathlib.Path({str(directory)!r})\n"
        "runs = here / 'runs'\n"
        "runs.write_text(str(int(runs.read_text()) + 1 if runs.exists() else 1))\n"
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "(here / 'info').write_text(json.dumps(info))\n"
        f"status = json.loads({json.dumps(status)!r})\n"
        "status = {k: v.replace('RUN', runs.read_text()) for k, v in status.items()}\n"
        "print(json.dumps({'apiVersion': info['apiVersion'], 'kind': 'ExecCredential', 'status': status}))\n"
    )
    script.chmod(0o755)
    return ExecPlugin(api_version=api_version, command=str(script), interactive_mode="Never", **options)


def authorization(source: CredentialSource) -> str | None:
    """Return the header that a request would carry now."""
    return dict(source.current().headers).get("Authorization")


@pytest.mark.parametrize("api_version", [V1, V1BETA1])
def test_plugin_is_told_its_version_and_cluster(tmp_path: Path, api_version: str) -> None:
    """KUBERNETES_EXEC_INFO is always set, with the version asked for and, if wished, the cluster."""
    access = ClusterAccess(
        server="https://one:6443",
        ca=b"PEM",
        tls_server_name="real",
        plugin=plugin(tmp_path, {"token": "tRUN"}, api_version=api_version, provide_cluster_info=True, config={"a": 1}),
    )
    assert authorization(CredentialSource(access)) == "Bearer t1"
    assert json.loads((tmp_path / "info").read_text()) == {
        "apiVersion": api_version,
        "kind": "ExecCredential",
        "spec": {
            "interactive": False,
            "cluster": {
                "server": "https://one:6443",
                "tls-server-name": "real",
                "certificate-authority-data": base64.b64encode(b"PEM").decode(),
                "config": {"a": 1},
            },
        },
    }


def test_plugin_without_expiry_runs_once_until_refused(tmp_path: Path) -> None:
    """Its answer is kept until the server answers 401."""
    source = CredentialSource(ClusterAccess(server="https://h", plugin=plugin(tmp_path, {"token": "tRUN"})))
    assert [authorization(source), authorization(source)] == ["Bearer t1", "Bearer t1"]
    source.reject(source.current())

    assert authorization(source) == "Bearer t2"


def test_plugin_runs_again_before_its_credential_expires(tmp_path: Path) -> None:
    """A credential is renewed a while before expirationTimestamp, and kept before that."""
    late = {"token": "tRUN", "expirationTimestamp": "2999-01-01T00:00:00Z"}
    soon = {"token": "tRUN", "expirationTimestamp": "2001-01-01T00:00:00+01:00"}
    (tmp_path / "late").mkdir()
    (tmp_path / "soon").mkdir()
    kept = CredentialSource(ClusterAccess(server="https://h", plugin=plugin(tmp_path / "late", late)))
    renewed = CredentialSource(ClusterAccess(server="https://h", plugin=plugin(tmp_path / "soon", soon)))

    assert [authorization(kept), authorization(kept)] == ["Bearer t1", "Bearer t1"]
    assert [authorization(renewed), authorization(renewed)] == ["Bearer t1", "Bearer t2"]


def test_late_refusal_of_an_old_credential_does_not_drop_the_new_one(tmp_path: Path) -> None:
    """Two requests refused with the same old token run the plugin once."""
    source = CredentialSource(ClusterAccess(server="https://h", plugin=plugin(tmp_path, {"token": "tRUN"})))
    old = source.current()
    source.reject(old)
    assert authorization(source) == "Bearer t2"
    source.reject(old)

    assert authorization(source) == "Bearer t2"


def test_plugin_may_give_a_client_certificate(tmp_path: Path) -> None:
    """Certificate and key are handed to TLS."""
    status = {"clientCertificateData": "CERT", "clientKeyData": "KEY"}
    source = CredentialSource(ClusterAccess(server="https://h", plugin=plugin(tmp_path, status)))

    assert (source.current().certificate, source.current().key) == (b"CERT", b"KEY")


@pytest.mark.parametrize(
    ("body", "answered"),
    [
        pytest.param("print('hello')", "JSON is malformed", id="no-json"),
        pytest.param(
            """print('{"apiVersion":"v2","kind":"ExecCredential"}')""", "it answered ExecCredential v2", id="v"
        ),
        pytest.param(
            f"""print('{{"apiVersion":"{V1}","kind":"ExecCredential","status":{{}}}}')""", "neither a token", id="empty"
        ),
        pytest.param(
            f"""print('{{"apiVersion":"{V1}","kind":"ExecCredential","status":{{"clientCertificateData":"c"}}}}')""",
            "without its key",
            id="no-key",
        ),
        pytest.param("import sys; sys.exit('not logged in')", "not logged in", id="exit"),
    ],
)
def test_plugin_that_fails_is_quoted(tmp_path: Path, body: str, answered: str) -> None:
    """What the plugin said is in the error."""
    script = tmp_path / "p"
    script.write_text(f"#!{sys.executable}\n{body}\n")
    script.chmod(0o755)
    access = ClusterAccess(server="https://h", plugin=ExecPlugin(V1, str(script), interactive_mode="Never"))
    with pytest.raises(HostRefused) as caught:
        CredentialSource(access).current()

    assert answered in str(caught.value)


def test_plugin_that_is_missing_comes_with_its_hint(tmp_path: Path) -> None:
    """The kubeconfig's installHint is the remedy."""
    missing = ExecPlugin(
        V1, str(tmp_path / "none"), install_hint="Install it\nfrom example.org", interactive_mode="Never"
    )
    with pytest.raises(HostLacks, match=r"Install it from example\.org"):
        CredentialSource(ClusterAccess(server="https://h", plugin=missing)).current()


def test_plugin_that_needs_a_terminal_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """InteractiveMode Always without a terminal is an error with the remedy, not a hang."""
    monkeypatch.setattr(sys, "stdin", None)
    access = ClusterAccess(server="https://h", plugin=ExecPlugin(V1, str(tmp_path / "x"), interactive_mode="Always"))
    with pytest.raises(HostLacks, match="in a terminal"):
        CredentialSource(access).current()


def test_token_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each minute (here: at once) and after a 401; a file that vanishes for a moment leaves the last token."""
    file = tmp_path / "token"
    file.write_text("one\n")
    source = CredentialSource(ClusterAccess(server="https://h", token_file=file, token="static"))
    assert authorization(source) == "Bearer one"
    file.write_text("two")
    assert authorization(source) == "Bearer one"
    source.reject(source.current())
    assert authorization(source) == "Bearer two"
    monkeypatch.setattr(credentials, "REREAD_SECONDS", 0.0)
    file.write_text("three")
    source.reject(source.current())
    assert [authorization(source)] == ["Bearer three"]
    file.unlink()

    assert authorization(source) == "Bearer three"


def test_token_file_that_never_was_is_said(tmp_path: Path) -> None:
    """Without another token a missing file is an error; with one, that is used."""
    missing = tmp_path / "none"
    with pytest.raises(UsageError, match="cannot read the token file"):
        CredentialSource(ClusterAccess(server="https://h", token_file=missing)).current()

    assert (
        authorization(CredentialSource(ClusterAccess(server="https://h", token_file=missing, token="t"))) == "Bearer t"
    )


def test_basic_authentication_and_nothing_at_all() -> None:
    """User name and password make a Basic header; an empty user makes none."""
    basic = CredentialSource(ClusterAccess(server="https://h", username="u", password="p"))

    assert authorization(basic) == "Basic " + base64.b64encode(b"u:p").decode()
    assert authorization(CredentialSource(ClusterAccess(server="https://h"))) is None
