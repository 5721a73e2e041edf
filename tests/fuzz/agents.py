# SPDX-License-Identifier: Apache-2.0
"""An agent that hears of a cluster's life in any order and any batches knows in the end what a fresh one would list.

What a reflector promises is kept: the changes of one object come in their order, and a list is whole. Everything else
is drawn: how the collections' changes are mixed, how many are taken up at once, which are told twice, and when a
collection is listed anew. Two pods that bear one name after each other are two objects.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from hypothesis import strategies as st

from ringfence.agent.reconcile import Event, Kind, State, Step, decode, reconcile
from ringfence.compiler.diff import diff
from ringfence.kube.changes import Change, Listed, Removed, Upserted
from tests.fuzz.agreement import Disagreement
from tests.fuzz.kernel import program
from tests.fuzz.worlds import NODES, World

Told: TypeAlias = Any
Objects: TypeAlias = Mapping[tuple[str, str], bytes]
"""Objects of a kind by key and uid, as JSON."""

KINDS = {"Namespace": Kind.NAMESPACES, "Node": Kind.NODES, "Pod": Kind.PODS, "NetworkPolicy": Kind.POLICIES}


def objects_of(world: World) -> dict[Kind, Objects]:
    """Return a world's objects as an API server has them."""
    found: dict[Kind, dict[tuple[str, str], bytes]] = {kind: {} for kind in Kind}
    for obj in world.objects:
        meta = obj["metadata"]
        key = f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"]
        found[KINDS[obj["kind"]]][key, meta.get("uid", "")] = msgspec.json.encode(obj)
    return dict(found)


def listed(kind: Kind, objects: Objects) -> Event:
    """Return the event of a list."""
    return Event(kind, Listed({key: decode(kind, raw) for (key, _), raw in objects.items()}))


def changes(kind: Kind, old: Objects, new: Objects) -> Iterator[Event]:
    """Yield the events that lead from one world's objects of a kind to the next's."""
    for identity in sorted(old.keys() | new.keys()):
        change: Change[Told] | None = None
        if identity not in new:
            change = Removed(identity[0], decode(kind, old[identity]))
        elif old.get(identity) != new[identity]:
            change = Upserted(identity[0], decode(kind, new[identity]))
        if change is not None:
            yield Event(kind, change)


@st.composite
def tidings(draw: st.DrawFn, walk: Sequence[World]) -> list[list[Event]]:
    """Draw how an agent hears of a walk: batches of events."""
    lives = [objects_of(world) for world in walk]
    streams = {kind: _stream(draw, kind, [life[kind] for life in lives]) for kind in Kind}
    batches: list[list[Event]] = [[]]
    while streams:
        kind = draw(st.sampled_from(sorted(streams, key=lambda k: k.value)))
        batches[-1].append(streams[kind].pop(0))
        if not streams[kind]:
            del streams[kind]
        if draw(st.booleans()):
            batches.append([])
    return batches


def _stream(draw: st.DrawFn, kind: Kind, life: Sequence[Objects]) -> list[Event]:
    events = [listed(kind, life[0])]
    for old, new in itertools.pairwise(life):
        if draw(st.integers(0, 5)) == 5:
            events.append(listed(kind, new))  # the watch broke, and what happened is only seen in the list
            continue
        for event in draw(st.permutations(list(changes(kind, old, new)))):
            events += [event] * (2 if draw(st.integers(0, 5)) == 5 else 1)
    return events


def check_agent(walk: Sequence[World], batches: Sequence[Sequence[Event]], node: str) -> int:
    """Let an agent hear; its program and its problems must be those of an agent that starts at the end."""
    last = walk[-1]
    step = Step(State(node, settings=last.settings), None, ())
    for batch in batches:
        step = reconcile(step.state, batch)
    fresh = reconcile(
        State(node, settings=last.settings), [listed(kind, objects) for kind, objects in objects_of(last).items()]
    )
    assert step.program is not None
    assert fresh.program is not None
    if step.program != fresh.program:
        what = f"the agent of {node} has another program than one that starts now\n{diff(fresh.program, step.program)}"
        raise Disagreement(what, walk)
    if fresh.program != program(last, node):
        raise Disagreement(f"the agent of {node} compiles another program than tools do from the same objects", walk)
    if step.problems != fresh.problems:
        raise Disagreement(f"the agent of {node} tells of other problems than one that starts now", walk)
    return 3


def draw_and_check(data: st.DataObject, walk: Sequence[World]) -> int:
    """Draw how the agents of both nodes hear of a walk, and check both."""
    return sum(check_agent(walk, data.draw(tidings(walk)), node) for node in NODES)
