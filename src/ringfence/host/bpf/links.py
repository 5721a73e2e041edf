# SPDX-License-Identifier: Apache-2.0
"""Links: what holds a program at a hook. Made in the network namespace of the *calling thread*: see ``netns.entered``.

A link ends with its last holder, and the program is no longer run then; a pinned one outlives its maker. It keeps its
network namespace alive, so who deletes a namespace takes its links away first.
"""

from __future__ import annotations

import enum
import errno
import os
import struct
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from ringfence.errors import HostRefused
from ringfence.host.bpf.programs import AttachType, BpfProgram
from ringfence.host.bpf.syscall import Command, Handle, call

_NETFILTER, _TCX = 10, 11  # linux/bpf.h, enum bpf_link_type
_REPLACE = 4  # linux/bpf.h, BPF_F_REPLACE
_DEFRAGMENT = 1  # linux/bpf.h, BPF_F_NETFILTER_IP_DEFRAG


class Family(enum.IntEnum):
    """linux/netfilter.h, protocol families."""

    IPV4 = 2
    IPV6 = 10


class Hook(enum.IntEnum):
    """linux/netfilter.h, enum nf_inet_hooks."""

    PRE_ROUTING = 0
    LOCAL_IN = 1
    FORWARD = 2
    LOCAL_OUT = 3
    POST_ROUTING = 4


class Among(enum.IntEnum):
    """Where a new program goes among those that are at an interface already: linux/bpf.h, BPF_F_BEFORE and _AFTER."""

    FIRST = 8
    LAST = 16


@dataclass(frozen=True, slots=True)
class NetfilterPlace:
    """A place among the hooks of a network namespace. Lower priorities come first; one program at each."""

    family: Family
    hook: Hook
    priority: int


@dataclass(frozen=True, slots=True)
class TcxPlace:
    """A place at an interface, by its index in the link's namespace; 0 if the link or its interface was taken away."""

    index: int
    attach: AttachType


Place: TypeAlias = NetfilterPlace | TcxPlace


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What a link is now. ``place`` is None for a kind of link that is not made here."""

    id: int
    program_id: int
    place: Place | None


class BpfLink(Handle):
    """One link."""

    KIND = "link"
    _INODE = "link"
    _BY_ID = Command.LINK_GET_FD_BY_ID

    def now(self) -> LinkInfo:
        """Return which program is where, now."""
        kind, number, program, *place = struct.unpack_from("=IIIxxxxIIi", self.info(32))
        if kind == _NETFILTER:
            return LinkInfo(number, program, NetfilterPlace(Family(place[0]), Hook(place[1]), place[2]))
        if kind == _TCX:
            return LinkInfo(number, program, TcxPlace(place[0], AttachType(place[1])))
        return LinkInfo(number, program, None)

    def attached(self, accepting: BpfProgram) -> bool:
        """Tell whether the program is still at the hook: a detached link can be held, and tells its old place.

        Of a link to netfilter's hooks this is told by trying to put ``accepting``, which must let every packet pass,
        into the same place, in the calling thread's namespace: which must be the link's. About 30 µs.
        """
        match self.now().place:
            case NetfilterPlace() as place:
                try:
                    attach_netfilter(accepting, place).close()
                except HostRefused as error:
                    if error.answered != os.strerror(errno.EBUSY):
                        raise
                    return True
                return False
            case TcxPlace(index=index):
                return index != 0
            case None:
                return True
            case never:
                assert_never(never)

    def replace(self, program: BpfProgram, *, instead_of: BpfProgram | None = None) -> None:
        """Put another program in the place of the one that is there, between two packets.

        Not to be had of links to netfilter's hooks: there attach the new one beside the old, then detach the old.
        With ``instead_of``, only if that one is there now.
        """
        attr = struct.pack(
            "=IIII", self.fd, program.fd, _REPLACE if instead_of else 0, instead_of.fd if instead_of else 0
        )
        call(Command.LINK_UPDATE, attr, f"the link's program cannot be replaced by {program.name}")

    def detach(self) -> None:
        """Take the program away from the hook, whoever else holds the link. Once detached it stays so."""
        call(Command.LINK_DETACH, struct.pack("=I", self.fd), "the link cannot be detached")


def attach_netfilter(program: BpfProgram, place: NetfilterPlace, *, defragment: bool = False) -> BpfLink:
    """Run a program at one of netfilter's hooks (kernels from 6.4 on).

    Raises ``HostRefused`` if there is one at the same hook, family and priority already.
    """
    flags = _DEFRAGMENT if defragment else 0
    attr = struct.pack(
        "=IIIIIIiI", program.fd, 0, AttachType.NETFILTER, 0, place.family, place.hook, place.priority, flags
    )
    what = f"{program.name} cannot be attached at {place.family.name} {place.hook.name}, priority {place.priority}"
    return BpfLink(call(Command.LINK_CREATE, attr.ljust(64, b"\0"), what))


def attach_tcx(program: BpfProgram, place: TcxPlace, among: Among = Among.LAST) -> BpfLink:
    """Run a program at an interface (kernels from 6.6 on). It takes about 10 ms: the kernel waits for packets.

    Raises ``HostRefused`` if there is no such interface, or if the same program is there already.
    """
    attr = struct.pack("=IIII", program.fd, place.index, place.attach, among)
    what = f"{program.name} cannot be attached at interface {place.index}, {place.attach.name}"
    return BpfLink(call(Command.LINK_CREATE, attr.ljust(64, b"\0"), what))
