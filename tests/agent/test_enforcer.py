# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from ringfence.agent import retry
from ringfence.agent.enforcer import Enforcer
from ringfence.agent.logs import open_log
from ringfence.agent.metrics import Metrics
from ringfence.agent.reconcile import Event, Kind, State, reconcile
from ringfence.agent.standing import Standing
from ringfence.compiler.program import Program, empty_program
from ringfence.dataplanes.base import Applied
from ringfence.errors import HostRefused, Unsupported
from ringfence.kube.changes import Listed


class Stubborn:
    """A dataplane that fails to order, and keeps what it took."""

    name = "stubborn"

    def __init__(self) -> None:
        self.held: Program | None = None
        self.applies = 0
        self.looks = 0
        self.failures: list[Exception] = []
        self.drift = False
        self.refuses: Program | None = None
        self.meanwhile: Callable[[], object] = lambda: None

    def apply(self, program: Program) -> Applied:
        """Take a program, or fail."""
        self.applies += 1
        self.meanwhile()
        if self.failures:
            raise self.failures.pop(0)
        if program == self.refuses:
            raise HostRefused("not this one", asked="", answered="")
        self.held = program
        self.drift = False
        return Applied(transactions=1)

    def drifted(self) -> bool:
        """Tell what the test wants."""
        self.looks += 1
        if self.failures:
            raise self.failures.pop(0)
        return self.drift

    def remove(self) -> None:
        """Hold nothing."""
        self.held = None


BASE = reconcile(State("n1"), [Event(kind, Listed({})) for kind in Kind]).state


def state(node: str) -> State:
    """Return a state whose program differs by its node."""
    return replace(BASE, node=node, program=empty_program(node))


