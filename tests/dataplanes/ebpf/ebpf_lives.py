# SPDX-License-Identifier: Apache-2.0
"""Random lives of an engine on the model of the kernel, from agent to agent, and what packets meet meanwhile.

Programs come and go, what is unused is taken out, agents are killed in the midst of a write and others take over,
tables are outgrown. A packet keeps the generation that it began with as long as it can be under way: until somebody
has waited for it. Every answer that it can get meanwhile must be that of one program, and of the same for all flows.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import cast

import pytest
from hypothesis import strategies as st

from ringfence.compiler.flatten import flatten
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
from ringfence.dataplanes.ebpf import apply
from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.ebpf.decode import decode
from ringfence.dataplanes.ebpf.instance import Instance
from ringfence.dataplanes.ebpf.place import Place
from ringfence.model.cluster import PodKey
from ringfence.model.flow import Flow
from ringfence.model.policy import ANY_PEER, Action, AnyPeer, Direction, ObjectRef, Origin
from ringfence.model.ports import ANY_TRAFFIC, AnyTraffic, PortRange, Protocol
from tests.dataplanes.ebpf.ebpf_machine import Killed, Tables, Time
from tests.fuzz.answers import Answer, Expectations
from tests.fuzz.worlds import settings as drawn_settings

PODS = tuple(map(ip_address, ("10.0.0.1", "10.0.0.2", "10.0.0.3")))
OTHERS = tuple(map(ip_address, ("10.0.0.9", "10.0.1.1", "10.7.0.1")))
NODE = ip_address("10.0.2.1")
NETWORKS = tuple(
    map(
        ip_network,
        ("10.0.0.0/31", "10.0.0.2/31", "10.0.0.1/32", "10.0.0.0/28", "10.0.1.0/24", "10.0.0.0/16", "0.0.0.0/0"),
    )
)
SPANS = tuple(PortSpan(Protocol.TCP, PortRange(*ends)) for ends in ((1, 1), (2, 2), (1, 2), (0, 65535)))
TRAFFIC: tuple[AnyTraffic | tuple[PortSpan, ...], ...] = (ANY_TRAFFIC, *((s,) for s in SPANS), (SPANS[0], SPANS[2]))
FLOWS = [
    Flow(source, destination, Protocol.TCP, port)
    for source, destination in itertools.permutations((*PODS, *OTHERS, NODE), 2)
    if source in PODS or destination in PODS
    for port in (1, 2)
]


def digest(of: object) -> str:
    """Return 16 hexadecimal digits."""
    return hashlib.blake2b(repr(of).encode(), digest_size=8).hexdigest()


@st.composite
def rulesets(draw: st.DrawFn, direction: Direction, name: str, expressions: Sequence[PeerSetId]) -> Ruleset:
    """Return a ruleset of up to three rules; the same place is the same policy's rule, edited."""
    made = []
    whom: tuple[AnyPeer | PeerSetId, ...] = (ANY_PEER, *expressions, *expressions)
    policy = ObjectRef("NetworkPolicy", "demo", name)
    for number in range(draw(st.integers(0, 3))):
        action = draw(st.sampled_from((Action.ALLOW, Action.ALLOW, Action.ALLOW, Action.DENY)))
        peers, traffic = draw(st.sampled_from(whom)), draw(st.sampled_from(TRAFFIC))
        made.append(CompiledRule(action, peers, traffic, Origin(policy, f"spec.{direction.value}[{number}]")))
    return Ruleset(RulesetId(digest((direction, name, made))), direction, tuple(made), (policy,))


members = st.sets(st.sampled_from((*PODS, *OTHERS, NODE)), max_size=4).map(frozenset)


@st.composite
def peer_sets(draw: st.DrawFn) -> tuple[PeerSet, ...]:
    """Return what four expressions cover: blocks are part of what an expression is, members are not."""
    networks = [tuple(sorted(draw(st.sets(st.sampled_from(NETWORKS), max_size=3)))) for _ in range(4)]
    ids = [PeerSetId(digest(each)) for each in enumerate(networks)]
    return tuple(PeerSet(i, i, draw(members), blocks) for i, blocks in zip(ids, networks, strict=True))


