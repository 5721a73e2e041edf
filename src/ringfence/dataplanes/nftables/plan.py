# SPDX-License-Identifier: Apache-2.0
"""From what the kernel holds to what it should hold, as transactions in an order without a window. Pure.

No flow may meet a verdict that neither the old nor the new table gives it, and one nft transaction does not see to
that: a packet keeps the rules that it began with, but asks sets and maps as they are at that moment. Two ways do.

**In place** (``steps``), if the rules of the hooks stay as they are. What the packets of a moment meet is moved one way
at a time, first only ever to less, then only to more:

1. **create** and **fill** what is new, beside everything that is in force. Nothing leads to it yet.
2. **close**: pods that get other rules are judged by the old *and* the new ones; newly isolated pods by the new ones.
3. **grow**, then **shrink**, sets of peers.
4. **open**: pods that get other rules are judged by the new ones alone; others by none any more.
5. **delete** what nothing leads to any more, once no packet is in the midst of it.

**Beside**, if that is not enough (``entanglement`` says when): what changes is made once more under other names, hooks
included, and **switch** exchanges the one rule of each base chain, which a packet follows or does not.

After a kill between any two transactions the old verdicts, the new ones, or those of a moment in between are in force,
which are no others; the next start goes on from there. (Before all, a table that somebody put to sleep is woken.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ringfence.dataplanes.nftables import layout
from ringfence.dataplanes.nftables.changes import Change, Plan, Transaction, lines
from ringfence.dataplanes.nftables.difference import DISPATCH, ISOLATED, SELF, difference
from ringfence.dataplanes.nftables.entanglement import entanglement
from ringfence.dataplanes.nftables.layout import FAMILY, TABLE, Chain, Names, Object, Set, Table, VerdictMap
from ringfence.dataplanes.nftables.observe import Observed
from ringfence.dataplanes.nftables.steps import Steps, steps


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a table cannot be reached under these names: ``bent`` are names whose content somebody changed, ``stale`` are
    names whose content may not change in place.
    """

    bent: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


def make_plan(observed: Observed, wanted: Table, names: Names) -> Plan | Obstacle:
    """Return the plan, or what keeps a table from being reached under the ``names`` that it was rendered with."""
    bent = () if observed.known else tuple(sorted(_bent(observed.table, wanted)))
    if bent:
        return Obstacle(bent=bent)
    if not _same_hooks(observed.table, wanted):
        stale = tuple(sorted(_different(observed.table, wanted)))
        return Obstacle(stale=stale) if stale else _transactions(observed, wanted, Steps())
    change = difference(observed.table, wanted, tidy=observed.known)
    tangled = entanglement(observed.table, wanted, change)
    if tangled:
        return Obstacle(stale=tuple(sorted({*tangled, *_control(wanted)})))
    moves = steps(change, observed.table.chains, names)
    # A start may find them as an earlier one left them, and perhaps as somebody bent them since.
    odd = tuple(chain.name for chain in moves.chains if observed.table.chains.get(chain.name, chain) != chain)
    return Obstacle(bent=odd) if odd else _transactions(observed, wanted, moves)


def _transactions(observed: Observed, wanted: Table, moves: Steps) -> Plan:
    there, goal = observed.table.objects(), wanted.objects()
    new = [value for key, value in goal.items() if key not in there and not _is_base(value)]
    made = [*new, *(chain for chain in moves.chains if ("chain", chain.name) not in there)]
    bases = [chain for chain in wanted.chains.values() if _is_base(chain) and there.get(("chain", chain.name)) != chain]
    meanwhile = [chain for chain in moves.chains if not {("chain", chain.name)} & (goal.keys() | there.keys())]
    leftovers = [*(value for key, value in there.items() if key not in goal), *meanwhile]
    delete = [*_deletion(leftovers), *(f"delete {stranger}" for stranger in observed.strangers)]
    create = layout.creation(made)
    transactions = (
        Transaction("wake", lines([_TABLE] if observed.dormant else [])),  # said without the flag, it wakes up
        Transaction("create", lines([_TABLE, *create] if create else [])),
        Transaction("fill", changes=(*_fill(new), *moves.idle)),
        *moves.transactions,
        Transaction(
            "switch", lines(line for chain in sorted(bases, key=_name) for line in _switch(there, chain)), moves=True
        ),
        Transaction("delete", lines(delete), moves=True),
    )
    return Plan(
        tuple(transaction for transaction in transactions if not transaction.empty),
        added=len(new) + len(bases),
        deleted=len({value.name for value in leftovers} - {chain.name for chain in meanwhile})
        + len(observed.strangers),
    )


