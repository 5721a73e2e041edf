# SPDX-License-Identifier: Apache-2.0
"""Whether a difference can be made in place, or which sets have to be made once more beside. Pure.

A flow is judged in two *halves*: its client's egress and its server's ingress. The steps of ``steps`` take each half
that changes through values that lie between its old and its new one, and the whole verdict with it, if

1. no half is changed both by other rules (its pod moved) and by other members of the sets that these rules ask: the
   members are then those of the new state before the rules are, and a flow could meet new members under old rules;
2. no flow gains one half and loses the other by members alone: growing before shrinking would let it pass meanwhile;
3. no set that changes is asked by a rule that drops: growing it takes away, and the order would be the wrong way round.

A single event (a pod, a policy) keeps all three, but for edits that change a rule's blocks and the rules beside it at
once. Pods that were not known before, or are no more, do not matter: nobody lets packets from or to them pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ringfence.dataplanes.nftables.difference import DISPATCH, SELF, Difference, Reset
from ringfence.dataplanes.nftables.elements import Element, Pair
from ringfence.dataplanes.nftables.layout import Chain, Key, Object, Table, reachable
from ringfence.model.addresses import Address


def entanglement(there: Table, wanted: Table, change: Difference) -> frozenset[str]:
    """Return the names of sets that may not change in place; none where everything may."""
    if not change.peers:
        return frozenset()
    resets = {("set", reset.set.name): reset for reset in change.peers}
    found = set(_dropping(resets, (*there.chains.values(), *wanted.chains.values())))
    mixed = any(reset.plus for reset in change.peers) and any(reset.minus for reset in change.peers)
    if change.moved or mixed:
        objects = {**there.objects(), **wanted.objects()}
        pods = _pods(there) & _pods(wanted)
        found |= {*_under_other_rules(change, resets, objects, pods), *_across_halves(resets, objects, pods)}
    return frozenset(name for _, name in found)


def _pods(table: Table) -> frozenset[Address]:
    """Return the addresses of the pods that a table knows."""
    return frozenset(
        pair.one
        for name, each in table.sets.items()
        if name.startswith(SELF)
        for pair in each.elements
        if isinstance(pair, Pair)
    )


def _under_other_rules(
    change: Difference, resets: Mapping[Key, Reset], objects: Mapping[Key, Object], pods: frozenset[Address]
) -> Iterable[Key]:
    asked: dict[tuple[str | None, str | None], frozenset[Key]] = {}
    for moved in change.moved:
        if moved.address not in pods:
            continue
        chains = moved.old, moved.new
        if chains not in asked:
            roots = [("chain", chain) for chain in chains if chain is not None]
            asked[chains] = reachable(objects, roots) & resets.keys()
        for key in asked[chains]:
            if resets[key].concerns_others(moved.address):
                yield key


def _across_halves(
    resets: Mapping[Key, Reset], objects: Mapping[Key, Object], pods: frozenset[Address]
) -> Iterable[Key]:
    """Flows whose one end is gained as a peer of ingress while the other is lost as one of egress, or the reverse."""
    gains: dict[str, dict[Element, Key]] = {"ingress": {}, "egress": {}}
    losses: dict[str, dict[Element, Key]] = {"ingress": {}, "egress": {}}
    for direction, gained_here in gains.items():
        roots = [key for key in objects if key[1].startswith(DISPATCH + direction)]
        for key in reachable(objects, roots) & resets.keys():
            reset = resets[key]
            gained_here.update(dict.fromkeys(reset.covered(reset.plus, pods), key))
            losses[direction].update(dict.fromkeys(reset.covered(reset.minus, pods), key))
    for one, other in (("ingress", "egress"), ("egress", "ingress")):
        for gained, key in gains[one].items():
            for lost, its_key in losses[other].items():
                if gained != lost:
                    yield from (key, its_key)


def _dropping(resets: Mapping[Key, Reset], chains: Iterable[Chain]) -> Iterable[Key]:
    return (key for chain in chains for key in chain.drops_by if key in resets)
