# SPDX-License-Identifier: Apache-2.0
"""Under fire while the engine itself changes: larger tables, another agent, another version of its C program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.dataplanes.ebpf import build
from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.ebpf.place import Place
from ringfence.host import netns
from tests.dataplanes.hammer import ALLOWED, DENIED, PAIRS, Hammer, blocks
from tests.dataplanes.router import Router, ingress, make_program

pytestmark = pytest.mark.kernel

ONE, OTHER = PAIRS["other rules everywhere"]


def standing_by(router: Router) -> EbpfDataplane:
    """Return the engine of an agent that takes over in the router."""
    with netns.enter(router.netns["router"]):
        return EbpfDataplane()


def instances(engine: EbpfDataplane) -> list[str]:
    """Return the names of the instances that are pinned."""
    return sorted(path.name for path in engine._place.folder.iterdir())


def test_tables_are_outgrown(router: Router) -> None:
    """What is built beside takes over; nothing that is allowed gets lost, and nothing else passes."""
    engine = standing_by(router)
    engine.apply(ONE)

    with Hammer(router) as hammer:
        seen = set(instances(engine))
        for count in (400, 1000, 2500, 6000):
            crowd = tuple(f"10.{64 + i // 16384}.{i // 64 % 256}.{4 * (i % 64)}/31" for i in range(count))
            engine.apply(make_program(ingress("server", blocks("10.9.1.0/24", *crowd))))
            assert len(instances(engine)) == 1
            assert not seen.intersection(instances(engine))
            seen.update(instances(engine))

    engine.close()
    assert hammer.sent > len(seen)
    assert hammer.heard == {ALLOWED: hammer.sent, DENIED: 0}


def test_agents_take_over_from_one_another(router: Router) -> None:
    """Each adopts what is there, changes it, and is gone."""
    with standing(router) as hammer:
        for turn in range(1, 21):
            engine = standing_by(router)
            assert engine.apply((ONE, OTHER)[turn % 2]).transactions == 1
            (name,) = instances(engine)
            engine.close()

    assert name.endswith("-1")
    assert hammer.heard == {ALLOWED: hammer.sent, DENIED: 0}


def standing(router: Router) -> Hammer:
    """Put a program in force by an agent that is gone then; return the hammer for it."""
    first = standing_by(router)
    first.apply(ONE)
    first.close()
    return Hammer(router)


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Return what makes the C program that comes with the package another version."""
    sources = build._sources()

    def become(number: int) -> None:
        changed = {**sources, build.MAIN: sources[build.MAIN] + f"/* {number} */\n".encode()}
        monkeypatch.setattr(build, "_sources", lambda: changed)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    return become


def test_upgrades_and_downgrades(router: Router, versions: Callable[[int], None]) -> None:
    """Another version is built beside the one in force and takes over, with the same program or another."""
    seen = set()
    with standing(router) as hammer:
        for turn in range(1, 9):
            versions(turn % 2)
            engine = standing_by(router)
            assert engine.apply((ONE, OTHER)[turn // 2 % 2]).transactions == 1
            (name,) = instances(engine)
            seen.add(name)
            engine.close()

    assert len({name.partition("-")[0] for name in seen}) == 2
    assert hammer.heard == {ALLOWED: hammer.sent, DENIED: 0}


def test_the_hammer_notices_an_engine_that_is_taken_away_first(
    router: Router, monkeypatch: pytest.MonkeyPatch, versions: Callable[[int], None]
) -> None:
    """The same hammer sees what it is to have no program for a moment."""
    right = Place.put_in_force
    monkeypatch.setattr(Place, "put_in_force", lambda self, made: (self.clear(), right(self, made)))
    with standing(router) as hammer:
        for turn in range(1, 5):
            versions(turn % 2)
            engine = standing_by(router)
            engine.apply(ONE)
            engine.close()

    assert hammer.heard[DENIED] > 0
