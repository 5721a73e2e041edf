# SPDX-License-Identifier: Apache-2.0
"""Where instances are: a network namespace, and the folder of pins that goes with it.

Normally there is one instance, named after the version of the C program that it was made from and a number. A later
one takes over from an earlier one in this order: attached, pinned, then the earlier one's links go. So there is none of
the moments with no program, and a kill at any of them leaves either the old, or both, or the new in force.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ringfence.dataplanes.ebpf import instance
from ringfence.dataplanes.ebpf.build import object_path, object_version
from ringfence.dataplanes.ebpf.folders import FOLDER, TRACKING, folder_of
from ringfence.dataplanes.ebpf.instance import Instance
from ringfence.host import netns
from ringfence.host.bpf import pins
from ringfence.host.nft import Nft

# The kernel tracks connections of a network namespace while somebody's rules ask about them. This one asks, and no
# packet ever meets it.
_TRACK = f"""add table inet {TRACKING}
add chain inet {TRACKING} tracks
flush chain inet {TRACKING} tracks
add rule inet {TRACKING} tracks ct state new
"""
_DO_NOT_TRACK = f"add table inet {TRACKING}\ndelete table inet {TRACKING}\n"


class Place:
    """The network namespace of the constructing thread, and its instances."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._namespace = netns.open_own()
        self.folder = folder_of(os.fstat(self._namespace).st_ino, folder)
        self._nft = Nft()
        self._tracked_at: int | None = None  # nftables' generation at which connections were last seen to be tracked

    def adopt(self) -> Instance | None:
        """Return the latest finished instance of our own version, None if there is none."""
        for name in self._names():
            if name.startswith(f"{object_version()}-"):
                found = instance.adopt(self.folder / name)
                if found is not None:
                    return found
        return None

    def make(self, sizes: Mapping[str, int]) -> Instance:
        """Return a new instance, which is not in force yet."""
        return instance.load(object_path(), sizes)

    def put_in_force(self, made: Instance) -> None:
        """Attach and pin an instance, beside all others."""
        self.track_connections()
        number = 1 + max(map(_number, self._names()), default=0)
        made.attach(self._namespace)
        made.pin(self.folder / f"{object_version()}-{number}")

    def leave_only(self, kept: Instance) -> None:
        """Take all other instances away, finished or not."""
        for name in self._names():
            if self.folder / name != kept.folder:
                instance.destroy(self.folder / name)

    def whole(self, put: Instance) -> bool:
        """Tell whether an instance is at its hooks, and the kernel tracks the connections that it judges by."""
        if not put.whole() or not put.attached(self._namespace):
            return False
        generation = self._nft.generation()
        if generation != self._tracked_at and TRACKING in self._nft.listing("tables inet"):
            self._tracked_at = generation if "ct state" in self._nft.listing(f"table inet {TRACKING}") else None
        return generation == self._tracked_at

    def clear(self) -> None:
        """Take every instance away, whatever made it."""
        for name in self._names():
            instance.destroy(self.folder / name)
        pins.remove_directory(self.folder)
        self._nft.run(_DO_NOT_TRACK)

    def close(self) -> None:
        """Give back what this process holds."""
        self._nft.close()
        os.close(self._namespace)

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


def _number(name: str) -> int:
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0
