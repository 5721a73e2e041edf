# SPDX-License-Identifier: Apache-2.0
"""``ringfence test``: what it prints, for people and for CI systems, which cases it takes, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree as ET

import click
import junitparser
import pytest
from tap.parser import Parser

from ringfence.cases import engines
from ringfence.cli.main import run
from ringfence.cli.test import command
from ringfence.dataplanes import registry
from ringfence.host import netns
from ringfence.lab.config import NetworkPlugin

GOOD = """\
shows: Nobody reaches an isolated pod but its own node.
cluster:
  namespaces: {shop: {}}
  pods:
    shop/web: {labels: {app: web}, node: node-a}
    shop/client: {labels: {app: client}, node: node-b}
steps:
  - say: isolate
    apply:
      - apiVersion: networking.k8s.io/v1
        kind: NetworkPolicy
        metadata: {name: web, namespace: shop}
        spec:
          podSelector: {matchLabels: {app: web}}
          ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}], ports: [{port: 80}]}]
    expect:
      - traffic: [TCP/80, ICMP]
        table: |
          from\\to       shop/web  shop/client
          shop/client      X           .
          node/node-a      .           .
"""
WRONG = GOOD.replace("shop/client      X ", "shop/client      . ").replace("Nobody reaches", "Everybody reaches")
BROKEN = GOOD.replace("steps:", "stops:")
EXPECTED_TEXT = """\
BROKEN  broken
  {tmp}/broken.yaml:7:1: Case "broken.yaml" is invalid: Object contains unknown field `stops`
ok      good (16 answers, N s)
DIFFERS wrong (4 of 16 answers, N s)
  {tmp}/wrong.yaml: Everybody reaches an isolated pod but its own node.
  after step 1 (isolate)
    TCP/80 IPv4 and IPv6, ICMP IPv4 and IPv6
      from\\to      shop/web  shop/client
      shop/client    .>X          .
      node/node-a     .           .
      . allowed   X denied   - not asked   X>. denied was expected, allowed was seen
    shop/client -> shop/web TCP/80 IPv4 and IPv6: expected allow, seen deny
      by the policies:
        shop/client -> shop/web TCP/80: DENIED
"""
SUMMARY = "3 cases: 1 passed, 1 differs, 1 broken; 32 answers from reference in N s"


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Return a directory with a good case, a wrong one and one that is none."""
    for name, text in {"good": GOOD, "wrong": WRONG, "broken": BROKEN}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], code: int, *args: str | Path) -> str:
    """Run the command, check its exit code, return stdout."""
    assert run(["test", *map(str, args)]) == code
    return capsys.readouterr().out


def test_text_shows_expected_against_seen_and_why(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each case; below what differs a table, and why, once for both families."""
    text = printed(capsys, 2, cases, "-j", "1")

    steady = re.sub(r"[0-9]+\.[0-9] s", "N s", text)
    expected = EXPECTED_TEXT.format(tmp=cases).splitlines()
    assert steady.splitlines()[: len(expected)] == expected
    assert "nearest rule: NetworkPolicy shop/web spec.ingress[0]" in text
    assert "shop/client -> shop/web ICMP IPv4 and IPv6: expected allow, seen deny" in text
    assert steady.splitlines()[-1] == SUMMARY


@pytest.mark.parametrize("dataplane", engines.NAMES)
def test_exit_codes_tell_passed_from_differing_from_broken(
    dataplane: str, cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """0, 1 and 2, whatever engine answers."""
    for code, name in enumerate(("good", "wrong", "broken")):
        assert printed(capsys, code, cases / f"{name}.yaml", "--dataplane", dataplane)


def test_json_has_every_difference_with_its_explanation(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One document on stdout; complaints about broken cases on stderr too."""
    assert run(["test", str(cases), "-o", "json"]) == 2
    out, err = capsys.readouterr()
    report: dict[str, Any] = json.loads(out)

    assert [report[key] for key in ("kind", "dataplane", "passed", "differs", "broken", "notRun")] == [
        "TestReport",
        "reference",
        1,
        1,
        1,
        0,
    ]
    broken, good, wrong = report["cases"]
    assert (good["status"], good["answers"], good["differences"]) == ("passed", 16, [])
    assert broken["error"] in err
    assert broken["error"].startswith(f"{cases}/broken.yaml:7:1: ")
    assert [
        (d["from"], d["to"], d["protocol"], d["family"], d["expected"], d["seen"]) for d in wrong["differences"]
    ] == [
        ("shop/client", "shop/web", "TCP", 4, "allow", "deny"),
        ("shop/client", "shop/web", "TCP", 6, "allow", "deny"),
        ("shop/client", "shop/web", "ICMP", 4, "allow", "deny"),
        ("shop/client", "shop/web", "ICMPv6", 6, "allow", "deny"),
    ]
    assert wrong["differences"][0]["explanation"]["ingress"]["policies"][0]["policy"] == "NetworkPolicy shop/web"


# What the schema that CI systems share (junit-10.xsd of Jenkins' xUnit plugin) has: attributes and children.
_SCHEMA = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "time", "skipped"}, {"testcase"}),
    "testcase": ({"name", "time", "classname"}, {"skipped", "error", "failure"}),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": ({"type", "message"}, set()),
}


