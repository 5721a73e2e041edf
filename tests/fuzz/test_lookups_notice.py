# SPDX-License-Identifier: Apache-2.0
"""Do the fuzzers of the eBPF engine find what they are there to find? Faults in its C program and in its writer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.compiler.flat import ProfileId
from ringfence.dataplanes.ebpf import build, layout, render
from ringfence.dataplanes.ebpf.store import Commit, Delta, Store
from ringfence.model.ports import PortRange
from tests.fuzz.fuzzers import Bench
from tests.fuzz.running import fuzz

pytestmark = [pytest.mark.kernel, pytest.mark.search]

EXAMPLES = 200

FAULTS_OF_THE_PROGRAM = {
    "a pod does not reach itself": ("judge.h", "client->pod && client->pod == server->pod", "false"),
    "ranges of ports end at multiples of 256": ("judge.h", ".length = 88", ".length = 80"),
    "an atom without a pair of its own is denied": ("judge.h", "if (!pair && atom)", "if (false)"),
    "a later fragment is read as if it were the first": (
        "packet.h",
        "#define IP_OFFSET 0x1fff",
        "#define IP_OFFSET 0",
    ),
    "an authentication header has another length": ("packet.h", "(extension[1] + 2) * 4", "(extension[1] + 1) * 8"),
    "a reset with a SYN opens a connection": ("packet.h", "TCP_FIN_SYN_RST_ACK 0x17", "TCP_FIN_SYN_RST_ACK 0x12"),
    "neighbour discovery passes from anywhere": ("packet.h", "packet->hop_limit == 255 &&", ""),
    "both ends' egress is asked": ("judge.h", "egress && !ingress", "egress"),
}


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str, str], None]:
    """Return what makes the engine use the C program with a word exchanged."""

    def exchange(name: str, right: str, wrong: str) -> None:
        sources = dict(build._sources())
        assert right.encode() in sources[name]
        sources[name] = sources[name].replace(right.encode(), wrong.encode())
        monkeypatch.setattr(build, "_sources", lambda: sources)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    return exchange


def found(seed: int) -> str:
    """Return what is found."""
    bench = Bench()
    try:
        return fuzz("lookups", bench, seed=seed, examples=EXAMPLES, shrink_seconds=0.0).found
    finally:
        bench.close()


# From these seeds a fault is found after a few examples, or after some more when what is drawn has changed since.
SEEDS = {"ranges of ports end at multiples of 256": 9}


@pytest.mark.parametrize("fault", FAULTS_OF_THE_PROGRAM)
def test_a_faulty_program_is_found(fault: str, changed: Callable[[str, str, str], None]) -> None:
    """The program is compiled from a copy with one fault in it."""
    changed(*FAULTS_OF_THE_PROGRAM[fault])

    assert "answers of the eBPF program are wrong" in found(SEEDS.get(fault, 3))


def begins_ranges_late(patch: pytest.MonkeyPatch) -> None:
    """Make a writer that leaves the first ports of a range out."""
    right = layout.pack_range_keys

    def wrong(profile: ProfileId, protocol: int, ports: PortRange) -> list[bytes]:
        keys = right(profile, protocol, ports)
        return keys[1:]

    patch.setattr(render, "pack_range_keys", wrong)


def forgets_what_lags(patch: pytest.MonkeyPatch) -> None:
    """Make a mirror that takes the seats of the other generation for written."""
    right = Store.plan

    @functools.wraps(right)
    def wrong(self: Store, delta: Delta) -> Commit:
        self.lagging.clear()
        return right(self, delta)

    patch.setattr(Store, "plan", wrong)


def forgets_blocks_around(patch: pytest.MonkeyPatch) -> None:
    """Make a mirror for which nothing is known of an address or block that is taken out."""
    patch.setattr(Store, "_around", lambda *_: 0)


@pytest.mark.parametrize(
    ("fault", "seed"), [(begins_ranges_late, 9), (forgets_what_lags, 3), (forgets_blocks_around, 3)]
)
def test_a_faulty_writer_is_found(
    fault: Callable[[pytest.MonkeyPatch], None], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written into the tables has one fault in it."""
    fault(monkeypatch)

    assert "answers of the eBPF program are wrong" in found(seed)
