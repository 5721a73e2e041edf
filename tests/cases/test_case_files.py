# SPDX-License-Identifier: Apache-2.0
"""What a case file may say, what it becomes, and how mistakes in it are told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ringfence.cases.build import Loaded, load
from ringfence.cases.engines import engine
from ringfence.cases.run import run, verdicts
from ringfence.cases.script import Connection, Event, EventType, Fate, Objects, Probe
from ringfence.errors import InvalidObject, UsageError
from ringfence.model.ports import Protocol

CASE = """\
shows: two pods
cluster:
  namespaces: {shop: {team: a}}
  pods:
    shop/web: {labels: {app: web}, ports: [{name: http, containerPort: 80}]}
    shop/db: {}
steps:
  - say: first
    expect:
      - traffic: [TCP/80, ICMP]
        table: |
          from\\to   shop/web  shop/db
          shop/web     -         .
          shop/db      X         -
"""


def written(directory: Path, text: str) -> Path:
    """Write a case file."""
    path = directory / "a-case.yaml"
    path.write_text(text)
    return path


def loaded(directory: Path, text: str = CASE) -> Loaded:
    """Load a case from text."""
    return load(written(directory, text))


def test_a_table_is_read_by_rows_and_columns_in_both_families(tmp_path: Path) -> None:
    """Every mark is a probe in each family that both ends have, for each traffic; a dash is none."""
    case = loaded(tmp_path)

    assert [case.shows, case.script.name, case.expected[0].say] == ["two pods", "a-case", "first"]
    asked = [
        (str(probe), allowed)
        for probe, allowed in zip(case.script.steps[0].probes, case.expected[0].probes, strict=True)
    ]
    assert asked == [
        ("shop/web -> shop/db TCP/80 IPv4", True),
        ("shop/web -> shop/db TCP/80 IPv6", True),
        ("shop/db -> shop/web TCP/80 IPv4", False),
        ("shop/db -> shop/web TCP/80 IPv6", False),
        ("shop/web -> shop/db ICMP IPv4", True),
        ("shop/web -> shop/db ICMPv6 IPv6", True),
        ("shop/db -> shop/web ICMP IPv4", False),
        ("shop/db -> shop/web ICMPv6 IPv6", False),
    ]


def test_objects_are_the_same_at_every_run_and_spread_over_the_nodes(tmp_path: Path) -> None:
    """Pods go to the nodes in turn, with the addresses of an AKS cluster, an identity and an age."""
    first, again = loaded(tmp_path), loaded(tmp_path)

    assert first == again
    pods = [event.object for event in first.script.steps[0].events if event.object["kind"] == "Pod"]
    assert [pod["spec"]["nodeName"] for pod in pods] == ["node-a", "node-b"]
    assert [pod["status"]["podIP"] for pod in pods] == ["10.224.0.5", "10.224.1.5"]
    assert pods[0]["status"]["podIPs"][1]["ip"] == "fd00:10:224::5"
    assert pods[0]["metadata"]["creationTimestamp"] < pods[1]["metadata"]["creationTimestamp"]
    assert pods[0]["metadata"]["uid"] != pods[1]["metadata"]["uid"]


def test_a_pod_that_is_changed_stays_the_same_and_one_that_is_deleted_does_not(tmp_path: Path) -> None:
    """Uid, address and node are kept until the pod is gone; then its name may come back as another pod."""
    steps = """\
steps:
  - pods: {shop/web: {labels: {app: other}}}
  - delete: [Pod shop/web]
  - pods: {shop/web: {}}