@st.composite
def endpoints(draw: st.DrawFn, choices: Mapping[Direction, Sequence[RulesetId]]) -> tuple[EndpointEntry, ...]:
    """Return up to three pods' addresses, some of them of the same pod, with some of the rulesets."""
    entries = []
    for address in sorted(draw(st.sets(st.sampled_from(PODS)))):
        ids = [draw(st.sampled_from((None, *choices[direction]))) for direction in Direction]
        pod = PodKey("demo", draw(st.sampled_from("pq")))
        entries.append(EndpointEntry(address, pod, draw(st.sampled_from("12")), *ids))
    return tuple(entries)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Return the program of a node with up to three pods, of few expressions that cover few addresses."""
    covered = draw(peer_sets())
    expressions = [peer_set.id for peer_set in covered]
    made = {d: [draw(rulesets(d, name, expressions)) for name in ("x", "y")] for d in Direction}
    entries = draw(endpoints({direction: [r.id for r in made[direction]] for direction in Direction}))
    node = frozenset((NODE,)) if draw(st.booleans()) else frozenset()
    return Program("node", node, entries, used(itertools.chain(*made.values()), entries), covered, draw(drawn_settings))


def used(rules: Iterable[Ruleset], entries: Iterable[EndpointEntry]) -> tuple[Ruleset, ...]:
    """Return the rulesets that somebody has."""
    ids = {ruleset for entry in entries for ruleset in (entry.ingress, entry.egress)}
    kept = {ruleset.id: ruleset for ruleset in rules if ruleset.id in ids}
    return tuple(kept[each] for each in sorted(kept))


@st.composite
def edits(draw: st.DrawFn, before: Program) -> Program:
    """Return what becomes of a program when labels, pods or settings change, or policies, or nothing stays."""
    parts = draw(st.sets(st.sampled_from(("members", "pods", "settings", "all")), min_size=1))
    other = draw(programs())
    if "all" in parts:
        return other
    if "members" in parts:
        covered = tuple(replace(each, addresses=draw(members)) for each in before.peer_sets)
        before = replace(before, peer_sets=covered)
    if "pods" in parts:
        choices = {d: [each.id for each in before.rulesets if each.direction is d] for d in Direction}
        entries = draw(endpoints(choices))
        before = replace(before, endpoints=entries, rulesets=used(before.rulesets, entries))
    if "settings" in parts:
        before = replace(before, settings=other.settings, node_addresses=other.node_addresses)
    return before


class Silent:
    """Nobody asks for reports."""

    def follow(self, *_: object) -> None:
        """Read from here."""

    def leave(self) -> None:
        """Read no more."""


@dataclass
class Kernel:
    """What is in force, packets that are under way, and which programs they may be judged by.

    ``possible``: since when an answer may be that of one of which programs.
    """

    time: Time = field(default_factory=Time)
    finished: list[tuple[int, Tables]] = field(default_factory=list)  # attached when
    possible: list[tuple[int, tuple[Program, ...]]] = field(default_factory=list)
    oldest: int = 0  # when a packet that is still under way may have begun
    quiet: type[Quiet] | None = None

    def expect(self, *programs: Program) -> None:
        """From now on, what is put in force is one of these."""
        self.possible.append((self.time.now + 1, programs))

    def settle(self, begun_before: int) -> None:
        """Let the packets end that began before a moment, having looked at what they met."""
        for attached, tables in self.finished:
            self.check(tables, max(attached, self.oldest), begun_before)
        self.oldest = max(self.oldest, begun_before)

    def check(self, tables: Tables, first: int, last: int) -> None:
        """Assert that the packets that began between two moments have met one program's verdicts up to now."""
        for begin, written, word in tables.words(first, last) if first <= last else ():
            candidates = next(programs for since, programs in reversed(self.possible) if since <= written or not since)
            met = {flow: tables.answers(flow, word, begin, self.time.now) for flow in FLOWS}
            assert any(met == expected(program) for program in candidates), _mixed(met, candidates, word)

    # As ``Place``:

    def adopt(self) -> Instance | None:
        """Return the instance in force."""
        return self.finished[-1][1].opened() if self.finished else None

    def make(self, sizes: Mapping[str, int]) -> Instance:
        """Return a new one."""
        self._made = Tables(self.time, sizes)
        return self._made.opened()

    def put_in_force(self, _: Instance) -> None:
        """Attach what was made last, beside what is there."""
        self.finished.append((self.time.write(), self._made))

    def leave_only(self, kept: Instance) -> None:
        """Take the others off their hooks: their packets have met what they have met."""
        for attached, tables in self.finished:
            if tables.opened().maps is not kept.maps:
                self.check(tables, max(attached, self.oldest), self.time.now)
        self.finished = [each for each in self.finished if each[1].opened().maps is kept.maps]

    def news(self) -> bool:
        """Tell of no device."""
        return False

    def suits(self, _: Instance) -> bool:
        """Tell that it stands where it should."""
        return True

    def whole(self, _: Instance) -> bool:
        """Tell that nobody has taken anything away."""
        return True

    def track_connections(self) -> None:
        """Track them."""


