# SPDX-License-Identifier: Apache-2.0
"""The eBPF program itself, asked in the kernel: some 100,000 packets a second, each with its verdict, rule and ruleset.

The engine puts a world's programs in force, and its ``rf_ask`` (the same judge and the same tables as the filter's) is
run on packets that are nobody's. The oracle says what is to happen to the first packet of each flow, the interpreter by
which rule.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ringfence.compiler.compile import compile_program
from ringfence.dataplanes.base import Dataplane
from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.ebpf.hooks import ASK
from ringfence.dataplanes.ebpf.instance import Instance
from ringfence.dataplanes.ebpf.place import Place
from ringfence.host import netns
from ringfence.host.bpf.programs import Runner
from ringfence.model.cluster import Cluster
from ringfence.model.flow import Flow
from ringfence.model.policy import PolicySet
from ringfence.model.settings import Settings
from ringfence.semantics.evaluate import evaluate
from tests.fuzz.agreement import Disagreement, Misjudged
from tests.fuzz.answers import Answer, Expectations
from tests.fuzz.cells import cells
from tests.fuzz.frames import LONGEST, Dress, Kind, dresses

MakeEbpf = Callable[[Place], Dataplane]

FLOWS = 400
DRESSES = 32
_CONTEXT = 192  # bytes of struct __sk_buff
_MARK, _RULE, _RULESET = 2, 6, 7  # where answers are in it: a word, and words of eight bytes
_SERIAL = itertools.count()


class Asked:
    """One node: a network namespace in which the engine has a place, and its program, ready to be asked."""

    def __init__(self, name: str, make: MakeEbpf) -> None:
        self._name = name
        netns.delete(name)
        netns.create(name)
        with netns.enter(name):
            self.place = Place()
            self.dataplane = make(self.place)
        self._instance: Instance | None = None
        self._of: list[str] = []

    def ask(self) -> Callable[[bytes], Answer]:
        """Return what asks the program that is in force."""
        there = sorted(path.name for path in self.place.folder.iterdir())
        if self._instance is None or there != self._of:
            self._forget()
            self._instance, self._of = self.place.adopt(), there
        assert self._instance is not None
        run = Runner(self._instance.programs[ASK], longest=LONGEST, context=bytes(_CONTEXT))
        words, doubles = run.context_after.cast("I"), run.context_after.cast("Q")

        def asked(frame: bytes) -> Answer:
            return Answer(run(frame), words[_MARK], doubles[_RULE], doubles[_RULESET])

        return asked

    def close(self) -> None:
        """Take everything away."""
        self._forget()
        self.dataplane.remove()
        self.place.close()
        netns.delete(self._name)

    def _forget(self) -> None:
        if self._instance is not None:
            self._instance.close()
        self._instance = None


class Asking:
    """A node for each name that comes up."""

    def __init__(self, make: MakeEbpf = EbpfDataplane) -> None:
        self._make = make
        self._nodes: dict[str, Asked] = {}
        self._prefix = f"rf-ask-{os.getpid()}-{next(_SERIAL)}"

    def node(self, name: str) -> Asked:
        """Return the node of a name."""
        if name not in self._nodes:
            self._nodes[name] = Asked(f"{self._prefix}-{name}", self._make)
        return self._nodes[name]

    def close(self) -> None:
        """Take everything away."""
        for each in self._nodes.values():
            each.close()
        self._nodes.clear()


@contextlib.contextmanager
def asking(make: MakeEbpf = EbpfDataplane) -> Iterator[Asking]:
    """Yield nodes, for a while."""
    made = Asking(make)
    try:
        yield made
    finally:
        made.close()


def compare_answers(
    nodes: Asking, cluster: Cluster, policies: PolicySet, settings: Settings, *, seed: int, steps: Sequence[Any] = ()
) -> int:
    """Put each node's program in force and ask; return how many answers were compared."""
    draw = random.Random(seed)
    drawn: dict[Any, list[Dress]] = {}
    flows = _sampled(cluster, policies, draw)
    verdicts = [(flow, evaluate(flow, cluster, policies, settings)) for flow in flows]
    compared = 0
    wrong: list[Misjudged] = []
    for node in sorted({*cluster.nodes, *(endpoint.node for endpoint in cluster.endpoints.values())}):
        program = compile_program(cluster, policies, node, settings)
        asked = nodes.node(node)
        asked.dataplane.apply(program)
        ask, expectations = asked.ask(), Expectations(program)
        for flow, verdict in verdicts:
            expected = expectations.of(flow, verdict)
            addresses = flow.source.packed + flow.destination.packed
            traffic = flow.source.version, flow.protocol, flow.port
            if traffic not in drawn:
                drawn[traffic] = dresses(*traffic, draw, count=DRESSES)
            for dress in drawn[traffic]:
                frame = dress.frame(addresses)
                answer = ask(frame)
                if answer != expected[dress.kind]:
                    wrong.append(_misjudged(flow, dress.kind, expected[dress.kind], answer, frame))
            compared += DRESSES
    if wrong:
        raise Disagreement(f"{len(wrong)} of {compared} answers of the eBPF program are wrong", steps, wrong)
    return compared


def _misjudged(flow: Flow, kind: Kind, expected: Answer, got: Answer, frame: bytes) -> Misjudged:
    told = f"ebpf ({kind.name} packet, expected {expected}, got {got}: {frame[14:].hex()})"
    return Misjudged(told, flow, bool(expected.passes), bool(got.passes))


def _sampled(cluster: Cluster, policies: PolicySet, draw: random.Random) -> list[Flow]:
    """Return some cells, mostly such as have an end at a pod."""
    flows = list(cells(cluster, policies))
    draw.shuffle(flows)
    flows.sort(key=lambda f: cluster.endpoint_at(f.source) is None and cluster.endpoint_at(f.destination) is None)
    strangers = flows[-FLOWS // 50 :]
    return [*flows[: FLOWS - len(strangers)], *strangers]