"""
    case = loaded(tmp_path, CASE[: CASE.index("steps:")] + steps)
    before = case.script.steps[0].events[-3].object
    changed, gone, new = (case.script.steps[n].events[-1] for n in range(3))

    assert [changed.type, gone.type, new.type] == [EventType.APPLY, EventType.DELETE, EventType.APPLY]
    assert changed.object["metadata"]["labels"]["app"] == "other"
    assert before["metadata"]["uid"] == changed.object["metadata"]["uid"] != new.object["metadata"]["uid"]
    assert before["status"] == changed.object["status"] != new.object["status"]


def test_deleting_a_namespace_deletes_what_is_in_it_first(tmp_path: Path) -> None:
    """As in a cluster, the namespace itself is the last to go."""
    case = loaded(tmp_path, CASE[: CASE.index("steps:")] + "steps: [{delete: [Namespace shop]}]\n")

    gone = [e.object["metadata"]["name"] for e in case.script.steps[0].events if e.type is EventType.DELETE]
    assert gone == ["web", "db", "shop"]


@pytest.mark.parametrize(
    ("old", "new", "place", "complaint"),
    [
        pytest.param("shows: two pods\n", "", "1:1", "missing required field `shows`", id="missing"),
        pytest.param("say: first", "saying: first", "8:5", "unknown field `saying`", id="unknown"),
        pytest.param("{team: a}", "{team: 1}", "3:3", "cluster.namespaces", id="type"),
        pytest.param("    shop/db: {}", "    shop/db: {}\n    shop/db: {}", "7:5", "already set in map", id="twice"),
        pytest.param("say: first", "say: [", "10:7", "Case", id="torn"),
        pytest.param("shop/db: {}", "db: {}", "6:5", "cluster.pods.db: a pod is named namespace/name", id="pod-name"),
        pytest.param("shop/db: {}", "shop/db: {node: x}", "6:15", "no such node: x", id="no-node"),
        pytest.param("shop/db: {}", "shop/db: {addresses: [x]}", "6:27", "'x' does not appear to be", id="address"),
        pytest.param("namespaces:", "nodes: {}\n  namespaces:", "6:5", "has no node to run it", id="no-nodes"),
        pytest.param("say: first", "label: {shop/x: {a: b}}", "8:13", "no such pod: shop/x", id="label-pod"),
        pytest.param("say: first", "label: {bank: {a: b}}", "8:13", "no such namespace: bank", id="label-namespace"),
        pytest.param("say: first", "delete: [Pod shop/x]", "8:14", "no such object: Pod shop/x", id="delete"),
        pytest.param("say: first", "apply: [{kind: X}]", "8:13", "a kind and a metadata.name", id="no-manifest"),
        pytest.param(
            "say: first",
            "apply: [{apiVersion: v1, kind: Pod, metadata: {name: x}}]",
            "8:30",
            "services go under the fields of that name",
            id="pod-manifest",
        ),
        pytest.param(
            "say: first",
            "apply: [{apiVersion: x/v1, kind: Gate, metadata: {name: x}}]",
            "8:13",
            "Gate x/v1 is not supported yet",
            id="unknown-kind",
        ),
        pytest.param("TCP/80", "GRE/80", "10:9", "no protocol: 'GRE'", id="protocol"),
        pytest.param("TCP/80", "TCP/http", "10:9", "no port: 'http'", id="port"),
        pytest.param("TCP/80", "TCP/65536", "10:9", "no port: '65536'", id="port-too-big"),
        pytest.param("ICMP", "ICMP/8", "10:9", "ICMP has no ports", id="port-of-icmp"),
        pytest.param("-         .", "-         o", "11:9", "'o' is none of", id="mark"),
        pytest.param("-         .", "-", "11:9", "row shop/web has 1 marks for 2 destinations", id="row"),
        pytest.param("from\\to", "x", "11:9", "its first line begins with from\\to", id="corner"),
        pytest.param("shop/db      X", "shop/dx      X", "10:9", "no such pod: shop/dx", id="no-pod"),
        pytest.param("shop/db      X", "node/n       X", "10:9", "no such node: n", id="no-node-end"),
        pytest.param("shop/db      X", "nobody       X", "10:9", "'nobody' is no namespace/pod", id="no-end"),
        pytest.param("shop/db      X", "8.8.8.8      X", None, None, id="an-address-is-fine"),
        pytest.param("        table", "        verdict: deny\n        table", "12:9", "either a table, or", id="both"),
    ],
)
def test_mistakes_are_told_with_file_line_column_and_field(
    old: str, new: str, place: str | None, complaint: str | None, tmp_path: Path
) -> None:
    """Each mistake in a case is one sentence that begins with where it is."""
    assert old in CASE
    path = written(tmp_path, CASE.replace(old, new, 1))
    if complaint is None:
        load(path)
        return

    with pytest.raises(InvalidObject) as caught:
        load(path)

    assert str(caught.value).startswith(f"{path}:{place}: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("expectation", "complaint"),
    [
        pytest.param("{traffic: TCP/80}", "needs a table, or from, to and verdict", id="nothing"),
        pytest.param("{traffic: TCP/80, from: shop/db, to: shop/web}", "needs a table, or from", id="no-verdict"),
        pytest.param("{traffic: TCP/80, table: 'from\\to x'}", "needs a row of destinations", id="no-rows"),
        pytest.param(
            "{traffic: TCP/80, from: 8.8.8.8, to: '::1', verdict: deny}", "share no address family", id="none"
        ),
        pytest.param("{traffic: TCP/80, from: a/b/c, to: shop/web, verdict: deny}", "no such pod: a/b/c", id="parts"),
    ],
)
def test_expectations_that_say_nothing_are_refused(expectation: str, complaint: str, tmp_path: Path) -> None:
    """An expectation must hold at least one verdict between ends that can talk."""
    with pytest.raises(InvalidObject) as caught:
        loaded(tmp_path, f"{CASE[: CASE.index('steps:')]}steps: [{{expect: [{expectation}]}}]\n")

    assert complaint in str(caught.value)


def test_a_case_is_one_document(tmp_path: Path) -> None:
    """An empty file and a second document are no case."""
    for text in ("", f"{CASE}---\n{CASE}"):
        with pytest.raises(InvalidObject, match="a case is one YAML document"):
            loaded(tmp_path, text)


def test_a_case_is_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are a mistake with a place; a byte order mark is none."""
    path = written(tmp_path, "\ufeff" + CASE)
    assert load(path).shows == "two pods"
    path.write_bytes(b"shows: \xff")
    with pytest.raises(InvalidObject, match="a-case.yaml:1:1: .*not UTF-8"):
        load(path)


