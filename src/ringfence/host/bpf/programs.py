# SPDX-License-Identifier: Apache-2.0
"""Programs that the verifier has accepted: what they are, and one run of them on a packet of ours."""

from __future__ import annotations

import ctypes
import enum
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from ringfence.host.bpf.syscall import Buffer, Command, Handle, attempt, buffer, call, room

_MOST_MAPS = 64  # that a program may use: linux/bpf_verifier.h, MAX_USED_MAPS
_MOVE_TO_R0, _EXIT = 0xB7, 0x95  # linux/bpf.h: BPF_ALU64 | BPF_MOV | BPF_K, BPF_JMP | BPF_EXIT


class ProgramType(enum.IntEnum):
    """linux/bpf.h, enum bpf_prog_type: those that are used here."""

    SCHED_CLS = 3
    NETFILTER = 32


class AttachType(enum.IntEnum):
    """linux/bpf.h, enum bpf_attach_type: those that are used here."""

    NONE = 0
    NETFILTER = 45
    TCX_INGRESS = 46
    TCX_EGRESS = 47


@dataclass(frozen=True, slots=True)
class TestRun:
    """What a run of a program gave: its return value, the time of one run, and the packet and context after it."""

    retval: int
    duration_ns: int
    data: bytes
    context: bytes


@dataclass(frozen=True, slots=True)
class Cost:
    """How often a program ran, and how long in all, while that was counted: see ``counting``."""

    runs: int
    ns: int


class BpfProgram(Handle):
    """One loaded program. ``tag`` is the kernel's digest of its instructions."""

    KIND = "program"
    _INODE = "prog"
    _BY_ID = Command.PROG_GET_FD_BY_ID

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        info = self.info(80)
        self.kind, self.id = map(int, struct.unpack_from("=II", info))
        self.tag = info[8:16].hex()
        self.name = info[64:80].rstrip(b"\0").decode()

    @classmethod
    def constant(cls, returns: int, kind: ProgramType, attach: AttachType = AttachType.NONE) -> Self:
        """Load the smallest program there is: it returns a number, whatever it is run on."""
        code = buffer(struct.pack("=BBhiBBhi", _MOVE_TO_R0, 0, 0, returns, _EXIT, 0, 0, 0))
        license_ = buffer(b"GPL\0")
        head = struct.pack("=IIQQ", kind, len(code) // 8, ctypes.addressof(code), ctypes.addressof(license_))
        tail = struct.pack("=16sII", b"rf_constant", 0, attach)
        what = f"the kernel takes no program of type {kind.name}"
        return cls(call(Command.PROG_LOAD, head + bytes(24) + tail, what))

    def map_ids(self) -> tuple[int, ...]:
        """Return the ids of the maps that it uses."""
        ids = room(4 * _MOST_MAPS)
        count = struct.unpack_from(
            "=I", self.info(64, bytes(52) + struct.pack("=IQ", _MOST_MAPS, ctypes.addressof(ids))), 52
        )
        return struct.unpack_from(f"={count[0]}I", ids)

    def cost(self) -> Cost:
        """Return what its runs cost so far."""
        nanoseconds, runs = struct.unpack_from("=QQ", self.info(208), 192)
        return Cost(runs, nanoseconds)

    def test_run(self, data: bytes, *, context: bytes = b"", repeat: int = 1) -> TestRun:
        """Run it on a packet, ``repeat`` times; what the context is depends on the program's type."""
        packet, before, after = buffer(data), buffer(context), room(len(context))
        out = room(len(data) + 256)
        attr = _request(self.fd, packet, before, repeat=repeat, out=out, after=after)
        call(Command.PROG_TEST_RUN, attr, f"the program {self.name} cannot be run on a packet")
        retval, _, length = struct.unpack_from("=III", attr, 4)
        duration, _, context_length = struct.unpack_from("=III", attr, 36)
        return TestRun(retval, duration, out.raw[:length], after.raw[:context_length])


@contextmanager
def counting() -> Iterator[None]:
    """Have the kernel count the runs of all programs, and their time. Each run then takes some 20 ns longer."""
    attr = struct.pack("=I", 0)  # linux/bpf.h, BPF_STATS_RUN_TIME
    descriptor = call(Command.ENABLE_STATS, attr, "the kernel does not count what programs cost")
    try:
        yield
    finally:
        os.close(descriptor)


class Runner:
    """Runs one program on packet after packet, with what the calls need prepared once. To be used by one thread.

    ``context`` is what the program is given with each packet; ``context_after`` shows what it made of the last one's.
    """

    def __init__(self, program: BpfProgram, *, longest: int, context: bytes = b"") -> None:
        self._program = program
        self._packet = room(longest)
        self._packet_view = memoryview(self._packet).cast("B")
        self._context, self._after = buffer(context), room(len(context))
        self.context_after = memoryview(self._after).cast("B")
        self._attr = _request(program.fd, self._packet, self._context, after=self._after if context else None)
        self._words = memoryview(self._attr).cast("B").cast("I")

    def __call__(self, data: bytes) -> int:
        """Run it on a packet; return what it returned."""
        length = len(data)
        self._packet_view[:length] = data
        self._words[2] = length
        self._words[3] = 0  # where the kernel has told the last packet's length: it would refuse a longer one
        if attempt(Command.PROG_TEST_RUN, self._attr) < 0:
            call(Command.PROG_TEST_RUN, self._attr, f"the program {self._program.name} cannot be run on a packet")
        return self._words[1]


def _request(
    program: int,
    packet: Buffer,
    before: Buffer,
    *,
    repeat: int = 0,
    out: Buffer | None = None,
    after: Buffer | None = None,
) -> Buffer:
    """Return the argument of a test run: linux/bpf.h, union bpf_attr, test."""
    return buffer(
        struct.pack(
            "=IIIIQQIIIIQQIIIxxxx",
            program,
            0,
            len(packet),
            len(out) if out else 0,
            ctypes.addressof(packet),
            ctypes.addressof(out) if out else 0,
            repeat,
            0,
            len(before),
            len(after) if after else 0,
            ctypes.addressof(before) if len(before) else 0,
            ctypes.addressof(after) if after else 0,
            0,
            0,
            0,
        )
    )
