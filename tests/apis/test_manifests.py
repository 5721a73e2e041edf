# SPDX-License-Identifier: Apache-2.0
"""Manifests from files, and the cluster that they make."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from ringfence.apis.manifests import cluster_from_manifests, cluster_from_objects, load_paths, load_text
from ringfence.errors import InvalidObject
from ringfence.model.cluster import PodKey
from ringfence.model.policy import ANY_PEER, Peers

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\n"


def texts(problems: tuple[InvalidObject, ...]) -> list[str]:
    """Return the lines of all problems."""
    return [line for problem in problems for line in str(problem).splitlines()]


def names(objects: Any) -> list[str]:
    """Return the names of objects, in order."""
    return [manifest.object["metadata"]["name"] for manifest in objects]


def test_files_and_directories_are_read_as_kubectl_reads_them(tmp_path: Path) -> None:
    """Sorted, by suffix, below only when asked."""
    (tmp_path / "below").mkdir()
    (tmp_path / "b.yaml").write_text(POD % "b")
    (tmp_path / "a.yml").write_text(POD % "a" + "---\n" + POD % "a2")
    (tmp_path / "c.json").write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c"}}))
    (tmp_path / "notes.txt").write_text("not: read")
    (tmp_path / "below" / "d.yaml").write_text("\ufeff" + POD % "d")

    assert names(load_paths([tmp_path]).manifests) == ["a", "a2", "b", "c"]
    assert names(load_paths([tmp_path], recursive=True).manifests) == ["a", "a2", "b", "d", "c"]
    assert names(load_paths([str(tmp_path / "b.yaml"), "-"], stdin=lambda: POD % "s").manifests) == ["b", "s"]


def test_a_path_that_cannot_be_read_hides_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each such path is one complaint in kubectl's words; the other files are read all the same."""
    loop, shut, good = tmp_path / "loop", tmp_path / "shut.yaml", tmp_path / "good.yaml"
    loop.symlink_to(tmp_path / "loop2")
    (tmp_path / "loop2").symlink_to(loop)
    shut.write_text("")
    good.write_text(POD % "a" + "---\nkind: Pod\n")
    real = Path.read_text

    def refuse(path: Path, encoding: str | None = None) -> str:
        if path == shut:  # tests run as root, whom no mode stops
            raise PermissionError(13, "Permission denied")
        return real(path, encoding=encoding)

    monkeypatch.setattr(Path, "read_text", refuse)
    loaded = load_paths(["nowhere", loop, shut, good])

    assert names(loaded.manifests) == ["a"]
    first, second, third, last = texts(loaded.problems)
    assert (first, third) == (
        'the path "nowhere" does not exist',
        f'the path "{shut}" cannot be read: Permission denied',
    )
    assert "does not exist" in second or "cannot be read" in second
    assert last.startswith(f"{good}:5:1: Pod")


def test_a_directory_that_cannot_be_listed_is_one_complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a file: nobody else's objects go missing for it."""

    def refuse(_path: Path, _pattern: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "glob", refuse)

    assert texts(load_paths([tmp_path]).problems) == [f'the path "{tmp_path}" cannot be read: Permission denied']


def test_everything_wrong_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    """Files that are no text, documents that are no objects, keys twice, syntax."""
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "b.yaml").write_text("kind: Pod\nkind: Node\n---\n- 5\n---\na: [\n")
    loaded = load_paths([tmp_path])

    assert loaded.manifests == ()
    assert [line.replace(str(tmp_path), "") for line in texts(loaded.problems)] == [
        '/a.yaml:1:1: file "/a.yaml" is invalid: not UTF-8: invalid start byte at byte 0',
        '/b.yaml:1:1: Node "" is invalid: apiVersion: Required value',
        '/b.yaml:2:1: Node "" is invalid: kind: key "kind" already set in map',
        '/b.yaml:4:1: object "" is invalid: apiVersion: Required value',
        '/b.yaml:4:1: object "" is invalid: kind: Required value',
        '/b.yaml:7:1: file "/b.yaml" is invalid: did not find expected node content',
    ]


