# SPDX-License-Identifier: Apache-2.0
"""``ringfence reachability``, by files and against a server: what is chosen, and each form of output."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.cli.main import run
from ringfence.kube.testing import ApiServer
from tests.cli.test_explain_command import kubeconfig

DOCUMENT = Path(__file__).parents[2] / "docs" / "reachability.md"


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """Return the shop of the document, with a pod of another namespace."""
    content = DOCUMENT.read_text().partition("```yaml\n")[2].partition("```")[0]
    other = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "safe", "namespace": "bank"}, "spec": {}}
    (tmp_path / "shop.yaml").write_text(f"{content}---\n{yaml.safe_dump(other)}")
    return str(tmp_path)


def reachability(*args: str) -> int:
    """Run the command in this process; returns the exit code."""
    return run(["reachability", *args])


def _connections(capsys: pytest.CaptureFixture[str]) -> set[tuple[str, str]]:
    document = json.loads(capsys.readouterr().out)
    return {(each["from"], each["to"]) for each in document["connections"]}


def test_a_namespace_shows_what_begins_or_ends_there(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The rest of the cluster is there as the other end only."""
    assert reachability("-f", shop, "-n", "bank", "-o", "json") == 0

    assert _connections(capsys) == {
        ("bank/safe", "outside (0.0.0.0/0, ::/0)"),
        ("outside (0.0.0.0/0, ::/0)", "bank/safe"),
        ("shop/client", "bank/safe"),
        ("shop/db", "bank/safe"),
        ("shop/web", "bank/safe"),
    }


@pytest.mark.parametrize("name", ["db", "shop/db", "shop/sts/db", "d?"])
def test_ends_are_chosen_by_name_pod_or_pattern(name: str, shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As the table has them, or as pods are called."""
    reachability("-f", shop, "--from", "*web*", "--to", name, "-o", "json")

    assert _connections(capsys) == {("shop/web", "shop/db")}


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--to", "nobody"], "nobody is called 'nobody': names are as in bank/safe"),
        (["-n", "moon"], "no pod with an address in namespace moon (there are pods in: bank, shop)"),
        (["--protocol", "ICMP", "--port", "80"], "ICMP has no ports"),
        (["-f", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    args: list[str], complaint: str, shop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, on stderr."""
    assert reachability("-f", shop, *args) == 2

    assert complaint in capsys.readouterr().err


def test_ungrouped_shows_each_pod(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Replicas of a workload that a file holds are two."""
    reachability("-f", shop, "--ungrouped", "--from", "*web*", "--to", "*db*", "-o", "json")

    assert _connections(capsys) == {(f"shop/deploy/web{a}", f"shop/sts/db{b}") for a in ("", "~2") for b in ("", "~2")}


def test_without_a_pod_there_is_nothing_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And it says so."""
    (tmp_path / "empty.yaml").write_text("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")

    assert reachability("-f", str(tmp_path)) == 0
    assert "there is no pod" in capsys.readouterr().out


def test_many_workloads_are_a_list(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A matrix that no terminal could show is not printed."""
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"job-{n}", "namespace": "bank", "labels": {"n": str(n)}},
        }
        for n in range(20)
    ]
    (Path(shop) / "more.yaml").write_text(yaml.safe_dump_all(pods))
    reachability("-f", shop)
    text = capsys.readouterr().out

    assert text.startswith("FROM  ")
    assert "bank/* (21)" in text


def test_notes_tell_what_was_made_up_and_who_is_a_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Made-up addresses matter where blocks are judged on them."""
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "shop"}, "spec": {}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "host", "namespace": "shop"},
            "spec": {"hostNetwork": True},
            "status": {"podIP": "10.1.0.1"},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "block", "namespace": "shop"},
            "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
        },
    ]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(objects))
    reachability("-f", str(tmp_path))
    text = capsys.readouterr().out

    assert "1 of 1 pods have no known address" in text
    assert "pods with hostNetwork are their nodes, and no policy isolates them: shop/host" in text


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_a_graph_is_one_that_graphviz_draws(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every end is in the picture."""
    reachability("-f", shop, "-o", "dot")
    drawn = subprocess.run(
        ["dot", "-Tsvg"], input=capsys.readouterr().out, capture_output=True, text=True, check=True
    ).stdout

    assert all(f">{name}<" in drawn for name in ("client", "web", "db", "safe"))


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.cells = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        self.cells += tag == "td"


def test_a_page_needs_nothing_else(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No address of anything outside of the file."""
    reachability("-f", shop, "-o", "html")
    page = capsys.readouterr().out
    links = _Links()
    links.feed(page)

    assert links.found == []
    assert not [word for word in ("http:", "https:", "url(", "@import") if word in page]
    assert links.cells == 5 * 5


def test_yaml_is_the_same_document(shop: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In another notation."""
    reachability("-f", shop, "-o", "yaml")
    as_yaml = yaml.safe_load(capsys.readouterr().out)
    reachability("-f", shop, "-o", "json")

    assert as_yaml == json.loads(capsys.readouterr().out)


def _stocked() -> ApiServer:
    """Return a server with two pods of a Deployment, and one of another namespace."""
    server = ApiServer()
    for path in ("nodes", "services"):
        server.collections[f"/api/v1/{path}"] = {}
    server.collections["/apis/networking.k8s.io/v1/networkpolicies"] = {}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "1", "controller": True}
    for number, (namespace, name) in enumerate((("shop", "web-5d4f-a"), ("shop", "web-5d4f-b"), ("bank", "safe"))):
        meta: dict[str, Any] = {"name": name, "namespace": namespace, "labels": {"pod-template-hash": "5d4f"}}
        if namespace == "shop":
            meta["ownerReferences"] = [owner]
        status = {"phase": "Running", "podIP": f"10.0.0.{number}", "podIPs": [{"ip": f"10.0.0.{number}"}]}
        server.put("/api/v1/namespaces", {"metadata": {"name": namespace}})
        server.put("/api/v1/pods", {"metadata": meta, "spec": {}, "status": status})
    return server


async def test_a_live_cluster_shows_the_namespace_of_the_context(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pods go by the Deployment that their references lead to; -A shows all namespaces."""
    async with _stocked().serving() as server:
        config = str(kubeconfig(tmp_path / "config", server.url, "bank"))
        await asyncio.to_thread(reachability, "--kubeconfig", config, "-o", "json")
        one = _connections(capsys)
        await asyncio.to_thread(reachability, "--kubeconfig", config, "-A", "-o", "json")
        every = _connections(capsys)

    assert all("bank/safe" in ends for ends in one)
    assert every - one == {
        ("shop/web", "shop/web"),
        ("shop/web", "outside (0.0.0.0/0)"),
        ("outside (0.0.0.0/0)", "shop/web"),
    }
