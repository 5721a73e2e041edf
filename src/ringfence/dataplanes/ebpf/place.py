# SPDX-License-Identifier: Apache-2.0
"""Where instances are: a network namespace, and the folder of pins that goes with it.

Normally there is one instance, named after the version of the C program that it was made from and a number. A later
one takes over from an earlier one in this order: attached, pinned, then the earlier one's links go. So there is none of
the moments with no program, and a kill at any of them leaves either the old, or both, or the new in force.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from ringfence.dataplanes.ebpf import instance
from ringfence.dataplanes.ebpf.build import object_path, object_version
from ringfence.dataplanes.ebpf.devices import Site
from ringfence.dataplanes.ebpf.folders import FOLDER, TRACKING, folder_of
from ringfence.dataplanes.ebpf.hooks import AT_SOME_DEVICE, AUTO, Hooks, bridges
from ringfence.dataplanes.ebpf.instance import Instance
from ringfence.host import netns
from ringfence.host.bpf import pins
from ringfence.host.bpf.programs import BpfProgram
from ringfence.host.nft import Nft

_CALLS = ("iptables", "ip6tables")

# The kernel tracks connections of a network namespace while somebody's rules ask about them. This one asks, and no
# packet ever meets it.
_TRACK = f"""add table inet {TRACKING}
add chain inet {TRACKING} tracks
flush chain inet {TRACKING} tracks
add rule inet {TRACKING} tracks ct state new
"""
_DO_NOT_TRACK = f"add table inet {TRACKING}\ndelete table inet {TRACKING}\n"


class Place:
    """The network namespace of the constructing thread, and its instances.

    ``hooks``: where programs stand; ``auto`` is at netfilter's hooks, and at devices too if a bridge passes frames on
    past those.
    """

    def __init__(self, folder: Path = FOLDER, *, hooks: str = AUTO) -> None:
        self._asked = None if hooks == AUTO else Hooks(hooks)
        # A kernel without links to netfilter's hooks has none to devices either.
        self._site = Site(links=self._asked is not Hooks.TC_ALONE)
        self.folder = folder_of(os.fstat(self._site.namespace).st_ino, folder)
        self._nft = Nft()
        self._tracked_at: int | None = None  # nftables' generation at which connections were last seen to be tracked

    def adopt(self) -> Instance | None:
        """Return the latest finished instance of our own version, None if there is none."""
        for name in self._names():
            hooks = _hooks(name)
            if name.startswith(f"{object_version()}-") and hooks is not None:
                found = instance.adopt(self.folder / name, hooks, self._site)
                if found is not None:
                    return found
        return None

    def make(self, sizes: Mapping[str, int]) -> Instance:
        """Return a new instance, which is not in force yet."""
        return instance.load(object_path(), sizes, self.hooks, self._site)

    def put_in_force(self, made: Instance) -> None:
        """Attach and pin an instance, beside all others."""
        self.track_connections()
        number = 1 + max(map(_number, self._names()), default=0)
        made.put_in_force(self.folder / f"{object_version()}-{made.hooks.value}-{number}")

    def leave_only(self, kept: Instance) -> None:
        """Take all other instances away, finished or not."""
        for name in self._names():
            if self.folder / name != kept.folder:
                self._destroy(name)

    def news(self) -> bool:
        """Tell whether devices came, changed or went since the last time that this was asked."""
        return self._site.news()

    def suits(self, put: Instance) -> bool:
        """Tell whether an instance stands where it should, now that devices are as they are."""
        return put.hooks is self.hooks

    def whole(self, put: Instance) -> bool:
        """Tell whether an instance is at its hooks, and the kernel tracks the connections that it judges by."""
        if not self.suits(put) or not put.whole() or not put.attached():
            return False
        generation = self._nft.generation()
        if generation != self._tracked_at and self._nft.has_table("inet", TRACKING):
            self._tracked_at = generation if "ct state" in self._nft.listing(f"table inet {TRACKING}") else None
        return generation == self._tracked_at

    def clear(self) -> None:
        """Take every instance away, whatever made it."""
        for name in self._names():
            self._destroy(name)
        pins.remove_directory(self.folder)
        self._nft.run(_DO_NOT_TRACK)

    def close(self) -> None:
        """Give back what this process holds."""
        self._nft.close()
        self._site.close()

    @property
    def hooks(self) -> Hooks:
        """Where programs stand, or would."""
        if self._asked is not None:
            return self._asked
        return Hooks.TC if bridges(self._site.listing()) and not self._bridge_filters() else Hooks.NETFILTER

    def _bridge_filters(self) -> bool:
        """Tell whether netfilter sees what a bridge passes on."""
        with netns.entered(self._site.namespace), contextlib.suppress(OSError):
            return all(Path(f"/proc/sys/net/bridge/bridge-nf-call-{each}").read_text() == "1\n" for each in _CALLS)
        return False

    def _destroy(self, name: str) -> None:
        """Take an instance away, finished or not. What is at hooks is found by its pins, filters by their programs'."""
        folder = self.folder / name
        for each in AT_SOME_DEVICE.intersection(pins.listing(folder)):
            with BpfProgram.from_pin(folder / each) as program:
                self._site.sweep([program.id])
        instance.destroy(folder)

    def _names(self) -> list[str]:
        """Return the names of all instances, the latest first."""
        try:
            names = [entry.name for entry in os.scandir(self.folder) if entry.is_dir()]
        except FileNotFoundError:
            return []
        return sorted(names, key=_number, reverse=True)

    def track_connections(self) -> None:
        """Have the kernel track the connections of this namespace."""
        self._nft.run(_TRACK)


def _hooks(name: str) -> Hooks | None:
    """Return where the programs of an instance stand, by its name; None if another version gave it."""
    word = name.partition("-")[2].rpartition("-")[0]
    return next((hooks for hooks in Hooks if hooks.value == word), None)


def _number(name: str) -> int:
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0
