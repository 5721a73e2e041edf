# SPDX-License-Identifier: Apache-2.0
"""What can stand in the table, as values that compare equal to what ``observe`` reads back, and how nft writes it.

Every set, verdict map and chain carries a digest of its content in its name (``spelling.named``), and what refers to it
carries that name in turn. So an object never changes: whatever would change it makes another object, and two tables
that hold the same name hold the same thing, all the way down. Only the base chains have fixed names.
Pure: no kernel, no policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ringfence.dataplanes.nftables import spelling

FAMILY = "inet"
TABLE = "ringfence"


@dataclass(frozen=True, slots=True)
class Set:
    """A set of addresses, address pairs or ports. ``key`` is nft's type (``ipv4_addr``, ``ipv4_addr . ipv4_addr``).

    ``elements`` are canonical texts (``spelling``), sorted as texts; spans are disjoint and do not touch.
    """

    name: str
    key: str
    interval: bool
    elements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerdictMap:
    """A verdict map: address to the chain that is jumped to. ``elements`` are sorted by address text."""

    name: str
    key: str
    elements: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: ``text`` in nft's language as far as its verdict, and its comment."""

    text: str
    comment: str = ""

    def __str__(self) -> str:
        return f'{self.text} comment "{self.comment}"' if self.comment else self.text


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain hangs (type filter, policy accept: our accepting never overrides another's drop)."""

    name: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain and its rules in order; a base chain has a hook."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None


Object = Set | VerdictMap | Chain


@dataclass(frozen=True, slots=True)
class Table:
    """Everything in the table, by name."""

    sets: Mapping[str, Set] = field(default_factory=dict)
    maps: Mapping[str, VerdictMap] = field(default_factory=dict)
    chains: Mapping[str, Chain] = field(default_factory=dict)

    def objects(self) -> dict[tuple[str, str], Object]:
        """Return everything by kind and name, as the kernel does: sets and maps share their names, chains do not."""
        found: dict[tuple[str, str], Object] = {}
        found.update((("set", name), value) for name, value in self.sets.items())
        found.update((("set", name), value) for name, value in self.maps.items())
        found.update((("chain", name), value) for name, value in self.chains.items())
        return found


class TableBuilder:
    """Collects the objects of one table. Each method returns the name of what it made.

    ``salt`` is 0, but for the repair of a table in which somebody changed an object under its name.
    """

    def __init__(self, salt: int) -> None:
        self._salt = salt
        self._sets: dict[str, Set] = {}
        self._maps: dict[str, VerdictMap] = {}
        self._chains: dict[str, Chain] = {}

    def set(self, kind: str, key: str, elements: Iterable[str], *, interval: bool = False) -> str:
        """Make a set of canonical elements (``spelling``)."""
        content = tuple(sorted(elements))
        name = spelling.named(kind, content, salt=self._salt)
        self._sets[name] = Set(name, key, interval, content)
        return name

    def map(self, kind: str, key: str, jumps: Iterable[tuple[str, str]]) -> str:
        """Make a verdict map from addresses to the names of chains."""
        content = tuple(sorted(jumps))
        name = spelling.named(kind, (f"{address} {chain}" for address, chain in content), salt=self._salt)
        self._maps[name] = VerdictMap(name, key, content)
        return name

    def chain(self, kind: str, rules: Iterable[Rule]) -> str:
        """Make a chain that others jump to."""
        content = tuple(rules)
        name = spelling.named(kind, map(str, content), salt=self._salt)
        self._chains[name] = Chain(name, content)
        return name

    def base(self, hook: Hook, rules: Iterable[Rule]) -> None:
        """Make a base chain of one rule, a jump to a chain with these rules: exchanging it switches everything."""
        generation = self.chain(hook.name, rules)
        self._chains[hook.name] = Chain(hook.name, (Rule(f"jump {generation}"),), hook)

    def table(self) -> Table:
        """Return all that was made."""
        return Table(self._sets, self._maps, self._chains)


def creation(objects: Iterable[Object]) -> list[str]:
    """Return the commands that make objects in a table that exists, each after what it refers to."""
    return [line for value in sorted(objects, key=_rank) for line in _lines(value)]


def text(table: Table) -> str:
    """Return a table as the nft commands that make it from nothing."""
    return "\n".join((f"add table {FAMILY} {TABLE}", *creation(table.objects().values()))) + "\n"


def _rank(value: Object) -> tuple[int, str]:
    match value:
        case Set():
            return 0, value.name
        case Chain(hook=None) if not any(word in rule.text for rule in value.rules for word in _REFERRING):
            return 1, value.name
        case VerdictMap():
            return 2, value.name
        case Chain():
            return 3 if value.hook is None else 4, value.name


_REFERRING = ("jump ", "goto ", "vmap ")


def _lines(value: Object) -> list[str]:
    where = f"{FAMILY} {TABLE} {value.name}"
    match value:
        case Set():
            options = " flags interval;" if value.interval else _size(len(value.elements))
            elements = f" elements = {{ {', '.join(value.elements)} }};" if value.elements else ""
            return [f"add set {where} {{ type {value.key};{options}{elements} }}"]
        case VerdictMap():
            jumps = ", ".join(f"{address} : jump {chain}" for address, chain in value.elements)
            elements = f" elements = {{ {jumps} }};" if value.elements else ""
            return [f"add map {where} {{ type {value.key} : verdict;{_size(len(value.elements))}{elements} }}"]
        case Chain():
            hook = ""
            if value.hook is not None:
                hook = f" {{ type filter hook {value.hook.name} priority {value.hook.priority}; policy accept; }}"
            return [f"add chain {where}{hook}", *(f"add rule {where} {rule}" for rule in value.rules)]


def _size(count: int) -> str:
    # With its size known beforehand the kernel takes a plain hash table, not a resizable one: quicker to look up.
    return f" size {count};" if count else ""
