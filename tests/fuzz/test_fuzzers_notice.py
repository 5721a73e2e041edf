# SPDX-License-Identifier: Apache-2.0
"""Every fuzzer finds faults that are put in on purpose, shrinks them, and writes them down as cases that can be run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringfence.agent import reconcile as reconciling
from ringfence.apis.networkpolicy import lowering
from ringfence.cases.build import load
from ringfence.cases.engines import engine
from ringfence.cases.run import run
from ringfence.compiler import compile as compiling
from ringfence.compiler import interpret
from ringfence.compiler.program import CompiledRule, PeerSet, PortSpan, Program, empty_program
from ringfence.dataplanes.base import Applied, Dataplane
from ringfence.dataplanes.nftables.apply import NftablesDataplane
from ringfence.host.nft import Nft
from ringfence.kube.changes import Removed
from ringfence.model.addresses import Block, Network
from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.policy import Rule
from ringfence.model.ports import LAST_PORT, PortRange
from tests.fuzz.fuzzers import Bench
from tests.fuzz.running import Outcome, fuzz

pytestmark = pytest.mark.search

Fault = Callable[[pytest.MonkeyPatch], None]
# A seed finds its fault after a few examples, or after a few dozen when what is drawn has changed since.
EXAMPLES = 400
SHRINK = 1.0


def forgets_exceptions(patch: pytest.MonkeyPatch) -> None:
    """Make a compiler that takes a block without its last exception."""
    right = Block.networks

    def wrong(self: Block) -> tuple[Network, ...]:
        return right(Block(self.cidr, self.exceptions[:-1]))

    patch.setattr(Block, "networks", wrong)


def looks_names_up_on_the_wrong_pod(patch: pytest.MonkeyPatch) -> None:
    """Make a compiler that looks an egress rule's port names up on the selected pod."""
    compilation = compiling.Compiling

    def wrong(self: compiling.Compiling, _: object, rule: Rule, subject: Endpoint) -> compiling._Part:
        rules = tuple(self._ingress_rule(rule, subject))
        return compiling._Part(rules, tuple(map(compiling._write, rules)))

    patch.setattr(compilation, "_rule", wrong)


def ends_ranges_early(patch: pytest.MonkeyPatch) -> None:
    """Make a compiler for which ``endPort`` is exclusive."""
    right = compiling.spans

    def wrong(given: Iterable[PortSpan]) -> tuple[PortSpan, ...]:
        return tuple(_shorter(span) for span in right(given))

    patch.setattr(compiling, "spans", wrong)


def _shorter(span: PortSpan) -> PortSpan:
    first, last = span.ports.first, span.ports.last
    return replace(span, ports=replace(span.ports, last=last - 1)) if 0 < last - first < 65535 else span


def keeps_old_holders(patch: pytest.MonkeyPatch) -> None:
    """Make a compiler for which a pod keeps its addresses when a newer one has them."""
    patch.setattr(Cluster, "addresses_of", lambda _, endpoint: endpoint.addresses)


def reads_any_protocol(patch: pytest.MonkeyPatch) -> None:
    """Make an interpreter for which a port is a port, whatever the protocol."""
    patch.setattr(
        interpret,
        "matches_traffic",
        lambda traffic, flow: (
            not isinstance(traffic, tuple)
            or any(span.ports.contains(flow.port) for span in traffic if flow.port is not None)
        ),
    )


