# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.reconcile import (
    Event,
    Kind,
    State,
    Step,
    Unreadable,
    decode,
    local_pods,
    reconcile,
    why_not_in_force,
)
from ringfence.compiler.interpret import judge
from ringfence.compiler.program import Program
from ringfence.kube.changes import Listed, Removed, Upserted
from ringfence.model.flow import Flow
from ringfence.model.ports import Protocol
from ringfence.model.settings import NodeProbes, Settings

NODE = "n1"
EMPTY = [Event(kind, Listed({})) for kind in Kind]


def obj(name: str, namespace: str = "", **rest: Any) -> dict[str, Any]:
    """Return an object's JSON; the uid is its name unless given."""
    meta = {"name": name, "uid": rest.pop("uid", f"uid-{name}"), "labels": rest.pop("labels", {})}
    if namespace:
        meta["namespace"] = namespace
    if created := rest.pop("created", None):
        meta["creationTimestamp"] = created
    return {"metadata": meta, **rest}


def pod(name: str, address: str | None, *, node: str = NODE, phase: str = "Running", **rest: Any) -> dict[str, Any]:
    """Return a pod of the namespace demo."""
    spec = {"nodeName": node, **rest.pop("spec", {})}
    status = {"phase": phase, **({"podIP": address, "podIPs": [{"ip": address}]} if address else {})}
    return obj(name, "demo", spec=spec, status=status, **rest)


