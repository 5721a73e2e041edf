# SPDX-License-Identifier: Apache-2.0
"""What a table does with the first packet of a connection, without a kernel: our own rules, read word by word.

A packet keeps the rules that it began with, and asks sets and maps as they are at that moment. So while a transaction
commits, each question for an element that it changes may be answered from before or from after it: ``Moment.answers``
has both tables, and ``verdicts`` returns every verdict that a packet can meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from ringfence.dataplanes.nftables.changes import Transaction
from ringfence.dataplanes.nftables.elements import Element, Pair, Span
from ringfence.dataplanes.nftables.layout import Chain, Rule, Set, Table, VerdictMap
from ringfence.model.flow import Flow


@dataclass(frozen=True)
class Moment:
    """The rules that a packet follows, and the tables that may answer it."""

    rules: Table
    answers: tuple[Table, ...]


def moments(start: Table, transactions: tuple[Transaction, ...], wanted: Table) -> Iterator[Moment]:
    """Return every moment on the way from one table to another: between transactions, and in the midst of each."""
    now = start
    yield Moment(now, (now,))
    for transaction in transactions:
        after = commit(now, transaction, wanted)
        yield Moment(now, (now, after))
        yield Moment(after, (now, after))
        yield Moment(after, (after,))
        now = after


def commit(table: Table, transaction: Transaction, wanted: Table) -> Table:  # noqa: C901, PLR0912 - a branch a word
    """Return a table after a transaction. Objects that are created are looked up in what is wanted."""
    sets, maps, chains = dict(table.sets), dict(table.maps), dict(table.chains)
    for change in transaction.changes:
        keys = dict(change.elements)
        if change.name in maps:
            held = dict(maps[change.name].elements)
            for element, verdict in keys.items():
                assert (element in held) is not change.adds, f"{change}: {element}"
                if change.adds:
                    held[element] = verdict
                else:
                    del held[element]
            maps[change.name] = replace(maps[change.name], elements=held)
        else:
            old = sets[change.name]
            assert not keys.keys() & old.elements if change.adds else keys.keys() <= old.elements, str(change)
            new = old.elements | keys.keys() if change.adds else old.elements - keys.keys()
            sets[change.name] = replace(old, elements=frozenset(new))
    for line in transaction.commands.splitlines():
        match line.split(maxsplit=5):
            case ["add", "set", _, _, name, *_]:
                sets.setdefault(name, replace(wanted.sets[name], elements=frozenset()))
            case ["add", "map", _, _, name, *_]:
                maps.setdefault(name, replace(wanted.maps[name], elements={}))
            case ["add", "chain", _, _, name, *_]:
                hook = wanted.chains[name].hook if name in wanted.chains else None
                chains.setdefault(name, Chain(name, (), hook))
            case ["add", "rule", _, _, name, text]:
                chains[name] = _longer(chains[name], text)
            case ["flush", "chain", _, _, name]:
                chains[name] = Chain(name, (), chains[name].hook)
            case ["delete", "chain" | "set" | "map" as kind, _, _, name]:
                del {"chain": chains, "set": sets, "map": maps}[kind][name]  # type: ignore[attr-defined]
            case ["add", "table", *_]:
                pass
            case _:
                raise AssertionError(line)
    return Table(sets, maps, chains)


def _longer(chain: Chain, text: str) -> Chain:
    words, _, comment = text.partition(' comment "')
    return Chain(chain.name, (*chain.rules, Rule(words, comment.removesuffix('"'))), chain.hook)


def verdicts(moment: Moment, flow: Flow, hook: str = "forward") -> frozenset[bool]:
    """Return every verdict that the first packet of a flow can get at a moment."""
    return frozenset(end != "drop" for end in _Packet(moment, flow).chain(hook))


@dataclass(frozen=True)
class _Packet:
    """Each method returns how what it reads may end: ``drop``, ``accept``, ``return``, or None: the next rule."""

    moment: Moment
    flow: Flow

    def chain(self, name: str) -> set[str]:
        ends: set[str] = set()
        for rule in self.moment.rules.chains[name].rules:
            found = self.rule(rule.text.split())
            ends |= {end for end in found if end is not None}
            if None not in found:
                return ends
        return ends | {"return"}

    def rule(self, words: list[str]) -> set[str | None]:  # noqa: C901, PLR0912 - a branch a word
        ends: set[str | None] = set()
        while words:
            match words:
                case ["icmpv6", *_] | ["ct", "state", *_]:
                    return {None}  # not about the first packet of a connection
                case ["meta", "l4proto", "132", "ct", "state", *_]:
                    return {None}
                case ["meta", "l4proto", "!=", number, *rest]:
                    if self.flow.protocol.number == int(number):
                        return ends | {None}
                    words = rest
                case ["meta", "l4proto", number, *rest] | ["ct", "protocol", number, *rest]:
                    if self.flow.protocol.number != int(number):
                        return ends | {None}
                    words = rest
                case ["ct", "original", _, "saddr", ".", "ct", "reply", _, "saddr", wanted, *rest]:
                    if self.flow.source.version != (4 if words[2] == "ip" else 6):
                        return ends | {None}
                    found = self.asked(wanted, Pair(self.flow.source, self.flow.destination))
                    if False in found:
                        ends.add(None)
                    if True not in found:
                        return ends
                    words = rest
                case ["ct", "original" | "reply" as way, "ip" | "ip6" as family, "saddr", *rest]:
                    if self.flow.source.version != (4 if family == "ip" else 6):
                        return ends | {None}
                    end = self.flow.source if way == "original" else self.flow.destination
                    if rest[0] == "vmap":
                        return ends | self.mapped(rest[1], end)
                    if rest[0] == "&":
                        end, rest = type(end)(int(end) & int(ip_address(rest[1]))), rest[2:]
                    found = self.asked(rest[0], end)
                    if False in found:
                        ends.add(None)
                    if True not in found:
                        return ends
                    words = rest[1:]
                case ["ct", "reply", "proto-src", "vmap", name]:
                    return ends | self.mapped(name, self.flow.port)
                case ["ct", "reply", "proto-src", wanted, *rest]:
                    found = self.asked(wanted, self.flow.port) if wanted[0] == "@" else {self.port_in(wanted)}
                    if False in found:
                        ends.add(None)
                    if True not in found:
                        return ends
                    words = rest
                case ["counter", *rest]:
                    words = rest
                case ["jump", name]:
                    return ends | {None if end == "return" else end for end in self.chain(name)}
                case ["goto", name]:
                    return ends | self.chain(name)
                case ["drop" | "accept" | "return" as end]:
                    return ends | {end}
                case _:
                    raise AssertionError(" ".join(words))
        raise AssertionError("a rule without a verdict")

    def asked(self, name: str, key: Element | None) -> set[bool]:
        return {_holds(table.sets[name[1:]], key) for table in self.moment.answers if name[1:] in table.sets}

    def mapped(self, name: str, key: Element | None) -> set[str | None]:
        ends: set[str | None] = set()
        for verdict in {self._verdict(table.maps.get(name[1:]), key) for table in self.moment.answers}:
            ends |= {None} if verdict is None else self.rule(verdict.split())
        return ends

    @staticmethod
    def _verdict(held: VerdictMap | None, key: Element | None) -> str | None:
        return None if held is None or key is None else held.elements.get(key)

    def port_in(self, wanted: str) -> bool:
        first, _, last = wanted.partition("-")
        return self.flow.port is not None and int(first) <= self.flow.port <= int(last or first)


def _holds(held: Set, key: Element | None) -> bool:
    if key is None:
        return False
    if held.interval:
        number = int(key)  # type: ignore[arg-type]
        return any(isinstance(span, Span) and span.first <= number <= span.last for span in held.elements)
    return key in held.elements
