# SPDX-License-Identifier: Apache-2.0
"""What a change of the flattened program is in the tables' bytes. Pure: costs what changes, whatever is there."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.compiler.flat import FlatProgram, Profile, ProfileId
from ringfence.compiler.flat_change import FlatChange
from ringfence.dataplanes.ebpf.layout import pack_address, pack_block, pack_id, pack_pair_key, settings_bits
from ringfence.dataplanes.ebpf.render import (
    PAIRS,
    PODS,
    RANGES,
    RULES,
    TRAFFIC,
    Entries,
    pack_block_view,
    pack_view,
    pair_entry,
    pod_entry,
    range_entries,
    refuse_long_names,
    rule_entry,
    traffic_entries,
)
from ringfence.dataplanes.ebpf.store import PLACES, Delta, table_of_address, table_of_block


def render_change(change: FlatChange, flat: FlatProgram, gone: Mapping[ProfileId, Profile]) -> Delta:
    """Return what to do to the tables. ``flat`` is after the change; ``gone`` are profiles that it has no more.

    Raises ``Unsupported`` as ``render`` does. Pods that are gone are not told.
    """
    refuse_long_names(change.rules.values(), change.views.values())
    views: dict[str, dict[bytes, bytes | None]] = {name: {} for name in PLACES}
    pods: Entries = {}
    for address, view in change.views.items():
        key = pack_address(address)
        views[table_of_address(key)][key] = None if view is None else pack_view(view)
        if view is not None and view.pod is not None:
            pods.update([pod_entry(view.pod)])
    for network, atom in change.blocks.items():
        key = pack_block(network)
        views[table_of_block(key)][key] = None if atom is None else pack_block_view(atom)
    come = [profile for profile in change.profiles.values() if profile is not None]
    left = [gone[profile_id] for profile_id, profile in change.profiles.items() if profile is None]
    pairs = {pair: profile for pair, profile in change.pairs.items() if profile is not None}
    return Delta(
        settings=settings_bits(flat.settings),
        views=views,
        added={
            RULES: dict(rule_entry(rule_id, rule) for rule_id, rule in change.rules.items() if rule is not None),
            PODS: pods,
            TRAFFIC: {key: value for profile in come for key, value in traffic_entries(profile).items()},
            RANGES: {key: value for profile in come for key, value in range_entries(profile).items()},
            PAIRS: dict(pair_entry(pair, flat.profiles[profile]) for pair, profile in pairs.items()),
        },
        unused={
            RULES: [pack_id(rule_id) for rule_id, rule in change.rules.items() if rule is None],
            PAIRS: [pack_pair_key(*pair) for pair, profile in change.pairs.items() if profile is None],
            TRAFFIC: [key for profile in left for key in traffic_entries(profile)],
            RANGES: [key for profile in left for key in range_entries(profile)],
        },
    )
