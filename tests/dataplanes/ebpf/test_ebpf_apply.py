# SPDX-License-Identifier: Apache-2.0
"""What the engine leaves in the kernel, finds there again, and mends."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.compiler.flat import Decision, ProfileId
from ringfence.compiler.flatten import flatten
from ringfence.compiler.program import Program, empty_program
from ringfence.dataplanes.ebpf import instance
from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.ebpf.folders import TRACKING
from ringfence.dataplanes.ebpf.instance import Instance
from ringfence.dataplanes.ebpf.layout import pack_pair
from ringfence.errors import HostRefused, Unsupported
from ringfence.host import netns
from ringfence.host.bpf.maps import BpfMap
from ringfence.model.cluster import PodKey
from ringfence.model.policy import Action
from ringfence.model.settings import DEFAULTS, Established
from tests.dataplanes.nftables.test_nft_golden import PROGRAMS
from tests.dataplanes.router import VERSIONS, Allow, Router, egress, ingress, make_program

pytestmark = pytest.mark.kernel

CLIENT = make_program(ingress("server", Allow(("client",), ("TCP/80",))))
OTHER = make_program(ingress("server", Allow(("other",), ("TCP/80",))), egress("client"))


@pytest.fixture
def dataplane(router: Router) -> EbpfDataplane:
    """Return the router's engine."""
    assert isinstance(router.dataplane, EbpfDataplane)
    return router.dataplane


def fresh(router: Router) -> EbpfDataplane:
    """Return the engine of an agent that comes later."""
    with netns.enter(router.netns["router"]):
        return EbpfDataplane()


def folder(dataplane: EbpfDataplane) -> Path:
    """Return where the instance is pinned that is in force."""
    (found,) = [each for each in dataplane._place.folder.iterdir() if each.is_dir()]
    return found


