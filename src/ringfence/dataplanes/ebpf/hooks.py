# SPDX-License-Identifier: Apache-2.0
"""Where the programs of an instance stand: at netfilter's hooks, at devices, or both. Pure tables.

At netfilter's hooks one program sees what is routed, after translation, with its connection. What a bridge passes from
port to port it sees only with ``br_netfilter``; kernels before 6.4 have no such links. Programs at devices see every
packet that leaves the node, and on old kernels also what pods send to the node itself.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from ringfence.host.bpf.links import Family, Hook
from ringfence.host.devices import Device

FILTER, ASK, EXIT, EXIT_ALONE, ENTRY = "rf_filter", "rf_ask", "rf_exit", "rf_exit_alone", "rf_entry"


class Hooks(enum.Enum):
    """Where programs stand."""

    NETFILTER = "netfilter"
    TC = "tc"  # at devices as well
    TC_ALONE = "tc-alone"  # at devices, and nowhere else: before Linux 6.4


AUTO = "auto"
"""At netfilter's hooks, and at devices as well if there is a bridge that passes frames on past netfilter."""


class Side(enum.Enum):
    """Of which packets of a device: those that leave the node through it, or those that enter by it."""

    EXIT = "exit"
    ENTRY = "entry"


_NETFILTER = {
    f"{word}{version}": (family, hook)
    for word, hook in (("forward", Hook.FORWARD), ("input", Hook.LOCAL_IN), ("output", Hook.LOCAL_OUT))
    for version, family in (("4", Family.IPV4), ("6", Family.IPV6))
}
AT_NETFILTER: Mapping[Hooks, Mapping[str, tuple[Family, Hook]]] = {
    Hooks.NETFILTER: _NETFILTER,
    Hooks.TC: _NETFILTER,
    Hooks.TC_ALONE: {},
}
"""The links to netfilter's hooks, by the names of their pins."""

AT_DEVICES: Mapping[Hooks, Mapping[Side, str]] = {
    Hooks.NETFILTER: {},
    Hooks.TC: {Side.EXIT: EXIT},
    Hooks.TC_ALONE: {Side.EXIT: EXIT_ALONE, Side.ENTRY: ENTRY},
}
"""The programs at each device."""

AT_SOME_DEVICE = frozenset(name for each in AT_DEVICES.values() for name in each.values())

REASONS: Mapping[Hooks, str] = {
    Hooks.NETFILTER: "one program sees every packet after translation, with its connection (Linux >= 6.4)",
    Hooks.TC: "at devices too, for what a bridge passes on past netfilter",
    Hooks.TC_ALONE: "at devices alone, which needs no links to netfilter's hooks",
}


def programs(hooks: Hooks) -> tuple[str, ...]:
    """Return the names of the programs that are needed."""
    at_netfilter = (FILTER,) if AT_NETFILTER[hooks] else ()
    return (ASK, *at_netfilter, *AT_DEVICES[hooks].values())


def watched(devices: Iterable[Device]) -> list[Device]:
    """Return the devices that need programs: through loopback nothing leaves, through a bridge only by its ports."""
    return [device for device in devices if not device.loopback and device.kind != "bridge"]


def bridges(devices: Iterable[Device]) -> bool:
    """Tell whether there is a bridge with ports."""
    found = list(devices)
    masters = {device.index for device in found if device.kind == "bridge"}
    return any(device.master in masters for device in found)