def test_blocks_that_are_used_up_are_told(tmp_path: Path) -> None:
    """More pods or nodes than a block has addresses need addresses of their own."""
    pods = ", ".join(f"shop/p{n}: {{node: node-a}}" for n in range(251))
    nodes = ", ".join(f"n{n}: {{}}" for n in range(251))

    with pytest.raises(InvalidObject, match="more than 250 pods on node-a"):
        loaded(tmp_path, f"shows: x\ncluster: {{pods: {{{pods}}}}}\nsteps: []\n")
    with pytest.raises(InvalidObject, match="more than 250 nodes"):
        loaded(tmp_path, f"shows: x\ncluster: {{nodes: {{{nodes}}}}}\nsteps: []\n")


class Contrary:
    """An engine that denies everything, and remembers that it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def change(self, events: Sequence[Event]) -> None:
        """Take no notice."""

    def verdicts(self, probes: Sequence[Probe]) -> list[bool]:
        """Deny."""
        return [False for _ in probes]

    def open(self, connections: Sequence[Connection]) -> list[bool]:
        """Open none."""
        return [False for _ in connections]

    def established(self, connections: Sequence[Connection]) -> list[Fate]:
        """Say what no case expects."""
        return [Fate.ONE_WAY for _ in connections]

    def close(self) -> None:
        """Remember."""
        self.closed = True


class Broken(Contrary):
    """An engine that fails."""

    def verdicts(self, probes: Sequence[Probe]) -> list[bool]:
        """Fail."""
        raise UsageError(f"{len(probes)} probes are too many")


def test_differences_name_step_probe_and_both_verdicts(tmp_path: Path) -> None:
    """What an engine got wrong can be read without the case at hand."""
    contrary = Contrary()

    differences = run(loaded(tmp_path), contrary)

    assert list(map(str, differences)) == [
        "step 1 (first): shop/web -> shop/db TCP/80 IPv4: expected allow, got deny",
        "step 1 (first): shop/web -> shop/db TCP/80 IPv6: expected allow, got deny",
        "step 1 (first): shop/web -> shop/db ICMP IPv4: expected allow, got deny",
        "step 1 (first): shop/web -> shop/db ICMPv6 IPv6: expected allow, got deny",
    ]
    assert contrary.closed


def test_an_engine_that_fails_is_closed(tmp_path: Path) -> None:
    """What an engine holds of the machine is given back, whatever happens."""
    broken = Broken()

    with pytest.raises(UsageError):
        verdicts(loaded(tmp_path).script, broken)

    assert broken.closed


def test_an_unknown_engine_is_refused() -> None:
    """The sentence lists those there are."""
    with pytest.raises(UsageError, match="no engine 'x': one of interpreted, memory, reference"):
        engine("x")


def test_deleting_what_is_not_there_changes_nothing(tmp_path: Path) -> None:
    """A late deletion is no error: an informer may send it after a relist."""
    events = loaded(tmp_path).script.steps[0].events
    objects = Objects()
    objects.change(events)
    before = objects.all()
    objects.change([Event(EventType.DELETE, {"kind": "Pod", "metadata": {"namespace": "shop", "name": "none"}})])

    assert before == objects.all()


def test_a_probe_is_a_flow_between_addresses(tmp_path: Path) -> None:
    """Names are for people; engines judge addresses."""
    probe = loaded(tmp_path).script.steps[0].probes[0]

    assert (str(probe.flow), probe.protocol) == ("10.224.0.5 -> 10.224.1.5 TCP/80", Protocol.TCP)
