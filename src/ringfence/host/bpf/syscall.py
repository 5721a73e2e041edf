# SPDX-License-Identifier: Apache-2.0
"""The system call itself, what its refusals mean, and handles on what it makes.

Its argument is a union of structures (linux/bpf.h, union bpf_attr), given here as bytes; the kernel writes answers
into the same place. Usable from any thread.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import platform
import sys
import weakref
from pathlib import Path
from typing import ClassVar, Final, Self, TypeAlias

from ringfence.errors import HostLacks, HostRefused, RingfenceError

Buffer: TypeAlias = "ctypes.Array[ctypes.c_char]"

# asm/unistd.h of each architecture
_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_NUMBER = _NUMBERS.get(platform.machine())
NOT_SUPPORTED = 524  # ENOTSUPP: the kernel's own, that no libc has a name for
REMEDY = "run this as root"
_ORDER: Final = sys.byteorder

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)
_libc.syscall.restype = ctypes.c_long


class Command(enum.IntEnum):
    """linux/bpf.h, enum bpf_cmd: those that are used here."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_GET_FD_BY_ID = 30
    ENABLE_STATS = 32
    LINK_DETACH = 34


def buffer(content: bytes) -> Buffer:
    """Return a place in memory that holds a copy of some bytes, and that the kernel may write to."""
    return ctypes.create_string_buffer(content, len(content))


def room(size: int) -> Buffer:
    """Return a place in memory for an answer of some size."""
    return ctypes.create_string_buffer(size)


def attempt(command: Command, attr: Buffer) -> int:
    """Make the call: what it returns if it went well, and the negative error number if not."""
    if _NUMBER is None:
        return -errno.ENOSYS
    result = int(_libc.syscall(_NUMBER, command, attr, len(attr)))
    return result if result >= 0 else -ctypes.get_errno()


def call(command: Command, attr: Buffer | bytes, what: str) -> int:
    """Make the call, or raise what its refusal means. ``what`` is the sentence that says what was not to be had."""
    result = attempt(command, buffer(attr) if isinstance(attr, bytes) else attr)
    if result < 0:
        raise refusal(command, -result, what)
    return result


def refusal(command: Command, number: int, what: str) -> RingfenceError:
    """Return the error for an error number."""
    if number == errno.ENOSYS:
        return HostLacks("this kernel has no bpf system call", remedy="use a kernel with CONFIG_BPF_SYSCALL")
    if number == errno.EPERM and not _privileged():
        return HostLacks("BPF needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN", remedy=REMEDY)
    answered = "Operation not supported" if number == NOT_SUPPORTED else os.strerror(number)
    return HostRefused(what, asked=f"bpf({command.name})", answered=answered)


def _privileged() -> bool:
    # EPERM is also the answer to some requests that nobody may make, such as to write to a frozen map.
    return attempt(Command.MAP_GET_NEXT_ID, room(16)) != -errno.EPERM


class Handle:
    """Something in the kernel that this process holds by a file descriptor.

    It ends with its last holder: a process, a pin, an attachment, or something else in the kernel that uses it.
    """

    KIND: ClassVar[str]
    _INODE: ClassVar[str]  # how the kernel calls such descriptors
    _BY_ID: ClassVar[Command]

    def __init__(self, descriptor: int) -> None:
        self.fd = descriptor
        self._release = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def from_pin(cls, path: Path) -> Self:
        """Open what is pinned at a path. Raises ``HostRefused`` if that is nothing, or something of another kind."""
        name = buffer(bytes(path) + b"\0")
        attr = ctypes.addressof(name).to_bytes(8, _ORDER) + bytes(8)
        descriptor = call(Command.OBJ_GET, attr, f"there is no {cls.KIND} pinned at {path}")
        inode = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if inode.replace("_", "-") != f"anon-inode:bpf-{cls._INODE}":  # kernels spell it with either
            os.close(descriptor)
            raise HostRefused(f"what is pinned at {path} is no {cls.KIND}", asked="bpf(OBJ_GET)", answered=inode)
        return cls(descriptor)

    @classmethod
    def from_id(cls, number: int) -> Self:
        """Open what has an id. Raises ``HostRefused`` if there is no such thing (any more)."""
        attr = number.to_bytes(4, _ORDER) + bytes(8)
        return cls(call(cls._BY_ID, attr, f"there is no {cls.KIND} with id {number}"))

    def pin(self, path: Path) -> None:
        """Give it a name in a bpffs, so that it outlives this process; unlink the file to take the name away."""
        name = buffer(bytes(path) + b"\0")
        attr = ctypes.addressof(name).to_bytes(8, _ORDER) + self.fd.to_bytes(4, _ORDER) + bytes(4)
        call(Command.OBJ_PIN, attr, f"the {self.KIND} cannot be pinned at {path}")

    def info(self, size: int, request: bytes = b"") -> bytes:
        """Return what the kernel tells about it: linux/bpf.h, struct bpf_{map,prog,link}_info, as far as it knows it.

        ``request`` is what the structure says when the kernel gets it.
        """
        answer = buffer(request.ljust(size, b"\0"))
        attr = self.fd.to_bytes(4, _ORDER) + size.to_bytes(4, _ORDER) + ctypes.addressof(answer).to_bytes(8, _ORDER)
        call(Command.OBJ_GET_INFO_BY_FD, attr, f"the kernel tells nothing about the {self.KIND}")
        return answer.raw

    def close(self) -> None:
        """Give the descriptor back; using the handle afterwards is an error."""
        self._release()
        self.fd = -1  # the number may be given to something else

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
