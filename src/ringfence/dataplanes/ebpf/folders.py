# SPDX-License-Identifier: Apache-2.0
"""The folders of pins by network namespace: whether there is one, and what to do with it when the namespace goes.

Links in it keep the namespace alive without a name, where nobody would find them again: so they go first. Who only
tries something does it in a folder of its own, whose lock tells later ones whether it is still at it: a try that is
killed leaves a namespace that has no name at all. Quick to import, for those who only ask.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from ringfence.host import netns
from ringfence.host.bpf import pins
from ringfence.host.nft import Nft

FOLDER = pins.ROOT / "ringfence"
TRIES = FOLDER / "tries"

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
    with contextlib.suppress(FileNotFoundError):
        _destroy(folder_of(namespace.stat().st_ino))


@contextlib.contextmanager
def for_a_try() -> Iterator[Path]:
    """Make a folder to use in place of ``FOLDER``, and take it away at the end with all that is in it.

    Those of processes that were killed are taken away before.
    """
    pins.make_directory(TRIES)
    with _locked(TRIES):
        _sweep()
        folder = TRIES / secrets.token_hex(8)
        pins.make_directory(folder)
        held = contextlib.ExitStack()
        held.enter_context(_locked(folder))
    with held:
        try:
            yield folder
        finally:
            _clear(folder)


def sweep() -> None:
    """Take away what tries have left that were killed."""
    with contextlib.suppress(FileNotFoundError), _locked(TRIES):
        _sweep()


def _sweep() -> None:
    for folder in TRIES.iterdir():
        with contextlib.suppress(BlockingIOError, FileNotFoundError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            _clear(folder)


def _clear(tried: Path) -> None:
    for folder in tried.iterdir():
        _destroy(folder)
    pins.remove_directory(tried)


def _destroy(folder: Path) -> None:
    if folder.exists():
        from ringfence.dataplanes.ebpf import instance  # noqa: PLC0415 - see the module's docstring

        for entry in folder.iterdir():
            instance.destroy(entry)
        pins.remove_directory(folder)


@contextlib.contextmanager
def _locked(directory: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