def policy(name: str, spec: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """Return a NetworkPolicy of the namespace demo."""
    return obj(name, "demo", spec=spec, **rest)


def key(thing: dict[str, Any]) -> str:
    """Return the key that a reflector gives an object."""
    meta = thing["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else str(meta["name"])


def listed(kind: Kind, *things: dict[str, Any]) -> Event:
    """Return the event of a list."""
    return Event(kind, Listed({key(each): decode(kind, msgspec.json.encode(each)) for each in things}))


def upserted(kind: Kind, thing: dict[str, Any]) -> Event:
    """Return the event of an addition or a change."""
    return Event(kind, Upserted(key(thing), decode(kind, msgspec.json.encode(thing))))


def removed(kind: Kind, thing: dict[str, Any]) -> Event:
    """Return the event of a deletion."""
    return Event(kind, Removed(key(thing), decode(kind, msgspec.json.encode(thing))))


def after(*batches: Sequence[Event], start: State | None = None) -> Step:
    """Run batches of events through steps and return the last."""
    step = Step(start or State(NODE), None, ())
    for batch in batches:
        step = reconcile(step.state, batch)
    return step


def allowed(program: Program | None, source: str, destination: str, port: int = 80) -> bool:
    """Tell whether a program lets a TCP connection pass."""
    assert program is not None
    flow = Flow(ipaddress.ip_address(source), ipaddress.ip_address(destination), Protocol.TCP, port)
    return judge(program, flow).allowed


DEMO = obj("demo")
N1 = obj(NODE, status={"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]})
SERVER = pod("server", "10.1.0.1", labels={"app": "server"})
CLIENT = pod("client", "10.1.0.2", labels={"app": "client"})
DENY = policy("deny", {"podSelector": {"matchLabels": {"app": "server"}}})
FROM_CLIENT = policy(
    "allow",
    {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}],
    },
)
WORLD = [
    listed(Kind.NAMESPACES, DEMO),
    listed(Kind.NODES, N1),
    listed(Kind.PODS, SERVER, CLIENT),
    listed(Kind.POLICIES, FROM_CLIENT),
]


def test_nothing_is_to_be_enforced_before_all_four_lists() -> None:
    """Any three lists make no program; the fourth makes it."""
    for missing in range(4):
        assert after(WORLD[:missing] + WORLD[missing + 1 :]).program is None

    assert after(WORLD).program is not None


def test_events_before_the_lists_are_kept() -> None:
    """A change of a listed kind that comes before another kind's list is in the first program."""
    step = after(WORLD[2:3], [upserted(Kind.PODS, pod("late", "10.1.0.9"))], [*WORLD[:2], WORLD[3]])

    assert step.program is not None
    assert "uid-late" in local_pods(step.program)


def test_a_label_brings_the_connection_back() -> None:
    """The walk-through: open, isolated, and open again for the label that the policy asks for (SEMANTICS 35)."""
    plain = pod("client", "10.1.0.2")
    step = after([*WORLD[:2], listed(Kind.PODS, SERVER, plain), listed(Kind.POLICIES)])
    assert allowed(step.program, "10.1.0.2", "10.1.0.1")
    step = reconcile(step.state, [upserted(Kind.POLICIES, FROM_CLIENT)])
    assert not allowed(step.program, "10.1.0.2", "10.1.0.1")
    step = reconcile(step.state, [upserted(Kind.PODS, CLIENT)])
    assert allowed(step.program, "10.1.0.2", "10.1.0.1")
    step = reconcile(step.state, [removed(Kind.POLICIES, FROM_CLIENT), upserted(Kind.PODS, plain)])

    assert allowed(step.program, "10.1.0.2", "10.1.0.1")


def test_what_does_not_matter_compiles_nothing() -> None:
    """Heartbeats, repeated events and equal relists give the very same program object."""
    step = after(WORLD)
    heartbeat = {**N1, "status": {**N1["status"], "conditions": [{"type": "Ready", "lastHeartbeatTime": "now"}]}}
    for events in ([upserted(Kind.NODES, heartbeat)], [upserted(Kind.PODS, SERVER)], WORLD, []):
        again = reconcile(step.state, events)

        assert again.program is step.program


def test_relist_finds_what_was_deleted() -> None:
    """An object that a new list does not have is gone."""
    step = reconcile(after(WORLD).state, [listed(Kind.PODS, CLIENT), listed(Kind.POLICIES)])

    assert step.program is not None
    assert local_pods(step.program) == {"uid-client"}
    assert step.program.rulesets == ()


def test_late_deletion_of_a_namesake_leaves_its_successor() -> None:
    """A pod's deletion that is heard after its namesake's creation removes the old pod only (SEMANTICS 29)."""
    old = pod("server", "10.1.0.1", uid="old", created="2026-01-01T00:00:00Z")
    new = pod("server", "10.1.0.7", uid="new", created="2026-01-01T00:01:00Z")
    state = after([*WORLD[:2], listed(Kind.PODS, old), listed(Kind.POLICIES)]).state
    for events in (
        [upserted(Kind.PODS, new), removed(Kind.PODS, old)],
        [removed(Kind.PODS, old), upserted(Kind.PODS, new)],
    ):
        program = reconcile(state, events).program

        assert program is not None
        assert [(entry.uid, str(entry.address)) for entry in program.endpoints] == [("new", "10.1.0.7")]


def test_late_deletion_of_a_policy_leaves_its_namesake() -> None:
    """The same for a policy that was deleted and created again: isolation stays."""
    old, new = (
        {**DENY, "metadata": {**DENY["metadata"], "uid": "1"}},
        {**DENY, "metadata": {**DENY["metadata"], "uid": "2"}},
    )
    state = after([*WORLD[:3], listed(Kind.POLICIES, old)]).state
    step = reconcile(state, [upserted(Kind.POLICIES, new), removed(Kind.POLICIES, old)])

    assert not allowed(step.program, "10.1.0.2", "10.1.0.1")


def test_invalid_policy_isolates_and_is_reported() -> None:
    """The broken rule matches nothing, the good one works, and the problem names object and field (SEMANTICS 37)."""
    broken = policy(
        "half",
        {
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [
                {"from": [{"ipBlock": {"cidr": "10.1.0.0/40"}}]},
                {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]},
            ],
        },
    )
    step = after([*WORLD[:3], listed(Kind.POLICIES, broken)])
    (problem,) = step.problems

    assert allowed(step.program, "10.1.0.2", "10.1.0.1")
    assert not allowed(step.program, "10.1.0.3", "10.1.0.1")
    assert (str(problem.object), problem.uid) == ("NetworkPolicy demo/half", "uid-half")
    assert problem.path == "spec.ingress[0].from[0].ipBlock.cidr"
    assert reconcile(step.state, [upserted(Kind.POLICIES, {**DENY, "metadata": broken["metadata"]})]).problems == ()


def test_unreadable_object_keeps_what_was_known_of_it() -> None:
    """A pod that makes no sense any more is enforced as before, and reported; readable again, the report ends."""
    nonsense = {**SERVER, "status": 7}
    assert isinstance(decode(Kind.PODS, msgspec.json.encode(nonsense)), Unreadable)
    state = after(WORLD).state
    for event in (upserted(Kind.PODS, nonsense), listed(Kind.PODS, nonsense, CLIENT)):
        step = reconcile(state, [event])
        assert step.program == after(WORLD).program
        assert [str(problem.object) for problem in step.problems] == ["Pod demo/server"]
        assert reconcile(step.state, [upserted(Kind.PODS, SERVER)]).problems == ()
        gone = reconcile(step.state, [removed(Kind.PODS, nonsense)])
        assert gone.problems == ()
        assert gone.program is not None
        assert local_pods(gone.program) == {"uid-client"}


def test_node_probes_can_be_turned_off() -> None:
    """The node's own addresses pass by default and are like any other under the setting (SEMANTICS 23)."""
    world = [*WORLD[:3], listed(Kind.POLICIES, DENY)]

    assert allowed(after(world).program, "10.0.0.1", "10.1.0.1")
    assert not allowed(
        after(world, start=State(NODE, settings=Settings(node_probes=NodeProbes.DENY))).program, "10.0.0.1", "10.1.0.1"
    )


@pytest.mark.parametrize(
    ("things", "reason"),
    [
        pytest.param((), "has not seen the pod", id="unknown"),
        pytest.param((pod("web", "10.1.0.5", uid="other"),), "has not seen the pod", id="another-of-that-name"),
        pytest.param((pod("web", None, uid="u"),), "has seen no address", id="no-address"),
        pytest.param((pod("web", "10.1.0.5", uid="u", phase="Failed"),), "it has ended", id="ended"),
        pytest.param((pod("web", "10.1.0.5", uid="u", node="n2"),), "is not on node n1", id="elsewhere"),
        pytest.param((pod("else", "10.1.0.5", uid="u"),), "has not seen the pod", id="another-name"),
        pytest.param((pod("web", "10.1.0.5", uid="u"),), None, id="in-force"),
        pytest.param((pod("web", "10.0.0.1", uid="u", spec={"hostNetwork": True}),), None, id="host-network"),
    ],
)
def test_pod_is_in_force_only_with_address_and_uid(things: tuple[dict[str, Any], ...], reason: str | None) -> None:
    """What was committed must have had this very pod, on this node, with an address."""
    state = after([*WORLD[:2], listed(Kind.PODS, *things), WORLD[3]]).state
    answer = why_not_in_force(state, "demo", "web", "u")

    assert answer is None if reason is None else reason in (answer or "")


def test_pod_is_not_in_force_at_an_address_that_the_program_lacks() -> None:
    """A pod that comes back with another address is another matter, and so is its second family."""
    state = after([*WORLD[:2], listed(Kind.PODS, pod("web", "10.1.0.5", uid="u")), WORLD[3]]).state

    assert why_not_in_force(state, "demo", "web", "u", ["10.1.0.5"]) is None
    assert "10.1.0.6" in (why_not_in_force(state, "demo", "web", "u", ["10.1.0.5", "10.1.0.6"]) or "")


def test_pod_is_not_in_force_before_its_namespace_or_a_commit() -> None:
    """A pod may arrive before its namespace; nothing is in force before the first program."""
    state = after([listed(Kind.NAMESPACES), *WORLD[1:]]).state

    assert "namespace demo" in (why_not_in_force(state, "demo", "server", "uid-server") or "")
    assert "committed nothing" in (why_not_in_force(None, "demo", "server", "uid-server") or "")
    assert "committed nothing" in (why_not_in_force(State(NODE), "demo", "server", "uid-server") or "")


LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b"]), max_size=2)
SELECTORS = st.builds(lambda labels: {"matchLabels": labels}, LABELS)
SPECS = st.fixed_dictionaries(
    {
        "podSelector": SELECTORS,
        "ingress": st.lists(
            st.one_of(
                st.just({}),
                st.builds(lambda s: {"from": [{"podSelector": s}]}, SELECTORS),
                st.builds(lambda s: {"from": [{"namespaceSelector": s}]}, SELECTORS),
                st.just({"from": [{"ipBlock": {"cidr": "10.1.0.0/99"}}]}),
            ),
            max_size=2,
        ),
    }
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Event], list[list[Event]]]:
    """Draw what happened to each object (its events in order), and the events of the final state's lists."""
    final: dict[Kind, list[dict[str, Any]]] = {kind: [] for kind in Kind}
    lives: list[list[Event]] = []
    for number in range(draw(st.integers(1, 4))):
        life = []
        for version in range(draw(st.integers(1, 3))):
            address = draw(st.one_of(st.none(), st.just(f"10.1.{version}.{number}")))
            life.append(pod(f"p{number}", address, labels=draw(LABELS), created=f"2026-01-01T00:00:0{number}Z"))
        lives.append([upserted(Kind.PODS, each) for each in life])
        if draw(st.booleans()):
            lives[-1].append(removed(Kind.PODS, life[-1]))
        else:
            final[Kind.PODS].append(life[-1])
    for number in range(draw(st.integers(0, 3))):
        versions = [policy(f"np{number}", spec) for spec in draw(st.lists(SPECS, min_size=1, max_size=2))]
        lives.append([upserted(Kind.POLICIES, each) for each in versions])
        if draw(st.booleans()):
            lives[-1].append(removed(Kind.POLICIES, versions[-1]))
        else:
            final[Kind.POLICIES].append(versions[-1])
    spaces = [obj("demo", labels=labels) for labels in draw(st.lists(LABELS, min_size=1, max_size=2))]
    lives.append([upserted(Kind.NAMESPACES, each) for each in spaces])
    final[Kind.NAMESPACES].append(spaces[-1])
    lives.append([upserted(Kind.NODES, N1)])
    final[Kind.NODES].append(N1)
    return [listed(kind, *things) for kind, things in final.items()], lives


@given(histories(), st.data())
def test_program_depends_on_the_objects_alone(
    history: tuple[list[Event], list[list[Event]]], data: st.DataObject
) -> None:
    """Events of different objects interleaved in any order, repeated, and cut into any batches end in the same
    program and the same problems as one list of what is there in the end.
    """
    lists, lives = history
    fresh = after(lists)
    sequence = list(EMPTY)
    left = [list(life) for life in lives]
    while any(left):
        life = data.draw(st.sampled_from([each for each in left if each]))
        event = life.pop(0)
        sequence += [event] * data.draw(st.integers(1, 2))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sequence)), max_size=4)))
    batches = [sequence[a:b] for a, b in zip([0, *cuts], [*cuts, len(sequence)], strict=True)]
    step = after(*batches)

    assert step.program == fresh.program
    assert step.problems == fresh.problems


@given(histories())
def test_lists_in_any_order_make_the_same_program(history: tuple[list[Event], list[list[Event]]]) -> None:
    """Which collection is listed first does not matter, and a relist of the same changes nothing."""
    lists, _ = history
    forward, backward = after(lists), after(*[[each] for each in reversed(lists)])

    assert forward.program == backward.program
    assert reconcile(backward.state, lists).program is backward.program
