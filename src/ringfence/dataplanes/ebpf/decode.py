# SPDX-License-Identifier: Apache-2.0
"""The kernel's tables back into the flattened program that they hold. Pure.

What nothing leads to is passed over: an address that says no more than the block around it, a pair of a ruleset that no
pod has. A killed agent may have left such, and they change no verdict. Which peer sets an atom stands for is not in
the kernel: its id is a digest of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from ringfence.compiler.flat import (
    NO_ATOM,
    AtomId,
    Decision,
    FlatProgram,
    NamedRule,
    PodIdentity,
    Profile,
    ProfileId,
    RuleId,
    View,
)
from ringfence.compiler.program import PortSpan, RulesetId
from ringfence.dataplanes.ebpf.layout import (
    digits,
    settings_of,
    unpack_address,
    unpack_block,
    unpack_decision,
    unpack_id,
    unpack_pair,
    unpack_pair_key,
    unpack_range_key,
    unpack_text,
    unpack_traffic_key,
    unpack_view,
)
from ringfence.dataplanes.ebpf.render import NODE, PAIRS, PODS, PROTOCOLS, RANGES, RULES, TRAFFIC, pod_id
from ringfence.dataplanes.ebpf.store import BLOCKS4, BLOCKS6, PEERS4, PEERS6, Store
from ringfence.model.cluster import PodKey
from ringfence.model.policy import Action, ObjectRef, Origin
from ringfence.model.ports import PortRange


def decode(store: Store) -> FlatProgram:
    """Return the program that the tables hold; ``atoms`` of it is empty."""
    texts = {unpack_id(key): unpack_text(value) for key, value in store.entries[PODS].items()}
    node = texts.pop(NODE, "")
    pods = {pod_id(pod): pod for pod in map(_pod, texts.values())}
    views = {unpack_address(key): _view(view, pods) for name in (PEERS4, PEERS6) for key, view in store.telling(name)}
    blocks = {
        unpack_block(key): AtomId(_atom(view)) for name in (BLOCKS4, BLOCKS6) for key, view in store.telling(name)
    }
    rulesets = {ruleset for view in views.values() for ruleset in (view.ingress, view.egress) if ruleset is not None}
    atoms = {view.atom for view in views.values()} | set(blocks.values()) | {NO_ATOM}
    rests = {
        pair: unpack_pair(value)
        for key, value in store.entries[PAIRS].items()
        if (pair := unpack_pair_key(key))[0] in rulesets and pair[1] in atoms
    }
    profiles = _profiles(store, dict(rests.values()))
    decisions = {decision for p in profiles.values() for decision in (p.rest, *(d for _, d in p.traffic))}
    named = {decision.rule for decision in decisions if decision.rule is not None}
    return FlatProgram(
        node=node,
        settings=settings_of(store.word & 255),
        views=views,
        blocks=blocks,
        atoms={},
        pairs={pair: profile for pair, (profile, _) in rests.items()},
        profiles=profiles,
        rules={
            RuleId(rule): _rule(unpack_text(value))
            for key, value in store.entries[RULES].items()
            if (rule := unpack_id(key)) in named
        },
    )


def _view(data: bytes, pods: dict[str, PodIdentity]) -> View:
    numbers = unpack_view(data)
    return View(
        ingress=RulesetId(digits(numbers.ingress)) if numbers.ingress else None,
        egress=RulesetId(digits(numbers.egress)) if numbers.egress else None,
        pod=pods.get(digits(numbers.pod)) if numbers.pod else None,
        atom=AtomId(digits(numbers.atom)),
        own_node=numbers.own_node,
    )


def _atom(data: bytes) -> str:
    return digits(unpack_view(data).atom)


def _pod(text: str) -> PodIdentity:
    key, _, uid = text.partition(" ")
    namespace, _, name = key.partition("/")
    return PodIdentity(PodKey(namespace, name), uid)


def _rule(text: str) -> NamedRule:
    action, kind, place, path = text.split(" ", 3)
    namespace, _, name = place.rpartition("/")
    return NamedRule(Action(action), Origin(ObjectRef(kind, namespace, name), path))


def _profiles(store: Store, rests: dict[ProfileId, Decision]) -> dict[ProfileId, Profile]:
    found: dict[ProfileId, list[tuple[int, int, int, Decision]]] = defaultdict(list)
    for key, value in store.entries[TRAFFIC].items():
        profile, protocol, ports = unpack_traffic_key(key)
        found[profile].append((protocol, ports.first, ports.last, unpack_decision(value)))
    for key, value in store.entries[RANGES].items():
        profile, protocol, ports = unpack_range_key(key)
        found[profile].append((protocol, ports.first, ports.last, unpack_decision(value)))
    return {profile: Profile(profile, rest, tuple(_joined(found[profile]))) for profile, rest in rests.items()}


def _joined(pieces: Iterable[tuple[int, int, int, Decision]]) -> Iterator[tuple[PortSpan, Decision]]:
    """Join ports that lie side by side and are decided alike."""
    run: tuple[int, int, int, Decision] | None = None
    for piece in sorted(pieces, key=lambda p: p[:2]):
        if run is not None and (run[0], run[2] + 1, run[3]) == (piece[0], piece[1], piece[3]):
            run = (run[0], run[1], piece[2], run[3])
            continue
        if run is not None:
            yield _span(run)
        run = piece
    if run is not None:
        yield _span(run)


def _span(run: tuple[int, int, int, Decision]) -> tuple[PortSpan, Decision]:
    protocol, first, last, decision = run
    return PortSpan(PROTOCOLS[protocol], PortRange(first, last)), decision
