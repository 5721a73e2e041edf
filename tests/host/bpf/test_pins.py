# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ringfence.errors import HostRefused
from ringfence.host.bpf import pins
from ringfence.host.bpf.maps import BpfMap, MapType

pytestmark = pytest.mark.kernel


def made() -> BpfMap:
    """Return a map to pin."""
    return BpfMap.create(MapType.HASH, key_size=4, value_size=4, max_entries=1, name="rf_table")


def test_pins_are_listed_and_taken_away(pinned: Path) -> None:
    """Sorted; a missing one, or a missing directory, is no error."""
    with made() as table:
        table.pin(pinned / "rf_b")
        table.pin(pinned / "rf_a")
        assert pins.listing(pinned) == ["rf_a", "rf_b"]
        with pytest.raises(HostRefused, match="the map cannot be pinned at .*rf_a: File exists"):
            table.pin(pinned / "rf_a")

    pins.unlink(pinned / "rf_a")
    pins.unlink(pinned / "rf_a")

    assert pins.listing(pinned) == ["rf_b"]
    assert pins.listing(pinned / "none") == []


def test_a_directory_goes_with_all_that_is_in_it(pinned: Path) -> None:
    """Directories below it too, and twice does no harm."""
    below = pinned / "one" / "two"
    pins.make_directory(below)
    with made() as table:
        table.pin(below / "rf_a")
        table.pin(pinned / "one" / "rf_b")

    pins.remove_directory(pinned / "one")
    pins.remove_directory(pinned / "one")

    assert list(pinned.iterdir()) == []


def test_only_in_a_bpffs_there_are_pins(tmp_path: Path) -> None:
    """Elsewhere nothing is pinned, and nothing is taken away."""
    (tmp_path / "file").touch()
    with pytest.raises(HostRefused, match="is in no bpffs"):
        pins.make_directory(tmp_path / "pins")
    with made() as table, pytest.raises(HostRefused, match="cannot be pinned"):
        table.pin(tmp_path / "rf_a")

    pins.remove_directory(tmp_path)

    assert (tmp_path / "file").exists()


def test_a_bpffs_is_mounted_where_there_is_none(tmp_path: Path) -> None:
    """Once: a second time there is nothing to do. Tried in a mount namespace of a thread's own."""

    def body() -> tuple[bool, bool, int]:
        os_unshare = ctypes.CDLL(None, use_errno=True).unshare
        assert os_unshare(0x00020000) == 0  # CLONE_NEWNS
        assert ctypes.CDLL(None).mount(b"none", b"/", None, 1 << 18 | 0x4000, None) == 0  # MS_PRIVATE, MS_REC
        before = pins.is_bpffs(tmp_path)
        pins.mount(tmp_path)
        pins.mount(tmp_path)
        count = Path("/proc/thread-self/mounts").read_text().count(f" {tmp_path} bpf ")
        return before, pins.is_bpffs(tmp_path), count

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(body).result() == (False, True, 1)
    assert not pins.is_bpffs(tmp_path)


def test_a_bpffs_cannot_be_mounted_on_nothing(tmp_path: Path) -> None:
    """The refusal says what was tried."""
    with pytest.raises(HostRefused, match="No such file") as refused:
        pins.mount(tmp_path / os.urandom(4).hex())

    assert refused.value.asked.startswith("mount -t bpf bpf ")
