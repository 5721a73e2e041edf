# SPDX-License-Identifier: Apache-2.0
"""What can stand in the table, as values that compare equal to what ``observe`` reads back, and how nft writes it.

Two kinds of objects, told apart by what their name says:

* **By content**: chains, sets of ports and maps of ports carry a digest of all that they say (``spelling.named``), and
  what refers to them carries their name in turn. Such an object never changes: another content is another object.
* **By meaning**: sets of peers, and the dispatch from addresses to chains, are named after what they stand for, which
  stays while pods and blocks come and go. Their elements change in place, in an order that ``plan`` knows to be safe.
  Where no order is, they are made again under the next *version*, a number behind the name.

Pure: no kernel, no policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeAlias

from ringfence.dataplanes.nftables import elements, spelling
from ringfence.dataplanes.nftables.elements import Element

Key: TypeAlias = tuple[str, str]
"""What names an object in a table: ``set`` (or map) or ``chain``, and its name."""

FAMILY = "inet"
TABLE = "ringfence"


@dataclass(frozen=True, slots=True)
class Set:
    """A set of addresses, address pairs or ports. ``key`` is nft's type (``ipv4_addr``, ``ipv4_addr . ipv4_addr``).

    The elements of an ``interval`` set are spans that are disjoint and do not touch.
    """

    name: str
    key: str
    interval: bool
    elements: AbstractSet[Element]


@dataclass(frozen=True, slots=True)
class VerdictMap:
    """A verdict map: address or port to ``jump CHAIN`` or ``goto CHAIN``."""

    name: str
    key: str
    elements: Mapping[Element, str]


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
    """A chain and its rules in order; a base chain has a hook.

    ``refers_to`` is all that the rules name, ``drops_by`` what those name that drop.
    """

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None
    refers_to: tuple[Key, ...] = field(init=False, compare=False, repr=False)
    drops_by: tuple[Key, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "refers_to", _keys(self.rules))
        object.__setattr__(self, "drops_by", _keys(rule for rule in self.rules if rule.text.endswith("drop")))


def _keys(rules: Iterable[Rule]) -> tuple[Key, ...]:
    found = (_REFERENCE.findall(rule.text) for rule in rules)
    return tuple(dict.fromkeys(("set" if mark == "@" else "chain", name) for each in found for mark, name in each))


_REFERENCE = re.compile(r"(@|jump |goto )([A-Za-z][\w.\-]*)")
Object: TypeAlias = Set | VerdictMap | Chain


@dataclass(frozen=True, slots=True)
class Table:
    """Everything in the table, by name."""

    sets: Mapping[str, Set] = field(default_factory=dict)
    maps: Mapping[str, VerdictMap] = field(default_factory=dict)
    chains: Mapping[str, Chain] = field(default_factory=dict)

    def objects(self) -> dict[Key, Object]:
        """Return everything by kind and name, as the kernel does: sets and maps share their names, chains do not."""
        found: dict[Key, Object] = {}
        found.update((("set", name), value) for name, value in self.sets.items())
        found.update((("set", name), value) for name, value in self.maps.items())
        found.update((("chain", name), value) for name, value in self.chains.items())
        return found


def references(value: Object) -> Iterable[Key]:
    """Return what an object refers to."""
    match value:
        case Set():
            return ()
        case VerdictMap():
            return [("chain", verdict.partition(" ")[2]) for verdict in set(value.elements.values())]
        case Chain():
            return value.refers_to


def reachable(objects: Mapping[Key, Object], roots: Iterable[Key]) -> frozenset[Key]:
    """Return the keys of everything that packets can meet on their way from some objects, these included."""
    found: set[Key] = set()
    waiting = [root for root in roots if root in objects]
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            waiting += [reference for reference in references(objects[key]) if reference in objects]
    return frozenset(found)


def live(table: Table) -> frozenset[Key]:
    """Return the keys of everything that packets can meet."""
    return reachable(
        table.objects(), [("chain", chain.name) for chain in table.chains.values() if chain.hook is not None]
    )


def creation(objects: Iterable[Object]) -> list[str]:
    """Return the commands that make objects in a table that exists, each after what it refers to, without elements."""
    given = list(objects)
    return [*_declarations(given), *_rules(given)]


def text(table: Table) -> str:
    """Return a table as the nft commands that make it from nothing, elements and all."""
    objects = list(table.objects().values())
    filled = (line for value in sorted(objects, key=_rank) for line in filling(value))
    return "\n".join((f"add table {FAMILY} {TABLE}", *_declarations(objects), *filled, *_rules(objects))) + "\n"


def filling(value: Object) -> list[str]:
    """Return the command that adds an object's elements, none where there are none."""
    if isinstance(value, Chain) or not value.elements:
        return []
    return [f"add element {FAMILY} {TABLE} {value.name} {{ {', '.join(written(value))} }}"]


