# SPDX-License-Identifier: Apache-2.0
"""A flattened program that is kept up equals one that is made from nothing, and tells exactly what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from ipaddress import IPv4Network, ip_address
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.agent.reconcile import Event, State, reconcile
from ringfence.compiler import flat_incremental, flat_pairs, flat_parts, ordered
from ringfence.compiler.flat import FlatProgram, PartId
from ringfence.compiler.flat_change import FlatChange
from ringfence.compiler.flat_incremental import KeptFlat
from ringfence.compiler.flat_parts import Cutter
from ringfence.compiler.flatten import flatten
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
from ringfence.errors import Unsupported
from ringfence.model.addresses import Network
from ringfence.model.cluster import PodKey
from ringfence.model.persistent import PersistentSet
from ringfence.model.policy import Action, Direction, ObjectRef, Origin
from ringfence.model.ports import ANY_TRAFFIC
from tests.agent.test_workshop import events, states
from tests.compiler.programs import histories

K = TypeVar("K")
V = TypeVar("V")


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat small peer sets, and little that is forgotten, as much is treated."""
    monkeypatch.setattr(flat_parts, "UNDIVIDED", 1)
    monkeypatch.setattr(flat_parts, "PART", 2)
    monkeypatch.setattr(flat_incremental, "LEAST_FORGOTTEN", 2)
    monkeypatch.setattr(flat_pairs, "LEAST_FORGOTTEN", -10)
    monkeypatch.setattr(ordered, "FEW", 1)


def follow(kept: KeptFlat, before: FlatProgram, program: Program) -> FlatProgram:
    """Take in a program, and hold what is kept, and the change, against flattened programs of no memory."""
    assert kept.flat == before
    change = kept.change(program)
    after = flatten(program, "test")

    assert kept.flat == after
    assert change == difference(before, after)
    return after


def difference(old: FlatProgram, new: FlatProgram) -> FlatChange:
    """Return what the second says that the first does not: all that has to be written, and nothing else."""
    maps = {field.name: entries(getattr(old, field.name), getattr(new, field.name)) for field in fields(FlatChange)[1:]}
    return FlatChange(new.settings if new.settings != old.settings else None, **maps)


def entries(old: Mapping[K, V], new: Mapping[K, V]) -> dict[K, V | None]:
    """Return what to write to the first to make it the second."""
    come: dict[K, V | None] = {key: value for key, value in new.items() if old.get(key) != value}
    return come | dict.fromkeys(old.keys() - new.keys())


@pytest.mark.usefixtures("small_is_large")
@settings(max_examples=80, deadline=None)
@given(histories(6))
def test_any_program_may_follow_any(path: list[Program]) -> None:
    """Whatever they share, and whether it is the same object or an equal one."""
    kept = KeptFlat("n", "test")
    flat = flatten(empty_program("n"), "test")
    for program in [*path, *path]:
        flat = follow(kept, flat, program)


@pytest.mark.usefixtures("small_is_large")
@settings(max_examples=50, deadline=None)
@given(states(), st.lists(st.lists(events(), min_size=1, max_size=3), min_size=4, max_size=14))
def test_every_step_arrives_at_the_flattened_program_of_its_objects(state: State, batches: list[list[Event]]) -> None:
    """As an agent's programs come from one another: what has not changed is the same object."""
    kept = KeptFlat("n1", "test")
    flat = flatten(empty_program("n1"), "test")
    for batch in [[], *batches]:
        state = reconcile(state, batch).state
        assert state.program is not None
        flat = follow(kept, flat, state.program)


ORIGIN = Origin(ObjectRef("NetworkPolicy", "x", "p"), "spec.ingress[0]")
PEERS = PeerSetId("s" * 16)


