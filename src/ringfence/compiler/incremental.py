# SPDX-License-Identifier: Apache-2.0
"""A program kept up with its cluster: what a change does not touch is neither looked at nor made anew.

``compile_program`` says what a program is. This arrives at an equal one by keeping the indexes that it builds and
exchanging in them the pods and policies that have changed. Whatever did not change in the program is the same object
as before, so that a dataplane finds the difference by identity.

It changes in place, and only forwards: whoever fails in the midst of a change has to begin anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from ringfence.compiler.compile import Compiling, is_local, places, refuse_unsupported, sorted_entries
from ringfence.compiler.compile_index import PodIndex
from ringfence.compiler.program import EndpointEntry, PeerSetId, Program, Ruleset, RulesetId
from ringfence.model.cluster import Endpoint, Namespace, Node
from ringfence.model.policy import AnyPeer, Policy, PolicySet, Tier
from ringfence.model.settings import Settings

LEAST_FORGOTTEN = 1000
"""So many peers of policies that are gone are kept before it is worth while to forget what was compiled of them."""


NO_NAMESPACES: Mapping[str, Namespace | None] = MappingProxyType({})


class _Elsewhere(NamedTuple):
    """What changed namespaces have changed: whether any peer set, and in which of them others may be selected."""

    peer_sets: bool
    selected: frozenset[str]


class KeptProgram:
    """The program of one node, and all that is needed to change it.

    Pods are named by what identifies them (the uid), and their addresses are their own (``compile.placed``). ``own`` is
    the node's object, None while there is none.
    """

    def __init__(
        self,
        namespaces: Mapping[str, Namespace],
        own: Node | None,
        node: str,
        pods: Mapping[str, Endpoint],
        policies: PolicySet,
        settings: Settings,
    ) -> None:
        refuse_unsupported(policies)
        self._node = node
        self._namespaces = dict(namespaces)
        self._pods = dict(pods)
        self._compiling = Compiling(PodIndex(namespaces, pods.values()), places(policies))
        self._weight = sum(map(_weight, policies.policies()))
        self._forgotten: list[Policy] = []  # kept alive: what was compiled of them is known by their identity
        self._forgotten_weight = 0
        self._local = {identity: self._entries(pod) for identity, pod in pods.items() if is_local(pod, node)}
        self._asked: dict[RulesetId, frozenset[PeerSetId]] = {}
        self.program = Program(node, own.addresses if own else frozenset(), (), (), (), settings)
        self._assemble(entries=True, peer_sets=True)

    def ruleset(self, ruleset_id: RulesetId) -> Ruleset | None:
        """Return a ruleset of this program or of one before; None for one that never was, or is long forgotten."""
        return self._compiling.rulesets.get(ruleset_id)

    def move(self, own: Node | None) -> None:
        """Take in the node itself."""
        self.program = replace(self.program, node_addresses=own.addresses if own else frozenset())

    def change(
        self,
        pods: Mapping[str, Endpoint | None],
        policies: Iterable[tuple[Tier, Policy | None, Policy | None]],
        namespaces: Mapping[str, Namespace | None] = NO_NAMESPACES,
    ) -> Program:
        """Take in changed namespaces and pods (None: gone), and policies (old and new, either None) of a tier.

        Raises ``Unsupported`` as ``compile_program`` does; this is of no use any more then.
        """
        compiling = self._compiling
        again: set[str] = set()  # local pods to be compiled anew
        elsewhere = self._change_namespaces(namespaces)
        peer_sets, numbers = elsewhere.peer_sets, False
        for uid, old, new in _in_order({uid: (self._pods.get(uid), new) for uid, new in pods.items()}):
            self._pods.pop(uid, None)
            if new is not None:
                self._pods[uid] = new
            change = compiling.pods.change(old, new)
            peer_sets |= compiling.peer_sets.refresh(change)
            numbers |= change.numbers
            again.add(uid)
        selected = elsewhere.selected | self._change_policies(policies)
        if numbers:
            compiling.forget_port_numbers()
            again |= self._local.keys()
        elif selected:
            again |= {uid for uid in self._local if self._pods_namespace(uid) in selected}
        self._assemble(entries=self._look_again(again), peer_sets=peer_sets)
        if self._forgotten_weight > max(LEAST_FORGOTTEN, self._weight):
            self._forget()
        return self.program

    def _change_namespaces(self, namespaces: Mapping[str, Namespace | None]) -> _Elsewhere:
        peer_sets, selected = False, set()
        for name, new in namespaces.items():
            old = self._namespaces.pop(name, None)
            if new is not None:
                self._namespaces[name] = new
            change = self._compiling.pods.change_namespace(name, old, new)
            peer_sets |= self._compiling.peer_sets.refresh(change)
            if self._compiling.policies.change_namespace(name, old, new):
                selected.add(name)
        return _Elsewhere(peer_sets, frozenset(selected))

    def _change_policies(self, policies: Iterable[tuple[Tier, Policy | None, Policy | None]]) -> frozenset[str]:
        """Exchange policies; returns the namespaces in which others may be selected now."""
        selected: frozenset[str] = frozenset()
        for tier, gone, come in policies:
            refuse_unsupported(PolicySet((Tier(tier.name, tier.order, tier.default, (come,) if come else ()),)))
            place = None if come is None else ((tier.order, tier.name, come.order, come.ref), come)
            selected |= self._compiling.policies.change(gone, place)
            if gone is not None:
                self._forgotten.append(gone)
                self._forgotten_weight += _weight(gone)
                self._weight -= _weight(gone)
            if come is not None:
                self._weight += _weight(come)
        return selected

    def _forget(self) -> None:
        """Let go of what was compiled of policies that are gone: of more than there are, so this pays for itself."""
        used = {ruleset.id for ruleset in self.program.rulesets}
        self._compiling.keep(used)
        self._asked = {ruleset: asked for ruleset, asked in self._asked.items() if ruleset in used}
        self._forgotten.clear()
        self._forgotten_weight = 0

    def _pods_namespace(self, uid: str) -> str:
        pod = self._pods.get(uid)
        return "" if pod is None else pod.key.namespace

    def _look_again(self, uids: Iterable[str]) -> bool:
        """Compile pods anew; tell whether any entry of the program has changed."""
        changed = False
        for uid in uids:
            pod = self._pods.get(uid)
            entries = self._entries(pod) if pod is not None and is_local(pod, self._node) else None
            if entries != self._local.get(uid):
                changed = True
                if entries is None:
                    del self._local[uid]
                else:
                    self._local[uid] = entries
        return changed

    def _entries(self, pod: Endpoint) -> frozenset[EndpointEntry]:
        return frozenset(self._compiling.entries(pod))

    def _assemble(self, *, entries: bool, peer_sets: bool) -> None:
        """Put the program together anew, of the same parts where they have not changed."""
        now = self.program
        endpoints, rulesets, sets = now.endpoints, now.rulesets, now.peer_sets
        if entries:
            endpoints = sorted_entries(entry for each in self._local.values() for entry in each)
            used = {r for entry in endpoints for r in (entry.ingress, entry.egress) if r is not None}
            found = tuple(self._compiling.rulesets[ruleset] for ruleset in sorted(used))
            rulesets = rulesets if found == rulesets else found
        if peer_sets or rulesets is not now.rulesets:
            asked = frozenset().union(*(self._asked_by(ruleset.id) for ruleset in rulesets))
            made = tuple(self._compiling.peer_sets[set_id] for set_id in sorted(asked))
            same = len(made) == len(sets) and all(a is b for a, b in zip(made, sets, strict=True))
            sets = sets if same else made
        self.program = Program(now.node, now.node_addresses, endpoints, rulesets, sets, now.settings)

    def _asked_by(self, ruleset: RulesetId) -> frozenset[PeerSetId]:
        if ruleset not in self._asked:
            rules = self._compiling.rulesets[ruleset].rules
            self._asked[ruleset] = frozenset(rule.peers for rule in rules if not isinstance(rule.peers, AnyPeer))
        return self._asked[ruleset]


def _weight(policy: Policy) -> int:
    """Return about how much was compiled of a policy."""
    rules = (*(policy.ingress or ()), *(policy.egress or ()))
    return 1 + sum(1 if isinstance(rule.peers, AnyPeer) else 1 + len(rule.peers.members) for rule in rules)


def _in_order(
    pods: Mapping[str, tuple[Endpoint | None, Endpoint | None]],
) -> Iterator[tuple[str, Endpoint | None, Endpoint | None]]:
    """Yield changes of pods (old and new) such that an address is given up before another pod takes it.

    The indexes know addresses as those of *some* pod: taken first and given up afterwards, it would be nobody's.
    """
    rest = []
    for uid, (old, new) in pods.items():
        middle = old
        if old is not None and (new is None or not old.addresses <= new.addresses):
            middle = None if new is None else replace(new, addresses=old.addresses & new.addresses)
            yield uid, old, middle
        rest.append((uid, middle, new))
    yield from ((uid, middle, new) for uid, middle, new in rest if middle != new)
