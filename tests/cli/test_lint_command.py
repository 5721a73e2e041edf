# SPDX-License-Identifier: Apache-2.0
"""``ringfence lint``: files and clusters, formats, exit codes, and what is left out."""

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
from ringfence.semantics.lint.rules import RULES
from tests.cli.test_explain_command import NETWORKING, kubeconfig, stocked
from tests.semantics.lint.linted import policy, workload
from tests.semantics.lint.sarif_form import assert_sarif

WEB = workload("shop/web", "{app: web}")
TYPO = policy("{podSelector: {matchLabels: {app: website}}}")
INFO = policy("{podSelector: {}, ingress: [{from: []}]}", name="info")
BROKEN = policy("{podSelector: {}, ingress: [{from: [{}]}]}", name="broken")


def lint(*args: str) -> int:
    """Run the command in this process; returns the exit code."""
    return run(["lint", *args])


def write(path: Path, *objects: dict[str, Any]) -> str:
    """Write objects to a file, and return its name."""
    path.write_text(yaml.safe_dump_all(objects))
    return str(path)


def test_a_finding_has_its_place_its_sentence_and_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the last line counts."""
    path = write(tmp_path / "a.yaml", WEB, TYPO)
    rule = RULES["selects-nothing"]

    assert lint("-f", path) == 1
    first, sentence, remedy, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{path}:")
    assert first.endswith(
        ": warning[selects-nothing] NetworkPolicy shop/p spec.podSelector: no pod of namespace shop has app=website;"
        " nearest: Deployment shop/web has app=web"
    )
    line = int(first.removeprefix(f"{path}:").partition(":")[0])
    assert Path(path).read_text().splitlines()[line - 1] == "  podSelector:"
    assert sentence == f'    "{rule.sentence}" ({rule.stands_in})'
    assert remedy == f"    to do: {rule.remedy}"
    assert last == "1 warning in 1 NetworkPolicy"


def test_network_policies_of_others_are_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Theirs have the same kind in a group of their own; that they are not read is said."""
    theirs = {"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": {"name": "c"}, "spec": {}}
    path = write(tmp_path / "a.yaml", theirs)

    assert lint("-f", path) == 0
    said = capsys.readouterr()
    assert said.out == "nothing found in 0 NetworkPolicies\n"
    assert "NetworkPolicy.projectcalico.org is not read" in said.err
    assert run(["validate", "-f", path, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["networkPolicies"] == 0


def test_findings_come_file_by_file_and_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with a file is among them."""
    write(tmp_path / "b.yaml", WEB, INFO, TYPO)
    write(tmp_path / "a.yaml", BROKEN)
    (tmp_path / "c.yaml").write_text("kind: [\n")

    assert lint("-f", str(tmp_path)) == 1
    heads = [line for line in capsys.readouterr().out.splitlines()[:-1] if not line.startswith("    ")]
    assert [head.partition("[")[2].partition("]")[0] for head in heads] == [
        "invalid",
        "empty-means-any",
        "selects-nothing",
        "invalid",
    ]


@pytest.mark.parametrize(
    ("objects", "option", "code"),
    [
        ([INFO], [], 0),
        ([INFO], ["--fail-on", "info"], 1),
        ([WEB, TYPO], [], 1),
        ([WEB, TYPO], ["--fail-on", "error"], 0),
        ([WEB, TYPO], ["--disable", "selects-nothing"], 0),
        ([BROKEN], ["--fail-on", "error"], 1),
        ([BROKEN], ["--fail-on", "never"], 0),
        ([WEB], [], 0),
    ],
)
def test_the_exit_code_is_what_was_asked_for(
    objects: list[dict[str, Any]], option: list[str], code: int, tmp_path: Path
) -> None:
    """By default, warnings and errors fail; what is only told does not."""
    assert lint("-f", write(tmp_path / "a.yaml", *objects), *option) == code


def test_what_cannot_be_asked_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what to do instead."""
    path = write(tmp_path / "a.yaml", WEB)

    assert lint("-f", path, "--disable", "everything") == 2
    assert "ringfence lint --rules" in capsys.readouterr().err
    assert lint("-f", path, "--disable", "invalid") == 2
    assert lint("-f", str(tmp_path / "nowhere")) == 2


def test_all_rules_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its sentence."""
    assert lint("--rules") == 0
    out = capsys.readouterr().out
    assert [name for name, rule in RULES.items() if f"{name} (" not in out or rule.sentence not in out] == []


def test_a_namespace_is_where_objects_of_files_are_that_name_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As kubectl apply -n has it; others stay where they are."""
    bare = policy("{podSelector: {matchLabels: {app: website}}}")
    del bare["metadata"]["namespace"]
    path = write(tmp_path / "a.yaml", WEB, bare, INFO)

    assert lint("-f", path, "-n", "shop", "--fail-on", "info") == 1
    assert "warning[selects-nothing] NetworkPolicy shop/p" in capsys.readouterr().out
    assert lint("-f", path) == 0


def test_policies_of_other_kinds_are_missed_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All else that a chart holds is not."""
    other = {"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "x"}}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}

    assert lint("-f", write(tmp_path / "a.yaml", WEB, other, config)) == 0
    notes = capsys.readouterr().err
    assert "GlobalNetworkPolicy.projectcalico.org is not read" in notes
    assert "ConfigMap" not in notes


def test_what_another_program_prints_is_judged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As helm template does."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(yaml.safe_dump_all([WEB, TYPO])))

    assert lint("-f", "-") == 1
    assert capsys.readouterr().out.startswith("stdin:")


def test_programs_get_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With everything that people get."""
    path = write(tmp_path / "a.yaml", WEB, TYPO, INFO)

    assert lint("-f", path, "-o", "json") == 1
    document = json.loads(capsys.readouterr().out)
    first = document["findings"][0]
    assert (document["kind"], document["warnings"], document["infos"]) == ("LintReport", 1, 1)
    assert first["object"] == {"kind": "NetworkPolicy", "namespace": "shop", "name": "p"}
    assert first["sentence"] == RULES["selects-nothing"].sentence
    assert first["file"] == path


def test_code_scanning_gets_sarif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With all rules that were asked."""
    path = write(tmp_path / "a.yaml", WEB, TYPO, INFO, BROKEN)

    assert lint("-f", path, "-o", "sarif", "--disable", "and-or") == 1
    log = json.loads(capsys.readouterr().out)
    assert_sarif(log)
    assert {each["level"] for each in log["runs"][0]["results"]} == {"error", "warning", "note"}
    assert {rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]} == RULES.keys() - {"and-or"}


async def _live(tmp_path: Path, *args: str, **policies: dict[str, Any]) -> int:
    """Lint a live cluster that has a policy more by each name; its context is of the namespace demo."""
    server = stocked()
    for name, spec in policies.items():
        namespace, _, own = name.partition("_")
        server.put(f"{NETWORKING}/networkpolicies", {"metadata": {"name": own, "namespace": namespace}, "spec": spec})
    async with server.serving() as serving:
        config = kubeconfig(tmp_path / "config", serving.url)
        return await asyncio.to_thread(lint, *args, "--kubeconfig", str(config))


STORED_OLD = {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "203.0.113.7/24"}}]}]}
ELSEWHERE = {"podSelector": {"matchLabels": {"app": "gone"}}}


async def test_a_live_cluster_is_judged_as_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else exists; the peer app=client of the walk-through is nobody yet. Of the context's namespace only."""
    assert await _live(tmp_path, demo_old=STORED_OLD, bank_x=ELSEWHERE) == 1
    heads = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("    ")]
    assert [head.partition(":")[0] for head in heads] == [
        "warning[peer-matches-nothing] NetworkPolicy demo/demo-policy spec.ingress[0].from[0].podSelector",
        "warning[old-cidr] NetworkPolicy demo/old spec.ingress[0].from[0].ipBlock.cidr",
        "2 warnings in 2 NetworkPolicies of namespace demo",
    ]


async def test_every_namespace_or_another_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By -A and -n, as kubectl has them."""
    await _live(tmp_path, "-A", bank_x=ELSEWHERE)
    every = capsys.readouterr().out
    await _live(tmp_path, "-n", "bank", bank_x=ELSEWHERE)
    one = capsys.readouterr().out

    assert every.endswith("2 warnings in 2 NetworkPolicies\n")
    assert one.startswith("warning[selects-nothing] NetworkPolicy bank/x")
    assert one.endswith("1 warning in 1 NetworkPolicy of namespace bank\n")
    assert await _live(tmp_path, "-n", "empty", bank_x=ELSEWHERE) == 0
    assert capsys.readouterr().out == "nothing found in 0 NetworkPolicies of namespace empty (-A reports on all 2)\n"


async def test_workloads_of_a_cluster_count_and_may_be_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Deployment that is scaled to nothing is known; where it may not be read, that is said."""
    server = stocked()
    site = workload("bank/site", "{app: gone}")
    server.put("/apis/apps/v1/deployments", {"metadata": site["metadata"], "spec": {**site["spec"], "replicas": 0}})
    server.put(f"{NETWORKING}/networkpolicies", {"metadata": {"name": "x", "namespace": "bank"}, "spec": ELSEWHERE})
    server.forbidden.add("/apis/batch/v1/jobs")
    async with server.serving() as serving:
        config = kubeconfig(tmp_path / "config", serving.url)
        code = await asyncio.to_thread(lint, "-n", "bank", "--kubeconfig", str(config))

    assert code == 0
    assert capsys.readouterr().err == "note: Jobs that have no pods now are not known: refused: Forbidden\n"


def test_the_namespace_is_one_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Not both."""
    assert lint("-A", "-n", "bank") == 2
    assert "-A" in capsys.readouterr().err
