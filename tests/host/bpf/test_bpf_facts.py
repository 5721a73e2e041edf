# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.errors import HostLacks
from ringfence.host import fact
from ringfence.host.bpf import facts, libbpf, links, programs, syscall
from ringfence.host.bpf.maps import BpfMap, MapType
from ringfence.host.bpf.syscall import Buffer, Command
from tests.host.bpf.conftest import without_privileges


def old_kernel(refused: Command, kind: int) -> Callable[[Command, Buffer | bytes, str], int]:
    """Return the system call as a kernel has it that does not know a type of programs, or a hook."""

    def call(command: Command, attr: Buffer | bytes, what: str) -> int:
        words = memoryview(attr).cast("B").cast("I")
        if command is refused and kind in words[:4]:
            raise syscall.refusal(command, errno.EINVAL, what)
        return syscall.call(command, attr, what)

    return call


@pytest.mark.kernel
def test_what_the_engine_needs_of_the_kernel_is_found_by_trying() -> None:
    """Every fact has an answer, and on this machine it is yes."""
    found = {one.name: one for one in (probe() for probe in facts.PROBES)}

    assert list(found) == ["BPF", "netfilter-BPF", "TCX", "BTF", "bpffs", "libbpf"]
    assert {one.there for one in found.values()} == {True}


@pytest.mark.kernel
def test_trying_leaves_no_program_behind() -> None:
    """What was loaded and attached to be tried is gone."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for probe in facts.PROBES:
        probe()

    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.kernel
@pytest.mark.parametrize("probe", [facts.programs, facts.netfilter_links, facts.tcx_links])
def test_without_privileges_the_remedy_is_root(probe: Callable[[], fact.Fact]) -> None:
    """Nobody may try, and is told what to do."""
    found = without_privileges(probe)

    assert found.there is False
    assert found.remedy == "run this as root"


@pytest.mark.kernel
def test_a_map_made_without_privileges_is_a_lack_and_no_refusal() -> None:
    """EPERM is told from the refusals that nobody escapes."""

    def make() -> None:
        BpfMap.create(MapType.HASH, key_size=4, value_size=4, max_entries=1)

    with pytest.raises(HostLacks, match="BPF needs CAP_BPF"):
        without_privileges(make)


@pytest.mark.kernel
def test_an_old_kernel_is_told_by_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 6.4 there is no such type of program, before 6.6 no such attachment: each with its remedy."""
    monkeypatch.setattr(programs, "call", old_kernel(Command.PROG_LOAD, programs.ProgramType.NETFILTER))
    monkeypatch.setattr(links, "call", old_kernel(Command.LINK_CREATE, programs.AttachType.TCX_INGRESS))

    basic, netfilter, tcx = facts.programs(), facts.netfilter_links(), facts.tcx_links()

    assert basic.there is True
    assert (netfilter.there, tcx.there) == (False, False)
    assert "no program of type NETFILTER: Invalid argument" in netfilter.detail
    assert "6.4" in netfilter.remedy
    assert "interface 1, TCX_INGRESS: Invalid argument" in tcx.detail
    assert "6.6" in tcx.remedy


@pytest.mark.parametrize(
    ("mounts", "known", "there", "detail"),
    [
        ("bpf /sys/fs/bpf bpf rw 0 0\n", "nodev\tbpf\n", True, "at /sys/fs/bpf"),
        ("tmpfs /bpf tmpfs rw 0 0\n", "nodev\ttmpfs\nnodev\tbpf\n", True, "not mounted yet"),
        ("tmpfs /bpf tmpfs rw 0 0\n", "nodev\ttmpfs\n", False, "knows no file system"),
    ],
)
def test_a_bpffs_that_can_be_mounted_is_there(
    monkeypatch: pytest.MonkeyPatch,
    mounts: str,
    known: str,
    there: bool,  # noqa: FBT001 - a parameter
    detail: str,
) -> None:
    """Mounted, mountable, or unknown to the kernel."""
    monkeypatch.setattr(fact, "read", lambda file: mounts if file.name == "mounts" else known)

    found = facts.bpffs()

    assert found.there is there
    assert detail in found.detail


def test_a_missing_libbpf_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """With or without privileges."""
    monkeypatch.setattr(libbpf, "LIBRARY", "librf-no-such-thing.so.1")

    found = facts.library()

    assert found.there is False
    assert "librf-no-such-thing.so.1" in found.detail
    assert "apt-get install libbpf1" in found.remedy