def test_junit_is_what_ci_systems_read(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Failures and errors are told apart, counts are right, nothing is there that the common schema lacks."""
    (cases / "wrong.yaml").write_text(
        WRONG.replace("Everybody", "\\u001b<Everybody & all>")
        .replace("shows: ", 'shows: "')
        .replace("node.\n", 'node."\n', 1)
    )
    text = printed(capsys, 2, cases, "-o", "junit")

    for element in ET.fromstring(text).iter():
        attributes, children = _SCHEMA[element.tag]
        assert set(element.keys()) <= attributes
        assert {child.tag for child in element} <= children
        assert re.fullmatch(r"[0-9]+\.[0-9]{3}", element.get("time", "0.000"))
    parsed = junitparser.JUnitXml.fromstring(text.encode())
    assert (parsed.tests, parsed.failures, parsed.errors) == (3, 1, 1)
    found = {case.name: case.result for suite in parsed for case in suite}
    assert found["good"] == []
    assert isinstance(found["wrong"][0], junitparser.Failure)
    assert "shop/client    .>X          ." in found["wrong"][0].text
    assert "�<Everybody & all> reaches" in found["wrong"][0].text
    assert isinstance(found["broken"][0], junitparser.Error)
    assert "broken.yaml:7:1" in found["broken"][0].message


def test_tap_is_read_by_a_harness(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Version 14, the plan first, a line for each case, reasons in a YAML block."""
    text = printed(capsys, 2, cases, "-o", "tap")

    lines = list(Parser().parse_text(text))
    assert text.startswith("TAP version 14\n1..3\n")
    assert [line.category for line in lines] == ["version", "plan", "test", "test", "test"]
    tests = lines[2:]
    assert [(t.ok, t.number, t.description) for t in tests] == [
        (False, 1, "- broken"),
        (True, 2, "- good"),
        (False, 3, "- wrong"),
    ]
    assert tests[0].yaml_block["severity"] == "error"
    assert tests[2].yaml_block["message"] == "4 of 16 answers differ"
    assert "shop/client    .>X          ." in tests[2].yaml_block["details"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_fail_fast_begins_no_other_case(jobs: str, cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those after the first that did not pass are reported as not run."""
    report = json.loads(printed(capsys, 2, cases, "-o", "json", "--fail-fast", "-j", jobs))
    assert [case["status"] for case in report["cases"]] == ["broken", "notRun", "notRun"]
    assert "# SKIP not run" in printed(capsys, 2, cases, "-o", "tap", "--fail-fast", "-j", jobs)
    assert "<skipped />" in printed(capsys, 2, cases, "-o", "junit", "--fail-fast", "-j", jobs)
    text = printed(capsys, 2, cases, "--fail-fast", "-j", jobs)
    assert "not run good" in text
    assert "0 passed, 1 broken, 2 not run" in text


def test_outcomes_come_in_order_however_many_run_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report is the same with one process and with several, but for the seconds."""
    for number in range(20):
        (tmp_path / f"c{number:02}.yaml").write_text(GOOD if number % 3 else WRONG)
    texts = [re.sub(r"[0-9]+\.[0-9] s", "N s", printed(capsys, 1, tmp_path, "-j", jobs)) for jobs in ("1", "3")]

    assert texts[0] == texts[1]
    assert texts[0].count("DIFFERS") == 7


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        pytest.param(["{tmp}/none.yaml"], 'the path "{tmp}/none.yaml" does not exist', id="path"),
        pytest.param(["{tmp}/empty"], "no case: there is no .yaml, .yml or .json file in {tmp}/empty", id="empty"),
        pytest.param(
            ["{tmp}", "-R"], 'two cases are named "good": {tmp}/deep/good.yml and {tmp}/good.yaml', id="twice"
        ),
        pytest.param(["{tmp}", "-k", "nix"], '-k "nix" means none of the 3 cases; their names are like', id="-k"),
        pytest.param(["{tmp}", "-k", "a or"], '-k "a or": a part of a name is missing', id="-k-half"),
        pytest.param(["{tmp}", "-k", "(a b"], '-k "(a b": a ")" is missing', id="-k-open"),
        pytest.param(["{tmp}", "-k", "a b"], '-k "a b": unexpected "b"', id="-k-more"),
        pytest.param(["{tmp}", "-k", "and a"], 'a part of a name is missing before "and"', id="-k-before"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(
    args: list[str], complaint: str, cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and a sentence that says what to do."""
    (cases / "empty").mkdir()
    (cases / "deep").mkdir()
    (cases / "deep" / "good.yml").write_text(GOOD)

    assert run(["test", *(arg.format(tmp=cases) for arg in args)]) == 2
    assert complaint.format(tmp=cases) in capsys.readouterr().err


def test_a_file_that_is_meant_twice_runs_once(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory and a file in it, or two spellings of one path, are no two cases."""
    report = json.loads(
        printed(
            capsys, 0, cases / "good.yaml", cases, cases / ".." / cases.name / "good.yaml", "-k", "good", "-o", "json"
        )
    )

    assert [case["name"] for case in report["cases"]] == ["good"]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("O", {"good", "wrong", "broken"}),
        ("o and not bro", {"good", "wrong"}),
        ("good or wrong and broken", {"good"}),
        ("(good or wrong) and not goo", {"wrong"}),
        ("not not good", {"good"}),
    ],
)
def test_expressions_choose_by_parts_of_names(
    expression: str, names: set[str], cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``not`` binds closest, ``or`` least; case does not matter."""
    text = (run(["test", str(cases), "-k", expression, "-o", "json"]), capsys.readouterr().out)[1]

    assert {case["name"] for case in json.loads(text)["cases"]} == names


def test_the_dataplanes_are_those_there_are() -> None:
    """No engine is forgotten: those without packets, and every one that filters."""
    (option,) = (each for each in command.params if each.name == "dataplane")
    assert isinstance(option.type, click.Choice)
    filtering = {name for name, engine in registry.ENGINES.items() if engine.filters}

    assert {*option.type.choices} == {*engines.NAMES} | filtering


@pytest.mark.kernel
def test_without_privileges_a_sentence_says_what_to_do(cases: Path) -> None:
    """A user that is not root, for real: exit code 2 before any case is begun."""
    script = (
        "import os, sys, ringfence.cases.selection, ringfence.lab.casebed, ringfence.cli.test\n"
        "from ringfence.cli.main import run\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "sys.exit(run(['test', sys.argv[1], '--dataplane', 'nftables']))"
    )
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        (Path(directory) / "good.yaml").write_text((cases / "good.yaml").read_text())
        done = subprocess.run([sys.executable, "-c", script, directory], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: to try cases on nftables needs root: each gets network namespaces of its own; "
        "run it with sudo, or ask an engine that sends no packets: --dataplane reference\n"
    )


@pytest.mark.kernel
@pytest.mark.parametrize("plugin", get_args(NetworkPlugin))
def test_packets_decide_on_a_kernel_dataplane(plugin: str, cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same verdicts as the oracle's, with real packets."""
    text = printed(capsys, 2, cases, "--dataplane", "nftables", "--network-plugin", plugin)

    expected = EXPECTED_TEXT.format(tmp=cases).splitlines()
    assert re.sub(r"[0-9]+\.[0-9] s", "N s", text).splitlines()[: len(expected)] == expected


@pytest.mark.kernel
def test_nine_pods_and_four_ports_in_both_families(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """324 probes in each family, three quarters of them denied, in one go."""
    (tmp_path / "nine.yaml").write_text(nine_pods())
    report = json.loads(printed(capsys, 0, tmp_path, "--dataplane", "nftables", "-o", "json"))

    assert (report["passed"], report["answers"]) == (1, 648)


def nine_pods() -> str:
    """Return a case of nine pods that try each other on four ports."""
    pods = [f"{namespace}/{pod}" for namespace in ("u", "v", "w") for pod in "abc"]
    lines = ["shows: nine", "cluster:", "  namespaces: {u: {}, v: {}, w: {}}", "  pods:"]
    lines += [f"    {pod}: {{labels: {{pod: {pod[-1]}}}}}" for pod in pods]
    lines += ["steps:", "  - apply:"]
    for namespace in ("u", "v", "w"):
        lines += [
            "    - apiVersion: networking.k8s.io/v1",
            "      kind: NetworkPolicy",
            f"      metadata: {{name: p, namespace: {namespace}}}",
            "      spec:",
            "        podSelector: {}",
            "        ingress:",
            "        - from: [{podSelector: {matchLabels: {pod: a}}, namespaceSelector: {}}]",
            "          ports: [{port: 80}, {port: 81, protocol: UDP}]",
        ]
    lines.append("    expect:")
    for traffic in ("TCP/80", "TCP/81", "UDP/80", "UDP/81"):
        lines += [f"    - traffic: {traffic}", "      table: |", "        from\\to " + " ".join(pods)]
        for source in pods:
            admitted = source.endswith("a") and traffic in ("TCP/80", "UDP/81")
            marks = ["." if admitted or source == target else "X" for target in pods]
            lines.append(f"        {source} {' '.join(marks)}")
    return "\n".join(lines) + "\n"


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("how", "jobs"),
    [(signal.SIGTERM, 1), (signal.SIGTERM, 2), (signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGKILL, 2)],
    ids=str,
)
def test_whatever_ends_it_nothing_stays_behind(how: signal.Signals, jobs: int, tmp_path: Path) -> None:
    """Cases that are under way take away what they made; workers also when the process that began them was killed."""
    for number in range(40):
        (tmp_path / f"c{number:02}.yaml").write_text(GOOD)
    arguments = [sys.executable, "-m", "ringfence", "test", str(tmp_path), "--dataplane", "nftables", "-j", str(jobs)]
    running = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ours = wait_for(lambda: namespaces_of({running.pid, *children(running.pid)}))
        pids = {running.pid, *children(running.pid)}
        running.send_signal(how)
        code = running.wait(20)
    finally:
        running.kill()
    assert ours
    assert code not in (0, 1)
    wait_for(lambda: not namespaces_of(pids))
    assert namespaces_of(pids) == []


def children(pid: int) -> set[int]:
    """Return the process ids of a process's children."""
    try:
        return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except FileNotFoundError:
        return set()


def namespaces_of(pids: set[int]) -> list[str]:
    """Return the namespaces of the cases that processes have under way."""
    return [name for name in netns.listing("rf-case") if int(name.removeprefix("rf-case").partition("-")[0]) in pids]


def wait_for(what: Any, seconds: float = 20) -> Any:
    """Return what something returns once that is true, or at the end of the time."""
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def test_progress_is_shown_on_a_terminal_alone(cases: Path) -> None:
    """On stderr, and gone at the end; a pipe gets none of it."""
    leader, follower = os.openpty()
    command_line = [sys.executable, "-m", "ringfence", "test", str(cases), "-k", "good or wrong"]
    done = subprocess.run(command_line, stdout=subprocess.PIPE, stderr=follower, check=False)
    os.close(follower)
    seen = os.read(leader, 65536).decode()
    os.close(leader)

    assert done.returncode == 1
    assert "cases: 1 of 2 ..." in seen
    assert seen.endswith("\r\x1b[K")
    piped = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert piped.stderr == ""
