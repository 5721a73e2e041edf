# SPDX-License-Identifier: Apache-2.0
"""A difference made in place: which elements change in which transaction, so that no flow meets a wrong verdict. Pure.

``entanglement`` has made sure that each half of a flow (its client's egress, its server's ingress) changes either by
other rules or by other members, not by both. Then every transaction here moves all halves one way, and what a packet
meets that sees half of it lies between before and after:

=========  ===========================================  =====================================
           a half with other rules, R to S              a half with other members, m to n
=========  ===========================================  =====================================
close      R and S must both allow                      as before
grow       R and S                                      whom m or n allows
shrink     R and S                                      whom n allows
open       S                                            whom n allows
=========  ===========================================  =====================================

Take a flow with both kinds: it passes if R, S and m allow it, then R, S and (m or n), then R, S and n, then S and n.
Each of these is what the old state (R and m) or the new one (S and n) says. Before each transaction that
``moves`` the packets go by that are under way, so that none meets two of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ringfence.dataplanes.nftables.changes import Change, Transaction
from ringfence.dataplanes.nftables.difference import DISPATCH, Difference, Moved, Reset
from ringfence.dataplanes.nftables.elements import Element
from ringfence.dataplanes.nftables.layout import Chain, Names, Rule


@dataclass(frozen=True, slots=True)
class Steps:
    """Transactions in order, and what they need: chains that ask two others, one after the other, and the right
    elements in sets that no packet meets yet.
    """

    chains: tuple[Chain, ...] = ()
    idle: tuple[Change, ...] = ()
    transactions: tuple[Transaction, ...] = ()


def steps(change: Difference, there: Mapping[str, Chain], names: Names) -> Steps:
    """Return how a difference without entanglement is made, where these chains are there."""
    both = _both_chains(change, there, names) if _needs_both(change) else {}
    close = [
        *_resets(change.selves, Reset.growing),
        *_resets(change.isolated, Reset.growing),
        *_moves(moved for moved in change.moved if moved.new is not None and moved not in both),
        *_moves(replace(moved, new=chain.name) for moved, chain in both.items() if moved.old != chain.name),
    ]
    reopen = [
        *_moves(replace(moved, old=chain.name) for moved, chain in both.items()),
        *_moves(moved for moved in change.moved if moved.new is None),
        *_resets(change.isolated, Reset.shrinking),
        *_resets(change.selves, Reset.shrinking),
    ]
    wanted = (
        ("close", close),
        ("grow", list(_resets(change.peers, Reset.growing))),
        ("shrink", list(_resets(change.peers, Reset.shrinking))),
        ("open", reopen),
    )
    return Steps(
        tuple({chain.name: chain for chain in both.values()}.values()),
        (*_resets(change.idle, Reset.growing), *_resets(change.idle, Reset.shrinking)),
        tuple(Transaction(purpose, changes=tuple(changes), moves=True) for purpose, changes in wanted if changes),
    )


def _needs_both(change: Difference) -> bool:
    """Tell whether a pod that gets other rules has to be judged by both for a while.

    If nothing else changes than the rules of one direction, each flow has one half that does, and it changes at once.
    """
    directions = {_direction(moved) for moved in change.moved}
    return bool(change.peers) or len(directions) > 1


def _direction(moved: Moved) -> str:
    return moved.dispatch.removeprefix(DISPATCH).rstrip("0123456789.")


_BOTH = "both"


def _both_chains(change: Difference, there: Mapping[str, Chain], names: Names) -> dict[Moved, Chain]:
    chains = {}
    for moved in change.moved:
        if moved.old is not None and moved.new is not None:
            rules = tuple(dict.fromkeys((*_asked_in_turn(moved.old, there), Rule(f"jump {moved.new}"))))
            chains[moved] = Chain(names.by_content(_BOTH, map(str, rules)), rules)
    return chains


def _asked_in_turn(name: str, there: Mapping[str, Chain]) -> tuple[Rule, ...]:
    """Return the jumps that lead to a chain: what a change that was broken off left in force is taken apart, or each
    attempt would wrap the last one's chain, until the kernel finds them too deep.
    """
    left = there.get(name)
    if name.startswith(f"{_BOTH}-") and left is not None and all(_JUMP.fullmatch(str(rule)) for rule in left.rules):
        return left.rules
    return (Rule(f"jump {name}"),)


_JUMP = re.compile(r"jump \S+")


def _moves(moves: Iterable[Moved]) -> Iterator[Change]:
    """Return the changes of the dispatch: an element is exchanged by deleting and adding it in one transaction."""
    by_map: dict[tuple[str, str], list[Moved]] = {}
    for moved in moves:
        by_map.setdefault((moved.dispatch, moved.key), []).append(moved)
    for (name, key), found in sorted(by_map.items()):
        gone: list[tuple[Element, str]] = [(moved.address, "") for moved in found if moved.old is not None]
        new: list[tuple[Element, str]] = [(m.address, f"jump {m.new}") for m in found if m.new is not None]
        if gone:
            yield Change(False, name, key, tuple(gone))
        if new:
            yield Change(True, name, key, tuple(new))


def _resets(resets: Iterable[Reset], way: Callable[[Reset], tuple[frozenset[Element], ...]]) -> Iterator[Change]:
    for reset in resets:
        for adds, found in zip((False, True), way(reset), strict=True):
            if found:
                yield Change(adds, reset.set.name, reset.set.key, tuple((element, "") for element in found))
