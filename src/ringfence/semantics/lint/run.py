# SPDX-License-Identifier: Apache-2.0
"""Asks every rule about objects, and leaves out what was silenced.

A policy that the API server refuses is told of that alone: what it would mean otherwise is no use while it is broken.
Its rules still count for others, as far as they can be read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ringfence.apis.networkpolicy import lower
from ringfence.apis.refusals import refusals
from ringfence.semantics.lint import andor, blocks, dns, order, ports, selection, writing
from ringfence.semantics.lint.findings import Finding, ref_of, refused
from ringfence.semantics.lint.parts import Written
from ringfence.semantics.lint.rules import RULES, UNDENIABLE
from ringfence.semantics.lint.world import World, world

ANNOTATION = "lint.ringfence.io/ignore"
"""Silences rules for the object that has it: their names, separated by commas or spaces."""


def lint(objects: Sequence[Mapping[str, Any]], *, whole: bool, disabled: Collection[str] = ()) -> list[Finding]:
    """Return everything that is found, object by object. ``whole``: the objects are all that there are, and stored."""
    broken = _stored_faults(objects) if whole else _faults(objects)
    ill = {finding.number for finding in broken if finding.rule.name == "invalid"}
    known = world(objects, whole=whole, ill=ill)
    sound = [each for each in known.written if each.number not in ill]
    silenced = {number: _silenced(obj) for number, obj in enumerate(objects)}
    findings = [
        finding
        for finding in (*broken, *_warnings(known, sound))
        if finding.rule.name not in {*disabled, *silenced.get(finding.number, ())} - UNDENIABLE
    ]
    return sorted(findings, key=lambda finding: finding.number)


def _warnings(known: World, sound: Sequence[Written]) -> Iterator[Finding]:
    for written in sound:
        yield from selection.subject(known, written)
        yield from writing.ignored_rules(written)
        yield from writing.opposite_of_name(written)
        yield from writing.void_rules(written)
        yield from writing.empty_lists(written)
        yield from andor.split_rules(written)
        yield from selection.peers(known, written)
        yield from blocks.inside(known, written)
        yield from blocks.old_forms(written)
        yield from ports.numbers(known, written)
        yield from ports.names(known, written)
    yield from dns.dns(known, sound)
    yield from order.equal_priorities(known.policies, known.cluster, whole=known.whole)


def _faults(objects: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Return what an API server would refuse."""
    return [finding for number, obj in enumerate(objects) for finding in refused(ref_of(obj), refusals(obj), number)]


def _stored_faults(objects: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Return what is broken of policies that are stored all the same; old forms of blocks are not."""
    return [
        finding
        for number, obj in enumerate(objects)
        if obj.get("kind") == "NetworkPolicy"
        for finding in refused(ref_of(obj), lower(obj).problems, number)
    ]


def _silenced(obj: Mapping[str, Any]) -> frozenset[str]:
    match obj:
        case {"metadata": {"annotations": {"lint.ringfence.io/ignore": str(text)}}}:
            return frozenset(text.replace(",", " ").split()) & RULES.keys()
        case _:
            return frozenset()
