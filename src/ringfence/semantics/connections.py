# SPDX-License-Identifier: Apache-2.0
"""One question, every connection that it means: each pair of targets, each address family, translated on the way.

A question about a Service, a workload or a dual-stack pod is about several flows. All of them must pass for the answer
to be "allowed"; one that is denied decides, unless it is in a family of which nobody knows whether the pods have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ringfence.apis.workloads import twin_of
from ringfence.errors import UsageError
from ringfence.model.flow import Flow
from ringfence.model.policy import PolicySet
from ringfence.model.ports import Protocol
from ringfence.model.settings import DEFAULTS, Settings
from ringfence.semantics.alike import representatives
from ringfence.semantics.ends import Directory, Resolved, Target, first_only
from ringfence.semantics.explain import Explanation, explain
from ringfence.semantics.findings import Outcome, both
from ringfence.semantics.knowledge import Gap, Knowledge, Unknown, node_of

_ORDER = (Outcome.DENIED, Outcome.UNDECIDABLE, Outcome.ALLOWED)


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of all connections that a question means, the worst of them first.

    ``unknowns`` are those that no single explanation has.
    """

    question: str
    outcome: Outcome
    explanations: tuple[Explanation, ...]
    notes: tuple[str, ...]
    unknowns: tuple[Unknown, ...] = ()

    @property
    def allowed(self) -> bool | None:
        """Tell whether they all pass; None if that is not known."""
        return {Outcome.ALLOWED: True, Outcome.DENIED: False, Outcome.UNDECIDABLE: None}[self.outcome]


def answer(
    directory: Directory,
    start: Resolved,
    goal: Resolved,
    protocol: Protocol,
    policies: PolicySet,
    *,
    settings: Settings = DEFAULTS,
) -> Answer:
    """Explain every connection from a start to a goal."""
    sources = first_only(start.targets)
    targets = first_only(goal.targets, opposite=sources)
    question, notes = _question(start, goal, targets, protocol), [*start.notes, *goal.notes, *_twins(targets)]
    if not targets:
        return Answer(question, Outcome.UNDECIDABLE, (), tuple(notes), goal.unknowns)
    few_sources, few_targets = (representatives(each, directory, policies) for each in (sources, targets))
    likes = len(sources) - len(few_sources) + len(targets) - len(few_targets)
    if likes:
        notes.append(f"{likes} more pods are like these: no policy tells them apart")
    pairs = [(source, target) for source in few_sources for target in few_targets if not _too_far(source, target)]
    if not pairs:
        fact = "a pod behind the Service on the client's own node: with internalTrafficPolicy Local no other counts"
        unknown = Unknown(Gap.BACKENDS, fact, "the connection goes nowhere, whatever the policies say")
        return Answer(question, Outcome.UNDECIDABLE, (), tuple(notes), (unknown,))
    explanations: list[Explanation] = []
    outcomes: list[Outcome] = []
    unknowns: list[Unknown] = []
    for source, target in pairs:
        known = _with_strangers(directory.known, (source, target))
        found = [
            explain(arriving, directory.cluster, policies, known=known, leaving=leaving, settings=settings)
            for leaving, arriving in _flows_of(source, target, protocol)
        ]
        doubts = _doubts(source, target, found)
        explanations += found
        outcomes.append(Outcome.UNDECIDABLE if doubts else both(each.outcome for each in found))
        unknowns += doubts
    if not explanations:
        names = " and ".join(target.label for target in (*sources, *targets))
        raise UsageError(f"{names} have no address family in common")
    explanations.sort(key=lambda each: _ORDER.index(each.outcome))
    return Answer(question, both(outcomes), tuple(explanations), tuple(notes), tuple(dict.fromkeys(unknowns)))


def _question(start: Resolved, goal: Resolved, targets: Sequence[Target], protocol: Protocol) -> str:
    ports = {target.port for target in targets} - {None}
    traffic = f"{protocol.value}/{ports.pop()}" if len(ports) == 1 else protocol.value
    return f"{start.label} -> {goal.label} {traffic}"


def _twins(targets: Sequence[Target]) -> Iterator[str]:
    for target in targets:
        first = twin_of(target.pod) if target.pod is not None else None
        if first is not None:
            yield f"{target.label} stands for another pod of {first}"


def _too_far(source: Target, target: Target) -> bool:
    return target.local_only and None not in (source.node, target.node) and source.node != target.node


def _with_strangers(known: Knowledge, ends: Sequence[Target]) -> Knowledge:
    return replace(known, strangers=frozenset(a for end in ends if end.stranger for a in end.addresses.values()))


def _flows_of(source: Target, target: Target, protocol: Protocol) -> Iterator[tuple[Flow, Flow]]:
    """Yield each way that a connection from one source to one target may take: how it leaves, and how it arrives."""
    for version in sorted(source.addresses.keys() & target.addresses.keys()):
        echo = Protocol.ICMPV6 if version == 6 else Protocol.ICMP
        yield from _flows(source, target, version, protocol if protocol.has_ports else echo)


def _flows(source: Target, target: Target, version: int, protocol: Protocol) -> Iterator[tuple[Flow, Flow]]:
    """Yield how a connection leaves its source and how it arrives (SEMANTICS 31, 32).

    A node translates its own port after it has received the packet, and gives it its own address as the source when it
    sends it on to another node; on the way to a pod of its own, the policies of that pod still see the client. Of a pod
    that has no node yet, either may come true.
    """
    start, end = source.addresses[version], target.addresses[version]
    direct = Flow(start, end, protocol, target.port)
    through = target.through
    if through is None:
        yield direct, direct
        return
    of_node = sorted((a for a in through.node.addresses if a.version == version), key=int)
    asked = direct if source.node == through.node.name else Flow(start, of_node[0], protocol, through.port)
    if through.keeps_source or target.node in (None, through.node.name):
        yield asked, direct
    if not through.keeps_source and target.node != through.node.name:
        # Which of its addresses a node puts in, its routes decide.
        yield from ((asked, Flow(at_node, end, protocol, target.port)) for at_node in of_node)


def _doubts(source: Target, target: Target, found: Sequence[Explanation]) -> list[Unknown]:
    """Return why it is not known which of several explanations that differ come true; none if all of them do."""
    families = [{e.outcome for e in found if e.flow.source.version == version} for version in (4, 6)]
    if any(len(outcomes) > 1 for outcomes in families):
        return [_which_source(target)]
    told = {outcome for outcomes in families for outcome in outcomes}
    return _which_families((source, target)) if len(told) > 1 else []


def _which_source(target: Target) -> Unknown:
    assert target.through is not None  # only a node on the way makes one connection arrive in several ways
    node = target.through.node.name
    if target.node is None:
        return node_of(target.label, f"{node} may send to it directly")
    fact = f"which of its addresses node {node} puts in as the source, and the verdict differs between them"
    return Unknown(Gap.ADDRESS, fact, "its routes to the pod say")


def _which_families(ends: Sequence[Target]) -> list[Unknown]:
    return [
        Unknown(
            Gap.FAMILIES,
            f"which address families {end.label} has: the verdict differs between them",
            "give the pod's status.podIPs, or Nodes with spec.podCIDRs",
        )
        for end in ends
        if end.guessed
    ]
