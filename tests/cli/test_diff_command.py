# SPDX-License-Identifier: Apache-2.0
"""``ringfence diff``: by files, and what applying or deleting files would change in a cluster."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.cli.main import run
from tests.cli.test_explain_command import NETWORKING, kubeconfig, stocked

WEB = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}}}
CLIENT = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client", "namespace": "shop"}}


def network_policy(name: str, namespace: str | None = "shop", **spec: Any) -> dict[str, Any]:
    """Return a NetworkPolicy; without a namespace if that is None."""
    meta = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta,
        "spec": {"podSelector": {}, **spec},
    }


def diff(*args: str) -> int:
    """Run the command in this process; returns the exit code."""
    return run(["diff", *args])


def write(path: Path, *objects: dict[str, Any]) -> str:
    """Write objects to a file, and return its name."""
    path.write_text(yaml.safe_dump_all(objects))
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    """Return files with old policies, new policies, and pods."""
    return (
        write(tmp_path / "old.yaml", network_policy("open", ingress=[{}]), network_policy("gone", ingress=[])),
        write(tmp_path / "new.yaml", network_policy("open", ingress=[{"ports": [{"port": 80}]}])),
        write(tmp_path / "pods.yaml", WEB, CLIENT),
    )


def test_files_that_differ_exit_with_1(files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Lost: everything but the port that is still allowed."""
    old, new, pods = files

    assert diff(old, new, "--cluster", pods) == 1
    assert "all except TCP/80" in capsys.readouterr().out


def test_files_that_mean_the_same_exit_with_0(files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """And say so."""
    old, _, pods = files

    assert diff(old, old, "--cluster", pods) == 0
    assert capsys.readouterr().out == "No connection is gained or lost.\n"


def test_without_pods_every_kind_of_pod_is_imagined(
    files: tuple[str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Policies alone can be compared, and it is said for whom."""
    assert diff(files[0], files[1]) == 1
    text = capsys.readouterr().out

    assert "-> shop/{} all except TCP/80" in text
    assert "note: no pods are given: compared for every kind of pod" in text
    assert "port names stand for" not in text


def test_what_cannot_be_imagined_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Selectors of very many labels: exit code 2, and what to give."""
    labels = {f"key-{n}": str(n) for n in range(20)}
    many = write(tmp_path / "many.yaml", network_policy("many", podSelector={"matchLabels": labels}))

    assert diff(many, many) == 2
    assert "say which there are with --cluster FILE" in capsys.readouterr().err


async def test_a_cluster_without_pods_has_nobody_to_compare_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not guessed which pods it will have."""
    server = stocked()
    server.collections["/api/v1/pods"] = {}
    file = write(tmp_path / "new.yaml", network_policy("new", "demo"))
    async with server.serving() as serving:
        config = kubeconfig(tmp_path / "config", serving.url)
        assert await asyncio.to_thread(diff, "-f", file, "--kubeconfig", str(config)) == 2

    assert "there is no pod in the cluster" in capsys.readouterr().err


def test_pods_that_differ_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels of NEW count on both sides; that is said."""
    relabelled = {**WEB, "metadata": {**WEB["metadata"], "labels": {"app": "other"}}}  # type: ignore[dict-item]
    old = write(tmp_path / "old.yaml", WEB, CLIENT)
    new = write(tmp_path / "new.yaml", relabelled, CLIENT)

    assert diff(old, new) == 0
    assert "only policies are compared: Pod/shop/web differ, and count as in NEW" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args", [[], ["one"], ["one", "two", "three"], ["one", "two", "-f", "x"], ["one", "two", "--delete"]]
)
def test_forms_that_are_none_are_refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With the two that there are."""
    assert diff(*args) == 2

    assert "give OLD and NEW, or -f FILE" in capsys.readouterr().err


def test_broken_files_are_complained_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With their place; exit code 2."""
    broken = write(tmp_path / "broken.yaml", network_policy("broken", ingress=[{"ports": [{"port": 99999}]}]))

    assert diff(broken, broken) == 2
    assert "broken.yaml:" in capsys.readouterr().err


async def _live(tmp_path: Path, *args: str) -> int:
    held = stocked()
    held.put(
        f"{NETWORKING}/networkpolicies",
        {"metadata": {"name": "stays", "namespace": "demo"}, "spec": {"podSelector": {"matchLabels": {"run": "x"}}}},
    )
    async with held.serving() as server:
        config = kubeconfig(tmp_path / "config", server.url)
        return await asyncio.to_thread(diff, *args, "--kubeconfig", str(config))


async def test_applying_to_a_cluster_changes_what_the_file_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The policy of the file takes the place of the one of its name, in the namespace of the context."""
    spec = {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"ports": [{"port": 80}]}]}
    file = write(tmp_path / "new.yaml", network_policy("demo-policy", None, **spec))
    code = await _live(tmp_path, "-f", file, "-o", "json")
    document = json.loads(capsys.readouterr().out)

    assert code == 1
    assert document["lost"] == []
    assert {(each["from"], each["to"]) for each in document["gained"]} == {
        ("demo/client", "demo/server"),
        ("outside (0.0.0.0/0, ::/0)", "demo/server"),
    }
    assert document["gained"][0]["because"] == ["ingress allowed by NetworkPolicy demo/demo-policy spec.ingress[0]"]


async def test_deleting_from_a_cluster_frees_whom_it_isolated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the name counts; what is not there is noted."""
    file = write(tmp_path / "old.yaml", network_policy("demo-policy", "demo"), network_policy("none", "demo"))
    code = await _live(tmp_path, "-f", file, "--delete")
    text = capsys.readouterr().out

    assert code == 1
    assert "ingress no longer isolated by NetworkPolicy demo/demo-policy" in text
    assert "note: NetworkPolicy/demo/none is not in the cluster" in text


async def test_a_file_without_policies_has_nothing_to_apply(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And a file with more than policies is told what of it counts."""
    assert await _live(tmp_path, "-f", write(tmp_path / "pods.yaml", WEB)) == 2
    assert "no NetworkPolicy in" in capsys.readouterr().err

    more = write(
        tmp_path / "more.yaml", WEB, network_policy("stays", "demo", podSelector={"matchLabels": {"run": "x"}})
    )
    assert await _live(tmp_path, "-f", more) == 0
    assert "other objects of the files are left out" in capsys.readouterr().out
