# SPDX-License-Identifier: Apache-2.0
"""A program changed event by event equals one that is compiled from everything there is."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.agent.reconcile import Event, Kind, State, decode, reconcile
from ringfence.apis.core import build_cluster
from ringfence.apis.networkpolicy import policy_set
from ringfence.compiler import incremental
from ringfence.compiler.compile import compile_program
from ringfence.compiler.program import Program
from ringfence.kube.changes import Listed, Removed, Upserted
from ringfence.model import persistent
from ringfence.model.cluster import Cluster, PodKey

NODE = "n1"


@pytest.fixture(autouse=True, scope="module")
def divided() -> Iterator[None]:
    """Divide small maps and sets, as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(persistent, "UNDIVIDED", 2)
        yield


LABELS = st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("a", "b")), max_size=2)
SELECTORS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    LABELS.map(lambda labels: {"matchLabels": labels}),
    st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")).map(
        lambda op: {
            "matchExpressions": [{"key": "app", "operator": op, **({"values": ["a"]} if op.endswith("In") else {})}]
        }
    ),
)
PORTS = st.one_of(
    st.none(),
    st.lists(
        st.sampled_from(({"port": 80}, {"port": "http"}, {"port": "http", "protocol": "UDP"}, {"protocol": "SCTP"})),
        max_size=2,
    ),
)
BLOCKS = st.sampled_from(("10.0.0.0/24", "10.0.0.4/30", "0.0.0.0/0", "fd00::/64"))
PEERS = st.one_of(
    st.fixed_dictionaries({"podSelector": SELECTORS}),
    st.fixed_dictionaries({"namespaceSelector": SELECTORS}),
    st.fixed_dictionaries({"podSelector": SELECTORS, "namespaceSelector": SELECTORS}),
    BLOCKS.map(lambda cidr: {"ipBlock": {"cidr": cidr}}),
)
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6", "10.0.0.7", "fd00::1", "fd00::2")


@st.composite
def pods(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return a pod: few names, uids and addresses, so that they are used again."""
    uid = draw(st.sampled_from([f"uid-{i}" for i in range(9)]))
    number = int(uid[-1])
    namespace, name = ("x", "y", "z")[number % 3], f"pod-{number // 4}"
    addresses = draw(st.lists(st.sampled_from(ADDRESSES), min_size=draw(st.integers(0, 1)), max_size=2))
    port = {"name": "http", "containerPort": draw(st.sampled_from((80, 8080)))}
    ports = draw(st.sampled_from(([], [port], [{**port, "protocol": "UDP"}])))
    created = f"2026-01-01T00:00:0{number}Z"
    return f"{namespace}/{name}", {
        "metadata": {
            "name": name, "namespace": namespace, "uid": uid, "labels": draw(LABELS), "creationTimestamp": created,
        },
        "spec": {
            "nodeName": draw(st.sampled_from((NODE, NODE, "n2"))),
            "hostNetwork": draw(st.sampled_from((*(False,) * 9, True))),
            "containers": [{"name": "c", "ports": ports}],
        },
        "status": {
            "phase": draw(st.sampled_from((*("Running",) * 9, "Succeeded"))),
            "podIPs": [{"ip": address} for address in addresses],
        },
    }  # fmt: skip


@st.composite
def policies(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return a policy of one of few names."""
    namespace, name = draw(st.sampled_from(("x", "y"))), draw(st.sampled_from(("p", "q")))
    spec: dict[str, Any] = {"podSelector": draw(SELECTORS), "policyTypes": ["Ingress", "Egress"]}
    for direction, end in (("ingress", "from"), ("egress", "to")):
        rules = [
            {key: value for key, value in ((end, draw(st.lists(PEERS, max_size=2))), ("ports", draw(PORTS))) if value}
            for _ in range(draw(st.sampled_from((0, 1, 2, 2))))
        ]
        spec[direction] = rules
    return f"{namespace}/{name}", {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}"}, "spec": spec,
    }  # fmt: skip


@st.composite
def namespaces(draw: st.DrawFn, names: tuple[str, ...] = ("x", "y", "z")) -> tuple[str, dict[str, Any]]:
    """Return a namespace of one of some names."""
    name = draw(st.sampled_from(names))
    return name, {"metadata": {"name": name, "uid": name, "labels": draw(LABELS)}}


