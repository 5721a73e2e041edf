# SPDX-License-Identifier: Apache-2.0
"""What parties exchange: judgements of pairs of classes, folded to pairs of parties; and on what grounds.

A party's addresses may be of several classes, so that what is true of one pod need not be of its replica: ``always``
is what holds for every address of the one and every address of the other, ``ever`` what holds for some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ringfence.model.policy import Origin
from ringfence.semantics.allowed import HalfAllowed
from ringfence.semantics.evaluate import Reason
from ringfence.semantics.parties import Kind, Party
from ringfence.semantics.relations import Relation
from ringfence.semantics.space import AddressClass, Space

ClassPair = tuple[AddressClass, AddressClass, Relation]
_FROM_NODE = frozenset({Relation.FROM_OWN_NODE, Relation.EACH_OTHERS_NODE})


@dataclass(frozen=True, slots=True)
class Traffic:
    """Sets of spans that hold always, and ever, in one address family."""

    always: int
    ever: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one party may send another, by address family."""

    source: Party
    destination: Party
    families: tuple[tuple[int, Traffic], ...]

    @property
    def ever(self) -> int:
        """What some address may send some other, in some family."""
        return _union(traffic.ever for _, traffic in self.families)

    def told(self) -> Iterator[tuple[tuple[int, ...], Traffic]]:
        """Yield families that have the same traffic together."""
        for traffic in dict.fromkeys(each for _, each in self.families):
            yield tuple(version for version, each in self.families if each == traffic), traffic


def class_pairs(space: Space, source: Party, destination: Party) -> Iterator[ClassPair]:
    """Yield the classes and relations in which addresses of two parties are; a pod to itself is left out."""
    if not (source.is_pods or destination.is_pods) or destination.kind is Kind.OWN_NODE:
        return
    for one, ours in source.parts:
        for other, theirs in destination.parts:
            if one.version == other.version:
                for relation in space.relations.between(ours, theirs):
                    from_own_node = relation in _FROM_NODE and not source.is_pods
                    if relation is not Relation.ITSELF and from_own_node == (source.kind is Kind.OWN_NODE):
                        yield one, other, relation


def exchange(space: Space, source: Party, destination: Party, judge: Callable[[ClassPair], int]) -> Exchange | None:
    """Fold what ``judge`` says of pairs of classes; None where nobody is there of whom it could say something."""
    found: dict[int, Traffic] = {}
    for pair in class_pairs(space, source, destination):
        version, mask = pair[0].version, judge(pair)
        before = found.get(version)
        found[version] = Traffic(before.always & mask, before.ever | mask) if before else Traffic(mask, mask)
    return Exchange(source, destination, tuple(sorted(found.items()))) if found else None


@dataclass(frozen=True, slots=True)
class Grounds:
    """Why traffic passes or not, in one direction: rules that decided, or policies that isolate, or a plain reason."""

    reason: Reason
    rules: tuple[Origin, ...] = ()
    policies: tuple[str, ...] = ()

    def words(self) -> tuple[str, ...]:
        """Say the grounds: rules by where they are written, policies by name, or the reason in short."""
        match self.reason:
            case Reason.RULE:
                return tuple(map(str, self.rules))
            case Reason.DEFAULT:
                return (f"isolated by {', '.join(self.policies)}",)
            case _:
                return (_SHORT[self.reason],)


_SHORT = {
    Reason.NOT_A_POD: "not a pod",
    Reason.SELF: "itself",
    Reason.OWN_NODE: "own node",
    Reason.TO_OWN_NODE: "to its own node",
    Reason.NOT_ISOLATED: "not isolated",
    Reason.PASSED: "passed",
}


def grounds(half: HalfAllowed, mask: int) -> Iterator[Grounds]:
    """Yield the grounds of a half for some spans, one for each reason."""
    for reason in Reason:
        rulings = [each for each in half.rulings if each.reason is reason and each.spans & mask]
        if rulings:
            origins = tuple(dict.fromkeys(each.decided_by for each in rulings if each.decided_by is not None))
            isolating = half.isolated_by if reason is Reason.DEFAULT else ()
            yield Grounds(reason, origins, tuple(map(str, isolating)))


def _union(masks: Iterable[int]) -> int:
    found = 0
    for mask in masks:
        found |= mask
    return found
