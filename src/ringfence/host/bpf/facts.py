# SPDX-License-Identifier: Apache-2.0
"""What this machine has for programs in the kernel. Tried with the smallest program there is; read where not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ringfence.errors import HostLacks
from ringfence.host import fact
from ringfence.host.bpf import libbpf
from ringfence.host.bpf.links import Family, Hook, NetfilterPlace, TcxPlace, attach_netfilter, attach_tcx
from ringfence.host.bpf.objects import KERNEL_TYPES
from ringfence.host.bpf.pins import ROOT
from ringfence.host.bpf.programs import AttachType, BpfProgram, ProgramType
from ringfence.host.fact import Fact

_USE = "the ebpf engine"
_ACCEPT, _NEXT = 1, -1  # linux/netfilter.h, NF_ACCEPT; linux/bpf.h, TCX_NEXT
_LOOPBACK = 1


def programs() -> Fact:
    """Whether the kernel takes programs from this process."""

    def load() -> str:
        with BpfProgram.constant(_NEXT, ProgramType.SCHED_CLS):
            return "the kernel took a program"

    return fact.tried("BPF", _USE, load, remedy="use a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF")


def netfilter_links() -> Fact:
    """Whether a program can be at netfilter's hooks."""

    def attach() -> str:
        place = NetfilterPlace(Family.IPV4, Hook.FORWARD, 0)
        with BpfProgram.constant(_ACCEPT, ProgramType.NETFILTER, AttachType.NETFILTER) as program:
            attach_netfilter(program, place).close()
        return "a program was at a hook"

    remedy = "use a kernel from 6.4 on with CONFIG_NETFILTER_BPF_LINK"
    return fact.tried("netfilter-BPF", f"{_USE}, at netfilter's hooks", attach, remedy=remedy)


def tcx_links() -> Fact:
    """Whether a program can be at an interface by a link, and needs no queueing discipline there."""

    def attach() -> str:
        with BpfProgram.constant(_NEXT, ProgramType.SCHED_CLS) as program:
            attach_tcx(program, TcxPlace(_LOOPBACK, AttachType.TCX_INGRESS)).close()
        return "a program was at an interface"

    remedy = "use a kernel from 6.6 on with CONFIG_NET_XGRESS"
    return fact.tried("TCX", f"{_USE}, at interfaces", attach, remedy=remedy)


def btf() -> Fact:
    """Whether the kernel describes its own types, so that programs find their way in them."""
    return fact.present("BTF", _USE, KERNEL_TYPES, remedy="use a kernel with CONFIG_DEBUG_INFO_BTF")


def bpffs() -> Fact:
    """Whether there is, or can be, the file system by which programs outlive their loader."""
    name, use = "bpffs", _USE
    mounts, known = fact.read(Path("/proc/self/mounts")), fact.read(Path("/proc/filesystems"))
    if mounts is None or known is None:
        return Fact(name, use, None, "/proc/self/mounts or /proc/filesystems cannot be read")
    places = [line.split()[1] for line in mounts.splitlines() if line.split()[2:3] == ["bpf"]]
    if places:
        return Fact(name, use, True, f"at {', '.join(places)}")
    if "bpf" in known.split():
        return Fact(name, use, True, f"not mounted yet; it will be at {ROOT} when it is needed")
    return Fact(name, use, False, "the kernel knows no file system bpf", "use a kernel with CONFIG_BPF_SYSCALL")


def library() -> Fact:
    """Whether libbpf is installed."""
    try:
        version = libbpf.load_library().libbpf_version_string().decode()
    except HostLacks as error:
        return Fact("libbpf", _USE, False, error.what, error.remedy)
    return Fact("libbpf", _USE, True, version)


PROBES: Sequence[Callable[[], Fact]] = (programs, netfilter_links, tcx_links, btf, bpffs, library)
