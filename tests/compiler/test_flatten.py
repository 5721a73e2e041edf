# SPDX-License-Identifier: Apache-2.0
"""A flattened program decides as the program does, says nothing twice, and depends on the program alone."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.compiler.compile import compile_program
from ringfence.compiler.flat import NO_ATOM, NO_RULE, FlatProgram, View
from ringfence.compiler.flat_interpret import FlatJudge, judge_flat
from ringfence.compiler.flatten import flatten
from ringfence.compiler.interpret import Ground, judge
from ringfence.compiler.longest_prefix import LongestPrefix
from ringfence.compiler.program import (
    CompiledRule,
    EndpointEntry,
    PeerSet,
    PeerSetId,
    PortSpan,
    Program,
    Ruleset,
    RulesetId,
)
from ringfence.errors import Unsupported
from ringfence.model.cluster import PodKey
from ringfence.model.flow import Flow
from ringfence.model.policy import ANY_PEER, Action, Direction, ObjectRef, Origin
from ringfence.model.ports import ANY_TRAFFIC, PortRange, Protocol
from ringfence.semantics.space import space
from tests.compiler.programs import FLOWS, programs
from tests.fuzz.worlds import NODES, World, worlds


@settings(max_examples=60, deadline=None)
@given(programs)
def test_a_flattened_program_decides_as_the_program(program: Program) -> None:
    """On the same ground and by the same rule, whatever the addresses, protocol and port."""
    flat = FlatJudge(flatten(program, "test"))
    local = {entry.address for entry in program.endpoints}
    for flow in FLOWS:
        if flow.source in local or flow.destination in local:
            assert flat.judge(flow) == judge(program, flow)


@settings(max_examples=40, deadline=None)
@given(worlds(broken=False))
def test_every_cell_of_a_cluster_is_decided_as_the_program_decides_it(world: World) -> None:
    """For the programs of each node: all flows there are, one of each kind."""
    cluster, policies = world.meaning
    judged = [compile_program(cluster, policies, node, world.settings) for node in NODES]
    flattened = [FlatJudge(flatten(program, "test")) for program in judged]
    for cell in space(cluster, policies).cells():
        for program, flat in zip(judged, flattened, strict=True):
            assert flat.judge(cell.flow) == judge(program, cell.flow)


@settings(max_examples=100, deadline=None)
@given(programs)
def test_nothing_is_said_twice_and_nothing_is_missing(program: Program) -> None:
    """Whatever is named is there, and whatever is there is named; what says no more than another thing is left out."""
    flat = flatten(program, "test")
    named = {view.atom for view in flat.views.values()} | set(flat.blocks.values())
    assert flat.atoms.keys() == named - {NO_ATOM}
    assert flat.profiles.keys() == set(flat.pairs.values())
    assert flat.pairs.keys() >= {(ruleset.id, NO_ATOM) for ruleset in program.rulesets}
    assert all(
        flat.pairs[ruleset, NO_ATOM] != profile for (ruleset, atom), profile in flat.pairs.items() if atom != NO_ATOM
    )
    referred = {d.rule for p in flat.profiles.values() for d in (p.rest, *(d for _, d in p.traffic))}
    assert flat.rules.keys() == referred - {None}

    blocks = LongestPrefix(flat.blocks)
    for network, atom in flat.blocks.items():
        assert blocks.above(network) != atom
    for address, view in flat.views.items():
        assert view != View(None, None, None, blocks.find(address) or NO_ATOM, own_node=False)


@settings(max_examples=100, deadline=None)
@given(programs)
def test_a_profile_has_as_few_spans_as_possible(program: Program) -> None:
    """Sorted, apart from each other or decided differently, and never as the rest is."""
    for profile in flatten(program, "test").profiles.values():
        order = [(span.protocol.number, span.ports.first) for span, _ in profile.traffic]
        assert order == sorted(order)
        assert all(decision != profile.rest for _, decision in profile.traffic)
        for (one, first), (other, second) in zip(profile.traffic, profile.traffic[1:], strict=False):
            if one.protocol is other.protocol:
                assert one.ports.last < other.ports.first
                assert first != second or one.ports.last + 1 < other.ports.first


@settings(max_examples=50, deadline=None)
@given(programs, st.data())
def test_the_order_of_what_a_program_is_made_of_leaves_no_trace(program: Program, data: st.DataObject) -> None:
    """Also where a program should come unsorted."""
    shuffled = replace(
        program,
        peer_sets=tuple(data.draw(st.permutations(program.peer_sets))),
        rulesets=tuple(data.draw(st.permutations(program.rulesets))),
    )
    assert flatten(shuffled, "test") == flatten(program, "test")


RULE = CompiledRule(Action.PASS, ANY_PEER, ANY_TRAFFIC, Origin(ObjectRef("Policy", "", "p"), "spec.ingress[1]"))


def _program(*rules: CompiledRule, networks: tuple[str, ...] = (), addresses: tuple[str, ...] = ()) -> Program:
    ruleset = Ruleset(RulesetId("r"), Direction.INGRESS, rules, (RULE.origin.object,))
    entry = EndpointEntry(ip_address("10.0.0.1"), PodKey("x", "a"), "1", ruleset.id, None)
    covered = frozenset(map(ip_address, addresses))
    peers = PeerSet(PeerSetId("s"), "some", covered, tuple(map(ip_network, networks)))
    return Program("n", frozenset(), (entry,), (ruleset,), (peers,))


def test_what_passes_a_flow_on_is_refused_with_its_place() -> None:
    """A ruleset is the last word in a flattened program."""
    with pytest.raises(Unsupported) as raised:
        flatten(_program(RULE), "some")

    assert raised.value.refusals == ("Policy p spec.ingress[1] passes to the next tier",)
    assert raised.value.dataplane == "some"


def test_what_says_the_same_as_its_surroundings_is_left_out() -> None:
    """A block in a block of the same peer sets, and an address in such a block."""
    allowing = replace(RULE, action=Action.ALLOW, peers=PeerSetId("s"))
    nested, around = ("10.0.0.0/8", "10.1.0.0/16", "fd00::/64"), ("10.0.0.0/8", "fd00::/64")
    flat = flatten(_program(allowing, networks=nested, addresses=("10.1.0.1", "192.0.2.1")), "test")

    assert set(flat.blocks) == set(map(ip_network, around))
    assert set(flat.views) == {ip_address("10.0.0.1"), ip_address("192.0.2.1")}


def test_a_pair_that_decides_as_its_ruleset_always_does_is_left_out() -> None:
    """A rule of some peers after one of any peer is never reached, and need not be known."""
    everybody = replace(RULE, action=Action.ALLOW)
    flat = flatten(_program(everybody, replace(everybody, peers=PeerSetId("s")), addresses=("192.0.2.1",)), "test")

    assert set(flat.pairs) == {(RulesetId("r"), NO_ATOM)}


def test_a_protocol_without_ports_is_decided_by_the_first_rule_that_names_it() -> None:
    """Whatever ports a program says that it has there."""
    later, earlier = ((PortSpan(Protocol.ICMP, PortRange(port, port)),) for port in (7, 3))
    denying = replace(RULE, action=Action.DENY, traffic=later)
    program = _program(denying, replace(denying, action=Action.ALLOW, traffic=earlier))
    flow = Flow(ip_address("10.0.0.9"), ip_address("10.0.0.1"), Protocol.ICMP)
    (profile,) = flatten(program, "test").profiles.values()

    assert [span for span, _ in profile.traffic] == [PortSpan(Protocol.ICMP, PortRange(0, 65535))]
    assert judge_flat(flatten(program, "test"), flow) == judge(program, flow)
    assert not judge(program, flow).allowed


def test_a_program_of_no_pods_says_nothing() -> None:
    """And judges nothing."""
    flat = flatten(Program("n", frozenset(), (), (), ()), "test")

    assert flat == FlatProgram("n", flat.settings, {}, {}, {}, {}, {}, {})
    flow = Flow(ip_address("10.0.0.1"), ip_address("10.0.0.2"), Protocol.TCP, 80)
    assert judge_flat(flat, flow).egress is None


def test_an_isolated_pod_without_rules_is_denied_by_no_rule() -> None:
    """Its one profile is the empty one."""
    flat = flatten(_program(), "test")
    flow = Flow(ip_address("10.0.0.9"), ip_address("10.0.0.1"), Protocol.ICMP)
    half = judge_flat(flat, flow).ingress

    assert [profile.rest for profile in flat.profiles.values()] == [NO_RULE]
    assert half is not None
    assert (half.allowed, half.ground) == (False, Ground.NO_RULE)
