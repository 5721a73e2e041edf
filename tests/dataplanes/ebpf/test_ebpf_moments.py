# SPDX-License-Identifier: Apache-2.0
"""The whole old program or the whole new one: every flow at every moment of an engine's life, in a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ringfence.dataplanes.ebpf import apply, store
from ringfence.dataplanes.ebpf.instance import Instance
from ringfence.dataplanes.ebpf.layout import NOTHING
from ringfence.dataplanes.ebpf.render import FACTS, Entries
from ringfence.dataplanes.ebpf.store import Commit, Delta, Store, slot_number
from tests.dataplanes.ebpf.ebpf_lives import Life, Quiet, live

pytestmark = pytest.mark.search


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_packet_meets_a_mix_of_programs_at_any_moment(data: st.DataObject) -> None:
    """Whatever is written, taken out, left behind or outgrown, and whoever is killed over it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apply, "MUCH_UNUSED", data.draw(st.sampled_from((0, 5, 4096))))
        patch.setattr(store, "LEAST_ENTRIES", data.draw(st.sampled_from((2, 40, 256))))
        live(data, Life(patch))


def says_nothing_at_first(patch: pytest.MonkeyPatch) -> None:
    """Make a mirror in which a new address or block says at first that nothing is known of it."""
    right = Store._place

    def wrong(self: Store, name: str, keys: Iterable[bytes], fresh: dict[int, bytes]) -> Entries:
        placed = right(self, name, keys, fresh)
        fresh.update((slot_number(value), NOTHING) for value in placed.values())
        return placed

    patch.setattr(Store, "_place", wrong)


def forgets_what_lags(patch: pytest.MonkeyPatch) -> None:
    """Make a mirror that takes the seats of the other generation for written."""
    right = Store.plan

    def wrong(self: Store, delta: Delta) -> Commit:
        self.lagging.clear()
        return right(self, delta)

    patch.setattr(Store, "plan", wrong)


def writes_what_is_read(patch: pytest.MonkeyPatch) -> None:
    """Make a writer that has the generations the wrong way round."""
    right = Instance.write

    def wrong(self: Instance, commit: Commit) -> None:
        right(self, replace(commit, seats={index ^ 1: view for index, view in commit.seats.items()}))

    patch.setattr(Instance, "write", wrong)


def leaves_what_is_gone(patch: pytest.MonkeyPatch) -> None:
    """Make a mirror in which an address or block that goes says nothing, not what is around it."""
    patch.setattr(Store, "_around", lambda *_: 0)


def places_before_seats(patch: pytest.MonkeyPatch) -> None:
    """Make a writer that writes where an address is told before what is told there."""
    right = Instance.write

    def wrong(self: Instance, commit: Commit) -> None:
        for name in store.PLACES:
            self._put(name, commit.entries.get(name, {}))
        right(self, commit)

    patch.setattr(Instance, "write", wrong)


def facts_after_all(patch: pytest.MonkeyPatch) -> None:
    """Make a writer that puts the new program in force before all of its facts are there."""
    right = Instance.write

    def wrong(self: Instance, commit: Commit) -> None:
        facts = {name: commit.entries.get(name, {}) for name in FACTS}
        right(self, replace(commit, entries={name: commit.entries.get(name, {}) for name in store.PLACES}))
        for name, entries in facts.items():
            self._put(name, entries)

    patch.setattr(Instance, "write", wrong)


def waits_for_nobody(patch: pytest.MonkeyPatch) -> None:
    """Make an engine that does not wait for the packets that began before its last commit."""
    patch.setattr(Quiet, "wait", lambda _: None)


def settings_at_once(patch: pytest.MonkeyPatch) -> None:
    """Make an engine that leaves the generation as it is when settings change, whatever else does."""
    right = Store.plan

    def wrong(self: Store, delta: Delta) -> Commit:
        before = self.word
        commit = right(self, delta)
        if before & 255 != commit.word & 255:
            self.word = before & ~255 | commit.word & 255
        return replace(commit, word=self.word)

    patch.setattr(Store, "plan", wrong)


@pytest.mark.parametrize(
    "fault",
    [
        says_nothing_at_first,
        forgets_what_lags,
        writes_what_is_read,
        leaves_what_is_gone,
        places_before_seats,
        facts_after_all,
        waits_for_nobody,
        settings_at_once,
    ],
    ids=lambda fault: fault.__name__,
)
def test_the_model_notices(fault: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Without any one of the engine's precautions, some packet meets a mix."""

    @settings(
        max_examples=2000,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    @given(st.data())
    def careless(data: st.DataObject) -> None:
        with pytest.MonkeyPatch.context() as patch:
            fault(patch)
            live(data, Life(patch))

    with pytest.raises(AssertionError, match="a mix of programs in generation|the tables hold another program"):
        careless()
