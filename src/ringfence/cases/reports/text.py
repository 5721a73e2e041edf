# SPDX-License-Identifier: Apache-2.0
"""Outcomes as plain text: a line for each case, and for what differs tables and reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ringfence.cases.grid import LEGEND
from ringfence.cases.outcome import Explained, Outcome, Status, StepOutcome
from ringfence.cases.script import Asks

_WORDS = {Status.PASSED: "ok", Status.DIFFERS: "DIFFERS", Status.BROKEN: "BROKEN", Status.NOT_RUN: "not run"}
_MOST_EXPLAINED = 8  # of a step's differences; a case that is wrong altogether needs no hundred reasons


def headline(outcome: Outcome) -> str:
    """Return a case's line."""
    word = f"{_WORDS[outcome.status]:<8}{outcome.name}"
    if outcome.status is Status.PASSED:
        return f"{word} ({_count(outcome.answers, 'answer')}, {outcome.seconds:.1f} s)"
    if outcome.status is Status.DIFFERS:
        return f"{word} ({outcome.differing} of {_count(outcome.answers, 'answer')}, {outcome.seconds:.1f} s)"
    return word


def details(outcome: Outcome) -> list[str]:
    """Return the lines that follow a case's own: what it shows, and what differs, or what is wrong with it."""
    if outcome.status is Status.BROKEN:
        return [f"  {line}" for line in outcome.error.splitlines()]
    if outcome.status is Status.DIFFERS:
        return [f"  {outcome.file}: {outcome.shows}", *(f"  {line}" for step in outcome.steps for line in _step(step))]
    return []


def summary(outcomes: Iterable[Outcome], *, dataplane: str, seconds: float) -> str:
    """Return the last line: how many cases ended how."""
    every = list(outcomes)
    counts = Counter(outcome.status for outcome in every)
    differ = "differs" if counts[Status.DIFFERS] == 1 else "differ"
    words = {Status.PASSED: "passed", Status.DIFFERS: differ, Status.BROKEN: "broken", Status.NOT_RUN: "not run"}
    parts = [f"{counts[status]} {word}" for status, word in words.items() if counts[status] or status is Status.PASSED]
    answers = _count(sum(outcome.answers for outcome in every), "answer")
    return f"{_count(len(every), 'case')}: {', '.join(parts)}; {answers} from {dataplane} in {seconds:.1f} s"


def _step(step: StepOutcome) -> Iterator[str]:
    yield f"after step {step.step + 1}" + (f" ({step.say})" if step.say else "")
    for grid in step.grids:
        yield f"  {grid.traffic}"
        yield from (f"    {line}" for line in grid.lines)
    if step.grids:
        yield f"    {LEGEND}"
    told = _alike(step.differences)
    for explained in told[:_MOST_EXPLAINED]:
        yield from (f"  {line}" for line in _difference(explained))
    more = sum(len(each) for each in told[_MOST_EXPLAINED:])
    if more:
        yield f"  and {more} more; -o json has all of them"


def _alike(differences: Sequence[Explained]) -> list[list[Explained]]:
    """Return the differences, those that differ in the address family alone together."""
    groups: dict[tuple[object, ...], list[Explained]] = {}
    for each in differences:
        probe, connection = each.difference.probe, each.difference.connection
        name = None if connection is None else connection.name
        what = str(probe.source), str(probe.destination), probe.traffic, probe.asks, name
        groups.setdefault((*what, each.difference.expected, each.difference.got, _common(each.text)), []).append(each)
    return list(groups.values())


def _difference(alike: Sequence[Explained]) -> Iterator[str]:
    first, difference = alike[0], alike[0].difference
    probe, connection = difference.probe, difference.connection
    named = "" if connection is None else f"connection {connection.name}, "
    families = " and ".join(each.difference.probe.family for each in alike)
    about = "" if probe.asks is Asks.CONNECTION else f", {probe.asks.value} error"
    what = f"{named}{probe.source} -> {probe.destination} {probe.traffic} {families}{about}"
    yield f"{what}: expected {difference.expected}, seen {difference.got}"
    if first.text:
        yield "  by the policies:"
        yield from (f"    {line}" for line in _common(first.text).splitlines())


def _common(text: str) -> str:
    """Return an explanation as it is in both families."""
    return text.replace("ICMPv6", "ICMP")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def complaints(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what is wrong with broken cases, each line beginning with its place where it has one."""
    return [outcome.error for outcome in outcomes if outcome.status is Status.BROKEN]