class Quiet:
    """Waits for packets, as ``host.quiesce.Quiet`` does."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._begun: int | None = None

    def begin(self) -> None:
        """Wait for those that are under way now ..."""
        self._begun = self._kernel.time.now + 1

    def wait(self) -> None:
        """... until here."""
        if self._begun is not None:
            self._kernel.settle(self._begun - 1)
            self._begun = None


_EXPECTED: dict[int, tuple[Program, dict[Flow, set[Answer]]]] = {}


def expected(program: Program) -> dict[Flow, set[Answer]]:
    """Return what the interpreter says of every flow."""
    if id(program) not in _EXPECTED:
        expectations = Expectations(program)
        _EXPECTED[id(program)] = program, {flow: {expectations.first(flow)} for flow in FLOWS}
    return _EXPECTED[id(program)][1]


def _mixed(met: Mapping[Flow, set[Answer]], candidates: tuple[Program, ...], word: int) -> str:
    wrong = [
        f"{flow}: {' or '.join(map(str, answers))}, and not "
        + " or ".join(str(*expected(program)[flow]) for program in candidates)
        for flow, answers in met.items()
        if all(expected(program)[flow] != answers for program in candidates)
    ]
    return f"a mix of programs in generation {word >> 8}:\n" + "\n".join(wrong[:5])


class Life:
    """An engine on the model, from agent to agent."""

    def __init__(self, patch: pytest.MonkeyPatch, quiet: Callable[[Kernel], Quiet] = Quiet) -> None:
        _EXPECTED.clear()
        self.kernel = Kernel()
        patch.setattr(apply, "Quiet", lambda: quiet(self.kernel))
        patch.setattr(apply, "Reporting", Silent)
        self._in_force: tuple[Program, ...] = ()
        self.restart()

    def restart(self) -> None:
        """Another agent takes over."""
        self.engine = EbpfDataplane(cast("Place", self.kernel))

    def apply(self, program: Program, *, fatal: int | None = None) -> None:
        """Put a program in force; or be killed after so many writes, if it takes more."""
        self.kernel.expect(*self._in_force, program)
        self.kernel.time.fatal = fatal
        try:
            self.engine.apply(program)
        except Killed:
            self._in_force = (*self._in_force, program)
            self.restart()
        else:
            self._in_force = (program,)
            self.check_in_force(program)
        self.kernel.time.fatal = None

    def tidy(self, *, fatal: int | None = None) -> None:
        """Have the engine look after its tables; or be killed over it."""
        self.kernel.expect(*self._in_force)
        self.kernel.time.fatal = fatal
        try:
            assert not self.engine.drifted()
        except Killed:
            self.restart()
        self.kernel.time.fatal = None

    def check_in_force(self, program: Program) -> None:
        """Assert that there is one instance, which holds a program and nothing else that a packet can meet."""
        self.kernel.expect(program)
        ((_, tables),) = self.kernel.finished
        now = self.kernel.time.now
        ((_, _, word),) = tables.words(now, now)
        met = {flow: tables.answers(flow, word, now, now) for flow in FLOWS}
        assert met == expected(program), _mixed(met, (program,), word)
        held = decode(tables.opened().read())
        assert held == replace(flatten(program, "ebpf"), atoms={}), f"the tables hold another program: {held}"

    def end(self) -> None:
        """Look at the packets that are still under way."""
        self.kernel.settle(self.kernel.time.now)


def live(data: st.DataObject, life: Life, *, steps: int = 6) -> None:
    """Live a random life."""
    program = data.draw(programs())
    life.apply(program)
    for _ in range(data.draw(st.integers(1, steps))):
        match data.draw(
            st.sampled_from(("change", "change", "change", "again", "tidy", "restart", "killed", "killed"))
        ):
            case "change":
                life.apply(program := data.draw(edits(program)))
            case "again":
                life.apply(replace(program))
            case "tidy":
                life.tidy(fatal=data.draw(st.one_of(st.none(), st.integers(0, 20))))
            case "restart":
                life.restart()
            case _:
                life.apply(program := data.draw(edits(program)), fatal=data.draw(st.integers(0, 60)))
    life.end()
