# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ringfence.errors import HostLacks, HostRefused
from ringfence.host import process
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
    """Once, though four would do it at once. Tried in a mount namespace of its own."""
    program = f"""
import ctypes, pathlib, threading
from ringfence.host import process
from ringfence.host.bpf import pins
libc = ctypes.CDLL(None)
assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
assert libc.mount(b"none", b"/", None, 1 << 18 | 0x4000, None) == 0  # MS_PRIVATE, MS_REC
root = pathlib.Path({str(tmp_path)!r})
before = pins.is_bpffs(root)
threads = [threading.Thread(target=pins.mount, args=(root,)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
pins.mount(root)
print(before, pins.is_bpffs(root), pathlib.Path("/proc/self/mounts").read_text().count(f" {{root}} bpf "))
"""
    done = process.run([sys.executable, "-c", program])

    assert done.stdout == "False True 1\n"
    assert not pins.is_bpffs(tmp_path)


def test_a_bpffs_cannot_be_mounted_on_nothing(tmp_path: Path) -> None:
    """The lack says where it was tried."""
    with pytest.raises(HostLacks, match="there is no .* to mount a bpffs on"):
        pins.mount(tmp_path / "none")
