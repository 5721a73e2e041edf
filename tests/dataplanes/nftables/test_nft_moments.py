# SPDX-License-Identifier: Apache-2.0
"""The proof of the plan, tried: every flow through every moment of random changes, in a model of the kernel."""

from __future__ import annotations

import itertools
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ringfence.compiler.interpret import judge
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
from ringfence.dataplanes.nftables import changes, longlists, peers, plan, steps
from ringfence.dataplanes.nftables.apply import _renamed
from ringfence.dataplanes.nftables.changes import Plan
from ringfence.dataplanes.nftables.layout import Names, Table
from ringfence.dataplanes.nftables.observe import Observed
from ringfence.dataplanes.nftables.plan import make_plan
from ringfence.dataplanes.nftables.render import Memory, render
from ringfence.model.cluster import PodKey
from ringfence.model.flow import Flow
from ringfence.model.policy import ANY_PEER, Action, AnyPeer, Direction, ObjectRef, Origin
from ringfence.model.ports import ANY_TRAFFIC, AnyTraffic, PortRange, Protocol
from tests.dataplanes.nftables.nft_machine import moments, verdicts

pytestmark = pytest.mark.search

PODS = tuple(map(ip_address, ("10.0.0.1", "10.0.0.2", "10.0.0.3")))
OTHERS = tuple(map(ip_address, ("10.0.1.1", "10.0.1.2")))
EXPRESSIONS = tuple(PeerSetId(f"{letter * 16}") for letter in "abcd")
NETWORKS = tuple(map(ip_network, ("10.0.0.0/31", "10.0.0.2/31", "10.0.0.1/32", "10.0.1.0/24", "10.0.0.0/16")))
SPANS = tuple(PortSpan(Protocol.TCP, PortRange(*ends)) for ends in ((1, 1), (2, 2), (1, 2), (0, 65535)))
POLICY, DENY_ALL = (ObjectRef("NetworkPolicy", "demo", name) for name in ("policy", "deny-all"))
PEERS: tuple[AnyPeer | PeerSetId, ...] = (ANY_PEER, *EXPRESSIONS)
TRAFFIC: tuple[AnyTraffic | tuple[PortSpan, ...], ...] = (ANY_TRAFFIC, *((s,) for s in SPANS), (SPANS[0], SPANS[2]))
FLOWS = [
    Flow(source, destination, Protocol.TCP, port)
    for source, destination in itertools.permutations((*PODS, *OTHERS), 2)
    if source in PODS or destination in PODS
    for port in (1, 2, 3)
]


@st.composite
def rules(draw: st.DrawFn, place: str) -> CompiledRule:
    """Return a rule of a place: the same place is the same policy's rule, edited."""
    peers = draw(st.sampled_from(PEERS))
    traffic = draw(st.sampled_from(TRAFFIC))
    action = draw(st.sampled_from((Action.ALLOW, Action.ALLOW, Action.ALLOW, Action.ALLOW, Action.DENY)))
    return CompiledRule(action, peers, traffic, Origin(POLICY, place))


