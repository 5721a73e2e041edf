# SPDX-License-Identifier: Apache-2.0
"""``docs/explain.md`` names every field and every word that programs may meet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.cli.main import run
from ringfence.semantics.evaluate import Reason
from ringfence.semantics.knowledge import Gap
from ringfence.semantics.miss import Aspect

PAGE = (Path(__file__).parents[2] / "docs" / "explain.md").read_text(encoding="utf-8")
MANIFESTS = """\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: d}, spec: {containers: [{name: m, image: m}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: b, namespace: d}, spec: {containers: [{name: m, image: m}]}}
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: d},
   spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 1}]}]}}
"""


_POLICY = {"kind", "metadata", "name", "namespace", "spec", "podSelector"}  # of a suggested policy


def keys(value: object) -> Iterator[str]:
    """Yield the name of every field in a document."""
    match value:
        case dict():
            for key, part in value.items():
                yield key
                yield from keys(part)
        case list():
            for part in value:
                yield from keys(part)
        case _:
            pass


@pytest.mark.parametrize("port", ["1", "2"])
def test_every_field_of_the_json_is_documented(port: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a denied answer, and of an undecidable one."""
    path = tmp_path / "all.yaml"
    path.write_text(MANIFESTS)
    code = run(["explain", "-f", str(path), "--from", "d/a", "--to", "d/b", "--port", port, "-o", "json"])

    document = json.loads(capsys.readouterr().out)
    assert (code, document["verdict"]) == ((3, "Undecidable") if port == "1" else (1, "Denied"))
    assert [key for key in dict.fromkeys(keys(document)) if f"`{key}`" not in PAGE and key not in _POLICY] == []


def test_every_word_is_documented() -> None:
    """Aspects of misses, gaps in knowledge, and reasons of halves."""
    reasons = [reason.name.lower() for reason in Reason]
    words = [*(aspect.value for aspect in Aspect), *(gap.value for gap in Gap), *reasons]

    assert [word for word in words if f"`{word}`" not in PAGE] == []
