# SPDX-License-Identifier: Apache-2.0
"""What keeps a network namespace alive is found by who is about to delete it, or by the next who tries the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ringfence.compiler.program import empty_program
from ringfence.dataplanes.base import Answer
from ringfence.dataplanes.ebpf import folders
from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.ebpf.place import Place
from ringfence.dataplanes.registry import engine
from ringfence.errors import HostRefused
from ringfence.host import netns
from ringfence.host.bpf.links import BpfLink

pytestmark = pytest.mark.kernel

TRY = """
from ringfence.compiler.program import empty_program
from ringfence.dataplanes.ebpf import folders
from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.ebpf.place import Place
from ringfence.host import netns

def tried():
    with folders.for_a_try() as folder:
        EbpfDataplane(Place(folder)).apply(empty_program("try"))
        print(folder, flush=True)
        input()

netns.in_fresh(tried)
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    """Yield the name of an empty namespace."""
    name = f"rf-fold-{os.getpid()}"
    netns.create(name)
    yield name
    folders.forget(netns.path(name))
    netns.delete(name)


def links(folder: Path) -> list[int]:
    """Return the ids of the links that are pinned somewhere below a folder."""
    found = []
    for pin in folder.rglob("link_*"):
        with BpfLink.from_pin(pin) as link:
            found.append(link.now().id)
    return found


def alive(ids: list[int]) -> list[int]:
    """Return which of the links are still there."""
    found = []
    for number in ids:
        with suppress(HostRefused), BpfLink.from_id(number):
            found.append(number)
    return found


def test_what_is_in_force_is_seen_and_taken_away_without_the_engine(namespace: str) -> None:
    """In the thread's own namespace and no other; ``remove`` needs no object file and no tables."""
    with netns.enter(namespace):
        assert not engine("ebpf").present()
        dataplane = EbpfDataplane()
        dataplane.apply(empty_program("x"))
        dataplane.close()
        assert engine("ebpf").present()
        assert not engine("nftables").present()
        assert not netns.in_fresh(engine("ebpf").present)
        engine("ebpf").remove()
        assert not engine("ebpf").present()


def test_a_namespace_is_forgotten_by_its_file(namespace: str) -> None:
    """From outside: links and pins are gone, and so the namespace can end. Nothing there is no error."""
    with netns.enter(namespace):
        dataplane = EbpfDataplane()
        dataplane.apply(empty_program("x"))
        dataplane.close()
    folder = folders.folder_of(netns.path(namespace).stat().st_ino)
    held = links(folder)
    assert len(alive(held)) == len(held) > 0

    for _ in range(2):
        engine("ebpf").forget(netns.path(namespace))
    engine("ebpf").forget(netns.path("rf-no-such"))

    assert not folder.exists()
    assert alive(held) == []


def test_a_try_that_was_killed_is_taken_away_by_the_next(capfd: pytest.CaptureFixture[str]) -> None:
    """And one that is under way is left alone."""
    tries = [
        subprocess.Popen([sys.executable, "-c", TRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        slain, living = tries
        assert slain.stdout is not None
        assert living.stdout is not None
        left, busy = Path(slain.stdout.readline().strip()), Path(living.stdout.readline().strip())
        held, used = links(left), links(busy)
        assert held
        slain.kill()
        slain.wait()
        assert alive(held) == held

        assert engine("ebpf").probe().answer is Answer.YES

        assert not left.exists()
        assert alive(held) == []
        assert alive(used) == used
        living.communicate("\n")
        assert living.returncode == 0
        assert not busy.exists()
        assert alive(used) == []
    finally:
        for each in tries:
            each.kill()
            each.communicate()
    assert capfd.readouterr().err == ""


def test_a_try_leaves_nothing() -> None:
    """No folder, no pin."""
    with folders.for_a_try() as folder:
        assert Place(folder).folder.parent == folder
        assert folder.is_dir()
    assert not folder.exists()
