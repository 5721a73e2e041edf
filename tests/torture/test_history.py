# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.torture.history import Asked, History, Stream, Version
from tools.torture.judge import Judge
from tools.torture.messages import Kind, Observation
from tools.torture.misfortune import Window

CLIENT, SERVER, OTHER, OUTSIDER = "10.0.0.1", "10.0.1.1", "10.0.0.2", "192.0.2.1"
HOMES = {CLIENT: "a", SERVER: "b", OTHER: "a", OUTSIDER: None}
BOTH, ALLOWED, DENIED = frozenset({True, False}), frozenset({True}), frozenset({False})


def pod(name: str, address: str, phase: str = "Running") -> dict[str, Any]:
    """Return a pod whose app label is its name."""
    return {
        "kind": "Pod",
        "metadata": {"namespace": "demo", "name": name, "uid": f"uid-{name}", "labels": {"app": name}},
        "spec": {"nodeName": HOMES[address]},
        "status": {"phase": phase, "podIPs": [{"ip": address}]},
    }


def policy(app: str, direction: str, peer: str | None = None) -> dict[str, Any]:
    """Return a policy that lets only a peer in, or out; nobody without one."""
    key = "from" if direction == "Ingress" else "to"
    rules = [] if peer is None else [{key: [{"podSelector": {"matchLabels": {"app": peer}}}]}]
    selector = {"matchLabels": {"app": app}}
    return {
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "demo", "name": f"{app}-{direction.lower()}"},
        "spec": {"podSelector": selector, "policyTypes": [direction], direction.lower(): rules},
    }


def policies(*some: dict[str, Any]) -> Mapping[str, Any]:
    """Return policies by their names."""
    return {f"demo/{each['metadata']['name']}": each for each in some}


def history() -> History:
    """Return a cluster with three pods, no policies, all of it proven at time 1."""
    made = History(HOMES)
    made.send(Stream.NAMESPACES, {"demo": {"kind": "Namespace", "metadata": {"name": "demo"}}}, at=0.1)
    some = [pod("client", CLIENT), pod("server", SERVER), pod("other", OTHER)]
    made.send(Stream.PODS, {f"demo/{each['metadata']['name']}": each for each in some}, at=0.2)
    for node in ("a", "b"):
        made.prove(node, made.current, at=1.0)
    return made


def asked(source: str, destination: str) -> Asked:
    """Return a TCP connection."""
    return Asked(source, destination, "TCP", 80)


def test_both_verdicts_are_allowed_between_sending_and_proof_and_exactly_one_outside() -> None:
    """Before the change the old verdict, while it is on its way either, after the proof the new one."""
    made = history()
    version = made.send(Stream.POLICIES, policies(policy("server", "Ingress")), at=2.0)
    made.prove("b", version, at=3.0)

    flow = asked(CLIENT, SERVER)
    assert made.expected(flow, 1.5, 1.6) == ALLOWED
    assert made.expected(flow, 1.9, 2.1) == BOTH
    assert made.expected(flow, 2.5, 2.6) == BOTH
    assert made.expected(flow, 2.9, 3.1) == BOTH
    assert made.expected(flow, 3.1, 3.2) == DENIED


def test_the_node_that_does_not_judge_a_half_need_not_be_proven() -> None:
    """The server's ingress is judged on its node alone."""
    made = history()
    version = made.send(Stream.POLICIES, policies(policy("server", "Ingress")), at=2.0)
    made.prove("a", version, at=3.0)

    assert made.expected(asked(CLIENT, SERVER), 4.0, 4.1) == BOTH
    made.prove("b", version, at=5.0)
    assert made.expected(asked(CLIENT, SERVER), 5.1, 5.2) == DENIED


def test_halves_on_two_nodes_combine_freely_and_on_one_node_they_do_not() -> None:
    """A denial moves from one end to the other: on two nodes a flow may pass in between, on one node it may not."""
    for destination, crosses in ((SERVER, True), (OTHER, False)):
        name = "server" if crosses else "other"
        made = history()
        made.send(Stream.POLICIES, policies(policy("client", "Egress")), at=2.0)
        for node in ("a", "b"):
            made.prove(node, made.current, at=3.0)
        made.send(Stream.POLICIES, policies(policy(name, "Ingress")), at=4.0)

        assert made.expected(asked(CLIENT, destination), 4.1, 4.2) == (BOTH if crosses else DENIED)