def world(networks: tuple[Network, ...], peers: int, set_id: PeerSetId = PEERS) -> Program:
    """Return the program of one isolated pod whose one rule allows some networks, and some pods elsewhere."""
    rule = CompiledRule(Action.ALLOW, set_id, ANY_TRAFFIC, ORIGIN)
    ruleset = Ruleset(RulesetId(f"r-{set_id}"), Direction.INGRESS, (rule,), (ORIGIN.object,))
    entry = EndpointEntry(ip_address("192.0.2.1"), PodKey("x", "a"), "1", ruleset.id, None)
    addresses = PersistentSet({ip_address(0x0A000000 + number) for number in range(peers)})
    return Program("n", frozenset(), (entry,), (ruleset,), (PeerSet(set_id, "", addresses, networks),))


def blocks(count: int) -> tuple[Network, ...]:
    """Return networks that do not touch, in order."""
    return tuple(IPv4Network((0x14000000 + 512 * number, 24)) for number in range(count))


def test_a_pod_that_comes_is_one_view() -> None:
    """Among thousands, and nothing else is said anew."""
    program = world((), 5000)
    kept = KeptFlat("n", "test")
    kept.change(program)
    (peers,) = program.peer_sets
    assert isinstance(peers.addresses, PersistentSet)
    come = ip_address("10.9.9.9")
    more = replace(peers, addresses=peers.addresses.exchanged((), (come,)))
    atom = kept.flat.views[ip_address("10.0.0.1")].atom

    change = kept.change(replace(program, peer_sets=(more,)))

    assert {address: view and view.atom for address, view in change.views.items()} == {come: atom}
    assert not any(getattr(change, field.name) for field in fields(FlatChange) if field.name != "views")


def test_a_block_more_in_thousands_leaves_nearly_all_of_them_alone() -> None:
    """Also if the set that has it is another one by name."""
    kept = KeptFlat("n", "test")
    kept.change(world(blocks(3000), 0))
    more = (*blocks(1500), IPv4Network("21.0.0.0/24"), *blocks(3000)[1500:])
    edited = world(tuple(sorted(more)), 0, PeerSetId("t" * 16))

    change = kept.change(edited)

    assert kept.flat == flatten(edited, "test")
    assert 1 <= len(change.blocks) < 1500
    assert len(change.atoms) <= 4


@pytest.mark.parametrize("count", [flat_parts.UNDIVIDED, flat_parts.UNDIVIDED + 1])
def test_a_large_peer_set_is_cut_and_a_small_one_is_not(count: int) -> None:
    """Its parts hold each network once, in order; its own name stands for its addresses."""
    parts = Cutter().parts(PeerSet(PEERS, "", frozenset(), blocks(count)))

    assert parts[0].id == PartId(PEERS)
    assert tuple(network for part in parts for network in part.networks) == blocks(count)
    assert (len(parts) > 1) == (count > flat_parts.UNDIVIDED)


def test_parts_do_not_depend_on_what_was_cut_before() -> None:
    """Neither on the objects that networks are, nor on what was forgotten meanwhile."""
    cutter = Cutter()
    one = PeerSet(PEERS, "", frozenset(), blocks(2000))
    other = PeerSet(PEERS, "", frozenset(), (*one.networks[:700], *blocks(2000)[700:1999]))
    first = cutter.parts(one)
    again = cutter.parts(other)
    kept = {part.id for part in first} & {part.id for part in again}
    cutter.keep(part for part in again[1:])

    assert len(kept) >= len(first) - 2
    for peer_set, known in ((one, first), (other, again)):
        ids = [part.id for part in known]
        assert [part.id for part in Cutter().parts(peer_set)] == ids
        assert [part.id for part in cutter.parts(peer_set)] == ids


def test_what_is_refused_changes_nothing() -> None:
    """The program that was there stays, and the next one follows it."""
    kept = KeptFlat("n", "test")
    kept.change(world(blocks(2), 3))
    before = flatten(world(blocks(2), 3), "test")
    program = world(blocks(3), 4, PeerSetId("t" * 16))
    (ruleset,) = program.rulesets
    passing = replace(ruleset, rules=(replace(ruleset.rules[0], action=Action.PASS),))

    with pytest.raises(Unsupported):
        kept.change(replace(program, rulesets=(passing,)))

    follow(kept, before, program)
