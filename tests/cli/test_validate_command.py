# SPDX-License-Identifier: Apache-2.0
"""``ringfence validate``: everything that is wrong, with its place, and the exit code."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from ringfence.cli.main import run
from tests.semantics.lint.sarif_form import assert_sarif

BAD = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports:
    - port: 70000
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec:
  podSelector: {}
  ingres: []
  egress:
    - to:
        - ipBlock: {cidr: 10.0.0.0/33}
      ports:
        - {protocol: tcp}
"""
COMPLAINTS = """\
{file}:6:7: Service "web" is invalid: spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive
{file}:13:3: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingres: unknown field "spec.ingres"
{file}:16:21: NetworkPolicy.networking.k8s.io "p" is invalid: spec.egress[0].to[0].ipBlock.cidr: Invalid value: \
"10.0.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
{file}:18:12: NetworkPolicy.networking.k8s.io "p" is invalid: spec.egress[0].ports[0].protocol: Unsupported value: \
"tcp": supported values: "TCP", "UDP", "SCTP"
4 errors in 2 objects
"""
GOOD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}}\n"


def validate(*args: str) -> int:
    """Run the command in this process; returns the exit code."""
    return run(["validate", *args])


def test_everything_is_told_at_once_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the API server's words, as compilers have it."""
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)

    assert validate("-f", str(path)) == 1
    assert capsys.readouterr().out == COMPLAINTS.format(file=path)


def test_what_is_valid_exits_with_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From directories, and from what another program prints."""
    (tmp_path / "below").mkdir()
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "below" / "bad.yaml").write_text(BAD)
    monkeypatch.setattr(sys, "stdin", io.StringIO(GOOD))

    assert validate("-f", str(tmp_path), "-f", "-") == 0
    assert capsys.readouterr().out == "2 objects valid\n"
    assert validate("-f", str(tmp_path), "-R") == 1


def test_text_that_is_no_yaml_is_an_error_at_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And objects before it are still read."""
    path = tmp_path / "torn.yaml"
    path.write_text(GOOD + "---\nkind: [\n")

    assert validate("-f", str(path)) == 1
    out = capsys.readouterr().out
    assert out.startswith(f'{path}:7:1: file "{path}" is invalid: ')
    assert out.endswith("1 error in 1 object\n")


@pytest.mark.parametrize("name", ["nowhere.yaml", "empty"])
def test_what_cannot_be_read_exits_with_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that is not there, and a directory without manifests, are no clean bill."""
    (tmp_path / "empty").mkdir()

    assert validate("-f", str(tmp_path / name)) == 2
    assert capsys.readouterr().err


def test_files_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    """There is no cluster to ask."""
    assert validate() == 2
    assert "-f" in capsys.readouterr().err


def test_programs_get_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the same errors, and their places."""
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)

    assert validate("-f", str(path), "-o", "json") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], document["errors"], document["networkPolicies"]) == ("ValidationReport", 4, 1)
    assert [(each["rule"], each["line"], each["column"]) for each in document["findings"]] == [
        ("invalid", 6, 7),
        ("unknown-field", 13, 3),
        ("invalid", 16, 21),
        ("invalid", 18, 12),
    ]
    assert document["findings"][2]["path"] == "spec.egress[0].to[0].ipBlock.cidr"


def test_code_scanning_gets_sarif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a file that is torn."""
    (tmp_path / "bad.yaml").write_text(BAD + "---\nkind: [\n")

    assert validate("-f", str(tmp_path), "-o", "sarif") == 1
    log = json.loads(capsys.readouterr().out)
    assert_sarif(log)
    assert {each["level"] for each in log["runs"][0]["results"]} == {"error"}
    assert len(log["runs"][0]["results"]) == 5
