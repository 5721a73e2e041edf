# SPDX-License-Identifier: Apache-2.0
"""``ringfence explain``, by files and against a server."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.cli.main import run
from ringfence.kube.testing import ApiServer

PODS = """\
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: demo, labels: {run: client}}
spec: {nodeName: node-a, containers: [{name: main}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: demo, labels: {app: server}}
spec: {nodeName: node-a, containers: [{name: main, ports: [{name: http, containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: demo}
spec: {selector: {app: server}, ports: [{port: 8080, targetPort: http}]}
"""
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: demo-policy, namespace: demo}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: client}}}]
      ports: [{port: 80, protocol: TCP}]
"""
ONLY_IPV4 = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: four, namespace: demo}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]
"""
NODE = """\
apiVersion: v1
kind: Node
metadata: {name: node-a}
spec: {podCIDRs: [10.244.0.0/24, "fd00:10::/64"]}
"""
DENIED = """\
demo/client -> demo/server TCP/80: DENIED
  egress of demo/client: allowed, no policy isolates it (1 in its namespace do not apply to it)
  ingress of demo/server: denied, isolated by NetworkPolicy demo/demo-policy, and no rule matches
    nearest rule: NetworkPolicy demo/demo-policy spec.ingress[0]
      peer needs app=client, demo/client has run=client
      to match it: kubectl label pod client -n demo app=client
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a directory with the pods and the policy of the walk-through."""
    (tmp_path / "pods.yaml").write_text(PODS)
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


def explain(*args: str) -> int:
    """Run the command in this process; returns the exit code."""
    return run(["explain", *args])


def test_a_denied_connection_is_explained_and_exits_with_1(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole answer, as a person sees it."""
    code = explain("--from", "demo/client", "--to", "demo/server", "--port", "80", "-f", str(files))

    assert (code, capsys.readouterr().out) == (1, DENIED)


def test_an_allowed_connection_exits_with_0(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the label that the explanation asked for, the connection is allowed."""
    (files / "pods.yaml").write_text(PODS.replace("run: client", "app: client"))

    code = explain("--from", "client", "--to", "pod/server", "-n", "demo", "--port", "http", "-f", str(files))

    assert code == 0
    assert "demo/client -> demo/server TCP/80: ALLOWED" in capsys.readouterr().out


def test_a_service_is_judged_on_the_pod_behind_it(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The translation is told."""
    code = explain("--from", "demo/client", "--to", "svc/demo/web", "-f", str(files))

    out = capsys.readouterr().out
    assert code == 1
    assert out.startswith(DENIED)
    assert "note: Service demo/web port 8080 leads to demo/server port 80" in out


def test_families_that_differ_are_both_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A denied family is not hidden by an allowed one, and decides the exit code where pods have that family."""
    (files / "policy.yaml").write_text(ONLY_IPV4)
    (files / "node.yaml").write_text(NODE)

    code = explain("--from", "demo/client", "--to", "demo/server", "--port", "80", "-f", str(files))

    out = capsys.readouterr().out
    assert code == 1
    assert "demo/client -> demo/server TCP/80: DENIED (IPv6)" in out
    assert "demo/client -> demo/server TCP/80: ALLOWED (IPv4)" in out
    assert "the verdict depends on where the connection ends: demo/client -> demo/server IPv6 denied" in out


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_programs_get_a_document(form: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON and YAML say the same: the verdict on top, an item for each family."""
    code = explain("--from", "demo/client", "--to", "demo/web", "-o", form, "-f", str(files))

    document: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    assert (code, document["allowed"], document["verdict"]) == (1, False, "Denied")
    assert [document["kind"], document["items"][0]["kind"]] == ["ExplanationList", "Explanation"]
    assert [item["family"] for item in document["items"]] == [4, 6]
    assert document["items"][0]["ingress"]["nearest"]["misses"][0]["aspect"] == "podLabels"


def test_verbose_tells_of_every_policy(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not apply is told too, and why."""
    explain("--from", "demo/client", "--to", "demo/server", "--port", "80", "-v", "-f", str(files))

    out = capsys.readouterr().out
    assert "- NetworkPolicy demo/demo-policy: NotApplicable: policy needs app=server, demo/client has run=client" in out


def test_icmp_is_the_echo_of_each_family(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A protocol without ports needs no port, and IPv6 has its own."""
    explain("--from", "demo/server", "--to", "demo/client", "--protocol", "icmp", "-o", "json", "-f", str(files))

    document = json.loads(capsys.readouterr().out)
    assert [item["protocol"] for item in document["items"]] == ["ICMP", "ICMPv6"]


def test_manifests_come_from_stdin_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``-f -`` reads what is piped in."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PODS}---\n{POLICY}"))

    assert explain("--from", "demo/client", "--to", "demo/server", "--port", "80", "-f", "-") == 1
    assert capsys.readouterr().out == DENIED


def test_every_error_of_the_files_is_printed_with_its_place(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two broken fields in one file and a broken file: three lines, each beginning with file, line and column."""
    (files / "policy.yaml").write_text(POLICY.replace("port: 80", "port: 99999").replace("app: client", "app: -"))
    (files / "torn.yaml").write_text("kind: [")

    code = explain("--from", "demo/client", "--to", "demo/server", "--port", "80", "-f", str(files))

    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert [line.startswith(str(files)) for line in lines] == [True] * 3
    assert any(f"{files}/policy.yaml:8:" in line and "spec.ingress[0].ports[0].port" in line for line in lines)
    assert any(f"{files}/torn.yaml:" in line for line in lines)


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        pytest.param(
            ["--to", "demo/nobody", "--port", "80"], "no pod or Service demo/nobody in the files", id="no-pod"
        ),
        pytest.param(["--to", "demo/server"], "which port?", id="no-port"),
        pytest.param(["--to", "demo/server", "--port", "0"], "no port 0", id="port"),
        pytest.param(["--to", "demo/server", "--port", "80", "--protocol", "x"], "'x' is not one of", id="protocol"),
        pytest.param(["--port", "80"], "Missing option '--to'", id="missing-option"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    args: list[str], complaint: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and stderr says what to do instead."""
    code = explain("--from", "demo/client", *args, "-f", str(files))

    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert complaint in captured.err


def test_ends_without_a_common_family_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A connection stays in one address family."""
    code = explain("--from", "10.0.0.1", "--to", "2001:db8::1", "--port", "80", "-f", str(files))

    assert code == 2
    assert "no address family in common" in capsys.readouterr().err


def test_output_to_a_pipe_has_no_colour(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences are for terminals."""
    explain("--from", "demo/client", "--to", "demo/server", "--port", "80", "-f", str(files))

    assert "\x1b" not in capsys.readouterr().out


CORE, NETWORKING = "/api/v1", "/apis/networking.k8s.io/v1"


def stocked() -> ApiServer:
    """Return a server that holds the objects of the walk-through, the pods with addresses."""
    server = ApiServer()
    addresses = {"client": ("10.0.0.10", "fd00::10"), "server": ("10.0.0.11", "fd00::11")}
    server.put(f"{CORE}/namespaces", {"metadata": {"name": "demo"}})
    server.put(
        f"{CORE}/nodes",
        {"metadata": {"name": "node-a"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}},
    )
    server.collections[f"{CORE}/services"] = {}
    server.collections["/apis/discovery.k8s.io/v1/endpointslices"] = {}
    for text in (*PODS.split("---\n"), POLICY):
        stored = yaml.safe_load(text)
        collection = {"Pod": f"{CORE}/pods", "Service": f"{CORE}/services"}.get(
            stored["kind"], f"{NETWORKING}/networkpolicies"
        )
        if stored["kind"] == "Pod":
            four, six = addresses[stored["metadata"]["name"]]
            stored["status"] = {"phase": "Running", "podIP": four, "podIPs": [{"ip": four}, {"ip": six}]}
        # Items of a list do not say what they are.
        del stored["apiVersion"], stored["kind"]
        server.put(collection, stored)
    return server


def kubeconfig(path: Path, server: str, namespace: str = "demo") -> Path:
    """Write a kubeconfig for a server."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


async def test_a_live_cluster_is_asked_without_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pods, policies and the namespace meant come from the server and the kubeconfig."""
    async with stocked().serving() as server:
        config = kubeconfig(tmp_path / "config", server.url)
        args = ["--from", "client", "--to", "server", "--port", "80", "--kubeconfig", str(config)]

        code = await asyncio.to_thread(explain, *args)
        by_service = await asyncio.to_thread(explain, *args[:3], "svc/web", *args[6:])

    assert (code, by_service) == (1, 1)
    assert capsys.readouterr().out.startswith(DENIED)


async def test_stored_but_invalid_policies_are_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A live cluster may hold what would be refused today: what it was meant to admit is not guessed."""
    held = stocked()
    broken = {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "nonsense"}}]}]}
    held.put(f"{NETWORKING}/networkpolicies", {"metadata": {"name": "broken", "namespace": "demo"}, "spec": broken})
    async with held.serving() as server:
        config = kubeconfig(tmp_path / "config", server.url)
        code = await asyncio.to_thread(
            explain, "--from", "server", "--to", "client", "--port", "80", "--kubeconfig", str(config)
        )

    captured = capsys.readouterr()
    assert code == 3
    assert "undecidable, isolated by NetworkPolicy demo/broken" in captured.out
    assert "would have to be known: what NetworkPolicy demo/broken means by spec.ingress[0]" in captured.out
    assert "until then ringfence lets spec.ingress[0] match nothing" in captured.out
    assert "warning: stored, but invalid" in captured.err
    assert "spec.ingress[0].from[0].ipBlock.cidr" in captured.err


async def test_an_operators_choices_can_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A node reaches its pods unless the agents were told otherwise: then policy decides."""
    async with stocked().serving() as server:
        config = ("--kubeconfig", str(kubeconfig(tmp_path / "config", server.url)))
        args = ("--from", "node/node-a", "--to", "server", "--port", "80", *config)
        codes = [await asyncio.to_thread(explain, *args, *more) for more in ((), ("--node-probes", "deny"))]

    assert codes == [0, 1]
    assert "a node always reaches the pods that run on it" in capsys.readouterr().out


async def test_what_a_live_cluster_has_not_told_yet_is_not_guessed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pod without an address is undecidable only where a block asks for it; a garbled address is none."""
    held = stocked()
    peers = [{"ipBlock": {"cidr": "10.0.0.0/8"}}, {"ipBlock": {"cidr": "::/0"}}]
    blocks = {"podSelector": {}, "ingress": [{"from": peers}]}
    held.put(f"{NETWORKING}/networkpolicies", {"metadata": {"name": "blocks", "namespace": "demo"}, "spec": blocks})
    for name, status in (("new", {"phase": "Pending"}), ("odd", {"podIP": "x", "podIPs": [{"ip": "y"}]})):
        held.put(f"{CORE}/pods", {"metadata": {"name": name, "namespace": "demo"}, "status": status})
    async with held.serving() as server:
        config = ("--kubeconfig", str(kubeconfig(tmp_path / "config", server.url)), "-o", "wide")
        to_new = ("--to", "new", "--port", "80", *config)
        codes = [
            await asyncio.to_thread(explain, "--from", "client", *to_new),
            await asyncio.to_thread(explain, "--from", "odd", *to_new),
        ]

    out = capsys.readouterr().out
    assert codes == [0, 3]
    assert "- NetworkPolicy demo/blocks: Undecidable: the address of demo/odd (peer needs 10.0.0.0/8)" in out
    assert "198.18." not in out


def test_a_cluster_that_does_not_answer_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a sentence, nothing on stdout."""
    config = kubeconfig(tmp_path / "config", "http://127.0.0.1:1")

    code = explain("--from", "client", "--to", "server", "--port", "80", "--kubeconfig", str(config))

    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert "127.0.0.1:1" in captured.err
