# SPDX-License-Identifier: Apache-2.0
"""What is not known is never guessed: a decided answer holds for everything that the unknown could turn out to be."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.errors import FieldError
from ringfence.model.addresses import Address
from ringfence.model.cluster import Cluster, ContainerPort, Endpoint, Namespace, Node, PodKey
from ringfence.model.flow import Flow
from ringfence.model.labels import Labels, Operator, Requirement, Selector
from ringfence.model.policy import (
    Action,
    Direction,
    InNamespace,
    NamespacesMatching,
    ObjectRef,
    Peers,
    PodPeer,
    PolicySet,
    Rule,
)
from ringfence.model.ports import NamedPort, PortMatch, Ports, Protocol
from ringfence.semantics.evaluate import judge_half
from ringfence.semantics.findings import JudgedHalf, Outcome, Undecidable
from ringfence.semantics.judge import judge
from ringfence.semantics.knowledge import Gap, Knowledge
from tests.semantics.small_worlds import (
    ADDRESSES,
    NAMES,
    NAMESPACES,
    PORTS,
    WITH_PORTS,
    block,
    container_ports,
    flow,
    labelled,
    labels,
    network_policies,
    pod,
    policy,
    policy_sets,
    rule,
    tier,
)

NAME_LABEL = "kubernetes.io/metadata.name"
STAND_INS = tuple(ipaddress.ip_address(f"198.18.0.{n}") for n in range(1, 5))
STRANGER = ADDRESSES[7]
FREE = [address for address in ADDRESSES if address.version == 4 and address != STRANGER]


@st.composite
def half_known(draw: st.DrawFn) -> tuple[Cluster, Knowledge, Flow, Callable[[st.DataObject], tuple[Cluster, Flow]]]:
    """Draw a cluster with gaps, a flow in it, and a way to fill the gaps with something."""
    nodes = {"node-a": draw(st.sampled_from([frozenset[Address](), frozenset({ADDRESSES[0]})]))}
    endpoints = [
        Endpoint(
            PodKey(draw(st.sampled_from(NAMESPACES)), f"pod-{number}"),
            f"uid-{number}",
            draw(labels),
            frozenset({address}),
            draw(st.sampled_from(["", "node-a"])),
            draw(container_ports),
            draw(st.integers(0, 4)) == 0,
        )
        for number, address in enumerate(STAND_INS)
    ]
    spaces = {name: draw(st.one_of(st.none(), labels)) for name in NAMESPACES}
    known = Knowledge(
        stand_ins={address: e.key for e in endpoints for address in e.addresses},
        on_host={address: e.node for e in endpoints if e.host_network for address in e.addresses},
        labelless=frozenset(name for name, told in spaces.items() if told is None),
        strangers=frozenset({STRANGER} if nodes["node-a"] else {STRANGER, ADDRESSES[0]}),
        unplaced=frozenset(e.key for e in endpoints if not e.node),
    )
    ends = (*STAND_INS, STRANGER, ADDRESSES[0])
    protocol, port = draw(st.sampled_from(WITH_PORTS)), draw(st.sampled_from(PORTS))
    asked = Flow(draw(st.sampled_from(ends)), draw(st.sampled_from(ends)), protocol, port)

    def made(spaces: dict[str, Labels], nodes: dict[str, frozenset[Address]], pods: list[Endpoint]) -> Cluster:
        named = [Namespace(n, Labels({**some, NAME_LABEL: n})) for n, some in spaces.items()]
        return Cluster(named, [Node(n, addresses=a) for n, a in nodes.items()], pods)

    def filled(data: st.DataObject) -> tuple[Cluster, Flow]:
        """Decide everything that was open: labels, nodes, addresses, and whose the stranger's address is."""
        some = data.draw
        real = {name: told if told is not None else some(labels) for name, told in spaces.items()}
        free = some(st.permutations(FREE[1:]))
        places = {"node-a": nodes["node-a"] or frozenset({ADDRESSES[0]}), "node-b": frozenset({free[5]})}
        turned: dict[Address, Address] = {}
        pods = []
        for endpoint, address in zip(endpoints, free, strict=False):
            node = endpoint.node or some(st.sampled_from(sorted(places)))
            its = next(iter(places[node])) if endpoint.host_network else address
            turned[next(iter(endpoint.addresses))] = its
            pods.append(
                Endpoint(
                    endpoint.key, endpoint.uid, endpoint.labels, frozenset({its}), node, endpoint.ports,
                    endpoint.host_network,
                )
            )  # fmt: skip
        whose = some(st.sampled_from(["nobody", "pod", "node"]))
        if whose == "pod":
            its_ports = (ContainerPort(some(st.sampled_from(NAMES)), some(st.sampled_from(PORTS)), Protocol.TCP),)
            key = PodKey(some(st.sampled_from(NAMESPACES)), "stranger")
            pods.append(Endpoint(key, "s", some(labels), frozenset({STRANGER}), "node-b", its_ports))
        if whose == "node" and not nodes["node-a"]:
            places["node-a"] |= {STRANGER}
        return made(real, places, pods), Flow(
            turned.get(asked.source, asked.source), turned.get(asked.destination, asked.destination), protocol, port
        )

    told = {name: some or Labels() for name, some in spaces.items()}
    return made(told, nodes, endpoints), known, asked, filled


