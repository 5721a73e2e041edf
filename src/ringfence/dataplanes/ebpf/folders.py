# SPDX-License-Identifier: Apache-2.0
"""The folders of pins by network namespace: whether there is one, and what to do with it when the namespace goes.

Links in it keep the namespace alive without a name, where nobody would find them again: so they go first. Quick to
import, for those who only ask.
"""

from __future__ import annotations

import os
from pathlib import Path

from ringfence.host import netns
from ringfence.host.bpf import pins
from ringfence.host.nft import Nft

FOLDER = pins.ROOT / "ringfence"

TRACKING = "ringfence-conntrack"
"""The table by which the kernel is told to track connections."""


def folder_of(inode: int, folder: Path = FOLDER) -> Path:
    """Return the folder of a namespace: one that has a link of ours is alive, and no other has its number."""
    return folder / f"net-{inode}"


def present() -> bool:
    """Tell whether there is anything of ours in the calling thread's namespace."""
    namespace = netns.open_own()
    try:
        if folder_of(os.fstat(namespace).st_ino).exists():
            return True
    finally:
        os.close(namespace)
    with Nft() as nft:
        return nft.has_table("inet", TRACKING)


def forget(namespace: Path) -> None:
    """Take away whatever would keep a namespace alive: its links and pins. Nothing there: nothing to do."""
    try:
        folder = folder_of(namespace.stat().st_ino)
    except FileNotFoundError:
        return
    if folder.exists():
        from ringfence.dataplanes.ebpf import instance  # noqa: PLC0415 - see the module's docstring

        for entry in folder.iterdir():
            instance.destroy(entry)
        pins.remove_directory(folder)
