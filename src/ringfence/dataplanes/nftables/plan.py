# SPDX-License-Identifier: Apache-2.0
"""From what the kernel holds to what it should hold: three transactions, in an order without a window. Pure.

1. **create** whatever is new, beside everything that is in force. Nothing leads to it yet.
2. **switch**: exchange the one rule of each base chain. A packet follows either the old rule or the new one, and both
   lead to sets, maps and chains that never change.
3. **delete** what nothing leads to any more, once no packet is in the midst of it.

(Before them a table that somebody put to sleep is woken: **wake**.)

One transaction would not do: a packet keeps the rules with which it began, but asks sets and maps as they are at that
moment, and the kernel takes away a deleted map's elements, and shows a new interval set's, at different instants of
one commit. After a kill between any two of them either the old program is in force or the new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.dataplanes.nftables import layout
from ringfence.dataplanes.nftables.layout import FAMILY, TABLE, Chain, Object, Set, Table, VerdictMap
from ringfence.dataplanes.nftables.observe import Observed


@dataclass(frozen=True, slots=True)
class Transaction:
    """One commit: its purpose in a word, and nft commands. ``waits``: only once no packet follows old rules."""

    purpose: str
    text: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Transactions in order, and how many objects they add and delete; no transaction where nothing is to do."""

    transactions: tuple[Transaction, ...] = ()
    added: int = 0
    deleted: int = 0

    def __str__(self) -> str:
        return "\n".join(f"# {i}. {t.purpose}\n{t.text}" for i, t in enumerate(self.transactions, 1))


def conflicts(observed: Observed, wanted: Table) -> list[str]:
    """Return the names under which the kernel holds something else than is wanted: somebody changed it there."""
    there = observed.table.objects()
    return sorted(
        key[1]
        for key, value in wanted.objects().items()
        if key in there and there[key] != value and not _is_base(value)
    )


def make_plan(observed: Observed, wanted: Table) -> Plan:
    """Return the plan; there must be no ``conflicts``."""
    there, goal = observed.table.objects(), wanted.objects()
    new = [value for key, value in goal.items() if key not in there and not _is_base(value)]
    bases = [chain for chain in wanted.chains.values() if _is_base(chain) and there.get(("chain", chain.name)) != chain]
    leftovers = [value for key, value in there.items() if key not in goal]
    create = layout.creation(new)
    switch = [line for chain in sorted(bases, key=lambda c: c.name) for line in _switch(observed.table, chain)]
    delete = [*_deletion(leftovers), *(f"delete {stranger}" for stranger in observed.strangers)]
    steps = (
        Transaction("wake", _text([_TABLE] if observed.dormant else [])),  # said without the flag, it wakes up
        Transaction("create", _text([_TABLE, *create] if create else [])),
        Transaction("switch", _text(switch)),
        Transaction("delete", _text(delete), waits=True),
    )
    return Plan(
        tuple(step for step in steps if step.text),
        added=len(new) + len(bases),
        deleted=len(leftovers) + len(observed.strangers),
    )


_TABLE = f"add table {FAMILY} {TABLE}"


def _is_base(value: Object) -> bool:
    return isinstance(value, Chain) and value.hook is not None


def _switch(there: Table, base: Chain) -> list[str]:
    where = f"chain {FAMILY} {TABLE} {base.name}"
    make, *rules = layout.creation([base])
    now = there.chains.get(base.name)
    # A chain that somebody hung elsewhere cannot be moved.
    remove = [f"flush {where}", f"delete {where}"] if now is not None and now.hook != base.hook else []
    return [*remove, make, f"flush {where}", *rules]


def _deletion(leftovers: Iterable[Object]) -> list[str]:
    chains = sorted(value.name for value in leftovers if isinstance(value, Chain))
    maps = sorted(value.name for value in leftovers if isinstance(value, VerdictMap))
    sets = sorted(value.name for value in leftovers if isinstance(value, Set))
    return [
        *(f"flush chain {FAMILY} {TABLE} {name}" for name in chains),
        *(f"delete map {FAMILY} {TABLE} {name}" for name in maps),
        *(f"delete chain {FAMILY} {TABLE} {name}" for name in chains),
        *(f"delete set {FAMILY} {TABLE} {name}" for name in sets),
    ]


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