World = tuple[Cluster, Knowledge, Flow, Callable[[st.DataObject], tuple[Cluster, Flow]]]


@given(half_known(), policy_sets(), st.data())
@settings(max_examples=300)
def test_a_decided_answer_holds_whatever_the_unknown_turns_out_to_be(
    world: World, policies: PolicySet, data: st.DataObject
) -> None:
    """The oracle, asked of the world with every gap filled somehow, gives the answer that was given before."""
    cluster, known, asked, filled = world
    real, flow_then = filled(data)
    # An address that turns out to be the other end's own is another question.
    if (asked.source == asked.destination) != (flow_then.source == flow_then.destination):
        return
    for direction in Direction:
        before = judge(asked, direction, cluster, policies, known)
        then = judge_half(flow_then, direction, real, policies)

        if before.outcome is not Outcome.UNDECIDABLE:
            assert then.allowed is (before.outcome is Outcome.ALLOWED)
        else:
            assert before.unknowns


TCP = Protocol.TCP
SHOP = InNamespace("shop")
SERVER = pod("shop/server", "10.0.0.10", {"app": "server"}, node="node-a")
NEW = pod("shop/new", "198.18.0.1", {"app": "client"}, node="")
FAR = pod("far/client", "10.0.0.12", {"app": "client"})
CLUSTER = Cluster([Namespace("shop"), Namespace("far", Labels({NAME_LABEL: "far"}))], [], [SERVER, NEW, FAR])
KNOWN = Knowledge(
    stand_ins={ipaddress.ip_address("198.18.0.1"): NEW.key},
    labelless=frozenset({"far"}),
    strangers=frozenset({ipaddress.ip_address("10.9.9.9")}),
    unplaced=frozenset({NEW.key}),
)


def half(some: Rule, source: str, destination: str = "10.0.0.10", *more: Rule) -> JudgedHalf:
    """Judge the ingress of a pod that one policy isolates."""
    policies = network_policies(policy(ingress=(some, *more)))
    return judge(flow(source, destination), Direction.INGRESS, CLUSTER, policies, KNOWN)


EXISTS = Selector((Requirement("team", Operator.EXISTS),))
OF_FAR = labelled(**{NAME_LABEL: "far"})


@pytest.mark.parametrize(
    ("some", "source", "gap", "fact"),
    [
        pytest.param(
            rule(Peers((block("10.0.0.0/8"),))),
            "198.18.0.1",
            Gap.ADDRESS,
            "the address of shop/new (peer needs 10.0.0.0/8)",
            id="block",
        ),
        pytest.param(
            rule(Peers((block("0.0.0.0/0", "10.0.0.0/8"),))), "198.18.0.1", Gap.ADDRESS, "shop/new", id="exception"
        ),
        pytest.param(
            rule(Peers((PodPeer(NamespacesMatching(EXISTS)),))),
            "10.0.0.12",
            Gap.NAMESPACE_LABELS,
            "the labels of namespace far",
            id="namespace",
        ),
        pytest.param(
            rule(Peers((PodPeer(SHOP),))), "10.9.9.9", Gap.HOLDER, "whether 10.9.9.9 is a pod's", id="stranger"
        ),
    ],
)
def test_what_would_have_to_be_known_is_said(some: Rule, source: str, gap: Gap, fact: str) -> None:
    """The gap, the fact, and the policy that hangs on it."""
    side = half(some, source)

    assert side.outcome is Outcome.UNDECIDABLE
    assert gap in {unknown.gap for unknown in side.unknowns}
    assert any(fact in unknown.fact for unknown in side.unknowns)
    assert [type(finding) for finding in side.findings] == [Undecidable]


