# SPDX-License-Identifier: Apache-2.0
"""Directories of pins: names in a bpffs, by which maps, programs and links outlive the process that made them.

``Handle.pin`` makes a name and ``from_pin`` opens one; here is what is around them. Only below a directory that the
caller names anything is ever taken away.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path

from ringfence.errors import HostLacks, HostRefused
from ringfence.host.bpf.syscall import REMEDY

ROOT = Path("/sys/fs/bpf")

_MAGIC = 0xCAFE4A11  # linux/magic.h, BPF_FS_MAGIC
_STATFS_BYTES = 256  # more than any architecture's struct statfs, which begins with the magic number

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)
_libc.statfs.argtypes = (ctypes.c_char_p, ctypes.c_void_p)


def is_bpffs(directory: Path) -> bool:
    """Tell whether a directory is in a bpffs; False also if there is none."""
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if _libc.statfs(bytes(directory), answer) != 0:
        return False
    return ctypes.c_long.from_buffer(answer).value == _MAGIC


def mount(root: Path = ROOT) -> None:
    """Mount a bpffs on a directory, if it is in none.

    Raises ``HostLacks`` without the privilege or the kernel's help, ``HostRefused`` if the kernel does not do it.
    """
    if is_bpffs(root):
        return
    try:
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise HostLacks(
            f"there is no {root} to mount a bpffs on",
            remedy="mount sysfs on /sys, or use a kernel with CONFIG_BPF_SYSCALL",
        ) from None
    try:
        # By one at a time: a second bpffs on top of the first would hide the pins in that.
        fcntl.flock(directory, fcntl.LOCK_EX)
        if not is_bpffs(root):
            _mount(root)
    finally:
        os.close(directory)


def _mount(root: Path) -> None:
    if _libc.mount(b"bpf", bytes(root), b"bpf", 0, b"mode=0700") == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EPERM:
        raise HostLacks(f"mounting a bpffs on {root} needs CAP_SYS_ADMIN", remedy=REMEDY)
    if number == errno.ENODEV:
        raise HostLacks("this kernel has no bpffs", remedy="use a kernel with CONFIG_BPF_SYSCALL")
    raise HostRefused(
        f"a bpffs cannot be mounted on {root}", asked=f"mount -t bpf bpf {root}", answered=os.strerror(number)
    )


def make_directory(directory: Path) -> None:
    """Make a directory for pins, and those above it, with its bpffs mounted if it is below ``ROOT``."""
    if directory.is_relative_to(ROOT):
        mount()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except PermissionError:
        raise HostLacks(f"the directory of pins {directory} cannot be made", remedy=REMEDY) from None
    except OSError as error:
        if error.errno == errno.EROFS:
            raise HostLacks(
                f"the bpffs on {ROOT} is read-only", remedy=f"make it writable: mount -o remount,rw {ROOT}"
            ) from None
        raise HostRefused(
            f"the directory of pins {directory} cannot be made",
            asked=f"mkdir {directory}",
            answered=error.strerror or "",
        ) from None
    if not is_bpffs(directory):
        raise HostRefused(f"{directory} is in no bpffs", asked=f"mkdir {directory}", answered="")


def listing(directory: Path) -> list[str]:
    """Return the names of the pins in a directory, sorted; none if there is no such directory."""
    try:
        return sorted(entry.name for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False))
    except FileNotFoundError:
        return []


def unlink(path: Path) -> None:
    """Take a pin away, if it is there; what it named ends with its last other holder."""
    path.unlink(missing_ok=True)


def remove_directory(directory: Path) -> None:
    """Take a directory of pins away with all that is in it, its own directories too, if it is there."""
    if not is_bpffs(directory):
        return
    for above, below, names in os.walk(directory, topdown=False):
        for name in names:
            (Path(above) / name).unlink(missing_ok=True)
        for name in below:
            (Path(above) / name).rmdir()
    directory.rmdir()
