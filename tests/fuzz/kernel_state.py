# SPDX-License-Identifier: Apache-2.0
"""What a kernel holds for an engine, whatever it is called there: equal for two that judge alike, rule by rule.

The eBPF engine's tables are decoded. In an nftables table an object may have the name of another version, where it was
made again beside its like; all that refers to it is then named otherwise too. So each base chain is told with all that
it leads to written out in place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import fields

from ringfence.dataplanes.base import Dataplane
from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.nftables.layout import Chain, Key, Object, Set, VerdictMap, live, written
from ringfence.dataplanes.nftables.observe import observe
from ringfence.host.nft import Nft

_NAMES = re.compile(r"(@|jump |goto )([A-Za-z][\w.\-]*)")


def kernel_state(dataplane: Dataplane, nft: Nft) -> Mapping[str, str]:
    """Return what a dataplane's kernel holds, in words that can be compared."""
    if not isinstance(dataplane, EbpfDataplane):
        return _table_state(nft)
    flat = dataplane.observe()
    assert flat is not None
    parts = {part.name: getattr(flat, part.name) for part in fields(flat)}
    return {
        name: str(sorted(map(str, part.items())) if isinstance(part, dict) else part) for name, part in parts.items()
    }


def _table_state(nft: Nft) -> Mapping[str, str]:
    """Return a digest for each base chain, and by name whatever is there that no packet can meet."""
    observed = observe(nft)
    objects = observed.table.objects()
    told: dict[Key, str] = {}
    state = {
        key[1]: f"{value.hook} {_tell(key, objects, told)}"
        for key, value in objects.items()
        if isinstance(value, Chain) and value.hook is not None
    }
    met = live(observed.table)
    state |= {f"unused {kind} {name}": "" for kind, name in objects if (kind, name) not in met}
    state |= {f"stranger {stranger}": "" for stranger in observed.strangers}
    return {**state, "asleep": str(observed.dormant)}


def _tell(key: Key, objects: Mapping[Key, Object], told: dict[Key, str]) -> str:
    """Return a digest of an object and of all that it leads to, names apart."""
    if key not in told:

        def spelled(found: re.Match[str]) -> str:
            named = "set" if found[1] == "@" else "chain", found[2]
            # "@th,96,8" names no set, but bytes of the packet.
            return found[1] + _tell(named, objects, told) if named in objects else found[0]

        value = objects[key]
        match value:
            case Chain():
                text = "\n".join(_NAMES.sub(spelled, str(rule)) for rule in value.rules)
            case Set():
                text = f"{value.key} {value.interval} {written(value)}"
            case VerdictMap():
                text = f"{value.key} {sorted(_NAMES.sub(spelled, line) for line in written(value))}"
        told[key] = hashlib.sha256(text.encode()).hexdigest()[:12]
    return told[key]
