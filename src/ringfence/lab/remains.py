# SPDX-License-Identifier: Apache-2.0
"""What is there of a lab that was killed, or that nobody took down; found and removed.

Processes are found by the namespaces that they live in, namespaces by their names, and what engines hold in those by
the namespaces.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ringfence.lab.config import LabPaths

_PATIENCE = 8.0  # seconds for killed processes to be gone


def clean(name: str, paths: LabPaths) -> bool:
    """Remove whatever is left of a lab that no supervisor runs; tell whether namespaces or processes were left."""
    left = _clean_namespaces(name) if os.geteuid() == 0 else False
    _kill_orphans(paths)
    shutil.rmtree(paths.directory, ignore_errors=True)
    return left


def _clean_namespaces(name: str) -> bool:
    from ringfence.lab import fabric  # noqa: PLC0415 - needs the kernel's help, so only with the rights for it

    names = fabric.leftovers(name)
    _end(_processes_in(names))
    fabric.destroy(name)
    return bool(names)


def _end(pids: Iterable[int]) -> None:
    """Kill processes, and wait until they are gone: an agent must pin nothing more when its pins are removed."""
    gone = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            gone.append(os.pidfd_open(pid))
            signal.pidfd_send_signal(gone[-1], signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE
    for process in gone:
        select.select([process], [], [], max(0.0, deadline - time.monotonic()))
        os.close(process)


def _processes_in(names: Sequence[str]) -> Iterator[int]:
    """Find the processes that live in the network namespaces of these names: they can only be the lab's."""
    from ringfence.host import netns  # noqa: PLC0415 - as above

    inodes = {netns.path(name).stat().st_ino for name in names if netns.exists(name)}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and inodes:
            with contextlib.suppress(OSError):  # gone meanwhile
                if (entry / "ns" / "net").stat().st_ino in inodes:
                    yield int(entry.name)


def _kill_orphans(paths: LabPaths) -> None:
    """End the lab's own processes that outlived their supervisor: their command line names the lab's directory."""
    directory = str(paths.directory).encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            ours = b"-m" in words and any(word.startswith(b"ringfence") for word in words)
            if ours and any(word == directory or word.startswith(directory + b"/") for word in words):
                os.kill(int(entry.name), signal.SIGKILL)
