# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ringfence.errors import HostRefused
from ringfence.host import netns
from ringfence.host.nft import Nft
from ringfence.host.quiesce import Quiet, wait_for_packets

pytestmark = pytest.mark.kernel

NAME = f"rfnft-{os.getpid()}"


@pytest.fixture
def nft() -> Iterator[Nft]:
    """Yield a handle on the nftables of an empty namespace."""
    netns.create(NAME)
    with netns.enter(NAME):
        handle = Nft()
    yield handle
    handle.close()
    netns.delete(NAME)


def test_a_handle_stays_with_the_namespace_of_its_making(nft: Nft) -> None:
    """What is written from outside, by any thread, lands inside and nowhere else."""
    with ThreadPoolExecutor(1) as other:
        other.submit(nft.run, "add table inet rfnft-probe").result()

    with Nft() as outside:
        assert "rfnft-probe" not in outside.listing("tables")
    assert nft.listing("tables") == "table inet rfnft-probe\n"


def test_a_refused_transaction_changes_nothing_and_is_kept_in_the_error(nft: Nft) -> None:
    """One wrong line undoes all lines; the error holds what was asked and what was answered."""
    text = "add table inet rfnft-a\nadd rule inet rfnft-a nowhere accept\n"

    with pytest.raises(HostRefused) as caught:
        nft.run(text)

    assert caught.value.asked == text
    assert "No such file or directory" in caught.value.answered
    assert nft.listing("tables") == ""


def test_objects_decode_the_json_listing_with_handles(nft: Nft) -> None:
    """Listings come as values; terse ones leave the elements of sets out."""
    nft.run("add table inet rfnft-a\nadd set inet rfnft-a s { type ipv4_addr; elements = { 10.0.0.1 }; }")

    whole = [o["set"] for o in nft.objects("table inet rfnft-a") if "set" in o]
    terse = [o["set"] for o in nft.objects("table inet rfnft-a", terse=True) if "set" in o]

    assert whole[0]["elem"] == ["10.0.0.1"]
    assert "elem" not in terse[0]
    assert whole[0]["handle"] == terse[0]["handle"]


def test_a_closed_handle_is_refused(nft: Nft) -> None:
    """Using a handle after closing it is a programming error, not a crash."""
    nft.close()
    nft.close()

    with pytest.raises(ValueError, match="closed"):
        nft.listing("tables")


def test_the_generation_counts_every_commit_and_nothing_else(nft: Nft) -> None:
    """Each commit counts one, refused ones and listings none."""
    start = nft.generation()

    nft.run("add table inet rfnft-a")
    nft.listing("ruleset")
    with pytest.raises(HostRefused):
        nft.run("add table inet rfnft-b\nadd rule inet rfnft-b nowhere accept")
    nft.run("delete table inet rfnft-a")

    assert nft.generation() == start + 2


def test_waiting_for_packets_returns() -> None:
    """The wait for packets in flight ends by itself, soon."""
    start = time.monotonic()

    wait_for_packets()

    assert time.monotonic() - start < 5


def test_quiet_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started (a limit of the control group), the wait is made at once, and goes on to work."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    quiet = Quiet()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        quiet.begin()
        quiet.wait()
    quiet.begin()
    quiet.wait()