def written(value: Set | VerdictMap) -> list[str]:
    """Return elements as nft prints them, sorted as texts."""
    if isinstance(value, Set):
        return elements.texts(value.key, value.elements)
    return sorted(f"{elements.text(value.key, element)} : {verdict}" for element, verdict in value.elements.items())


def _declarations(objects: Iterable[Object]) -> list[str]:
    return [_declaration(value) for value in sorted(objects, key=_rank)]


def _declaration(value: Object) -> str:
    where = f"{FAMILY} {TABLE} {value.name}"
    match value:
        case Set():
            return f"add set {where} {{ type {value.key};{' flags interval;' if value.interval else ''} }}"
        case VerdictMap():
            return f"add map {where} {{ type {value.key} : verdict; }}"
        case Chain(hook=None):
            return f"add chain {where}"
        case Chain(hook=hook):
            assert hook is not None
            return f"add chain {where} {{ type filter hook {hook.name} priority {hook.priority}; policy accept; }}"


def _rules(objects: Iterable[Object]) -> list[str]:
    chains = sorted((value for value in objects if isinstance(value, Chain)), key=_rank)
    return [f"add rule {FAMILY} {TABLE} {chain.name} {rule}" for chain in chains for rule in chain.rules]


def _rank(value: Object) -> tuple[int, str]:
    match value:
        case Set():
            return 0, value.name
        case VerdictMap():
            return 1, value.name
        case Chain():
            return 2 if value.hook is None else 3, value.name


@dataclass(frozen=True, slots=True)
class Names:
    """Which copy of each object is meant. The defaults are what a fresh start uses.

    ``salt`` goes into the digests of all that is named by content: another salt, another name for everything.
    ``versions`` has those of objects that are named by meaning, where it is not 0.
    """

    salt: int = 0
    versions: Mapping[str, int] = field(default_factory=dict)

    def by_meaning(self, name: str) -> str:
        """Return the full name of an object that is named by meaning."""
        version = self.versions.get(name, 0)
        return f"{name}.{version}" if version else name

    def by_content(self, kind: str, content: Iterable[str]) -> str:
        """Return the full name of an object that is named by content."""
        return spelling.named(kind, content, salt=self.salt)


def plain(name: str) -> tuple[str, int]:
    """Return an object's name without its version, and the version."""
    base, dot, version = name.rpartition(".")
    return (base, int(version)) if dot and version.isdecimal() else (name, 0)


class TableBuilder:
    """Collects the objects of one table. Each method returns the name of what it made."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._sets: dict[str, Set] = {}
        self._maps: dict[str, VerdictMap] = {}
        self._chains: dict[str, Chain] = {}

    def set_by_meaning(self, name: str, key: str, members: AbstractSet[Element], *, interval: bool = False) -> str:
        """Make a set whose elements may change in place."""
        full = self.names.by_meaning(name)
        self._sets[full] = Set(full, key, interval, members)
        return full

    def map_by_meaning(self, name: str, key: str, verdicts: Mapping[Element, str]) -> str:
        """Make a verdict map whose elements may change in place."""
        full = self.names.by_meaning(name)
        self._maps[full] = VerdictMap(full, key, verdicts)
        return full

    def ports(self, spans: frozenset[Element], *, interval: bool) -> str:
        """Make a set of ports."""
        name = self.names.by_content("ports", elements.texts(elements.PORT, spans))
        self._sets[name] = Set(name, elements.PORT, interval, spans)
        return name

    def port_map(self, kind: str, verdicts: Mapping[Element, str]) -> str:
        """Make a verdict map from ports."""
        made = VerdictMap(kind, elements.PORT, verdicts)
        name = self.names.by_content(kind, written(made))
        self._maps[name] = VerdictMap(name, elements.PORT, verdicts)
        return name

    def chain(self, kind: str, rules: Iterable[Rule]) -> str:
        """Make a chain that others jump to."""
        content = tuple(rules)
        name = self.names.by_content(kind, map(str, content))
        self._chains[name] = Chain(name, content)
        return name

    def base(self, hook: Hook, rules: Iterable[Rule]) -> None:
        """Make a base chain of one rule, a jump to a chain with these rules: exchanging it switches everything."""
        generation = self.chain(hook.name, rules)
        self._chains[hook.name] = Chain(hook.name, (Rule(f"jump {generation}"),), hook)

    def include(self, objects: Iterable[Object]) -> None:
        """Take in what was made elsewhere under the same names."""
        for value in objects:
            match value:
                case Set():
                    self._sets[value.name] = value
                case VerdictMap():
                    self._maps[value.name] = value
                case Chain():
                    self._chains[value.name] = value

    def table(self) -> Table:
        """Return all that was made."""
        return Table(self._sets, self._maps, self._chains)