@pytest.mark.parametrize(
    ("fuzzer", "fault", "seed"),
    [
        ("meaning", forgets_exceptions, 7),
        ("meaning", looks_names_up_on_the_wrong_pod, 37),
        ("meaning", ends_ranges_early, 7),
        ("meaning", keeps_old_holders, 7),
        ("rules", reads_any_protocol, 7),
        ("rules", ends_ranges_early, 28),
    ],
)
def test_a_faulty_compiler_is_found(fuzzer: str, fault: Fault, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzer finds it within its budget."""
    fault(monkeypatch)

    outcome = fuzz(fuzzer, Bench(), seed=seed, examples=EXAMPLES, shrink_seconds=0.0)

    assert "differ from the oracle's" in outcome.found


def test_what_is_found_is_a_case_of_the_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is written in the corpus' format; it fails as long as the fault is there, and passes without it."""
    with monkeypatch.context() as patch:
        forgets_exceptions(patch)
        outcome = fuzz("meaning", Bench(), seed=7, examples=EXAMPLES, shrink_seconds=SHRINK)

        assert run_case(outcome, tmp_path) != []
    assert run_case(outcome, tmp_path) == []


def test_a_faulty_agent_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that does not hear of deletions is found, though it lists everything now and then."""
    right = reconciling._Draft.take

    def wrong(self: reconciling._Draft, event: reconciling.Event) -> None:
        if not isinstance(event.change, Removed):
            right(self, event)

    monkeypatch.setattr(reconciling._Draft, "take", wrong)

    outcome = fuzz("tidings", Bench(), seed=7, examples=EXAMPLES, shrink_seconds=0.0)

    assert "than one that starts now" in outcome.found


def test_a_policy_that_keeps_its_rules_for_pods_that_it_may_not_mean_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken podSelector selects more; a reader that lets the policy's rules stand for all of these widens."""
    right = lowering._Reader._rule

    def wrong(self: lowering._Reader, direction: str, index: int, entry: Any, *, void: bool) -> Rule:  # noqa: ARG001
        return right(self, direction, index, entry, void=False)

    monkeypatch.setattr(lowering._Reader, "_rule", wrong)

    outcome = fuzz("breakage", Bench(), seed=2, examples=EXAMPLES, shrink_seconds=0.0)

    assert "what is left of the policy" in outcome.found


def test_an_agent_that_fails_for_an_object_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that trusts an object to have metadata is found."""
    monkeypatch.setattr(
        reconciling, "_stored", lambda obj: reconciling.StoredPolicy(obj["metadata"]["uid"], lowering.lower(obj))
    )

    outcome = fuzz("rubbish", Bench(), seed=7, examples=EXAMPLES, shrink_seconds=0.0)

    assert "Traceback" in outcome.found


def run_case(outcome: Outcome, directory: Path) -> list[str]:
    """Run the case that an outcome comes with; return what differs."""
    path = directory / "found.yaml"
    path.write_text(outcome.case)
    return [str(difference) for difference in run(load(path), engine("interpreted"))]


class Faulty:
    """The real nftables engine, given something else than it was asked for."""

    name = "nftables"

    def __init__(self, nft: Nft) -> None:
        self._real = NftablesDataplane(nft)

    def apply(self, program: Program) -> Applied:
        """Apply what ``bent`` makes of a program."""
        applied = Applied(0)
        for each in self.bent(program):
            applied = self._real.apply(each)
        return applied

    def bent(self, program: Program) -> Iterator[Program]:
        """Return the programs to apply, one after the other."""
        raise NotImplementedError

    def drifted(self) -> bool:
        """Tell what the real one tells."""
        return self._real.drifted()

    def remove(self) -> None:
        """Remove as the real one."""
        self._real.remove()


class DropsAnElement(Faulty):
    """A renderer that leaves the last address out of each set."""

    def bent(self, program: Program) -> Iterator[Program]:
        """Return the program with smaller sets."""

        def smaller(peer_set: PeerSet) -> PeerSet:
            return replace(peer_set, addresses=frozenset(sorted(peer_set.addresses, key=str)[:-1]))

        yield replace(program, peer_sets=tuple(map(smaller, program.peer_sets)))


class ForgetsPorts(Faulty):
    """A renderer for which a port of a protocol is every port of it."""

    def bent(self, program: Program) -> Iterator[Program]:
        """Return the program with wider spans."""

        def wider(rule: CompiledRule) -> CompiledRule:
            if not isinstance(rule.traffic, tuple):
                return rule
            return replace(rule, traffic=tuple(replace(s, ports=PortRange(0, LAST_PORT)) for s in rule.traffic))

        rulesets = (replace(each, rules=tuple(map(wider, each.rules))) for each in program.rulesets)
        yield replace(program, rulesets=tuple(rulesets))


class NeverGivesUp(Faulty):
    """An engine in which a ruleset stays with an address once it has had one."""

    def __init__(self, nft: Nft) -> None:
        super().__init__(nft)
        self._last: Program | None = None

    def bent(self, program: Program) -> Iterator[Program]:
        """Return the last program again if nobody is isolated any more."""
        isolated = any(entry.ingress or entry.egress for entry in program.endpoints)
        if isolated or self._last is None:
            self._last = program
        yield self._last


class OpensInBetween(Faulty):
    """An engine that takes the old rules away before it writes the new ones."""

    def bent(self, program: Program) -> Iterator[Program]:
        """Return nothing to enforce, then the program."""
        yield empty_program(program.node)
        yield program


class ClosesInBetween(Faulty):
    """An engine that empties all sets before it fills them."""

    def bent(self, program: Program) -> Iterator[Program]:
        """Return the program without anybody, then the program."""
        yield replace(program, peer_sets=tuple(replace(p, addresses=frozenset()) for p in program.peer_sets))
        yield program


class ChangesSetsFirst(Faulty):
    """An engine that has the new members of all sets in force before the new rules."""

    def __init__(self, nft: Nft) -> None:
        super().__init__(nft)
        self._last: Program | None = None

    def bent(self, program: Program) -> Iterator[Program]:
        """Return the last program with the new one's members, then the new one."""
        old, self._last = self._last, program
        if old is not None:
            new = {peer_set.id: peer_set for peer_set in program.peer_sets}
            yield replace(old, peer_sets=tuple(new.get(each.id, each) for each in old.peer_sets))
        yield program


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("fuzzer", "engine_class", "seed"),
    [
        ("packets", DropsAnElement, 2),
        ("packets", ForgetsPorts, 1),
        ("journeys", NeverGivesUp, 7),
        ("journeys", DropsAnElement, 7),
        ("changes", OpensInBetween, 7),
        ("changes", ClosesInBetween, 2),
        ("changes", ChangesSetsFirst, 4),
    ],
)
def test_a_faulty_engine_is_found(fuzzer: str, engine_class: Callable[[Nft], Dataplane], seed: int) -> None:
    """The fuzzer finds it, and writes a case."""
    bench = Bench(engine_class)
    try:
        outcome = fuzz(fuzzer, bench, seed=seed, examples=EXAMPLES, shrink_seconds=0.0)
    finally:
        bench.close()

    assert outcome.found
    assert "Found by fuzzing." in outcome.case, outcome.found
