# SPDX-License-Identifier: Apache-2.0
"""Flattened program in, contents of the kernel's tables out. Pure: slots and what is there already are not known here.

``facts`` are entries that can be written long before they are asked for and lie there long after, because what their
keys name never changes. Addresses and blocks have views instead, which do change, all at once (``apply``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ringfence.compiler.flat import AtomId, FlatProgram, NamedRule, PodIdentity, Profile, RuleId, View
from ringfence.compiler.program import RulesetId
from ringfence.dataplanes.ebpf.layout import (
    TEXT_ROOM,
    ViewNumbers,
    is_found_exactly,
    number,
    pack_address,
    pack_block,
    pack_decision,
    pack_id,
    pack_pair,
    pack_pair_key,
    pack_range_keys,
    pack_text,
    pack_traffic_key,
    settings_bits,
)
from ringfence.errors import Unsupported
from ringfence.model.ports import Protocol

PAIRS, TRAFFIC, RANGES, RULES, PODS = "rf_pairs", "rf_traffic", "rf_ranges", "rf_rules", "rf_pods"
FACTS = (RULES, PODS, RANGES, TRAFFIC, PAIRS)
"""The tables of facts, in the order of writing: what names something before what is asked for it."""

NODE = "0" * 16
"""The key in ``rf_pods`` under which the node's own name stands."""

Entries = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Image:
    """What the tables of a program hold: ``peers`` and ``blocks`` their view (``struct view``) by key."""

    settings: int
    peers: Entries
    blocks: Entries
    facts: Mapping[str, Entries]


def render(flat: FlatProgram) -> Image:
    """Return what the kernel's tables hold for a program. Raises ``Unsupported`` with every reason why they cannot."""
    refuse_long_names(flat.rules.values(), flat.views.values())
    facts: dict[str, Entries] = {name: {} for name in FACTS}
    facts[PODS] = {pack_id(NODE): pack_text(flat.node)}
    for view in flat.views.values():
        if view.pod is not None:
            facts[PODS].update([pod_entry(view.pod)])
    facts[RULES] = dict(rule_entry(rule_id, rule) for rule_id, rule in flat.rules.items())
    for profile in flat.profiles.values():
        facts[TRAFFIC].update(traffic_entries(profile))
        facts[RANGES].update(range_entries(profile))
    facts[PAIRS] = dict(pair_entry(pair, flat.profiles[profile]) for pair, profile in flat.pairs.items())
    return Image(
        settings=settings_bits(flat.settings),
        peers={pack_address(address): pack_view(view) for address, view in flat.views.items()},
        blocks={pack_block(network): pack_block_view(atom) for network, atom in flat.blocks.items()},
        facts=facts,
    )


def refuse_long_names(rules: Iterable[NamedRule | None], views: Iterable[View | None]) -> None:
    """Raise ``Unsupported`` for names that the tables have no room for."""
    texts = {rule_text(rule) for rule in rules if rule is not None}
    texts |= {pod_text(view.pod) for view in views if view is not None and view.pod is not None}
    long = [text for text in texts if len(text.encode()) >= TEXT_ROOM]
    if long:
        raise Unsupported("ebpf", [f"{text}: a name of more than {TEXT_ROOM - 1} bytes" for text in sorted(long)])


def pack_view(view: View) -> bytes:
    """Return a view as the kernel has it."""
    pod = 0 if view.pod is None else number(pod_id(view.pod))
    return ViewNumbers(
        number(view.ingress), number(view.egress), number(view.atom), pod, own_node=view.own_node
    ).packed()


def pack_block_view(atom: AtomId) -> bytes:
    """Return the view of the addresses of a block."""
    return ViewNumbers(0, 0, number(atom), 0, own_node=False).packed()


def pod_id(pod: PodIdentity) -> str:
    """Return the 16 digits that stand for a pod in the kernel."""
    return hashlib.blake2b(pod_text(pod).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def pod_text(pod: PodIdentity) -> str:
    """Return what ``rf_pods`` says of a pod."""
    return f"{pod.key} {pod.uid}"


def rule_text(rule: NamedRule) -> str:
    """Return what ``rf_rules`` says of a rule."""
    return f"{rule.action.value} {rule.origin}"


def pod_entry(pod: PodIdentity) -> tuple[bytes, bytes]:
    """Return the entry of ``rf_pods`` for a pod."""
    return pack_id(pod_id(pod)), pack_text(pod_text(pod))


def rule_entry(rule_id: RuleId, rule: NamedRule) -> tuple[bytes, bytes]:
    """Return the entry of ``rf_rules`` for a rule."""
    return pack_id(rule_id), pack_text(rule_text(rule))


def pair_entry(pair: tuple[RulesetId, AtomId], profile: Profile) -> tuple[bytes, bytes]:
    """Return the entry of ``rf_pairs`` for a ruleset and an atom."""
    return pack_pair_key(*pair), pack_pair(profile.id, profile.rest, (span.ports for span, _ in profile.traffic))


def traffic_entries(profile: Profile) -> Entries:
    """Return the entries of ``rf_traffic`` for a profile: its single ports, and its protocols with all ports."""
    return {
        pack_traffic_key(profile.id, span.protocol.number, span.ports): pack_decision(decision)
        for span, decision in profile.traffic
        if is_found_exactly(span.ports)
    }


def range_entries(profile: Profile) -> Entries:
    """Return the entries of ``rf_ranges`` for a profile: its ranges of ports."""
    return {
        key: pack_decision(decision)
        for span, decision in profile.traffic
        if not is_found_exactly(span.ports)
        for key in pack_range_keys(profile.id, span.protocol.number, span.ports)
    }


PROTOCOLS = {protocol.number: protocol for protocol in Protocol}
"""Protocols by their number in an IP header."""
