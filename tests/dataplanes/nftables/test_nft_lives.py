# SPDX-License-Identifier: Apache-2.0
"""Whole lives of an engine in the model: it is killed in mid-change, goes on with other programs, remembers or not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.compiler.interpret import judge
from ringfence.compiler.program import Program
from ringfence.dataplanes.nftables import longlists
from ringfence.dataplanes.nftables.apply import _renamed
from ringfence.dataplanes.nftables.changes import Plan
from ringfence.dataplanes.nftables.difference import SELF
from ringfence.dataplanes.nftables.elements import Pair
from ringfence.dataplanes.nftables.layout import Names, Table
from ringfence.dataplanes.nftables.observe import Observed
from ringfence.dataplanes.nftables.plan import in_force, make_plan
from ringfence.dataplanes.nftables.render import Memory, render
from ringfence.model.addresses import Address, Network
from tests.dataplanes.nftables.nft_machine import moments, verdicts
from tests.dataplanes.nftables.test_nft_moments import EXPRESSIONS, FLOWS, PODS, edits, programs
from tests.dataplanes.router import Allow, ingress, make_program

# What an expression says stays: its id is a digest of it. The third has no selectors, the last leaves nothing out.
NETWORKS: dict[str, tuple[str, ...]] = dict(
    zip(EXPRESSIONS, ((), ("10.0.0.0/31", "10.0.1.0/24"), ("10.0.0.1/32",), ("0.0.0.0/1", "128.0.0.0/1")), strict=True)
)

pytestmark = pytest.mark.search
MOST_ROUNDS = 6


def as_compiled(program: Program, before: Program | None) -> Program:
    """Return a program with peer sets as a compiler makes them: what did not change is the same object."""
    known = {each.id: each for each in before.peer_sets} if before is not None else {}
    made = []
    for each in program.peer_sets:
        networks: tuple[Network, ...] = tuple(map(ip_network, NETWORKS[each.id]))
        selects = each.id != EXPRESSIONS[2]
        new = replace(each, networks=networks, selects=selects, addresses=each.addresses if selects else frozenset())
        made.append(known[new.id] if known.get(new.id) == new else new)
    return replace(program, peer_sets=tuple(made))


def planned(observed: Observed, program: Program, names: Names, memory: Memory) -> tuple[Plan, Table, Names]:
    """Plan as the engine does; remembering costs nothing but time, and there is an end to renaming."""
    for _ in range(MOST_ROUNDS):
        table = render(program, names, memory)
        assert table == render(program, names)
        found = make_plan(observed, table, names)
        if isinstance(found, Plan):
            return found, table, names
        names = _renamed(names, found.stale, observed.table, bent=bool(found.bent))
    raise AssertionError("names without end")


def known_pods(table: Table) -> set[Address]:
    """Return the pods that a table was made for."""
    pairs = (pair for name, each in table.sets.items() if name.startswith(SELF) for pair in each.elements)
    return {pair.one for pair in pairs if isinstance(pair, Pair)}


def live(data: st.DataObject) -> None:
    """Go from program to program; every flow's verdict is what was in force at the start of a change, or its end's."""
    wanted = as_compiled(data.draw(programs()), None)
    now, names, memory = render(wanted), Names(), Memory()
    observed = Observed(present=True, table=now, known=True)
    for change in range(last := data.draw(st.integers(1, 3))):
        wanted = as_compiled(data.draw(edits(wanted)), wanted)
        plan, table, new_names = planned(observed, wanted, names, memory)
        made = len(plan.transactions)
        killed = change < last - 1 and made > 0 and data.draw(st.booleans())
        met = list(moments(now, plan.transactions[: data.draw(st.integers(0, made - 1)) if killed else made], table))
        pods = known_pods(now) & {entry.address for entry in wanted.endpoints}
        for flow in FLOWS:
            if {flow.source, flow.destination} & set(PODS) <= pods:
                allowed = verdicts(met[0], flow) | {judge(wanted, flow).allowed}
                assert all(verdicts(moment, flow) <= allowed for moment in met), f"{flow}\n{plan}"
        now = met[-1].rules
        if killed:
            observed, memory = Observed(present=True, table=now), Memory()
            names = in_force(now) if data.draw(st.booleans()) else names  # killed, or refused
        else:
            assert now == table
            names = new_names
            observed = Observed(present=True, table=now, known=data.draw(st.booleans()))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_whatever_was_left_is_gone_on_from_without_a_window(data: st.DataObject) -> None:
    """After a kill or a refusal at any transaction, to any other program, from the kernel or from memory."""
    live(data)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_so_it_is_with_long_rulesets(data: st.DataObject) -> None:
    """Whose sets are united, and united otherwise when another ruleset comes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(longlists, "LONG", 0)
        patch.setattr(longlists, "MANY", 1)
        live(data)


def test_versions_of_what_is_gone_are_forgotten() -> None:
    """Policies come, are edited so that they have to be built beside, and go: their names do not pile up."""
    names, memory, table = Names(), Memory(), Table()
    observed = Observed()
    for edit in range(40):
        peers = ("client",) if edit % 2 else ("other",)
        rule = Allow(peers, (f"UDP/{10 + edit}",), expression=f"policy {edit // 2}")
        _, table, names = planned(observed, make_program(ingress("server", rule)), names, memory)
        observed = Observed(present=True, table=table, known=True)

    assert 0 < len(names.versions) <= len(table.sets) + len(table.maps)