def in_force(table: Table) -> Names:
    """Return the versions of what packets meet now, for a start to go on with."""
    found = [layout.plain(name) for kind, name in layout.live(table) if kind == "set"]
    return Names(versions={name: version for name, version in found if version})


_TABLE = f"add table {FAMILY} {TABLE}"
_BY_MEANING = (DISPATCH, ISOLATED, SELF, "peers", "blocks")


def _is_base(value: Object) -> bool:
    return isinstance(value, Chain) and value.hook is not None


def _name(value: Object) -> str:
    return value.name


def _same_hooks(there: Table, wanted: Table) -> bool:
    return all(there.chains.get(chain.name) == chain for chain in wanted.chains.values() if _is_base(chain))


def _bent(there: Table, wanted: Table) -> Iterator[str]:
    """Return the names of objects that are named by their content and have another, or are of another type."""
    for name, chain in wanted.chains.items():
        if not _is_base(chain) and name in there.chains and there.chains[name] != chain:
            yield name
    for name, each in (*wanted.sets.items(), *wanted.maps.items()):
        now = there.sets.get(name) or there.maps.get(name)
        if now is not None and now is not each:
            same_type = type(now) is type(each) and now.key == each.key and _interval(now) == _interval(each)
            if not same_type or (not name.startswith(_BY_MEANING) and now != each) or _has_strangers(now):
                yield name


def _interval(value: Set | VerdictMap) -> bool:
    return isinstance(value, Set) and value.interval


def _has_strangers(value: Set | VerdictMap) -> bool:
    if any(isinstance(element, str) for element in value.elements):
        return True
    if not isinstance(value, VerdictMap):
        return False
    # What is gone to from the dispatch does not come back to it, and the other half of the flow would not be asked.
    ours = ("jump ",) if value.name.startswith(DISPATCH) else ("jump ", "goto ")
    return not all(verdict.startswith(ours) for verdict in value.elements.values())


def _different(there: Table, wanted: Table) -> Iterator[str]:
    """Return the names of what is named by meaning and has other elements than wanted."""
    for name, each in wanted.sets.items():
        now = there.sets.get(name)
        if now is not None and now.elements is not each.elements and now.elements != each.elements:
            yield name
    for name, dispatch in wanted.maps.items():
        if name in there.maps and there.maps[name] != dispatch:
            yield name


def _control(table: Table) -> list[str]:
    """Return the names of the dispatch: under other names it makes other hooks."""
    return [name for name in (*table.sets, *table.maps) if name.startswith((DISPATCH, ISOLATED, SELF))]


def _fill(new: Iterable[Object]) -> Iterator[Change]:
    for value in sorted(new, key=_name):
        match value:
            case Set(elements=elements) if elements:
                yield Change(True, value.name, value.key, tuple((element, "") for element in elements))
            case VerdictMap(elements=verdicts) if verdicts:
                yield Change(True, value.name, value.key, tuple(verdicts.items()))
            case _:
                pass


def _switch(there: dict[layout.Key, Object], base: Chain) -> list[str]:
    where = f"chain {FAMILY} {TABLE} {base.name}"
    make, *rules = layout.creation([base])
    now = there.get(("chain", base.name))
    # A chain that somebody hung elsewhere cannot be moved.
    moved = isinstance(now, Chain) and now.hook != base.hook
    remove = [f"flush {where}", f"delete {where}"] if moved else []
    return [*remove, make, f"flush {where}", *rules]


def _deletion(leftovers: Iterable[Object]) -> list[str]:
    given = list(leftovers)
    chains = sorted(value.name for value in given if isinstance(value, Chain))
    maps = sorted(value.name for value in given if isinstance(value, VerdictMap))
    sets = sorted(value.name for value in given if isinstance(value, Set))
    return [
        *(f"flush chain {FAMILY} {TABLE} {name}" for name in chains),
        *(f"delete map {FAMILY} {TABLE} {name}" for name in maps),
        *(f"delete chain {FAMILY} {TABLE} {name}" for name in chains),
        *(f"delete set {FAMILY} {TABLE} {name}" for name in sets),
    ]