class Setup:
    """An enforcer with everything around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, drift_seconds: float = 0.01) -> None:
        self.stderr = io.StringIO()
        monkeypatch.setattr("sys.stderr", self.stderr)
        self.dataplane = Stubborn()
        self.standing = Standing()
        self.metrics = Metrics("stubborn", "n1")
        self.worker = ThreadPoolExecutor(1)
        self.calls = 0
        self.enforcer = Enforcer(
            self.dataplane,
            lambda work: asyncio.get_running_loop().run_in_executor(self.worker, work),
            standing=self.standing,
            metrics=self.metrics,
            log=open_log("json"),
            drift_seconds=drift_seconds,
        )

    async def until(self, wanted: State, condition: Callable[[], bool]) -> None:
        """Call the enforcer whenever it asks to be, as the loop does, until something is so."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(max(0.0, self.enforcer.due - loop.time()))
                await self.enforcer.enforce(wanted, None)
                self.calls += 1

    def value(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def logged(self, level: str) -> list[dict[str, Any]]:
        """Return the log lines of a level."""
        lines = [json.loads(line) for line in self.stderr.getvalue().splitlines()]
        return [line for line in lines if line["level"] == level]


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Return an enforcer of a stubborn dataplane; retries are quick."""
    monkeypatch.setattr(retry, "FIRST_RETRY_SECONDS", 0.005)
    return Setup(monkeypatch)


async def test_same_program_is_not_applied_again(setup: Setup) -> None:
    """Only a different program reaches the dataplane; an equal one moves the committed state on."""
    await setup.enforcer.enforce(state("a"), 0.0)
    equal = state("a")
    await setup.enforcer.enforce(equal, None)

    assert setup.dataplane.applies == 1
    assert setup.standing.committed is equal
    assert setup.value("ringfence_policy_realized_seconds_count") == 1


@pytest.mark.parametrize(
    "error",
    [
        HostRefused("nft said no", asked="add table", answered="Operation not permitted"),
        Unsupported("stubborn", ["no SCTP", "no ranges"]),
        RuntimeError("a bug"),
    ],
    ids=["refused", "unsupported", "bug"],
)
async def test_refused_program_leaves_the_last_good_one(setup: Setup, error: Exception) -> None:
    """The old program stays in force, readiness and log say why, and it is tried again until it works."""
    old, new = state("old"), state("new")
    await setup.enforcer.enforce(old, None)
    setup.dataplane.failures = [error, error]
    await setup.enforcer.enforce(new, None)

    assert setup.dataplane.held == old.program
    assert setup.standing.committed is old
    assert str(error) in (setup.standing.unready() or "")
    assert any("the last one that it took stays in force" in line["msg"] for line in setup.logged("error"))
    await setup.until(new, lambda: setup.dataplane.held == new.program)
    assert setup.standing.committed is new
    assert setup.standing.unready() is None
    assert setup.value("ringfence_sync_errors_total", stage="apply") == 2


async def test_another_program_is_tried_at_once_after_a_refusal(setup: Setup) -> None:
    """The pause is for the refused program only; the same one waits."""
    setup.dataplane.failures = [HostRefused("no", asked="", answered="")]
    await setup.enforcer.enforce(state("bad"), None)
    await setup.enforcer.enforce(state("bad"), None)
    assert setup.dataplane.applies == 1
    await setup.enforcer.enforce(state("good"), None)

    assert setup.dataplane.held == state("good").program


async def test_going_back_after_a_refusal_is_a_commit(setup: Setup) -> None:
    """A program may be refused half way: if the last good one is wanted again, it is written, and not only believed."""
    good, bad = state("good"), state("bad")
    await setup.enforcer.enforce(good, None)
    setup.dataplane.failures = [HostRefused("in the midst of it", asked="", answered="")]
    await setup.enforcer.enforce(bad, None)
    await setup.enforcer.enforce(good, None)

    assert setup.dataplane.applies == 3
    assert setup.standing.unready() is None


async def test_drift_is_repaired_and_counted(setup: Setup) -> None:
    """Somebody else's change is found within the interval and undone."""
    wanted = state("a")
    await setup.enforcer.enforce(wanted, None)
    await setup.until(wanted, lambda: setup.dataplane.looks >= 2)
    assert setup.dataplane.applies == 1
    setup.dataplane.drift = True
    await setup.until(wanted, lambda: setup.dataplane.applies == 2)

    assert setup.dataplane.drift is False
    assert setup.value("ringfence_drift_repaired_total") == 1
    assert "somebody changed our rules" in setup.logged("warning")[0]["msg"]


async def test_last_good_program_is_mended_while_another_is_refused(setup: Setup) -> None:
    """Whatever is refused meanwhile, and for how long: what is in force stays whole. And nobody is kept busy by it."""
    good, bad = state("good"), state("bad")
    await setup.enforcer.enforce(good, None)
    setup.dataplane.refuses = bad.program
    await setup.enforcer.enforce(bad, None)
    setup.dataplane.held, setup.dataplane.drift = None, True
    await setup.until(bad, lambda: setup.dataplane.held == good.program)
    looks = setup.dataplane.looks
    await setup.until(bad, lambda: setup.dataplane.looks > looks)

    assert setup.standing.committed is good
    assert setup.standing.unready() is not None
    assert setup.value("ringfence_drift_repaired_total") == 1
    assert setup.calls < 200
    setup.dataplane.refuses = None
    await setup.until(bad, lambda: setup.dataplane.held == bad.program)
    assert setup.standing.unready() is None


@pytest.mark.parametrize("refused", [False, True])
async def test_touch_in_the_midst_of_a_commit_is_looked_at(monkeypatch: pytest.MonkeyPatch, refused: bool) -> None:  # noqa: FBT001
    """Whoever touched our rules may have done so after the commit had read them: it does not wait for the next turn."""
    setup = Setup(monkeypatch, drift_seconds=3600)
    await setup.enforcer.enforce(state("a"), None)
    assert setup.enforcer.due > asyncio.get_running_loop().time() + 3000
    loop = asyncio.get_running_loop()

    def touch() -> None:
        asyncio.run_coroutine_threadsafe(_now(setup.enforcer.look_soon), loop).result()

    setup.dataplane.meanwhile = touch
    if refused:
        setup.dataplane.refuses = state("b").program
    await setup.enforcer.enforce(state("b"), None)
    setup.dataplane.meanwhile = lambda: None
    await setup.until(state("b"), lambda: setup.dataplane.looks > 0)

    assert setup.calls < 200


async def _now(work: Callable[[], object]) -> None:
    work()


async def test_touch_before_the_first_commit_is_no_cause_to_look(setup: Setup) -> None:
    """There is nothing of ours to mend yet, and the loop sleeps on."""
    setup.enforcer.look_soon()

    assert setup.enforcer.due == float("inf")


async def test_dataplane_that_cannot_be_read_is_looked_at_again(setup: Setup) -> None:
    """A failed look changes nothing and is counted."""
    wanted = state("a")
    await setup.enforcer.enforce(wanted, None)
    setup.dataplane.failures = [HostRefused("cannot list", asked="list", answered="no")]
    await setup.until(wanted, lambda: setup.dataplane.looks >= 2)

    assert setup.dataplane.applies == 1
    assert setup.value("ringfence_sync_errors_total", stage="observe") == 1
