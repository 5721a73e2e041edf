# SPDX-License-Identifier: Apache-2.0
"""One question, every connection that it means: each pair of targets, each address family, translated on the way.

A question about a Service, a workload or a dual-stack pod is about several flows. All of them must pass for the answer
to be "allowed"; one that is denied decides, unless it is in a family of which nobody knows whether the pods have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ringfence.errors import UsageError
from ringfence.model.cluster import Cluster
from ringfence.model.flow import Flow
from ringfence.model.policy import PolicySet
from ringfence.model.ports import Protocol
from ringfence.semantics.ends import Directory, Resolved, Target, first_only
from ringfence.semantics.explain import Explanation, explain
from ringfence.semantics.findings import Outcome, both
from ringfence.semantics.knowledge import Gap, Knowledge, Unknown

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


def answer(directory: Directory, start: Resolved, goal: Resolved, protocol: Protocol, policies: PolicySet) -> Answer:
    """Explain every connection from a start to a goal."""
    sources = first_only(start.targets)
    targets = first_only(goal.targets, opposite=sources)
    question = f"{start.label} -> {goal.label} {protocol.value}"
    notes = (*start.notes, *goal.notes)
    if not targets:
        return Answer(question, Outcome.UNDECIDABLE, (), notes, goal.unknowns)
    strangers = frozenset(a for each in (*sources, *targets) if each.stranger for a in each.addresses.values())
    known = replace(directory.known, strangers=strangers)
    explanations: list[Explanation] = []
    outcomes: list[Outcome] = []
    unknowns: list[Unknown] = []
    for source in sources:
        for target in targets:
            found = list(_families(source, target, protocol, directory.cluster, policies, known))
            explanations += found
            told = {each.outcome for each in found}
            doubts = _which_families((source, target)) if len(told) > 1 else []
            outcomes.append(Outcome.UNDECIDABLE if doubts else both(told))
            unknowns += doubts
    if not explanations:
        names = " and ".join(target.label for target in (*sources, *targets))
        raise UsageError(f"{names} have no address family in common")
    explanations.sort(key=lambda each: _ORDER.index(each.outcome))
    return Answer(question, both(outcomes), tuple(explanations), notes, tuple(dict.fromkeys(unknowns)))


def _families(
    source: Target, target: Target, protocol: Protocol, cluster: Cluster, policies: PolicySet, known: Knowledge
) -> Iterator[Explanation]:
    for version in sorted(source.addresses.keys() & target.addresses.keys()):
        echo = Protocol.ICMPV6 if version == 6 else Protocol.ICMP
        spoken = protocol if protocol.has_ports else echo
        leaving, arriving = _flows(source, target, version, spoken)
        yield explain(arriving, cluster, policies, known=known, leaving=leaving)


def _flows(source: Target, target: Target, version: int, protocol: Protocol) -> tuple[Flow, Flow]:
    """Return how a connection leaves its source and how it arrives (SEMANTICS 31, 32).

    A node translates its own port after it has received the packet, and gives it its own address as the source when it
    sends it on to another node; on the way to a pod of its own, the policies of that pod still see the client.
    """
    start, end = source.addresses[version], target.addresses[version]
    direct = Flow(start, end, protocol, target.port)
    through = target.through
    if through is None:
        return direct, direct
    at_node = min((a for a in through.node.addresses if a.version == version), key=int)
    asked = direct if source.node == through.node.name else Flow(start, at_node, protocol, through.port)
    passed_on = not through.keeps_source and target.node != through.node.name
    return asked, Flow(at_node, end, protocol, target.port) if passed_on else direct


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
