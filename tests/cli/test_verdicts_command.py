# SPDX-License-Identifier: Apache-2.0
"""``ringfence verdicts``: what other suites' runners send and get."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli.main import run


def a_pod(name: str, address: str) -> dict[str, Any]:
    """Return a pod as such a runner sends it: no uid, no times."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "labels": {"app": name}},
        "spec": {"nodeName": "node-0", "hostNetwork": False, "containers": [{"name": "main", "ports": []}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {}}}
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "p", "namespace": "x"},
    "spec": {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"]},
}


def probe(source: str, destination: str, protocol: str = "TCP", port: int | None = 80) -> dict[str, Any]:
    """Return a probe between two addresses."""
    return {"from": {"ip": source}, "to": {"ip": destination}, "protocol": protocol, "port": port}


def case(*, extra: Any = None, probes: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return a case of two steps: a policy comes, and goes."""
    both = probes or [
        probe("10.0.0.1", "10.0.0.2"),
        probe("10.0.0.2", "10.0.0.1"),
        probe("10.0.0.1", "10.0.0.2", "ICMP"),
    ]
    applied = [NAMESPACE, a_pod("a", "10.0.0.1"), a_pod("b", "10.0.0.2"), POLICY, *([extra] if extra else [])]
    return {
        "id": "a case",
        "steps": [
            {"objects": applied, "events": [{"type": "apply", "object": o} for o in applied], "probes": both},
            {"objects": applied[:-1], "events": [{"type": "delete", "object": POLICY}], "probes": both},
        ],
    }


@pytest.mark.parametrize("dataplane", ["reference", "memory"])
def test_each_step_gets_a_word_for_each_probe(
    dataplane: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events are followed from step to step."""
    path = tmp_path / "case.json"
    path.write_text(json.dumps(case()))

    code = run(["verdicts", str(path), "--dataplane", dataplane])

    assert code == 0
    assert json.loads(capsys.readouterr().out) == {"verdicts": [["deny", "allow", "deny"], ["allow", "allow", "allow"]]}


def test_a_case_may_come_from_stdin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` is stdin."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(case()).encode())))

    assert run(["verdicts", "-"]) == 0
    assert "verdicts" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        pytest.param("{", "Input data was truncated", id="torn"),
        pytest.param({"id": "x"}, "missing required field `steps`", id="no-steps"),
        pytest.param(case(probes=[probe("10.0.0.1", "fd00::1")]), "steps[0].probes[0]: a flow stays", id="families"),
        pytest.param(case(probes=[probe("10.0.0.1", "nowhere")]), "steps[0].probes[0]: 'nowhere'", id="address"),
        pytest.param(case(probes=[probe("10.0.0.1", "10.0.0.2", "GRE")]), "no protocol: 'GRE'", id="protocol"),
        pytest.param(case(probes=[probe("10.0.0.1", "10.0.0.2", "TCP", None)]), "no port", id="port"),
        pytest.param(
            case(
                extra={
                    "apiVersion": "policy.networking.k8s.io/v1alpha2",
                    "kind": "ClusterNetworkPolicy",
                    "metadata": {"name": "c"},
                }
            ),
            "steps[0].events[4].object: ClusterNetworkPolicy policy.networking.k8s.io/v1alpha2 is not supported yet",
            id="kind",
        ),
        pytest.param(case(extra={"kind": "Pod"}), "an object has a kind and a metadata.name", id="no-object"),
    ],
)
def test_a_case_that_cannot_be_run_is_refused_as_a_whole(
    document: Any, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, no verdicts, and the place that is wrong: nothing is left out in silence."""
    path = tmp_path / "case.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))

    code = run(["verdicts", str(path)])

    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.startswith(f"{path}:")
    assert complaint in captured.err


def test_every_mistake_of_a_case_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One wrong probe hides neither the other nor a wrong event; they come in the order of the lines."""
    wrong = case(
        probes=[probe("10.0.0.1", "fd00::1"), {"from": 5}, probe("10.0.0.1", "10.0.0.2")], extra={"kind": "Pod"}
    )
    path = tmp_path / "case.json"
    path.write_text(json.dumps(wrong, indent=1))

    assert run(["verdicts", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    numbers = [int(line.removeprefix(f"{path}:").partition(":")[0]) for line in lines]
    assert len(lines) == 5
    assert numbers == sorted(numbers)
    assert all("steps[" in line for line in lines)
    text = path.read_text().splitlines()
    places = [n for n, line in zip(numbers, lines, strict=True) if "probes[1]" in line]
    assert [text[n - 1].strip() for n in places] == ['"from": 5', '"from": 5']