@st.composite
def rulesets(draw: st.DrawFn, direction: Direction, name: str) -> Ruleset:
    """Return a ruleset of up to three rules; its id is its content, as a compiler's."""
    count = draw(st.integers(0, 3))
    made = tuple(draw(rules(f"spec.{direction.value}[{name}{i}]")) for i in range(count))
    policies = draw(st.sampled_from(((POLICY,), (DENY_ALL, POLICY))))
    return Ruleset(RulesetId(f"{direction.value} {policies} {made}"), direction, made, policies)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Return the program of a node with up to three pods, of few expressions that cover few addresses."""
    made = {(d, n): draw(rulesets(d, n)) for d in Direction for n in ("x", "y")}
    entries = []
    for number, address in enumerate(draw(st.sets(st.sampled_from(PODS), min_size=1))):
        chosen = [draw(st.sampled_from((None, "x", "y"))) for _ in Direction]
        ids = [None if n is None else made[d, n].id for d, n in zip(Direction, chosen, strict=True)]
        entries.append(EndpointEntry(address, PodKey("demo", f"pod-{number}"), str(address), ids[0], ids[1]))
    used = {ruleset for entry in entries for ruleset in (entry.ingress, entry.egress)}
    peers = tuple(
        PeerSet(
            expression,
            str(expression),
            frozenset(draw(st.sets(st.sampled_from((*PODS, *OTHERS))))),
            tuple(sorted(draw(st.sets(st.sampled_from(NETWORKS), max_size=2)))),
        )
        for expression in EXPRESSIONS
    )
    kept = tuple(sorted({r.id: r for r in made.values() if r.id in used}.values(), key=lambda r: r.id))
    return Program("node", frozenset(), tuple(sorted(entries, key=lambda e: e.address)), kept, peers)


@st.composite
def edits(draw: st.DrawFn, before: Program) -> Program:
    """Return a program that differs from another by a little: by members, by rules or by pods, or by all of them."""
    other = draw(programs())
    parts = draw(st.sets(st.sampled_from(("peers", "rules", "pods")), min_size=1))
    peers = other.peer_sets if "peers" in parts else before.peer_sets
    if "rules" in parts or "pods" in parts:
        return Program("node", frozenset(), other.endpoints, other.rulesets, peers)
    return Program("node", frozenset(), before.endpoints, before.rulesets, peers)


def planned(observed: Observed, program: Program, names: Names) -> tuple[Plan, Table, Names]:
    """Plan as the engine does: under other names as long as something is in the way."""
    while True:
        table = render(program, names, Memory())
        found = make_plan(observed, table, names)
        if isinstance(found, Plan):
            return found, table, names
        names = _renamed(names, found.stale, observed.table, bent=bool(found.bent))


def check(before: Program, after: Program, names: Names = Names()) -> None:  # noqa: B008 - frozen
    """Assert that no flow meets a verdict that neither program gives it, at any moment of the way."""
    start = render(before, names)
    found, table, _ = planned(Observed(present=True, table=start, known=True), after, names)
    existing = {e.address for e in before.endpoints} & {e.address for e in after.endpoints}
    flows = [f for f in FLOWS if {f.source, f.destination} & set(PODS) <= existing]
    for flow in flows:
        allowed = {judge(before, flow).allowed, judge(after, flow).allowed}
        for moment in moments(start, found.transactions, table):
            met = verdicts(moment, flow)
            assert met <= allowed, f"{flow}: {met} where only {allowed}\n{found}"
    *_, last = moments(start, found.transactions, table)
    assert last.rules == table


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_flow_meets_a_verdict_of_neither_program_at_any_moment(data: st.DataObject) -> None:
    """Between transactions and in the midst of each, whatever a packet is answered: the old verdict or the new one."""
    before = data.draw(programs())
    after = data.draw(edits(before))

    check(before, after)


def check_table(program: Program) -> None:
    """Assert that a table gives every flow the verdict of its program."""
    table = render(program)
    for flow in FLOWS:
        (moment,) = moments(table, (), table)
        assert verdicts(moment, flow) == {judge(program, flow).allowed}, str(flow)


@settings(max_examples=60, deadline=None)
@given(programs())
def test_a_table_gives_the_verdicts_of_its_program(program: Program) -> None:
    """For every flow."""
    check_table(program)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_long_rulesets_and_lists_of_blocks_mean_the_same_as_short_ones(data: st.DataObject) -> None:
    """If every ruleset counts as long, and every list of blocks, verdicts and changes are what they are otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(longlists, "LONG", 0)
        patch.setattr(longlists, "MANY", 1)
        patch.setattr(peers, "MANY_BLOCKS", data.draw(st.sampled_from((0, 1, 1024))))
        before = data.draw(programs())
        check_table(before)
        check(before, data.draw(edits(before)))


def _at_once(*change: object) -> steps.Steps:
    """Make everything in one transaction."""
    found = steps.steps(*change)  # type: ignore[arg-type]
    changed = [part for transaction in found.transactions for part in transaction.changes]
    return steps.Steps(found.chains, found.idle, (changes.Transaction("once", changes=tuple(changed)),))


def _backwards(*change: object) -> steps.Steps:
    """Shrink before growing."""
    found = steps.steps(*change)  # type: ignore[arg-type]
    order = {"close": 0, "shrink": 1, "grow": 2, "open": 3}
    return steps.Steps(found.chains, found.idle, tuple(sorted(found.transactions, key=lambda t: order[t.purpose])))


@pytest.mark.parametrize("fault", ["entanglement", "both", "backwards"])
def test_the_model_notices_a_careless_plan(fault: str) -> None:
    """Without any one of the plan's precautions, some flow meets a verdict of neither program."""
    with pytest.MonkeyPatch.context() as patch:
        if fault == "entanglement":
            patch.setattr(plan, "entanglement", lambda *_: frozenset())
        elif fault == "both":
            patch.setattr(steps, "_needs_both", lambda _: False)
        else:
            patch.setattr(plan, "steps", _backwards)

        @settings(
            max_examples=3000,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            report_multiple_bugs=False,
        )
        @given(st.data())
        def careless(data: st.DataObject) -> None:
            before = data.draw(programs())
            check(before, data.draw(edits(before)))

        with pytest.raises(AssertionError, match="where only|delete element|add element"):
            careless()
