# SPDX-License-Identifier: Apache-2.0
"""A flow run through a program: what is decided, on what ground."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from ringfence.compiler.interpret import Ground, Half, Judgement, judge
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
from ringfence.dataplanes.memory import render
from ringfence.model.cluster import PodKey
from ringfence.model.flow import Flow
from ringfence.model.policy import ANY_PEER, Action, Direction, ObjectRef, Origin
from ringfence.model.ports import ANY_TRAFFIC, PortRange, Protocol

ORIGINS = [Origin(ObjectRef("NetworkPolicy", "demo", "p"), f"spec.ingress[{n}]") for n in range(3)]
PEERS = PeerSetId("peers")
TCP_80 = (PortSpan(Protocol.TCP, PortRange(80, 80)), PortSpan(Protocol.ICMP, PortRange(0, 65535)))
PROGRAM = Program(
    node="n",
    node_addresses=frozenset({ip_address("10.224.0.4")}),
    endpoints=(
        EndpointEntry(ip_address("10.0.0.1"), PodKey("demo", "a"), "1", RulesetId("in"), RulesetId("out")),
        EndpointEntry(ip_address("10.0.0.2"), PodKey("demo", "a"), "1", RulesetId("in"), RulesetId("out")),
        EndpointEntry(ip_address("10.0.0.3"), PodKey("demo", "b"), "2", None, None),
    ),
    rulesets=(
        Ruleset(
            RulesetId("in"),
            Direction.INGRESS,
            (
                CompiledRule(Action.DENY, PEERS, TCP_80, ORIGINS[0]),
                CompiledRule(Action.ALLOW, ANY_PEER, TCP_80, ORIGINS[1]),
                CompiledRule(Action.ALLOW, PEERS, ANY_TRAFFIC, ORIGINS[2]),
            ),
            (ORIGINS[0].object,),
        ),
        Ruleset(RulesetId("out"), Direction.EGRESS, (), (ORIGINS[0].object,)),
    ),
    peer_sets=(
        PeerSet(
            PEERS, "some", frozenset({ip_address("198.51.100.1")}), (ip_network("192.0.2.0/24"), ip_network("::/0"))
        ),
    ),
)
ITSELF = Half(True, Ground.ITSELF)
OPEN = Half(True, Ground.NOT_ISOLATED)
CLOSED = Half(False, Ground.NO_RULE)


def by_rule(index: int, *, allowed: bool) -> Half:
    """Return a half that a rule decided."""
    return Half(allowed, Ground.RULE, ORIGINS[index])


@pytest.mark.parametrize(
    ("source", "destination", "port", "expected"),
    [
        pytest.param("10.0.0.1", "10.0.0.1", 80, Judgement(ITSELF, ITSELF), id="itself"),
        pytest.param("10.0.0.1", "10.0.0.2", 80, Judgement(ITSELF, ITSELF), id="itself by another address"),
        pytest.param("10.0.0.3", "10.0.0.1", 80, Judgement(OPEN, by_rule(1, allowed=True)), id="not isolated, rule"),
        pytest.param("10.0.0.1", "10.0.0.3", 80, Judgement(CLOSED, OPEN), id="isolated without rules"),
        pytest.param("10.224.0.4", "10.0.0.1", 81, Judgement(None, Half(True, Ground.OWN_NODE)), id="own node"),
        pytest.param("10.0.0.1", "10.224.0.4", 81, Judgement(CLOSED, None), id="to its own node"),
        pytest.param("192.0.2.9", "10.0.0.1", 80, Judgement(None, by_rule(0, allowed=False)), id="first rule denies"),
        pytest.param("192.0.2.9", "10.0.0.1", 81, Judgement(None, by_rule(2, allowed=True)), id="by network"),
        pytest.param("198.51.100.1", "10.0.0.1", 81, Judgement(None, by_rule(2, allowed=True)), id="by address"),
        pytest.param("198.51.100.2", "10.0.0.1", 81, Judgement(None, CLOSED), id="no rule; ::/0 is not 0.0.0.0/0"),
        pytest.param("192.0.2.9", "192.0.2.10", 80, Judgement(None, None), id="nothing local"),
    ],
)
def test_a_flow_is_decided_on_its_ground(source: str, destination: str, port: int, expected: Judgement) -> None:
    """By the interpreter and by the memory dataplane's tables alike."""
    flow = Flow(ip_address(source), ip_address(destination), Protocol.TCP, port)

    assert judge(PROGRAM, flow) == expected
    assert render(PROGRAM).judge(flow) == expected


@pytest.mark.parametrize(("protocol", "allowed"), [(Protocol.ICMP, True), (Protocol.ICMPV6, False)])
def test_protocols_without_ports_match_by_protocol(protocol: Protocol, allowed: bool) -> None:  # noqa: FBT001 - a table
    """SEMANTICS 33."""
    flow = Flow(ip_address("198.51.100.2"), ip_address("10.0.0.1"), protocol)

    assert judge(PROGRAM, flow).allowed is allowed


def test_a_flow_is_allowed_if_every_local_half_allows_it() -> None:
    """A node answers for its own halves only."""
    assert Judgement(None, None).allowed
    assert Judgement(OPEN, None).allowed
    assert not Judgement(OPEN, CLOSED).allowed