def test_lists_are_flattened_and_items_keep_their_place() -> None:
    """List, typed lists whose items do not say what they are, lists in lists."""
    text = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: PodList
  items:
  - metadata: {name: a}
  - metadata: {name: b, labels: {x: 5}}
- 7
"""
    loaded = load_text(text, file="f")

    assert [(m.object["kind"], m.path) for m in loaded.manifests] == [
        ("Pod", "items[0].items[0]"),
        ("Pod", "items[0].items[1]"),
    ]
    assert texts(loaded.problems)[0] == 'f:9:3: object "" is invalid: apiVersion: Required value'
    assert texts(cluster_from_manifests(loaded.manifests).problems) == [
        'f:8:25: Pod "b" is invalid: metadata.labels[...]: Invalid value: Expected `str`, got `int`'
    ]


POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: demo}
spec:
  podSelector: {}
  ingres: []
  ingress:
  - from:
    - ipBlock: {cidr: 10.0.0.0/33}
  - {}
"""


def test_a_policys_mistakes_are_told_by_line_and_column_and_the_rest_works() -> None:
    """Unknown fields too: a misspelt one changes the meaning."""
    offline = cluster_from_manifests(load_text(POLICY, file="f").manifests)

    assert texts(offline.problems) == [
        'f:6:3: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingres: unknown field "spec.ingres"',
        (
            'f:9:17: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0].ipBlock.cidr: Invalid'
            ' value: "10.0.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'
        ),
    ]
    (policy,) = offline.policies.policies()
    assert policy.ingress is not None
    assert policy.ingress[1].peers is ANY_PEER


def test_objects_make_a_cluster() -> None:
    """Kinds that policy has no use for are left out; of an object given twice the later one counts."""
    meta = {"name": "p", "namespace": "demo"}
    np = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta}
    offline = cluster_from_objects(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}},
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "status": {"podIP": "10.0.0.1"}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": 5}},
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}},
            {**np, "spec": {"ingress": [{}]}},
            {**np, "spec": {"ingress": [{"from": "x"}]}},
        ]
    )

    assert set(offline.cluster.namespaces) == {"demo"}
    assert set(offline.cluster.nodes) == {"n"}
    assert set(offline.cluster.endpoints) == {PodKey("default", "a")}
    assert [str(policy.ref) for policy in offline.policies.policies()] == ["NetworkPolicy demo/p"]
    assert [problem.kind for problem in offline.problems] == ["Pod", "NetworkPolicy.networking.k8s.io"]
    assert [rule.peers for rule in offline.policies.policies()[0].ingress or ()] == [Peers(())]


def test_gaps_are_filled_only_when_asked() -> None:
    """Files seldom hold addresses and namespaces; what is made up is the same every time."""
    objects = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "x"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "z"}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "y"}},
    ]
    bare, filled = cluster_from_objects(objects), cluster_from_objects(objects, fill_gaps=True)

    assert (set(bare.cluster.namespaces), set(bare.cluster.endpoints)) == ({"z"}, set())
    assert set(filled.cluster.namespaces) == {"x", "y", "z"}
    assert ip_address("198.18.0.1") in filled.cluster.endpoints[PodKey("x", "a")].addresses


@pytest.mark.parametrize(
    "text", ["metadata:\n  name: {{ .Release.Name }}\n", "{{- if .Values.on }}\nkind: Pod\n{{- end }}\n"]
)
def test_a_template_is_told_what_to_do_with_it(text: str) -> None:
    """It is no YAML before it is rendered; other broken files are not told so."""
    (problem,) = load_text(text, file="t.yaml").problems
    (other,) = load_text("a: [", file="t.yaml").problems

    assert "helm template . |" in str(problem)
    assert "template" not in str(other)