@st.composite
def nodes(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return a node."""
    name = draw(st.sampled_from((NODE, "n2")))
    address = draw(st.sampled_from(("10.0.9.1", "10.0.9.2")))
    return name, {"metadata": {"name": name}, "status": {"addresses": [{"address": address, "type": "InternalIP"}]}}


OBJECTS = {Kind.PODS: pods(), Kind.POLICIES: policies(), Kind.NAMESPACES: namespaces(), Kind.NODES: nodes()}
OFTEN = (*(Kind.PODS,) * 8, *(Kind.POLICIES,) * 5, Kind.NAMESPACES, Kind.NODES)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Return an event: mostly a pod or a policy that came or went, sometimes a relist."""
    kind = draw(st.sampled_from(OFTEN))
    key, obj = draw(OBJECTS[kind])
    told = decode(kind, msgspec.json.encode(obj))
    match draw(st.sampled_from((*("upserted",) * 8, *("removed",) * 2, "listed"))):
        case "upserted":
            return Event(kind, Upserted(key, told))
        case "removed":
            return Event(kind, Removed(key, told))
        case _:
            return listed(kind, [(key, obj), *draw(st.lists(OBJECTS[kind], min_size=2, max_size=9))])


def listed(kind: Kind, objects: list[tuple[str, dict[str, Any]]]) -> Event:
    """Return the event of a list."""
    return Event(kind, Listed({key: decode(kind, msgspec.json.encode(obj)) for key, obj in objects}))


@st.composite
def states(draw: st.DrawFn) -> State:
    """Return what an agent knows in the beginning: namespaces, pods and policies."""
    objects = {
        Kind.NAMESPACES: [draw(namespaces((name,))) for name in ("x", "y")],
        Kind.NODES: draw(st.lists(nodes(), max_size=2)),
        Kind.PODS: draw(st.lists(pods(), min_size=6, max_size=12)),
        Kind.POLICIES: draw(st.lists(policies(), min_size=2, max_size=6)),
    }
    return reconcile(State(NODE), [listed(kind, each) for kind, each in objects.items()]).state


def plain_cluster(state: State) -> Cluster:
    """Return the cluster that there is."""
    objects = state.objects
    return build_cluster(objects[Kind.NAMESPACES].values(), objects[Kind.NODES].values(), objects[Kind.PODS].values())


def plain(state: State) -> Program:
    """Compile everything there is."""
    wanted = policy_set(each.lowered.policy for each in state.objects[Kind.POLICIES].values())
    return compile_program(plain_cluster(state), wanted, state.node, state.settings)


def holders(state: State) -> dict[str, PodKey]:
    """Return which pods the workshop finds under the addresses that there may be."""
    assert state.workshop is not None
    found = ((address, state.workshop.holder(ip_address(address))) for address in ADDRESSES)
    return {address: pod.key for address, pod in found if pod is not None}


@settings(max_examples=60, deadline=None)
@given(states(), st.lists(st.lists(events(), min_size=1, max_size=3), min_size=4, max_size=14), st.integers(0, 13))
def test_every_step_arrives_at_the_program_of_its_objects(state: State, batches: list[list[Event]], again: int) -> None:
    """Whatever came before; also if an older state is gone on from, whose workshop has gone on without it."""
    states, programs = [state], [plain(state)]
    for batch in batches:
        state = reconcile(state, batch).state
        states.append(state)
        programs.append(plain(state))

        assert state.program == programs[-1]
        cluster = plain_cluster(state)
        assert holders(state) == {a: pod.key for a in ADDRESSES if (pod := cluster.endpoint_at(ip_address(a)))}
    for batch in batches[again : again + 2]:
        older = reconcile(states[min(again, len(states) - 1)], batch).state

        assert older.program == plain(older)
    assert [each.program for each in states] == programs


@settings(max_examples=40, deadline=None)
@given(states(), st.lists(events(), min_size=6, max_size=20))
def test_what_was_compiled_of_gone_policies_is_forgotten(state: State, changes: list[Event]) -> None:
    """The program stays what it is, and the same workshop makes it; what it keeps does not grow for ever."""
    workshop = state.workshop
    assert workshop is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incremental, "LEAST_FORGOTTEN", 0)
        for event in changes:
            state = reconcile(state, [event]).state

            assert state.workshop is workshop
            assert state.program == plain(state)
            assert workshop._kept._forgotten_weight <= workshop._kept._weight


def _world(count: int) -> State:
    objects = {
        f"uid-{i}": {
            "metadata": {"name": f"pod-{i}", "namespace": "x", "uid": f"uid-{i}", "labels": {"app": f"a{i % 7}"}},
            "spec": {"nodeName": NODE if i % 5 == 0 else "n2"},
            "status": {"phase": "Running", "podIPs": [{"ip": f"10.1.{i // 250}.{i % 250 + 1}"}]},
        }
        for i in range(count)
    }
    known = {f"x/pod-{i}": decode(Kind.PODS, msgspec.json.encode(o)) for i, o in enumerate(objects.values())}
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "a1"}}}, {"ipBlock": {"cidr": "10.9.0.0/16"}}]}
    policy = {
        "metadata": {"name": "p", "namespace": "x"},
        "spec": {"podSelector": {}, "ingress": [rule, {"from": [{"podSelector": {"matchLabels": {"app": "a2"}}}]}]},
    }
    return reconcile(
        State(NODE),
        [
            Event(Kind.NAMESPACES, Listed({"x": decode(Kind.NAMESPACES, b'{"metadata": {"name": "x"}}')})),
            Event(Kind.NODES, Listed({})),
            Event(Kind.PODS, Listed(known)),
            Event(Kind.POLICIES, Listed({"x/p": decode(Kind.POLICIES, msgspec.json.encode(policy))})),
        ],
    ).state


def test_what_a_change_does_not_touch_is_the_same_object_as_before() -> None:
    """A dataplane finds the difference by identity: one peer set of two, and no ruleset, when a peer comes."""
    state = _world(100)
    pod = {
        "metadata": {"name": "new", "namespace": "x", "uid": "new", "labels": {"app": "a1"}},
        "spec": {"nodeName": "n2"},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.1.9.9"}]},
    }

    after = reconcile(state, [Event(Kind.PODS, Upserted("x/new", decode(Kind.PODS, msgspec.json.encode(pod))))]).state

    assert state.program is not None
    assert after.program is not None
    assert after.program.endpoints is state.program.endpoints
    assert after.program.rulesets is state.program.rulesets
    same = [new is old for new, old in zip(after.program.peer_sets, state.program.peer_sets, strict=True)]
    assert sorted(same) == [False, True]
    (changed,) = (p for p, kept in zip(after.program.peer_sets, same, strict=True) if not kept)
    before = next(p for p in state.program.peer_sets if p.id == changed.id)
    assert changed.networks is before.networks
    assert len(changed.addresses - before.addresses) == 1
