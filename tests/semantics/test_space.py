# SPDX-License-Identifier: Apache-2.0
"""The flattened space: every flow is in one cell, and all flows of a cell have one verdict."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.model.cluster import Cluster, Node
from ringfence.model.policy import Peers, PolicySet
from ringfence.model.ports import ANY_TRAFFIC, PortMatch, PortRange, Ports, Protocol
from ringfence.model.settings import NodeProbes, OwnNodeEgress, Settings
from ringfence.semantics.allowed import Allowed, HalfAllowed
from ringfence.semantics.evaluate import Half, Verdict, evaluate
from ringfence.semantics.relations import Relation
from ringfence.semantics.space import Cell, Holder, Space, space
from tests.semantics.busy_worlds import World, world, worlds
from tests.semantics.small_worlds import (
    block,
    clusters,
    flow,
    flows,
    network_policies,
    pod,
    policy,
    policy_sets,
    rule,
)


@st.composite
def _small(draw: st.DrawFn) -> World:
    """Draw a world that hypothesis can make smaller."""
    return World(draw(clusters()), draw(policy_sets()), draw(policy_sets()), tuple(draw(st.lists(flows(), max_size=5))))


def _half(allowed: HalfAllowed, like: Half, number: int) -> Half:
    """Return the half that the algebra says a span has."""
    (ruling,) = (each for each in allowed.rulings if each.spans >> number & 1)
    return Half(like.direction, ruling.allowed, like.subject, allowed.isolated_by, ruling.decided_by, ruling.reason)


def _assert_equal(found: Space, allowed: Allowed, cell: Cell, expected: Verdict) -> None:
    """Hold the algebra against ``evaluate`` for the flow of a cell: both halves, reasons and deciding rules."""
    both = allowed.between(cell.pair.source, cell.pair.destination, cell.pair.relation)
    number = found.spans.number(cell.flow.protocol, cell.flow.port)

    assert _half(both.egress, expected.egress, number) == expected.egress
    assert _half(both.ingress, expected.ingress, number) == expected.ingress
    assert bool(both.allowed >> number & 1) is expected.allowed


_every_setting = st.builds(Settings, st.sampled_from(NodeProbes), st.sampled_from(OwnNodeEgress))


@given(drawn=st.one_of(worlds, _small()), chosen=_every_setting)
@settings(deadline=None, max_examples=25)
def test_every_cell_has_the_verdict_that_evaluate_gives_its_flow(drawn: World, chosen: Settings) -> None:
    """For all cells, under both of the policy sets that the space was made with; and ``locate`` finds the cell."""
    both = space(drawn.cluster, drawn.one, drawn.other)
    cells = list(both.cells())
    for policies in (drawn.one, drawn.other):
        allowed = Allowed(both, policies, chosen)
        for cell in cells:
            _assert_equal(both, allowed, cell, evaluate(cell.flow, drawn.cluster, policies, chosen))

    assert [_key(both.locate(cell.flow)) for cell in cells] == [_key(cell) for cell in cells]


@given(drawn=st.one_of(worlds, _small()), chosen=_every_setting)
@settings(deadline=None, max_examples=120)
def test_any_flow_has_the_verdict_of_its_cell(drawn: World, chosen: Settings) -> None:
    """Flows that are nobody's example are judged like their cell: any address, protocol and port."""
    both = space(drawn.cluster, drawn.one, drawn.other)
    for policies in (drawn.one, drawn.other):
        allowed = Allowed(both, policies, chosen)
        for each in drawn.flows:
            _assert_equal(both, allowed, both.locate(each), evaluate(each, drawn.cluster, policies, chosen))


@given(drawn=st.one_of(worlds, _small()))
@settings(deadline=None, max_examples=40)
def test_every_flow_of_a_pod_is_in_exactly_one_of_the_cells(drawn: World) -> None:
    """``cells`` leaves nothing out and repeats nothing; ICMP of the other family, and what no pod sees, is no cell."""
    both = space(drawn.cluster, drawn.one, drawn.other)
    keys = [_key(each) for each in both.cells()]
    assert len(keys) == len(set(keys))
    for each in drawn.flows:
        cell = both.locate(each)
        touches_a_pod = Holder.POD in (cell.pair.source.holder, cell.pair.destination.holder)
        echo = Protocol.ICMP if each.source.version == 4 else Protocol.ICMPV6

        assert (_key(cell) in keys) is (touches_a_pod and (each.protocol.has_ports or each.protocol is echo))


def test_the_worlds_are_busy() -> None:
    """What the properties above are tried on denies and allows: a comparison of nothing but allowed proves little."""
    mixed = 0
    for seed in range(20):
        drawn = world(seed)
        both = space(drawn.cluster, drawn.one)
        allowed = Allowed(both, drawn.one)
        spans = {allowed.between(p.source, p.destination, p.relation).allowed for p in both.pairs()}
        mixed += len(spans) > 2

    assert mixed >= 6


def _key(cell: Cell) -> tuple[int, int, Relation, str]:
    return cell.pair.source.number, cell.pair.destination.number, cell.pair.relation, str(cell.span)


