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

from ringfence.compiler.compile import Compiling, is_local, places, refuse_unsupported, sorted_entries
from ringfence.compiler.compile_index import PodIndex
from ringfence.compiler.program import EndpointEntry, PeerSetId, Program, RulesetId
from ringfence.model.cluster import Endpoint, Namespace, Node
from ringfence.model.policy import AnyPeer, Policy, PolicySet, Tier
from ringfence.model.settings import Settings

MOST_FORGOTTEN = 1000
"""Policies that may have been exchanged before all is built anew: what was compiled of them is kept until then."""


class KeptProgram:
    """The program of one node, and all that is needed to change it.

    Pods are named by what identifies them (the uid), and their addresses are their own (``compile.placed``). ``worn``
    tells that a new one should take its place. ``own`` is the node's object, None while there is none.
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
        self._pods = dict(pods)
        self._compiling = Compiling(PodIndex(namespaces, pods.values()), places(policies))
        self._forgotten: list[Policy] = []  # kept alive: what was compiled of them is known by their identity
        self._local = {identity: self._entries(pod) for identity, pod in pods.items() if is_local(pod, node)}
        self._asked: dict[RulesetId, frozenset[PeerSetId]] = {}
        self.program = Program(node, own.addresses if own else frozenset(), (), (), (), settings)
        self._assemble(entries=True, peer_sets=True)

    @property
    def worn(self) -> bool:
        """Tell whether so many policies were exchanged that it is time to begin anew."""
        return len(self._forgotten) > MOST_FORGOTTEN

    def change(
        self,
        pods: Mapping[str, Endpoint | None],
        policies: Iterable[tuple[Tier, Policy | None, Policy | None]],
    ) -> Program:
        """Take in changed pods (None: gone), and policies (old and new, either None) of a tier.

        Raises ``Unsupported`` as ``compile_program`` does; this is of no use any more then.
        """
        changed = set()
        peer_sets = numbers = False
        for uid, old, new in _in_order({uid: (self._pods.get(uid), new) for uid, new in pods.items()}):
            self._pods.pop(uid, None)
            if new is not None:
                self._pods[uid] = new
            change = self._compiling.pods.change(old, new)
            peer_sets |= self._compiling.peer_sets.refresh(change)
            numbers |= change.numbers
            changed.add(uid)
        namespaces: set[str] = set()
        for tier, gone, come in policies:
            refuse_unsupported(PolicySet((Tier(tier.name, tier.order, tier.default, (come,) if come else ()),)))
            place = None if come is None else ((tier.order, tier.name, come.order, come.ref), come)
            namespaces |= self._compiling.policies.change(gone, place)
            if gone is not None:
                self._forgotten.append(gone)
        if numbers:
            self._compiling.forget_port_numbers()
            changed |= self._local.keys()
        else:
            changed |= {uid for uid in self._local if self._pods_namespace(uid) in namespaces}
        self._assemble(entries=self._look_again(changed), peer_sets=peer_sets)
        return self.program

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
