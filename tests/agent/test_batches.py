# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.batches import MOST_PARTS, Heard, parts
from ringfence.agent.reconcile import Event, Kind, Unreadable
from ringfence.kube.changes import Listed, Removed, Upserted


def event(kind: Kind, version: object, *, removed: bool = False) -> Heard:
    """Return an event of a kind; what the object is does not matter here."""
    change = Removed if removed else Upserted
    return Heard(0.0, Event(kind, change(f"demo/{version}", Unreadable("x"), str(version))))


def test_policies_and_the_cluster_are_taken_up_apart_in_the_order_of_the_store() -> None:
    """What was heard first is not what happened first: the resourceVersions say."""
    pod, label, policy = event(Kind.PODS, 9), event(Kind.NAMESPACES, 10), event(Kind.POLICIES, 8, removed=True)

    assert parts([pod, label, policy]) == ((policy,), (pod, label))
    assert parts([policy, pod]) == ((policy,), (pod,))


def test_versions_are_numbers_not_texts() -> None:
    """9 is before 10."""
    first, second = event(Kind.PODS, 9), event(Kind.POLICIES, 10)

    assert parts([second, first]) == ((first,), (second,))


def test_versions_that_are_no_numbers_leave_the_order_of_hearing() -> None:
    """A store may count as it likes."""
    first, second = event(Kind.POLICIES, "b"), event(Kind.PODS, "a")

    assert parts([first, second]) == ((first,), (second,))


def test_one_side_alone_is_one_part() -> None:
    """A burst of pods costs one step, and nothing is nothing."""
    pods = [event(Kind.PODS, number) for number in range(50)]

    assert parts(pods) == (tuple(pods),)
    assert parts([]) == ()


def test_batch_that_changes_sides_too_often_stays_whole() -> None:
    """So does one with a relist in it, which tells no order."""
    mixed = [event((Kind.PODS, Kind.POLICIES)[number % 2], number) for number in range(MOST_PARTS + 1)]
    relist = [Heard(0.0, Event(Kind.PODS, Listed({}))), event(Kind.POLICIES, 5)]

    assert parts(mixed) == (tuple(mixed),)
    assert parts(relist) == (tuple(relist),)


@given(st.lists(st.tuples(st.sampled_from(Kind), st.integers(1, 30)), max_size=30))
def test_nothing_is_lost_and_each_kind_keeps_its_order(told: list[tuple[Kind, int]]) -> None:
    """Each watch tells rising versions; whatever the mixture, every event is in one part, in its kind's order."""
    seen = {kind: sorted(version for each, version in told if each is kind) for kind in Kind}
    events = [event(kind, seen[kind].pop(0)) for kind, _ in told]
    cut = [each for part in parts(events) for each in part]

    for kind in Kind:
        assert [each for each in cut if each.event.kind is kind] == [each for each in events if each.event.kind is kind]
    for part in parts(events):
        mixed = len({each.event.kind is Kind.POLICIES for each in part}) == 2
        assert not mixed or len(parts(events)) == 1
