# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import datetime
import io
import json
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from typing import Any

import pytest

from ringfence.agent import verdictlog
from ringfence.agent.logs import open_log
from ringfence.agent.loop import Agent
from ringfence.agent.metrics import Metrics
from ringfence.agent.reconcile import Kind
from ringfence.agent.standing import Standing
from ringfence.agent.verdictlog import LINES_A_SECOND
from ringfence.errors import HostRefused
from ringfence.kube.client import Client
from ringfence.kube.config import ClusterAccess
from ringfence.model.flow import Flow
from ringfence.model.ports import Protocol
from tests.agent.agents import small_cluster
from tests.agent.telling import TellingDataplane

CLIENT, SERVER, OUTSIDE = "10.1.0.2", "10.1.0.1", "192.0.2.1"


class Running:
    """An agent in this process whose dataplane tells of verdicts, and what can be seen of it."""

    def __init__(self, client: Client, stderr: io.StringIO) -> None:
        self.dataplane = TellingDataplane()
        self.metrics = Metrics("telling", "n1")
        self.stderr = stderr
        log = open_log("json")
        self.agent = Agent("n1", client, self.dataplane, standing=Standing(), metrics=self.metrics, log=log)

    def meet(self, source: str, *, times: int = 1) -> None:
        """Let the dataplane meet connections to the server's port 80."""
        for _ in range(times):
            self.dataplane.meet(Flow(ip_address(source), ip_address(SERVER), Protocol.TCP, 80))

    def lines(self, *messages: str) -> list[dict[str, Any]]:
        """Return what was logged under some messages."""
        logged = map(json.loads, self.stderr.getvalue().splitlines())
        return [line for line in logged if line["msg"] in messages]

    def sample(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """Run an agent of a small cluster whose program is in force."""
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    api = small_cluster()
    assert {kind.value for kind in Kind} <= api.collections.keys()
    async with api.serving(), Client(ClusterAccess(server=api.url)) as client:
        made = Running(client, stderr)
        stop = asyncio.Event()
        task = asyncio.create_task(made.agent.run(stop))
        await until(lambda: bool(made.dataplane.program and made.dataplane.program.rulesets))
        yield made
        stop.set()
        await task
        made.dataplane.close()


async def until(condition: Callable[[], bool]) -> None:
    """Poll until something is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the loop's own time
            await asyncio.sleep(0.002)


async def test_denial_is_one_line_that_says_who_and_why(running: Running) -> None:
    """And when: in the time of day, though the kernel told it in its own."""
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(milliseconds=1)
    running.meet(OUTSIDE)
    await until(lambda: bool(running.lines("denied")))

    (line,) = running.lines("denied")
    assert before <= datetime.datetime.fromisoformat(line["at"]) <= datetime.datetime.now(datetime.UTC)
    assert (line["source_address"], line["destination_pod"], line["port"]) == (OUTSIDE, "demo/server", 80)
    assert line["policies"] == "NetworkPolicy demo/demo-policy"
    assert "lost" not in line


async def test_allowed_connections_are_told_only_to_those_who_ask(running: Running) -> None:
    """With the rule that allows them. They are counted in any case."""
    running.meet(CLIENT)
    running.dataplane.report_allows(True)
    running.meet(CLIENT)
    running.meet(OUTSIDE)
    await until(lambda: bool(running.lines("denied")))

    (line,) = running.lines("allowed")
    assert (line["source_pod"], line["policy"], line["rule"]) == (
        "demo/client",
        "NetworkPolicy demo/demo-policy",
        "spec.ingress[0]",
    )
    labels = {"direction": "ingress"}
    assert running.sample("ringfence_verdicts_total", verdict="allowed", reason="rule", **labels) == 2
    assert running.sample("ringfence_verdicts_total", verdict="denied", reason="no_rule", **labels) == 1


async def test_flood_costs_a_number_of_lines_and_is_counted(running: Running) -> None:
    """Denials come first, and what was left out is told once the second is over."""
    running.dataplane.report_allows(True)
    running.meet(CLIENT, times=5000)
    running.meet(OUTSIDE, times=LINES_A_SECOND - 1)
    await until(lambda: bool(running.lines("more verdicts than the log takes")))

    assert len(running.lines("denied")) == LINES_A_SECOND - 1
    assert len(running.lines("allowed")) == 1
    (line,) = running.lines("more verdicts than the log takes")
    assert line["left_out"] == 4999
    assert running.sample("ringfence_verdict_events_lost_total") == 4999
    running.meet(OUTSIDE)
    await until(lambda: len(running.lines("denied")) == LINES_A_SECOND)
    assert running.sample("ringfence_verdict_events_lost_total") == 4999


async def test_dataplane_that_cannot_be_read_takes_no_agent_away(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told and tried again; nothing that comes meanwhile is lost, and commits go on."""
    monkeypatch.setattr(verdictlog, "RETRY_SECONDS", 0.05)
    running.dataplane.failures = [HostRefused("no", asked="read", answered="EIO"), ValueError("a bug")]
    running.meet(OUTSIDE)
    await until(lambda: bool(running.lines("denied")))

    assert len(running.lines("verdicts cannot be told; policy is enforced")) == 2
    assert running.sample("ringfence_sync_errors_total", stage="report") == 2