def test_streams_are_in_no_step_with_one_another() -> None:
    """A label that was changed before a policy may be in force after it."""
    made = history()
    made.send(Stream.POLICIES, policies(policy("server", "Ingress", "other")), at=1.1)
    made.prove("b", made.current, at=1.5)
    pods = made.latest(Stream.PODS)
    relabelled = pod("client", CLIENT)
    relabelled["metadata"]["labels"] = {"app": "friend"}
    made.send(Stream.PODS, {**pods, "demo/client": relabelled}, at=2.0)
    made.send(Stream.POLICIES, policies(policy("server", "Ingress", "friend")), at=3.0)

    assert made.expected(asked(CLIENT, SERVER), 1.6, 1.7) == DENIED
    assert made.expected(asked(CLIENT, SERVER), 3.1, 3.2) == BOTH
    made.prove("b", made.current, at=4.0)
    assert made.expected(asked(CLIENT, SERVER), 4.1, 4.2) == ALLOWED


def test_an_address_that_is_used_again_is_never_its_last_holder() -> None:
    """From a pod's first packet on, its own node may not judge it by the policies of the pod before it."""
    made = history()
    made.send(Stream.POLICIES, policies(policy("client", "Egress")), at=1.1)
    for node in ("a", "b"):
        made.prove(node, made.current, at=1.5)
    pods = made.latest(Stream.PODS)
    del pods["demo/client"]
    version = made.send(Stream.PODS, {**pods, "demo/heir": pod("heir", CLIENT)}, at=2.0)

    assert made.expected(asked(CLIENT, SERVER), 2.5, 2.6) == BOTH
    made.born(CLIENT, version.pods, at=3.0)
    assert made.expected(asked(CLIENT, SERVER), 2.5, 2.6) == BOTH
    assert made.expected(asked(CLIENT, SERVER), 3.1, 3.2) == ALLOWED


def test_a_completed_pod_holds_no_address() -> None:
    """Its address is nobody's, or another's."""
    made = history()
    made.send(Stream.POLICIES, policies(policy("server", "Ingress", "client")), at=1.1)
    ended = {"demo/client": pod("client", CLIENT, phase="Succeeded"), "demo/heir": pod("heir", CLIENT)}
    made.send(Stream.PODS, {**made.latest(Stream.PODS), **ended}, at=1.2)
    for node in ("a", "b"):
        made.prove(node, made.current, at=1.5)

    assert made.expected(asked(CLIENT, SERVER), 2.0, 2.1) == DENIED


def test_outside_of_the_cluster_nothing_is_enforced() -> None:
    """An outsider's half always allows; the pod's decides."""
    made = history()
    version = made.send(Stream.POLICIES, policies(policy("server", "Ingress")), at=2.0)
    made.prove("b", version, at=3.0)

    assert made.expected(asked(OUTSIDER, SERVER), 3.1, 3.2) == DENIED
    assert made.expected(asked(SERVER, OUTSIDER), 3.1, 3.2) == ALLOWED
    assert made.span("b", 3.1, 3.2).oldest == version == Version(1, 1, 1)


def seen(began: float, *, passed: bool, kind: Kind = Kind.NEW_TCP) -> Observation:
    """Return a connection from client to server."""
    return Observation(kind, CLIENT, SERVER, "TCP", 80, began, began + 0.05, passed)


def test_the_judge_counts_what_no_state_allows_and_keeps_evidence() -> None:
    """Passed though denied is a leak, dropped though allowed is lost; either is right while a change is on its way."""
    made = history()
    version = made.send(Stream.POLICIES, policies(policy("server", "Ingress")), at=2.0)
    made.prove("b", version, at=3.0)
    judge = Judge(made, HOMES, [Window("b", 8.0, 9.0)], [(2.0, "add policy")], lambda: {"b": "table"})
    judge.take([seen(1.5, passed=False), seen(2.5, passed=True), seen(4.0, passed=False), seen(4.5, passed=True)])
    judge.take([seen(8.5, passed=True), seen(20.0, passed=False)])

    assert judge.settle(10.0) == 1
    tally = judge.tallies[Kind.NEW_TCP]
    assert (tally.observed, tally.lost, tally.leaked, tally.either) == (5, 1, 1, 1)
    assert (tally.tampered, judge.tampered_wrong) == (1, 1)
    lost, leaked = judge.evidence
    assert (lost["seen"], lost["allowed"], lost["done"]) == ("dropped", ["passed"], [{"at": 2.0, "what": "add policy"}])
    assert (leaked["seen"], leaked["allowed"]) == ("passed", ["dropped"])
    assert leaked["tables"] == {"b": "table"}
    assert judge.settle(float("inf")) == 0
