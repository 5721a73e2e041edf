# SPDX-License-Identifier: Apache-2.0
"""What changes between two programs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from ringfence.compiler.diff import diff
from ringfence.compiler.program import (
    CompiledRule,
    EndpointEntry,
    PeerSet,
    PeerSetId,
    PortSpan,
    Program,
    Ruleset,
    RulesetId,
    empty_program,
)
from ringfence.model.cluster import PodKey
from ringfence.model.policy import ANY_PEER, Action, Direction, ObjectRef, Origin
from ringfence.model.ports import ANY_TRAFFIC, PortRange, Protocol

ORIGIN = Origin(ObjectRef("NetworkPolicy", "demo", "p"), "spec.ingress[0]")
SPANS = (PortSpan(Protocol.TCP, PortRange(80, 82)), PortSpan(Protocol.UDP, PortRange(0, 65535)))
SET = PeerSet(PeerSetId("s1"), "all pods", frozenset({ip_address("10.0.0.9")}), (ip_network("10.1.0.0/16"),))
PROGRAM = Program(
    "n",
    frozenset({ip_address("10.224.0.4")}),
    (EndpointEntry(ip_address("10.0.0.1"), PodKey("demo", "a"), "1", RulesetId("r1"), None),),
    (
        Ruleset(
            RulesetId("r1"),
            Direction.INGRESS,
            (
                CompiledRule(Action.ALLOW, PeerSetId("s1"), SPANS, ORIGIN),
                CompiledRule(Action.DENY, ANY_PEER, ANY_TRAFFIC, ORIGIN),
            ),
            (ORIGIN.object, ObjectRef("NetworkPolicy", "demo", "q")),
        ),
    ),
    (SET,),
)


def test_from_nothing_everything_is_added() -> None:
    """A program prints whole as what it adds to none."""
    assert (
        str(diff(empty_program("n"), PROGRAM))
        == """\
+ node address 10.224.0.4
+ 10.0.0.1 demo/a ingress r1 egress open
+ ruleset r1 (ingress, NetworkPolicy demo/p, NetworkPolicy demo/q)
+   allow peers s1 TCP/80-82, UDP (NetworkPolicy demo/p spec.ingress[0])
+   deny any peer any traffic (NetworkPolicy demo/p spec.ingress[0])
+ peers s1: all pods
+   10.0.0.9
+   10.1.0.0/16"""
    )


def test_to_nothing_everything_is_removed() -> None:
    """The same lines with the other sign."""
    added = str(diff(empty_program("n"), PROGRAM)).replace("\n+", "\n-")

    assert str(diff(PROGRAM, empty_program("n"))) == "-" + added[1:]


def test_what_stays_is_not_mentioned() -> None:
    """A set that changes shows its members that do; an endpoint that changes shows both sides."""
    changed = replace(
        PROGRAM,
        endpoints=(replace(PROGRAM.endpoints[0], ingress=None),),
        peer_sets=(
            replace(SET, addresses=frozenset({ip_address("10.0.0.10")}), networks=(ip_network("10.2.0.0/16"),)),
        ),
    )

    assert (
        str(diff(PROGRAM, changed))
        == """\
- 10.0.0.1 demo/a ingress r1 egress open
+ 10.0.0.1 demo/a ingress open egress open
~ peers s1: all pods
-   10.0.0.9
-   10.1.0.0/16
+   10.0.0.10
+   10.2.0.0/16"""
    )
    assert not diff(PROGRAM, changed).empty


def test_the_same_program_differs_in_nothing() -> None:
    """And prints nothing."""
    assert diff(PROGRAM, replace(PROGRAM)).empty