def _tcp(*ranges: tuple[int, int]) -> Ports:
    return Ports(tuple(PortMatch(Protocol.TCP, PortRange(*each)) for each in ranges))


def _tcp_spans(found: Space) -> Iterator[str]:
    return (str(span) for span in found.spans.members if span.protocol is Protocol.TCP)


def test_ports_are_cut_where_rules_cut_them() -> None:
    """Before, inside and after each range; nothing else."""
    policies = network_policies(policy(ingress=(rule(traffic=_tcp((80, 80), (70, 90))),)))
    found = space(Cluster(), policies)

    assert list(_tcp_spans(found)) == ["TCP/0-69", "TCP/70-79", "TCP/80", "TCP/81-90", "TCP/91-65535"]


def test_without_policies_there_is_one_atom_a_family_and_one_class_of_pods() -> None:
    """Nothing tells anything apart."""
    cluster = Cluster(endpoints=[pod("shop/web", "10.0.0.3", {"app": "a"}), pod("bank/db", "10.0.0.4")])
    found = space(cluster, PolicySet())

    assert [(each.holder, each.version) for each in found.classes] == [
        (Holder.POD, 4),
        (Holder.NOBODY, 4),
        (Holder.NOBODY, 6),
    ]


def test_a_thousand_blocks_of_one_rule_make_two_atoms() -> None:
    """What is in some block of the rule, and what is in none."""
    blocks = Peers(tuple(block(f"10.{n // 250}.{n % 250}.0/25") for n in range(1000)))
    found = space(Cluster(), network_policies(policy(ingress=(rule(blocks),))))

    atoms = [each for each in found.classes if each.version == 4]
    assert sorted(len(each.ranges) for each in atoms) == [1000, 1001]


def test_an_atom_that_pods_fill_is_no_class() -> None:
    """A block of one address, which a pod holds: nobody outside has it."""
    policies = network_policies(policy(ingress=(rule(Peers((block("10.0.0.3/32"),)), ANY_TRAFFIC),)))
    cluster = Cluster(endpoints=[pod("shop/web", "10.0.0.3")])
    found = space(cluster, policies)

    assert sum(each.holder is Holder.NOBODY and each.version == 4 for each in found.classes) == 1


def test_nodes_do_not_multiply_classes() -> None:
    """A node is its own pods' node in a relation, not in a class of its own."""
    nodes = [Node(f"n{i}", addresses=frozenset({ipaddress.ip_address(f"10.1.0.{i}")})) for i in range(50)]
    pods = [pod(f"shop/p{i}", f"10.0.0.{i}", node=f"n{i}") for i in range(50)]
    found = space(Cluster(nodes=nodes, endpoints=pods), PolicySet())

    assert sum(each.version == 4 for each in found.classes) == 3
    assert {pair.relation for pair in found.pairs()} == set(Relation) - {Relation.EACH_OTHERS_NODE}


def test_pods_that_have_addresses_of_each_others_nodes_are_a_relation_of_its_own() -> None:
    """Nobody has such pods, but nothing forbids them; both settings of node traffic are then about one flow."""
    nodes = [
        Node("node-a", addresses=frozenset({ipaddress.ip_address("10.0.0.4")})),
        Node("node-b", addresses=frozenset({ipaddress.ip_address("10.0.0.3")})),
    ]
    cluster = Cluster(
        nodes=nodes, endpoints=[pod("shop/a", "10.0.0.3", node="node-a"), pod("shop/b", "10.0.0.4", node="node-b")]
    )
    denied = network_policies(policy(ingress=(), egress=()))
    found = space(cluster, denied)
    relations = {pair.relation for pair in found.pairs()}

    assert Relation.EACH_OTHERS_NODE in relations
    for chosen in (Settings(), Settings(own_node_egress=OwnNodeEgress.ALLOW)):
        allowed = Allowed(found, denied, chosen)
        for cell in found.cells():
            _assert_equal(found, allowed, cell, evaluate(cell.flow, cluster, denied, chosen))


def test_a_port_of_a_protocol_without_ports_matches_nothing() -> None:
    """ICMP carries no port number that could match."""
    odd = Ports((PortMatch(Protocol.ICMP, PortRange(8, 8)),))
    cluster = Cluster(endpoints=[pod("shop/web", "10.0.0.3")])
    policies = network_policies(policy(ingress=(rule(traffic=odd),)))
    found = space(cluster, policies)

    outside = found.locate(flow("192.0.2.1", "10.0.0.3", Protocol.ICMP))
    assert Allowed(found, policies).between(outside.pair.source, outside.pair.destination, Relation.APART).allowed == 0


def test_a_space_of_nothing_but_odd_addresses_still_has_an_example() -> None:
    """A block of loopback addresses is an atom like any other."""
    found = space(Cluster(), network_policies(policy(ingress=(rule(Peers((block("127.0.0.0/8"),))),))))

    assert "127.0.0.0" in {str(each.members.addresses[0]) for each in found.classes}
