# SPDX-License-Identifier: Apache-2.0
"""What a change of policies means: exactly which connections it gains, which it loses, and which rules are responsible.

Both sets of policies are judged in one space, so that nothing falls between its cells: if no pair of classes differs,
no flow of the cluster does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ringfence.model.policy import Direction
from ringfence.semantics.allowed import Allowed, HalfAllowed, PairAllowed
from ringfence.semantics.evaluate import Reason
from ringfence.semantics.exchanges import ClassPair, Exchange, class_pairs, exchange, grounds
from ringfence.semantics.parties import Party
from ringfence.semantics.reachability import exchange_text, party_document, traffic_document
from ringfence.semantics.report import API_VERSION
from ringfence.semantics.wording import Wording


@dataclass(frozen=True, slots=True)
class Change:
    """Traffic from one party to another that passes now and did not (``gained``), or the other way round."""

    gained: bool
    exchange: Exchange
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Differences:
    """Everything that differs; ``notes`` tell what the comparison rests on."""

    changes: tuple[Change, ...]
    wording: Wording
    notes: tuple[str, ...] = ()

    def text(self, change: Change) -> str:
        """Say the traffic of a change; a family in which nothing changes is not named."""
        whole = change.exchange
        changing = tuple(each for each in whole.families if each[1].ever)
        words = exchange_text(Exchange(whole.source, whole.destination, changing), self.wording)
        if len(changing) == len(whole.families):
            return words
        return f"{words} ({', '.join(f'IPv{version}' for version, _ in changing)})"


def differences(
    before: Allowed, after: Allowed, everyone: Iterable[Party], wording: Wording, *, notes: Iterable[str] = ()
) -> Differences:
    """Compare two sets of policies in the space that both were given."""
    parties = tuple(everyone)
    changes = [
        change
        for source in parties
        for destination in parties
        for gained in (False, True)
        if (change := _change(before, after, (source, destination), wording, gained=gained)) is not None
    ]
    return Differences(tuple(changes), wording, tuple(notes))


def _change(
    before: Allowed, after: Allowed, ends: tuple[Party, Party], wording: Wording, *, gained: bool
) -> Change | None:
    old, new = (before, after) if gained else (after, before)

    def judge(pair: ClassPair) -> int:
        return wording.told(_newly(old.between(*pair), new.between(*pair)), pair[0].version)

    found = exchange(before.space, *ends, judge)
    if found is None or not found.ever:
        return None
    because: dict[str, None] = {}
    for pair in class_pairs(before.space, *ends):
        was, now = before.between(*pair), after.between(*pair)
        asked = wording.untold(pair[0].version)
        mask = (_newly(was, now) if gained else _newly(now, was)) & asked
        because.update(dict.fromkeys(_because(was, now, mask, gained=gained)))
    return Change(gained, found, tuple(because))


def _newly(old: PairAllowed, new: PairAllowed) -> int:
    return new.allowed & ~old.allowed


def _because(was: PairAllowed, now: PairAllowed, mask: int, *, gained: bool) -> Iterator[str]:
    """Say what of each half that turned is responsible."""
    halves = ((Direction.EGRESS, was.egress, now.egress), (Direction.INGRESS, was.ingress, now.ingress))
    for direction, before, after in halves:
        denying, allowing = (before, after) if gained else (after, before)
        turned = mask & allowing.allowed & ~denying.allowed
        if turned:
            yield from (f"{direction.value} {each}" for each in _turned(before, after, turned, gained=gained))


def _turned(before: HalfAllowed, after: HalfAllowed, mask: int, *, gained: bool) -> Iterator[str]:
    denying, allowing = (before, after) if gained else (after, before)
    for ground in grounds(allowing, mask):
        if ground.reason is Reason.RULE:
            for rule in ground.rules:
                yield f"allowed by {rule}" if gained else f"no longer allowed by {rule}"
            continue
        # What was not isolated and is, or the other way round: the policies that isolate say why.
        for other in grounds(denying, mask):
            what = ", ".join(map(str, other.rules if other.reason is Reason.RULE else other.policies))
            verb = "denied" if other.reason is Reason.RULE else "isolated"
            yield f"no longer {verb} by {what}" if gained else f"{verb} by {what}"


def document(found: Differences) -> dict[str, Any]:
    """Return the differences as a JSON object."""
    ends = {party.name: party for each in found.changes for party in (each.exchange.source, each.exchange.destination)}
    return {
        "apiVersion": API_VERSION,
        "kind": "ConnectionDiff",
        "same": not found.changes,
        "notes": list(found.notes),
        "ends": [party_document(party) for _, party in sorted(ends.items())],
        "gained": [part for each in found.changes if each.gained for part in _parts(each, found.wording)],
        "lost": [part for each in found.changes if not each.gained for part in _parts(each, found.wording)],
    }


def _parts(change: Change, wording: Wording) -> Iterator[dict[str, Any]]:
    for versions, traffic in change.exchange.told():
        if traffic.ever:
            yield {
                "from": change.exchange.source.name,
                "to": change.exchange.destination.name,
                "ipFamilies": [f"IPv{version}" for version in versions],
                "traffic": traffic_document(traffic.always, wording),
                "trafficForSome": traffic_document(traffic.ever & ~traffic.always, wording),
                "because": list(change.because),
            }
