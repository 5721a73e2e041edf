# SPDX-License-Identifier: Apache-2.0
"""A flattened program that is kept up equals one that is made from nothing, and tells exactly what has changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.agent.reconcile import Event, State, reconcile
from ringfence.compiler import flat_incremental, flat_parts, ordered
from ringfence.compiler.flat_change import changed, flat_difference
from ringfence.compiler.flat_incremental import KeptFlat
from ringfence.compiler.flatten import flatten
from ringfence.compiler.program import Program
from tests.agent.test_workshop import events, states
from tests.compiler.programs import histories


@pytest.fixture(autouse=True, scope="module")
def large() -> Iterator[None]:
    """Treat small peer sets as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat_parts, "UNDIVIDED", 1)
        patch.setattr(flat_parts, "PART", 2)
        patch.setattr(flat_incremental, "LEAST_FORGOTTEN", 2)
        patch.setattr(ordered, "FEW", 1)
        yield


def follow(kept: KeptFlat, program: Program) -> None:
    """Take in a program, and hold it and the change against those that remember nothing."""
    before = flatten(kept._program, "test")
    assert kept.flat == before
    change = kept.change(program)
    after = flatten(program, "test")

    assert kept.flat == after
    assert change == flat_difference(before, after)
    assert changed(before, change) == after


@settings(max_examples=100, deadline=None)
@given(histories(6))
def test_any_program_may_follow_any(path: list[Program]) -> None:
    """Whatever they share, and whether it is the same object or an equal one."""
    kept = KeptFlat("n", "test")
    for program in [*path, *path]:
        follow(kept, program)


@settings(max_examples=60, deadline=None)
@given(states(), st.lists(st.lists(events(), min_size=1, max_size=3), min_size=4, max_size=14))
def test_every_step_arrives_at_the_flattened_program_of_its_objects(state: State, batches: list[list[Event]]) -> None:
    """As an agent's programs come from one another: what has not changed is the same object."""
    kept = KeptFlat("n1", "test")
    for batch in [[], *batches]:
        state = reconcile(state, batch).state
        assert state.program is not None
        follow(kept, state.program)
