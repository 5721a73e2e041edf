# SPDX-License-Identifier: Apache-2.0
"""Who reaches whom: every exchange between the parties of a cluster, as a value and as a JSON document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ringfence.semantics.allowed import Allowed, HalfAllowed
from ringfence.semantics.exchanges import ClassPair, Exchange, Traffic, class_pairs, exchange, grounds
from ringfence.semantics.parties import Kind, Party
from ringfence.semantics.report import API_VERSION
from ringfence.semantics.wording import Wording

EVER_SELF = "a pod always reaches itself, and its own node always reaches it: no policy stops that"


@dataclass(frozen=True)
class Reachability:
    """What some of the parties of a cluster may exchange.

    ``exchanges`` holds those of the chosen pairs of which something can be said, nothing allowed included: a pair of
    ends that are no pods, or that have no address family in common, is left out.
    """

    sources: tuple[Party, ...]
    destinations: tuple[Party, ...]
    exchanges: tuple[Exchange, ...]
    wording: Wording
    allowed: Allowed
    notes: tuple[str, ...] = ()
    _texts: dict[object, str] = field(default_factory=dict, repr=False)
    _said: dict[tuple[int, int], dict[str, None]] = field(default_factory=dict, repr=False)

    @cached_property
    def by_ends(self) -> dict[tuple[str, str], Exchange]:
        """The exchanges by the names of source and destination."""
        return {(each.source.name, each.destination.name): each for each in self.exchanges}

    def because(self, found: Exchange) -> tuple[str, str]:
        """Say what decides an exchange at the source's egress and at the destination's ingress: about the traffic that
        passes, or about all of it where none does.
        """
        egress: dict[str, None] = {}
        ingress: dict[str, None] = {}
        for pair in class_pairs(self.allowed.space, found.source, found.destination):
            judged, asked = self.allowed.between(*pair), self.wording.untold(pair[0].version)
            mask = asked & judged.allowed if found.ever else asked
            egress.update(self._words(judged.egress, mask))
            ingress.update(self._words(judged.ingress, mask))
        return "; ".join(egress), "; ".join(ingress)

    def _words(self, half: HalfAllowed, mask: int) -> dict[str, None]:
        # Halves are shared by many pairs and live as long as ``allowed``.
        found = self._said.get((id(half), mask))
        if found is None:
            words = (word for ground in grounds(half, mask) for word in ground.words())
            found = self._said[id(half), mask] = dict.fromkeys(words)
        return found

    def text(self, found: Exchange) -> str:
        """Say an exchange in a few words."""
        said = self._texts.get(found.families)
        if said is None:
            said = self._texts[found.families] = exchange_text(found, self.wording)
        return said


def reachability(
    allowed: Allowed,
    everyone: Iterable[Party],
    wording: Wording,
    *,
    chosen: Callable[[Party, Party], bool],
    notes: Iterable[str] = (),
) -> Reachability:
    """Return what the chosen pairs of parties may exchange."""

    def judge(pair: ClassPair) -> int:
        return wording.told(allowed.between(*pair).allowed, pair[0].version)

    parties = tuple(everyone)
    found = tuple(
        made
        for source in parties
        for destination in parties
        if chosen(source, destination) and (made := exchange(allowed.space, source, destination, judge)) is not None
    )
    sources, destinations = {each.source.name for each in found}, {each.destination.name for each in found}
    return Reachability(
        tuple(party for party in parties if party.name in sources),
        tuple(party for party in parties if party.name in destinations),
        found,
        wording,
        allowed,
        tuple(notes),
    )


def exchange_text(found: Exchange, wording: Wording) -> str:
    """Say an exchange: "TCP/80", "none", "TCP/80 (some pods)", "all (IPv4); none (IPv6)"."""
    told = list(found.told())
    if len(told) == 1:
        return _traffic_text(told[0][1], wording)
    return "; ".join(
        f"{_traffic_text(traffic, wording)} ({', '.join(f'IPv{v}' for v in versions)})" for versions, traffic in told
    )


def _traffic_text(traffic: Traffic, wording: Wording) -> str:
    if traffic.always == traffic.ever:
        return wording.text(traffic.always)
    partly = f"{wording.text(traffic.ever & ~traffic.always)} (some pods)"
    return f"{wording.text(traffic.always)}, {partly}" if traffic.always else partly


def document(reached: Reachability) -> dict[str, Any]:
    """Return who reaches whom as a JSON object: the parties, and each exchange in which something is allowed."""
    ends = {party.name: party for party in (*reached.sources, *reached.destinations)}
    return {
        "apiVersion": API_VERSION,
        "kind": "Reachability",
        "notes": list(reached.notes),
        "ends": [party_document(party) for party in ends.values()],
        "connections": [
            {"from": each.source.name, "to": each.destination.name, **part}
            for each in reached.exchanges
            for part in _parts(each, reached.wording)
        ],
    }


def party_document(party: Party) -> dict[str, Any]:
    """Return a party as a JSON object."""
    owner = party.workload
    return {
        "name": party.name,
        "kind": party.kind.value,
        "namespace": party.namespace,
        "workload": {"kind": owner.kind, "name": owner.name} if owner else None,
        "pods": [key.name for key in party.pods],
        "networks": [str(network) for network in party.networks],
        "addresses": [] if party.kind is Kind.OUTSIDE else [str(a) for _, m in party.parts for a in m.addresses],
    }


def _parts(found: Exchange, wording: Wording) -> Iterator[dict[str, Any]]:
    for versions, traffic in found.told():
        if traffic.ever:
            yield {
                "ipFamilies": [f"IPv{version}" for version in versions],
                "allowed": traffic_document(traffic.always, wording),
                "allowedForSome": traffic_document(traffic.ever & ~traffic.always, wording),
            }


def traffic_document(mask: int, wording: Wording) -> list[dict[str, Any]]:
    """Return a set of spans as JSON: a list of protocols with their ports; ``ports`` null for port-less protocols."""
    return [
        {
            "protocol": protocol.value,
            "ports": [{"first": each.first, "last": each.last} for each in ranges] if ranges else None,
        }
        for protocol, ranges in wording.listed(mask)
    ]