def bpftool(*arguments: str) -> str:
    """Run bpftool."""
    return subprocess.run(["bpftool", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_kernel_tells_the_program_that_it_holds(dataplane: EbpfDataplane, name: str) -> None:
    """What is read back is what was compiled; peer sets are known by the digests of their atoms alone."""
    dataplane.apply(PROGRAMS[name])

    assert dataplane.observe() == replace(flatten(PROGRAMS[name], "ebpf"), atoms={})


def test_a_program_that_is_in_force_costs_no_commit(router: Router, dataplane: EbpfDataplane) -> None:
    """Neither of the agent that put it there, nor of the next one."""
    assert dataplane.apply(CLIENT).transactions == 1
    assert dataplane.apply(CLIENT).transactions == 0

    later = fresh(router)
    try:
        assert later.apply(CLIENT).transactions == 0
        assert later.apply(OTHER).transactions == 1
        assert later.observe() == replace(flatten(OTHER, "ebpf"), atoms={})
    finally:
        later.close()


def test_settings_alone_are_a_commit(dataplane: EbpfDataplane) -> None:
    """A program that differs by nothing else is put in force."""
    dataplane.apply(CLIENT)
    kept = replace(CLIENT, settings=replace(DEFAULTS, established=Established.KEEP))

    assert dataplane.apply(kept).transactions == 1

    found = dataplane.observe()
    assert found is not None
    assert found.settings == kept.settings


def _detach(_: Router, pins: Path) -> None:
    bpftool("link", "detach", "pinned", str(pins / "link_forward4"))


def _unpin(_: Router, pins: Path) -> None:
    (pins / "link_input6").unlink()


def _unpin_a_table(_: Router, pins: Path) -> None:
    (pins / "rf_budgets").unlink()


def _unpin_a_program(_: Router, pins: Path) -> None:
    (pins / "rf_ask").unlink()


def _forget_an_address(_: Router, pins: Path) -> None:
    bpftool("map", "delete", "pinned", str(pins / "rf_peers4"), "key", "10", "9", "2", "2")


def _open_a_pair(_: Router, pins: Path) -> None:
    keys = bpftool("map", "getnext", "pinned", str(pins / "rf_pairs"))
    key = keys.split("next key:")[1].split()
    bpftool("map", "update", "pinned", str(pins / "rf_pairs"), "key", "hex", *key, "value", *["1"] + ["0"] * 23)


def _bend_a_seat(_: Router, pins: Path) -> None:
    bpftool("map", "update", "pinned", str(pins / "rf_seats"), "key", "3", "0", "0", "0", "value", *["0"] * 40)


def _cross_wires(_: Router, pins: Path) -> None:
    slot = bpftool("-j", "map", "lookup", "pinned", str(pins / "rf_peers4"), "key", "10", "9", "1", "2")
    value = json.loads(slot)["value"]
    key = ("key", "10", "9", "2", "2", "value", *value)
    bpftool("map", "update", "pinned", str(pins / "rf_peers4"), *key)


def _point_nowhere(_: Router, pins: Path) -> None:
    key = ("key", "10", "9", "2", "2", "value", "0", "0", "1", "0")
    bpftool("map", "update", "pinned", str(pins / "rf_peers4"), *key)


def _track_nothing(router: Router, _: Path) -> None:
    router.nft.run(f"delete table inet {TRACKING}")


@pytest.mark.parametrize(
    "harm",
    [
        _detach,
        _unpin,
        _unpin_a_table,
        _unpin_a_program,
        _forget_an_address,
        _open_a_pair,
        _bend_a_seat,
        _cross_wires,
        _point_nowhere,
        _track_nothing,
    ],
    ids=lambda f: f.__name__,
)
def test_what_others_changed_is_noticed_and_mended(
    router: Router, dataplane: EbpfDataplane, harm: Callable[[Router, Path], None]
) -> None:
    """Then the kernel holds the program again, once, and packets meet it."""
    dataplane.apply(CLIENT)
    assert not dataplane.drifted()
    harm(router, folder(dataplane))

    assert dataplane.drifted()
    assert dataplane.apply(CLIENT).repaired

    assert not dataplane.drifted()
    assert dataplane.observe() == replace(flatten(CLIENT, "ebpf"), atoms={})
    with router.listen("server", 4, 80):
        assert router.connects("client", "server", 4, 80)
        assert not router.connects("other", "server", 4, 80)
    folder(dataplane)


def test_verdicts_of_a_changed_table_are_forgotten(router: Router, dataplane: EbpfDataplane) -> None:
    """What somebody's entry allowed, and was remembered, is allowed no longer once the entry is mended."""
    dataplane.apply(CLIENT)
    with BpfMap.from_pin(folder(dataplane) / "rf_pairs") as pairs:
        for key in dict(pairs.items()):
            pairs.update(key, pack_pair(ProfileId("1"), Decision(None, allowed=True)))
    with router.listen("server", 4, 80):
        assert router.connects("other", "server", 4, 80)

        assert dataplane.drifted()
        dataplane.apply(CLIENT)

        assert not router.connects("other", "server", 4, 80)


@pytest.mark.parametrize("version", VERSIONS)
def test_kernels_that_cannot_be_read_in_place_give_the_same_verdicts(
    router: Router, dataplane: EbpfDataplane, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """There the tracker's memory is read by calls; here both ways are to be had."""
    monkeypatch.setattr(instance, "load", functools.partial(instance.load_reading, in_place=False))
    dataplane.apply(CLIENT)

    with router.listen("server", version, 80), router.listen("server", version, 81):
        assert router.connects("client", "server", version, 80)
        assert not router.connects("client", "server", version, 81)
        assert not router.connects("other", "server", version, 80)


def test_a_refused_program_leaves_the_last_good_one(dataplane: EbpfDataplane) -> None:
    """A rule that passes on, or a name that has no room, is refused with what it is; nothing has changed."""
    dataplane.apply(CLIENT)
    before = dataplane.observe()
    passes = make_program(ingress("server", Allow(("client",), None, Action.PASS)))
    entry = CLIENT.endpoints[0]
    long = replace(CLIENT, endpoints=(replace(entry, pod=PodKey("n" * 300, "p" * 300)), *CLIENT.endpoints[1:]))

    for refused, why in ((passes, "passes to the next tier"), (long, "a name of more than 511 bytes")):
        with pytest.raises(Unsupported, match=why):
            dataplane.apply(refused)
        assert dataplane.observe() == before
        assert not dataplane.drifted()

    assert dataplane.apply(CLIENT).transactions == 0
    dataplane.apply(OTHER)
    assert dataplane.observe() == replace(flatten(OTHER, "ebpf"), atoms={})


def test_what_no_program_needs_is_taken_out_later(dataplane: EbpfDataplane) -> None:
    """It changes no verdict while it is there; a look takes it out, and the tables are as after a fresh start."""
    dataplane.apply(PROGRAMS["blocks"])
    dataplane.apply(CLIENT)
    assert dataplane.observe() == replace(flatten(CLIENT, "ebpf"), atoms={})
    crowded = _entries(dataplane)

    assert not dataplane.drifted()

    assert _entries(dataplane) < crowded
    left = _entries(dataplane)
    dataplane.remove()
    dataplane.apply(CLIENT)
    assert _entries(dataplane) == left


def test_what_others_added_is_gone_when_it_is_mended(dataplane: EbpfDataplane) -> None:
    """A pair that allows everything to an atom that has none of its own is not left until there is time."""
    dataplane.apply(CLIENT)
    before = _entries(dataplane)
    key, value = [str(number) for number in range(16)], ["0"] * 16 + ["1"] + ["0"] * 7
    bpftool("map", "update", "pinned", str(folder(dataplane) / "rf_pairs"), "key", *key, "value", *value)

    assert dataplane.drifted()
    assert dataplane.apply(CLIENT).repaired

    assert _entries(dataplane) == before


def test_what_could_not_be_taken_out_is_found_again(dataplane: EbpfDataplane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slots are not given to others: the next apply looks at the kernel and not at what was meant to be there."""
    dataplane.apply(PROGRAMS["blocks"])
    dataplane.apply(CLIENT)

    def refuse(*_: object) -> None:
        raise HostRefused("no", asked="delete", answered="no")

    with monkeypatch.context() as patch:
        patch.setattr(Instance, "delete", refuse)
        with pytest.raises(HostRefused):
            dataplane.drifted()

    dataplane.apply(OTHER)
    assert not dataplane.drifted()
    assert dataplane.observe() == replace(flatten(OTHER, "ebpf"), atoms={})


def _entries(dataplane: EbpfDataplane) -> int:
    assert dataplane._instance is not None
    store = dataplane._instance.read()
    return sum(len(entries) for entries in store.entries.values())


def _many(count: int) -> Program:
    """Return a program with so many peers."""
    peers = tuple(f"10.{50 + number // 250}.{number % 250}.1/32" for number in range(count))
    return make_program(ingress("server", Allow(("client", *peers), ("TCP/80",))))


def test_a_program_that_does_not_fit_gets_larger_tables(router: Router, dataplane: EbpfDataplane) -> None:
    """Beside those that are there, which then go."""
    dataplane.apply(CLIENT)
    small = folder(dataplane)
    dataplane.apply(_many(2000))

    assert folder(dataplane) != small
    assert dataplane.observe() == replace(flatten(_many(2000), "ebpf"), atoms={})
    with router.listen("server", 6, 80):
        assert router.connects("client", "server", 6, 80)
        assert not router.connects("other", "server", 6, 80)


def test_removed_is_gone(router: Router, dataplane: EbpfDataplane) -> None:
    """Nothing of ours is left, and every packet passes."""
    dataplane.apply(OTHER)
    dataplane.remove()

    assert not dataplane._place.folder.exists()
    assert router.nft.listing("tables") == ""
    assert dataplane.observe() is None
    with router.listen("server", 4, 80):
        assert router.connects("client", "server", 4, 80)


def test_an_empty_program_touches_no_packet(router: Router, dataplane: EbpfDataplane) -> None:
    """Nobody is isolated."""
    dataplane.apply(empty_program("router"))

    with router.listen("server", 4, 80):
        assert router.connects("client", "server", 4, 80)
