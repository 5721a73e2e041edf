# SPDX-License-Identifier: Apache-2.0
"""Long rulesets, sorted so that what a packet costs does not grow with their rules. Pure; knows no nft.

Rules are filed under the traffic that they ask for: single ports, and everything else (ranges, protocols, anything).
Under one traffic the peers of all rules may be asked at once, in *united* sets. United is what always occurs together,
rules that exactly the same lists have: so peers that many rulesets share are in the kernel once.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ringfence.compiler.program import CompiledRule, PortSpan, Ruleset, RulesetId
from ringfence.dataplanes.nftables import spelling
from ringfence.dataplanes.nftables.peers import Asked, asked_of
from ringfence.model.policy import Action, AnyPeer
from ringfence.model.ports import LAST_PORT, AnyTraffic, Protocol

LONG = 16  # rules: a walk costs each packet 0.13 µs for every one
MANY = 8  # sets that a packet may have to be looked up in

Spans: TypeAlias = tuple[tuple[int, int], ...]
EVERY_PORT: Spans = ((0, LAST_PORT),)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a list of rules is about: spans of ports of a protocol, ``protocol`` None for anything.

    ``errors``: not the connections, but the ICMP errors about them, which have no ports.
    """

    protocol: Protocol | None
    spans: Spans = EVERY_PORT
    errors: bool = False

    @property
    def port(self) -> int | None:
        """The one port, None if it is about more."""
        ((first, last), *more) = self.spans
        return first if first == last and not more and not self.errors else None


Part: TypeAlias = tuple[CompiledRule, ...]
Parts: TypeAlias = tuple[tuple[Traffic, tuple[Part, ...]], ...]
"""A long ruleset: for each traffic its rules, in parts that are each asked at once."""


def is_long(ruleset: Ruleset) -> bool:
    """Tell whether a ruleset is sorted by traffic. Where something is denied, order matters: that is always walked."""
    return len(ruleset.rules) > LONG and all(rule.action is Action.ALLOW for rule in ruleset.rules)


def sort_long(rulesets: Iterable[Ruleset]) -> Mapping[RulesetId, Parts]:
    """Return the long ones among rulesets, sorted."""
    lists = {ruleset.id: list(_by_traffic(ruleset)) for ruleset in rulesets if is_long(ruleset)}
    users: dict[Asked, list[tuple[RulesetId, int]]] = defaultdict(list)
    for ruleset, by_traffic in lists.items():
        for number, (_, named, _) in enumerate(by_traffic):
            if len(named) > MANY:
                for asked in named:
                    users[asked].append((ruleset, number))
    return {
        ruleset: tuple((traffic, (*_parts(named, users), *open_to_all)) for traffic, named, open_to_all in by_traffic)
        for ruleset, by_traffic in lists.items()
    }


def _parts(named: Mapping[Asked, CompiledRule], users: Mapping[Asked, Sequence[object]]) -> Iterator[Part]:
    if len(named) <= MANY:
        yield from ((rule,) for rule in named.values())
        return
    parts: dict[tuple[object, ...], list[CompiledRule]] = defaultdict(list)
    for asked in sorted(named):
        parts[tuple(users[asked])].append(named[asked])
    yield from map(tuple, parts.values())


def _by_traffic(ruleset: Ruleset) -> Iterator[tuple[Traffic, dict[Asked, CompiledRule], list[Part]]]:
    """Return the rules by traffic, each under all that it is about: those with peers, and those that any peer meets."""
    lists: dict[Traffic, list[CompiledRule]] = defaultdict(list)
    for rule in ruleset.rules:
        for traffic in _traffics(rule):
            lists[traffic].append(rule)
    for traffic, rules in lists.items():
        named = {asked_of(rule): rule for rule in rules if not isinstance(rule.peers, AnyPeer)}
        yield traffic, named, [(rule,) for rule in rules if isinstance(rule.peers, AnyPeer)]


def _traffics(rule: CompiledRule) -> Iterator[Traffic]:
    if isinstance(rule.traffic, AnyTraffic):
        yield Traffic(None)
        return
    for protocol, spans in by_protocol(rule.traffic):
        for span in spans:
            if span[0] == span[1]:
                yield Traffic(protocol, (span,))
        ranges = tuple(span for span in spans if span[0] != span[1])
        if ranges:
            yield Traffic(protocol, ranges)
        if spans != EVERY_PORT:
            yield Traffic(protocol, errors=True)


def by_protocol(traffic: Sequence[PortSpan]) -> Iterator[tuple[Protocol, Spans]]:
    """Return the spans of each protocol, merged; a protocol without ports has every port."""
    by_number = sorted(traffic, key=lambda span: span.protocol.number)
    for protocol, found in itertools.groupby(by_number, key=lambda span: span.protocol):
        spans = tuple(spelling.merged((span.ports.first, span.ports.last) for span in found))
        yield protocol, spans if protocol.has_ports else EVERY_PORT
