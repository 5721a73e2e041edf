# SPDX-License-Identifier: Apache-2.0
"""The dataplane that answers instead of filtering."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from ringfence.compiler.interpret import Judgement
from ringfence.compiler.program import (
    CompiledRule,
    EndpointEntry,
    PeerSet,
    PeerSetId,
    Program,
    Ruleset,
    RulesetId,
    empty_program,
)
from ringfence.dataplanes.base import Answer, Applied, Dataplane
from ringfence.dataplanes.memory import MemoryDataplane, probe
from ringfence.model.cluster import PodKey
from ringfence.model.flow import Flow
from ringfence.model.policy import Action, Direction, ObjectRef, Origin
from ringfence.model.ports import ANY_TRAFFIC, Protocol

CLIENT, SERVER = ip_address("10.0.0.1"), ip_address("10.0.0.2")
FLOW = Flow(CLIENT, SERVER, Protocol.TCP, 80)
ORIGIN = Origin(ObjectRef("NetworkPolicy", "demo", "p"), "spec.ingress[0]")
SET = PeerSet(PeerSetId("s"), "clients", frozenset(), ())
PROGRAM = Program(
    "n",
    frozenset(),
    (EndpointEntry(SERVER, PodKey("demo", "server"), "1", RulesetId("r"), None),),
    (
        Ruleset(
            RulesetId("r"),
            Direction.INGRESS,
            (CompiledRule(Action.ALLOW, SET.id, ANY_TRAFFIC, ORIGIN),),
            (ORIGIN.object,),
        ),
    ),
    (SET,),
)
OPENED = replace(PROGRAM, peer_sets=(replace(SET, addresses=frozenset({CLIENT})),))


def test_it_keeps_the_contract_of_dataplanes() -> None:
    """A ``Dataplane`` by type and by behaviour: apply, change, apply again, remove."""
    memory = MemoryDataplane()
    dataplane: Dataplane = memory

    assert dataplane.name == "memory"
    assert memory.judge(FLOW) == Judgement(None, None)
    assert dataplane.apply(PROGRAM) == Applied(transactions=1, added=2)
    assert not memory.judge(FLOW).allowed
    assert dataplane.apply(OPENED) == Applied(transactions=1)
    assert memory.judge(FLOW).allowed
    assert memory.program == OPENED
    assert dataplane.apply(OPENED) == Applied(transactions=0)
    assert dataplane.apply(empty_program("n")) == Applied(transactions=1, deleted=2)
    assert not dataplane.drifted()
    dataplane.remove()
    assert memory.judge(FLOW) == Judgement(None, None)


def test_every_machine_can_run_it() -> None:
    """The probe says yes, and what it does not do."""
    assert probe().answer is Answer.YES
    assert "filters no packet" in probe().reason
