# SPDX-License-Identifier: Apache-2.0
"""The system calls that make a container and that Python lacks; each raises ``OSError`` naming what failed."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
_PR_SET_NAME = 15
_CAPABILITY_VERSION = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.syscall.restype = ctypes.c_long
# pivot_root(2) has no wrapper in the C library; its number differs between processors.
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system, or with ``MS_BIND`` a directory or file that is there already."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None)
    _check(result, f"mount {source} on {target}")


def unmount(target: str) -> None:
    """Detach a mount and everything under it; it ends when nobody uses it any more."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def pivot_root(root: str) -> None:
    """Make the mount at ``root`` this mount namespace's root and detach the old one with all that is mounted there."""
    os.chdir(root)
    # "." twice puts the old root over the new one (pivot_root(2), NOTES); detaching it uncovers the new one.
    _check(_libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), f"pivot_root {root}")
    unmount(".")
    os.chdir("/")


def unshare(flags: int) -> None:
    """Give the caller (for ``CLONE_NEWPID``: its next children) namespaces of its own."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Join namespaces: those of ``flags`` of a process (a pidfd), or one namespace's file."""
    _check(_libc.setns(descriptor, flags), "setns")


def prctl(option: int, value: int) -> None:
    """Change an attribute of the calling process."""
    _check(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def drop_bounding(kept: frozenset[int]) -> None:
    """Take all capabilities but these out of the reach of what the calling process executes, root or not."""
    for number in range(64):
        if number in kept:
            continue
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno == errno.EINVAL:
                break  # the kernel knows no higher number
            raise


def keep_capabilities(kept: frozenset[int]) -> None:
    """Give up the calling process's own capabilities but these."""
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, data), "capget")
    _, low, _, _, high, _ = struct.unpack("6I", data.raw)
    mask = sum(1 << number for number in kept) & (high << 32 | low)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _check(_libc.capset(header, struct.pack("6I", low, low, 0, high, high, 0)), "capset")


class Title:
    """The memory in which /proc finds a process's arguments and environment; read before forking."""

    def __init__(self) -> None:
        fields = Path("/proc/self/stat").read_text(errors="replace").rpartition(")")[2].split()
        # Counted from the state, the third field: arg_start, arg_end, env_start, env_end are 48 to 51.
        self._start, self._end, env_start, self._last = (int(fields[number - 3]) for number in range(48, 52))
        if not 0 < self._start < self._end <= env_start < self._last:
            raise OSError(errno.ENOTSUP, "this kernel does not tell where a process's arguments are")

    def write(self, arguments: Sequence[str]) -> None:
        """Show other arguments, for a process that became another program without exec; its environment is wiped.

        The C library must not use the initial environment any more. Arguments that do not fit are cut off.
        """
        text = b"\0".join([*(word.encode() for word in arguments), b""])
        if len(text) > self._end - self._start:
            # A last byte that is no NUL tells the kernel that one string goes on into the environment.
            text = b" ".join(word.encode() for word in arguments)[: self._last - self._start - 1]
        ctypes.memmove(self._start, text.ljust(self._last - self._start, b"\0"), self._last - self._start)
        name = ctypes.create_string_buffer(arguments[0].rsplit("/", 1)[-1].encode()[:15])
        _check(_libc.prctl(_PR_SET_NAME, ctypes.addressof(name), 0, 0, 0), "prctl PR_SET_NAME")
