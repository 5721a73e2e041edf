# SPDX-License-Identifier: Apache-2.0
"""Oracle, interpreted program and memory dataplane held against each other: every cell, half by half."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ringfence.compiler.compile import compile_program
from ringfence.compiler.interpret import Judgement, judge
from ringfence.compiler.program import Program
from ringfence.dataplanes.memory import MemoryDataplane
from ringfence.model.cluster import Cluster, Endpoint
from ringfence.model.flow import Flow
from ringfence.model.policy import PolicySet
from ringfence.model.settings import Settings
from ringfence.semantics.evaluate import Verdict, evaluate
from tests.fuzz.cells import cells
from tests.fuzz.worlds import NODES, World

Halves = tuple[bool | None, bool | None]


@dataclass(frozen=True)
class Misjudged:
    """A flow, what the oracle says of it, and what the engine said that disagrees."""

    engine: str
    flow: Flow
    expected: bool
    got: bool

    def __str__(self) -> str:
        words = ("deny", "allow")
        if self.expected is self.got:
            return f"{self.flow}: {self.engine} says {words[self.got]} too, but for other halves"
        return f"{self.flow}: expected {words[self.expected]}, {self.engine} says {words[self.got]}"


class Disagreement(AssertionError):
    """Two that should say the same do not. ``steps``: the worlds that lead there, the last one is where it shows."""

    def __init__(self, what: str, steps: Iterable[Any] = (), misjudged: Iterable[Misjudged] = ()) -> None:
        self.what = what
        self.steps = tuple(steps)
        self.misjudged = tuple(misjudged)
        super().__init__("\n".join((what, *map(str, self.misjudged[:10]))))


def node_names(cluster: Cluster) -> list[str]:
    """Return the nodes that have a program: known ones, and such as only pods name."""
    return sorted({*NODES, *cluster.nodes, *(endpoint.node for endpoint in cluster.endpoints.values())})


def programs(cluster: Cluster, policies: PolicySet, settings: Settings) -> list[Program]:
    """Compile for every node."""
    return [compile_program(cluster, policies, name, settings) for name in node_names(cluster)]


def local(verdict: Verdict, node: str) -> Halves:
    """Return the halves that are a node's to judge: egress and ingress, None where they are not."""

    def of(subject: Endpoint | None, allowed: bool) -> bool | None:  # noqa: FBT001 - a verdict
        return allowed if subject is not None and subject.node == node else None

    return of(verdict.egress.subject, verdict.egress.allowed), of(verdict.ingress.subject, verdict.ingress.allowed)


def compare(world: World) -> int:
    """Compare every cell of a world; return how many verdicts were compared, raise ``Disagreement``."""
    cluster, policies = world.meaning
    return compare_meaning(cluster, policies, world.settings, (world,))


def compare_meaning(cluster: Cluster, policies: PolicySet, settings: Settings, steps: Iterable[Any]) -> int:
    """Compare every cell of a cluster with its policies, however they came about."""
    compiled = programs(cluster, policies, settings)
    dataplanes = [MemoryDataplane() for _ in compiled]
    for dataplane, program in zip(dataplanes, compiled, strict=True):
        dataplane.apply(program)
    wrong: list[Misjudged] = []
    compared = 0
    for flow in cells(cluster, policies):
        verdict = evaluate(flow, cluster, policies, settings)
        expected = [local(verdict, program.node) for program in compiled]
        for engine, judgements in (
            ("interpreted", [judge(program, flow) for program in compiled]),
            ("memory", [dataplane.judge(flow) for dataplane in dataplanes]),
        ):
            compared += len(judgements)
            if list(map(_halves, judgements)) != expected:
                allowed = all(judgement.allowed for judgement in judgements)
                wrong.append(Misjudged(engine, flow, verdict.allowed, allowed))
    if wrong:
        # Two wrong halves may make a right verdict: the wrong verdicts tell more.
        wrong.sort(key=lambda each: each.expected is each.got)
        raise Disagreement(f"{len(wrong)} of {compared} verdicts differ from the oracle's", steps, wrong)
    return compared


def _halves(judgement: Judgement) -> Halves:
    egress, ingress = judgement.egress, judgement.ingress
    return None if egress is None else egress.allowed, None if ingress is None else ingress.allowed
