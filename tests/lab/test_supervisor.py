# SPDX-License-Identifier: Apache-2.0
"""Agents of another engine take the place of those that run, one after the other."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.errors import HostRefused, UsageError
from ringfence.lab.config import LabPaths
from ringfence.lab.supervisor import SETTLE, Child, Supervisor


class Stage:
    """A supervisor of processes that only sleep, and what it is told of them."""

    def __init__(self, directory: Path) -> None:
        self.wanted = {"apiserver": "1000", "agent-a": "1000", "agent-b": "1000"}
        self.settled: set[str] = set()
        self.opened: list[str] = []
        self.failures: list[Exception] = []
        self.supervisor = Supervisor(
            LabPaths(directory),
            lambda: tuple(Child(name, ("sleep", seconds)) for name, seconds in self.wanted.items()),
            settled=lambda child: child.name in self.settled,
            open_up=self._open_up,
        )
        for child in self.supervisor._children:
            self.supervisor._start(child)

    def _open_up(self, child: Child) -> None:
        if self.failures:
            raise self.failures.pop()
        self.opened.append(child.name)

    def running(self) -> dict[str, str]:
        """Return what runs, by what it was told."""
        live = [c for c in self.supervisor._children if c.process is not None and c.process.poll() is None]
        return {child.name: child.argv[1] for child in live}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Yield three processes."""
    made = Stage(tmp_path)
    yield made
    made.supervisor._stop_all()


def test_successors_come_one_after_the_other(stage: Stage) -> None:
    """The next takes its place when the one before has settled; what did not change runs on."""
    before = {child.name: child.process for child in stage.supervisor._children}
    stage.wanted.update({"agent-a": "2000", "agent-b": "2000"})
    stage.supervisor._replan()
    assert stage.running() == {"apiserver": "1000", "agent-a": "1000", "agent-b": "1000"}
    for now in (1.0, 2.0):
        stage.supervisor._succeed(now)
        assert stage.running() == {"apiserver": "1000", "agent-a": "2000", "agent-b": "1000"}
    stage.settled.add("agent-a")
    stage.supervisor._succeed(3.0)
    assert stage.running() == {"apiserver": "1000", "agent-a": "2000", "agent-b": "2000"}
    assert stage.supervisor._children[0].process is before["apiserver"]
    old = before["agent-a"]
    assert old is not None
    assert old.returncode == -signal.SIGTERM


def test_where_one_does_not_settle_the_others_stay(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and the next change goes on with them."""
    stage.wanted.update({"agent-a": "2000", "agent-b": "2000"})
    stage.supervisor._replan()
    stage.supervisor._succeed(1.0)
    stage.supervisor._succeed(2.0 + SETTLE)
    stage.supervisor._succeed(3.0 + SETTLE)
    assert stage.running()["agent-b"] == "1000"
    assert "agent-a does not get into force what it should" in capsys.readouterr().err
    stage.supervisor._replan()
    stage.supervisor._succeed(4.0 + SETTLE)
    assert stage.running() == {"apiserver": "1000", "agent-a": "2000", "agent-b": "2000"}


def test_a_plan_that_cannot_be_read_changes_nothing(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and everything runs on."""

    def unreadable() -> tuple[Child, ...]:
        raise UsageError("there is no lab")

    stage.supervisor._plan = unreadable
    stage.supervisor._replan()
    assert len(stage.running()) == 3
    assert "what runs stays: there is no lab" in capsys.readouterr().err


def test_what_is_not_wanted_ends_and_what_it_enforced_is_taken_away(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tried again until it works; not any more once it is wanted again."""
    stage.failures = [HostRefused("busy", asked="", answered="")]
    del stage.wanted["agent-a"]
    stage.supervisor._replan()
    assert stage.running() == {"apiserver": "1000", "agent-b": "1000"}
    stage.supervisor._take_away()
    assert stage.opened == []
    assert "trying again: busy" in capsys.readouterr().err
    stage.supervisor._take_away()
    stage.supervisor._take_away()
    assert stage.opened == ["agent-a"]

    stage.wanted = {"apiserver": "1000", "agent-a": "1000"}
    stage.supervisor._replan()
    stage.wanted["agent-b"] = "1000"
    stage.supervisor._replan()
    stage.supervisor._take_away()
    assert stage.opened == ["agent-a"]