@pytest.mark.parametrize(
    ("some", "source", "outcome"),
    [
        pytest.param(rule(Peers((block("0.0.0.0/0"),))), "198.18.0.1", Outcome.ALLOWED, id="every-address"),
        pytest.param(rule(Peers((block("fd00::/8"),))), "198.18.0.1", Outcome.DENIED, id="another-family"),
        pytest.param(rule(Peers((PodPeer(NamespacesMatching(OF_FAR)),))), "10.0.0.12", Outcome.ALLOWED, id="by-name"),
        pytest.param(
            rule(Peers((PodPeer(NamespacesMatching(EXISTS), labelled(app="x")),))), "10.0.0.12", Outcome.DENIED,
            id="labels-miss-anyway",
        ),
        pytest.param(
            rule(Peers((block("10.0.0.0/8"),)), Ports((PortMatch(TCP, NamedPort("no")),))), "198.18.0.1",
            Outcome.DENIED, id="port-misses-anyway",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_difference_is_not_asked_for(some: Rule, source: str, outcome: Outcome) -> None:
    """An unknown that cannot change the answer does not make it undecidable."""
    assert half(some, source).outcome is outcome


def test_another_rule_that_admits_settles_it() -> None:
    """Whatever the address is: the second rule needs none."""
    side = half(rule(Peers((block("10.0.0.0/8"),))), "198.18.0.1", "10.0.0.10", rule(Peers((PodPeer(SHOP),)), path="b"))

    assert (side.outcome, side.decided_by and side.decided_by.path) == (Outcome.ALLOWED, "b")


def test_a_named_port_of_an_address_that_may_be_a_pods_is_undecidable() -> None:
    """SEMANTICS 10 is for what is certainly no pod."""
    named = rule(traffic=Ports((PortMatch(TCP, NamedPort("http")),)))
    policies = network_policies(policy(egress=(named,)))

    side = judge(flow("10.0.0.10", "10.9.9.9"), Direction.EGRESS, CLUSTER, policies, KNOWN)

    assert [unknown.gap for unknown in side.unknowns] == [Gap.HOLDER]


def test_a_pod_without_a_node_may_be_on_any() -> None:
    """Whether a node's probes reach it unasked depends on where it runs (SEMANTICS 23)."""
    node = Node("node-a", addresses=frozenset({ipaddress.ip_address("10.0.0.1")}))
    cluster = Cluster([Namespace("shop")], [node], [NEW])

    side = judge(
        flow("10.0.0.1", "198.18.0.1"), Direction.INGRESS, cluster, network_policies(policy(ingress=())), KNOWN
    )

    assert [unknown.gap for unknown in side.unknowns] == [Gap.NODE]


REF = ObjectRef("NetworkPolicy", "shop", "p")
WRONG = FieldError("spec.ingress[0].from[0]", "Required value: must specify a peer", "FieldValueRequired")


def test_a_broken_rule_is_not_guessed_at_and_the_others_work() -> None:
    """Its policy is undecidable where nothing else of it admits; the remedy says what holds until then."""
    known = Knowledge(broken={REF: (WRONG,)})
    broken, good = rule(Peers(())), rule(Peers((PodPeer(SHOP, labelled(app="client")),)), path="spec.ingress[1]")
    policies = network_policies(policy("p", ingress=(broken, good)))
    cluster = Cluster([Namespace("shop")], [], [SERVER, pod("shop/a", "10.0.0.3", {"app": "client"}), FAR])

    admitted = judge(flow("10.0.0.3", "10.0.0.10"), Direction.INGRESS, cluster, policies, known)
    open_ = judge(flow("10.0.0.12", "10.0.0.10"), Direction.INGRESS, cluster, policies, known)

    assert admitted.outcome is Outcome.ALLOWED
    assert (open_.outcome, open_.unknowns[0].gap) == (Outcome.UNDECIDABLE, Gap.BROKEN_RULE)
    assert "must specify a peer" in open_.unknowns[0].fact
    assert "match nothing" in open_.unknowns[0].remedy


@pytest.mark.parametrize("path", ["spec.podSelector.matchLabels", "spec", "spec.policyTypes[0]"])
def test_a_policy_whose_pods_are_not_known_is_undecidable(path: str) -> None:
    """A broken podSelector selects at least what it could have meant; whether more, nobody knows."""
    known = Knowledge(broken={REF: (FieldError(path, "Invalid value", "FieldValueInvalid"),)})
    side = judge(
        flow("10.0.0.12", "10.0.0.10"), Direction.INGRESS, CLUSTER, network_policies(policy("p", ingress=())), known
    )

    assert (side.outcome, side.isolated_by) == (Outcome.UNDECIDABLE, ())


def test_a_policy_that_may_select_and_would_admit_changes_nothing() -> None:
    """If it selects the pod it admits the flow, and if not nothing isolates it."""
    wide = policy("wide", subject=PodPeer(NamespacesMatching(EXISTS)), ingress=(rule(),))
    side = judge(
        flow("10.0.0.10", "10.0.0.12"), Direction.INGRESS, CLUSTER, PolicySet((tier(Action.DENY, wide),)), KNOWN
    )

    assert side.outcome is Outcome.ALLOWED
