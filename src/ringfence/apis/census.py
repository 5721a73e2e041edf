# SPDX-License-Identifier: Apache-2.0
"""Who holds which name and which address, kept up as pods come, change and go.

``core.build_cluster`` says it for all pods at once: completed pods and pods without an address do not count; of several
pods with one name, and of several with one address, the one that was created last does (SEMANTICS 26, 28, 29). This
says the same, and looks only at pods that share a name or an address with one that changed. Pure, but for itself: it
changes in place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ringfence.apis.core import Age, Pod, age, endpoint, is_finished
from ringfence.model.addresses import Address
from ringfence.model.cluster import Endpoint, PodKey


@dataclass(frozen=True, slots=True)
class _Counted:
    age: Age
    endpoint: Endpoint

    @property
    def claims(self) -> frozenset[Address]:
        """The addresses that it would hold if nobody newer did; a hostNetwork pod holds none."""
        return frozenset() if self.endpoint.host_network else self.endpoint.addresses


class Census:
    """The endpoints that there are, each with the addresses that are its own. Pods are named by what identifies them
    (the uid).
    """

    def __init__(self, pods: Mapping[str, Pod]) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self._counted: dict[str, _Counted] = {}
        self._named: dict[PodKey, set[str]] = defaultdict(set)
        self._claimed: dict[Address, set[str]] = defaultdict(set)
        self.change(pods)

    def change(self, pods: Mapping[str, Pod | None]) -> dict[str, Endpoint | None]:
        """Take in changed pods (None: gone); returns the endpoints that are others now (None: no more)."""
        looked_at: set[str] = set()
        for identity in pods.keys() & self._counted.keys():
            looked_at |= self._neighbours(identity)
        for identity, pod in pods.items():
            self._exchange(identity, None if pod is None else _counted(pod))
        for identity in pods:
            looked_at |= self._neighbours(identity)
        changed: dict[str, Endpoint | None] = {}
        for identity in looked_at:
            now = self._judge(identity)
            if now != self.endpoints.get(identity):
                changed[identity] = now
                if now is None:
                    del self.endpoints[identity]
                else:
                    self.endpoints[identity] = now
        return changed

    def holder(self, address: Address) -> Endpoint | None:
        """Return the endpoint that an address belongs to, None if it is no pod's."""
        claiming = self._claimed.get(address, ())
        found = (self.endpoints[identity] for identity in claiming if identity in self.endpoints)
        return next((endpoint for endpoint in found if address in endpoint.addresses), None)

    def _exchange(self, identity: str, new: _Counted | None) -> None:
        old = self._counted.pop(identity, None)
        if old is not None:
            _discard(self._named, old.endpoint.key, identity)
            for address in old.claims:
                _discard(self._claimed, address, identity)
        if new is not None:
            self._counted[identity] = new
            self._named[new.endpoint.key].add(identity)
            for address in new.claims:
                self._claimed[address].add(identity)

    def _neighbours(self, identity: str) -> set[str]:
        """Return the pods that may hold more or less because of this one: those with its name, and whoever shares an
        address with one of these.
        """
        one = self._counted.get(identity)
        if one is None:
            return {identity}
        namesakes = self._named[one.endpoint.key]
        if len(namesakes) == 1 and all(len(self._claimed[address]) == 1 for address in one.claims):
            return {identity}
        claims = {address for each in namesakes for address in self._counted[each].claims}
        return namesakes.union({identity}, *(self._claimed[address] for address in claims))

    def _judge(self, identity: str) -> Endpoint | None:
        one = self._counted.get(identity)
        if one is None or not self._is_newest(identity, self._named[one.endpoint.key]):
            return None
        claimed = self._claimed
        own = frozenset(
            [a for a in one.claims if len(claimed[a]) == 1 or self._is_newest(identity, self._contenders(a))]
        )
        return one.endpoint if own == one.endpoint.addresses else replace(one.endpoint, addresses=own)

    def _contenders(self, address: Address) -> Iterator[str]:
        """Return who may hold an address: pods whose name nobody newer bears."""
        for identity in self._claimed[address]:
            if self._is_newest(identity, self._named[self._counted[identity].endpoint.key]):
                yield identity

    def _is_newest(self, identity: str, among: Iterable[str]) -> bool:
        mine = self._counted[identity].age
        return all(other == identity or self._counted[other].age < mine for other in among)


def _counted(pod: Pod) -> _Counted | None:
    """Return a pod if it counts, as ``core.counts`` would tell; its addresses are read only once."""
    if is_finished(pod):
        return None
    found = endpoint(pod)
    return _Counted(age(pod), found) if found.addresses else None


def _discard(index: dict[PodKey, set[str]] | dict[Address, set[str]], key: PodKey | Address, identity: str) -> None:
    found = index[key]  # type: ignore[index]
    found.discard(identity)
    if not found:
        del index[key]  # type: ignore[arg-type]
