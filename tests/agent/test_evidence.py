# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from ringfence.agent.evidence import Evidence, Held, still_anothers, why_older
from ringfence.agent.reconcile import Event, Kind, State, StoredPolicy, Told, Unreadable, decode, reconcile
from ringfence.compiler.program import Program
from ringfence.kube.changes import Listed


def policy(name: str, version: str, **spec: Any) -> Told:
    """Return a policy of the namespace demo as it is stored in a version."""
    meta = {"namespace": "demo", "name": name, "uid": f"uid-{name}", "resourceVersion": version}
    return decode(Kind.POLICIES, json.dumps({"metadata": meta, "spec": spec}).encode())


def held(**policies: Told) -> Held:
    """Return what an agent holds, by name."""
    found = {f"demo/{name}": each for name, each in policies.items() if isinstance(each, StoredPolicy)}
    return Held(found, frozenset(f"demo/{name}" for name, each in policies.items() if isinstance(each, Unreadable)))


def evidence(version: str = "100", **policies: Told) -> Evidence:
    """Return what the API server holds, by name, at a version."""
    return Evidence("demo", version, {f"demo/{name}": each for name, each in policies.items()})


UNREADABLE = Unreadable("no policy at all")


@pytest.mark.parametrize(
    ("mine", "stored"),
    [
        pytest.param(held(), evidence(), id="no policy"),
        pytest.param(held(a=policy("a", "7")), evidence(a=policy("a", "7")), id="equal"),
        pytest.param(held(a=policy("a", "101")), evidence(a=policy("a", "7")), id="edited after the list"),
        pytest.param(held(a=policy("a", "101")), evidence(), id="made after the list"),
        pytest.param(held(a=UNREADABLE), evidence(a=UNREADABLE), id="cannot be read, and is known"),
        pytest.param(held(a=policy("a", "x")), evidence("y", a=policy("a", "x")), id="equal, and no number"),
    ],
)
def test_what_is_equal_or_newer_is_proven(mine: Held, stored: Evidence) -> None:
    """Each policy of the list is held as it is or newer, and nothing else that is older."""
    assert why_older(mine, stored) is None


@pytest.mark.parametrize(
    ("mine", "stored", "why"),
    [
        pytest.param(held(), evidence(a=policy("a", "7")), "is not in force yet", id="made"),
        pytest.param(held(a=policy("a", "7")), evidence(a=policy("a", "8")), "another version", id="edited"),
        pytest.param(held(a=policy("a", "9")), evidence(a=policy("a", "10")), "another version", id="not as texts"),
        pytest.param(held(a=policy("a", "7")), evidence(), "was deleted", id="deleted: its rules would allow"),
        pytest.param(held(), evidence(a=UNREADABLE), "cannot read", id="cannot be read"),
        pytest.param(held(a=policy("a", "y")), evidence(a=policy("a", "x")), "another version", id="no numbers"),
        pytest.param(held(a=policy("a", "y")), evidence("x"), "was deleted", id="no numbers, deleted"),
    ],
)
def test_what_may_be_older_is_not(mine: Held, stored: Evidence, why: str) -> None:
    """A policy that is missing, that is held in another version, or that is gone, is said by name."""
    complaint = why_older(mine, stored)

    assert complaint is not None
    assert why in complaint
    assert "demo/a" in complaint


def test_only_policies_whose_subject_matches_could_select() -> None:
    """Labels that we do not know could match whatever there is; what cannot be read could select everybody."""
    web = policy("web", "1", podSelector={"matchLabels": {"app": "web"}})

    assert not evidence().could_select(None)
    assert not evidence(web=web).could_select({"app": "db"})
    assert evidence(web=web).could_select({"app": "web"})
    assert evidence(web=web).could_select(None)
    assert evidence(web=UNREADABLE).could_select({"app": "db"})


def program(*pods: tuple[str, str, str]) -> Program:
    """Return the program of the node n1: uid, node and address of each pod; every pod lets every other one in."""
    listed: dict[Kind, dict[str, Told]] = {kind: {} for kind in Kind}
    listed[Kind.NAMESPACES]["demo"] = decode(Kind.NAMESPACES, b'{"metadata": {"name": "demo"}}')
    listed[Kind.POLICIES]["demo/p"] = policy("p", "1", podSelector={}, ingress=[{"from": [{"podSelector": {}}]}])
    for uid, node, address in pods:
        obj = {
            "metadata": {"namespace": "demo", "name": uid, "uid": uid},
            "spec": {"nodeName": node},
            "status": {"podIP": address},
        }
        listed[Kind.PODS][f"demo/{uid}"] = decode(Kind.PODS, json.dumps(obj).encode())
    made = reconcile(State("n1"), [Event(kind, Listed(items)) for kind, items in listed.items()]).program
    assert made is not None
    return made


def test_an_address_that_means_its_last_holder_is_said() -> None:
    """As a subject here, or as a peer from another node; the pod's own is its own."""
    addresses = {name: ipaddress.ip_address(f"10.1.0.{number}") for number, name in enumerate(("a", "b", "new"), 1)}
    enforced = program(("a", "n1", "10.1.0.1"), ("b", "n2", "10.1.0.2"))

    assert still_anothers(enforced, "late", addresses.values()) == {addresses["a"], addresses["b"]}
    assert still_anothers(enforced, "a", [addresses["a"]]) == frozenset()
    assert still_anothers(enforced, "late", [addresses["new"]]) == frozenset()
