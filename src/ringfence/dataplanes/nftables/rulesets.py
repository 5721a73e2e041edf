# SPDX-License-Identifier: Apache-2.0
"""The rules of one ruleset: compiled rules in, a chain of nft rules out, once for each family. Pure.

A short ruleset becomes a rule for each of its rules, in their order and with their names, for a person to read. A long
one (``longlists``) is asked by port first: a verdict map leads from a port to the chain of the rules that name it, and
that goes on to the chain of all that asks for more than a port.

Which packets are sent to a chain, and what its ``return`` leads to, ``render`` decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ringfence.compiler.program import CompiledRule, Ruleset
from ringfence.dataplanes.nftables import elements, spelling
from ringfence.dataplanes.nftables.elements import Element, Span, merged_spans
from ringfence.dataplanes.nftables.layout import Names, Object, Rule, TableBuilder
from ringfence.dataplanes.nftables.longlists import EVERY_PORT, Part, Parts, Spans, Traffic, by_protocol
from ringfence.dataplanes.nftables.peers import Family, PeerBook, PrefixSet, Wanted, asked_of
from ringfence.model.policy import Action, Direction, ObjectRef, listed
from ringfence.model.ports import AnyTraffic, Protocol

_ERROR = "an ICMP error about a connection to an allowed peer"


@dataclass(frozen=True, slots=True)
class Written:
    """A ruleset in nft's language: its first chain's name, the objects that are its own, and the sets that it asks.

    ``parts`` are those of a long one. Good for as long as these and all names stay.
    """

    chain: str
    objects: tuple[Object, ...]
    wanted: tuple[Wanted, ...]
    parts: Parts | None


def write(ruleset: Ruleset, family: Family, *, names: Names, book: PeerBook, parts: Parts | None) -> Written:
    """Return a ruleset in one family: allow returns to the dispatch, the end drops. ``parts`` if it is a long one."""
    writer = _Writer(ruleset, family, names, book)
    chain = writer.short(ruleset.rules) if parts is None else writer.long(parts)
    return Written(chain, tuple(writer.build.table().objects().values()), tuple(writer.wanted), parts)


class _Writer:
    """Writes one ruleset."""

    def __init__(self, ruleset: Ruleset, family: Family, names: Names, book: PeerBook) -> None:
        self.build = TableBuilder(names)
        self.wanted: dict[Wanted, None] = {}
        self._direction = direction = ruleset.direction
        self._no_rule = no_rule(direction, ruleset.policies)
        self._family = family
        self._book = book
        self._kind = f"{direction.value}{family.version}"

    def short(self, compiled: Sequence[CompiledRule]) -> str:
        """Write rule after rule."""
        rules: list[Rule] = []
        errors: dict[Rule, None] = {}
        for rule in compiled:
            peers = self._peers((rule,))
            verdict = "counter return" if rule.action is Action.ALLOW else "counter drop"
            for traffic in _traffics(rule):
                match = self._match(traffic)
                rules += [Rule(_words(match, peer, verdict), _named_after((rule,))) for peer in peers]
                if rule.action is Action.ALLOW and traffic.protocol is not None and traffic.spans != EVERY_PORT:
                    about = self._match(Traffic(traffic.protocol, errors=True))
                    errors |= {Rule(_words(about, peer, verdict), _ERROR): None for peer in peers}
        return self.build.chain(self._kind, (*rules, *self._ends(list(errors))))

    def long(self, parts: Parts) -> str:
        """Write ports first, then the rest."""
        rest: list[Rule] = []
        errors: list[Rule] = []
        ports: dict[Protocol, dict[int, tuple[Part, ...]]] = {}
        for traffic, rules in parts:
            if traffic.protocol is not None and traffic.port is not None:
                ports.setdefault(traffic.protocol, {})[traffic.port] = rules
            elif traffic.errors:
                errors += [Rule(rule.text, _ERROR) for rule in self._allow(rules, self._match(traffic))]
            else:
                rest += self._allow(rules, self._match(traffic))
        last = Rule(f"goto {self.build.chain(f'{self._kind}-rest', (*rest, *self._ends(errors)))}")
        maps = [
            Rule(f"meta l4proto {protocol.number} ct reply proto-src vmap @{self._port_map(by_port, last)}")
            for protocol, by_port in ports.items()
        ]
        return self.build.chain(self._kind, (*maps, last))

    def _port_map(self, by_port: dict[int, tuple[Part, ...]], last: Rule) -> str:
        chains = {port: (*self._allow(parts), last) for port, parts in by_port.items()}
        verdicts: dict[Element, str] = {
            port: f"goto {self.build.chain(f'{self._kind}-port', rules)}" for port, rules in chains.items()
        }
        return self.build.port_map(f"{self._kind}-ports", verdicts)

    def _allow(self, parts: Sequence[Part], match: str = "") -> Iterator[Rule]:
        """Return what lets the peers of rules pass that ask for the same traffic."""
        open_to_all = [part for part in parts if any(self._book.covers_everything(r.peers, self._family) for r in part)]
        for part in open_to_all[:1] or parts:
            for peer in self._peers(part):
                yield Rule(_words(match, peer, "counter return"), _named_after(part))

    def _match(self, traffic: Traffic) -> str:
        """Return how nft asks for a traffic; an empty text for anything."""
        if traffic.protocol is None:
            return ""
        number = traffic.protocol.number
        if traffic.spans == EVERY_PORT:
            return f"ct protocol {number}"
        if len(traffic.spans) == 1:
            first, last = traffic.spans[0]
            wanted = elements.text(elements.PORT, first if first == last else Span(first, last))
        else:
            wanted = "@" + self._port_set(traffic.spans)
        return f"meta l4proto {number} ct reply proto-src {wanted}"

    def _port_set(self, spans: Spans) -> str:
        if any(first != last for first, last in spans):
            return self.build.ports(merged_spans(spans), interval=True)
        return self.build.ports(frozenset(first for first, _ in spans), interval=False)

    def _peers(self, rules: Part) -> list[str]:
        """Return the matches of which one must hold; an empty text matches everything, no text at all nothing."""
        if any(self._book.covers_everything(rule.peers, self._family) for rule in rules):
            return [""]
        wanted = list(self._book.wanted(tuple(map(asked_of, rules)), self._family))
        self.wanted.update(dict.fromkeys(wanted))
        end = self._family.peer(self._direction)
        return [
            f"{self._family.masked(end, each.length) if isinstance(each, PrefixSet) else end}"
            f" @{self.build.names.by_meaning(each.name)}"
            for each in wanted
        ]

    def _ends(self, errors: Sequence[Rule]) -> list[Rule]:
        """Return the end of a chain: what no rule has let pass is dropped, but for ICMP errors about what is allowed.

        nft can ask for the ports of a connection only in a rule that demands its protocol of the packet as well, which
        an ICMP error about it has not: so those are asked for peer and protocol, and the port is left out. An error is
        RELATED only to a connection that has been allowed once.
        """
        drop = Rule("counter drop", self._no_rule)
        if not errors:
            return [drop]
        return [Rule(f"meta l4proto != {self._family.icmp.number} counter drop", drop.comment), *errors, drop]


def no_rule(direction: Direction, policies: Sequence[ObjectRef]) -> str:
    """Return a comment that says why the rest is dropped, and names as many of the policies as it has room for."""
    texts = [
        f"no {direction.value} rule of {listed(policies, most)} allows it"
        for most in range(min(len(policies), spelling.MAX_COMMENT // len("x, ")), 0, -1)
    ]
    # With one name too long, the first of all is kept and shortened.
    return spelling.comment(next((text for text in texts if len(text) <= spelling.MAX_COMMENT), texts[-1]))


def _named_after(rules: Part) -> str:
    """Return a comment that names a rule, or the first of several."""
    more = f" and {len(rules) - 1} more rules" if len(rules) > 1 else ""
    return spelling.comment(f"{rules[0].origin}{more}")


def _traffics(rule: CompiledRule) -> Iterator[Traffic]:
    if isinstance(rule.traffic, AnyTraffic):
        yield Traffic(None)
    else:
        yield from (Traffic(protocol, spans) for protocol, spans in by_protocol(rule.traffic))


def _words(*words: str) -> str:
    return " ".join(filter(None, words))
