# SPDX-License-Identifier: Apache-2.0
"""Persistent maps and sets behave as dictionaries and sets do, and what was there before stays as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.model import persistent
from ringfence.model.persistent import PersistentMap, PersistentSet

SOME = st.frozensets(st.integers(0, 60))


@pytest.fixture(autouse=True, scope="module")
def divided() -> Iterator[None]:
    """Divide small ones too, as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(persistent, "UNDIVIDED", 3)
        yield


@given(st.dictionaries(st.integers(0, 40), st.integers()), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3))))
def test_a_map_is_what_a_dictionary_would_be(items: dict[int, int], changes: list[tuple[int, int]]) -> None:
    """After every change; and the maps before it are what they were."""
    wanted, found = [items], [PersistentMap(items)]
    for key, value in changes:
        if value == 0 and key in wanted[-1]:
            wanted.append({k: v for k, v in wanted[-1].items() if k != key})
            found.append(found[-1].without(key))
        else:
            wanted.append({**wanted[-1], key: value})
            found.append(found[-1].with_item(key, value))

    assert [dict(each) for each in found] == wanted
    assert [len(each) for each in found] == list(map(len, wanted))


@given(SOME, st.lists(st.tuples(SOME, SOME), max_size=6))
def test_a_set_is_what_a_set_would_be(
    first: frozenset[int], changes: list[tuple[frozenset[int], frozenset[int]]]
) -> None:
    """After every exchange; and any two of them compare as sets do."""
    wanted, found = [first], [PersistentSet(first)]
    for gone, come in changes:
        wanted.append((wanted[-1] - gone) | come)
        found.append(found[-1].exchanged(gone, come))

    for one, its in zip(wanted, found, strict=True):
        assert its == one
        assert (len(its), set(its)) == (len(one), set(one))
        assert hash(its) == hash(PersistentSet(one))
        assert all((number in its) == (number in one) for number in range(61))
        assert its & first == one & first
        assert first - its == first - one
        for other, theirs in zip(wanted, found, strict=True):
            assert its - theirs == its - other == one - other
            assert (its == theirs) == (its == other) == (one == other)
            assert PersistentSet.union([its, theirs]) == one | other


@given(SOME, SOME)
def test_an_exchange_that_changes_nothing_returns_the_set_itself(some: frozenset[int], more: frozenset[int]) -> None:
    """So that a set that stayed the same can be told by its identity."""
    found = PersistentSet(some)

    assert found.exchanged(more - some, some) is found
    assert PersistentSet.union([found]) is found


def test_a_set_is_equal_to_nothing_but_sets() -> None:
    """A list of the same members is another thing."""
    assert PersistentSet(frozenset({1})) != [1]
    assert repr(PersistentSet(frozenset({1}))) == "PersistentSet({1})"
