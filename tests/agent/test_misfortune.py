# SPDX-License-Identifier: Apache-2.0
"""What happens to agents, clocks and rules in the worst moments: real processes, a real kernel."""

from __future__ import annotations

import ast
import asyncio
import datetime
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.host import process
from ringfence.kube.testing import ApiServer
from tests.agent.agents import POLICIES, agent, get, made_namespace, put_pod, rules, serving, small_cluster, until

SOURCE = Path(__file__).parents[2] / "src" / "ringfence"
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.fixture
def namespace() -> Iterator[str]:
    """Yield a namespace with nothing but a loopback that is up."""
    yield from made_namespace()


@pytest.fixture
def api() -> ApiServer:
    """Return a cluster with a node, an isolated server and a client that it lets in."""
    return small_cluster()


def put_policy(api: ApiServer, number: int) -> None:
    """Let a block in that tells the number: 192.0.NUMBER.0/24, and a hundred others."""
    blocks = [f"192.0.{number}.0/24", *(f"198.{18 + each // 100}.{each % 100}.0/25" for each in range(100))]
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"ipBlock": {"cidr": block}} for block in blocks]}],
    }
    api.put(POLICIES, {"metadata": {"namespace": "demo", "name": "demo-policy"}, "spec": spec})


@pytest.mark.kernel
@pytest.mark.parametrize("dataplane", ["nftables", "ebpf"])
async def test_killed_at_any_moment_and_nothing_is_ever_open_or_left(
    namespace: str, api: ApiServer, tmp_path: Path, dataplane: str
) -> None:
    """An agent is killed again and again while a policy changes, half-way through whatever it does: the pod is isolated
    at every look, and the survivor ends with the last policy and nothing of those before.
    """
    chance = random.Random(3)
    put_policy(api, 0)

    async def ready() -> bool:
        return (await get(tmp_path, "/readyz"))[0] == 200

    async with serving(api, namespace):
        async with agent(namespace, tmp_path, api.url, dataplane=dataplane):
            await until(ready)
        edits = 0
        for _ in range(4):
            async with agent(namespace, tmp_path, api.url, dataplane=dataplane) as victim:
                await until(ready)
                deadline = time.monotonic() + chance.uniform(0.0, 0.15)
                while time.monotonic() < deadline:
                    edits = (edits + 1) % 250
                    put_policy(api, edits)
                    await asyncio.sleep(chance.uniform(0.0, 0.02))
                    assert isolated(namespace, dataplane)
                victim.send_signal(signal.SIGKILL)
                await victim.wait()
                assert isolated(namespace, dataplane)
        put_policy(api, 251)
        async with agent(namespace, tmp_path, api.url, dataplane=dataplane):

            async def last() -> bool:
                return "192.0.251.0" in rules(namespace, dataplane)

            async def alone() -> bool:
                held = rules(namespace, dataplane)
                return not any(f"192.0.{number}.0" in held for number in range(251))

            await until(last)
            await until(alone)
            assert isolated(namespace, dataplane)


def isolated(namespace: str, dataplane: str = "nftables") -> bool:
    """Tell whether the kernel has rules for what is for the server."""
    held = rules(namespace, dataplane)
    return "10.1.0.1" in held and "demo-policy" in held


@pytest.mark.kernel
@pytest.mark.parametrize("act", ["delete table inet ringfence", "flush chain inet ringfence {chain}", "flush ruleset"])
async def test_others_changes_are_undone_at_once(namespace: str, api: ApiServer, tmp_path: Path, act: str) -> None:
    """The kernel tells: nobody waits for the next look, which would be a minute away."""

    async def ready() -> bool:
        return (await get(tmp_path, "/v1/pods/demo/server?uid=uid-server"))[0] == 200

    async def repaired() -> bool:
        return "ringfence_drift_repaired_total 1.0" in (await get(tmp_path, "/metrics"))[1]

    async with serving(api, namespace), agent(namespace, tmp_path, api.url, drift_interval=60):
        await until(ready)
        before = listed(namespace)
        nft = ["ip", "netns", "exec", namespace, "nft"]
        chains = [line.split()[1] for line in before.splitlines() if line.strip().startswith("chain ")]
        process.run([*nft, act.format(chain=chains[0])])
        began = time.monotonic()
        await until(repaired)
        assert time.monotonic() - began < 5
        assert without_versions(listed(namespace)) == without_versions(before)


def listed(namespace: str) -> str:
    """Return our table without handles and counts."""
    return process.run(["ip", "netns", "exec", namespace, "nft", "-s", "list", "table", "inet", "ringfence"]).stdout


def without_versions(table: str) -> list[str]:
    """Return the lines of a table whatever its objects are called: what was bent is built anew under other names."""
    plain = re.sub(r"[0-9a-f]{16}", "DIGEST", table)
    return sorted(re.sub(r"\b([a-z][a-z0-9-]*)\.\d+\b", r"\1", plain, flags=re.IGNORECASE).splitlines())


@pytest.mark.kernel
async def test_others_tables_are_not_looked_into(namespace: str, api: ApiServer, tmp_path: Path) -> None:
    """What somebody does elsewhere repairs nothing and disturbs nothing."""

    async def ready() -> bool:
        return (await get(tmp_path, "/readyz"))[0] == 200

    async with serving(api, namespace), agent(namespace, tmp_path, api.url, drift_interval=60):
        await until(ready)
        before = rules(namespace)
        process.run(["ip", "netns", "exec", namespace, "nft", "add table inet other; add chain inet other c"])
        put_pod(api, "late", "10.1.0.9", app="server")

        async def sees_late() -> bool:
            return "10.1.0.9" in rules(namespace)

        await until(sees_late)
        assert "ringfence_drift_repaired_total 0.0" in (await get(tmp_path, "/metrics"))[1]
        assert "table inet other" in rules(namespace)
        assert "demo-policy" in before


@pytest.mark.kernel
@pytest.mark.skipif(
    FAKETIME is None and "RINGFENCE_REQUIRE_KERNEL" not in os.environ, reason="no libfaketime: apt-get install faketime"
)
async def test_moved_clock_changes_nothing(namespace: str, api: ApiServer, tmp_path: Path) -> None:
    """The node's clock jumps by weeks, forwards and back, while the agent runs: it follows, commits, repairs and tells
    the time that the clock shows, and no retry or look waits for weeks.
    """
    clock = tmp_path / "clock"
    clock.write_text("+0")
    env = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }

    async def ready() -> bool:
        return (await get(tmp_path, "/readyz"))[0] == 200

    async with serving(api, namespace), agent(namespace, tmp_path, api.url, env=env):
        await until(ready)
        for number, jump in enumerate(("+30d", "-30d", "+3650d"), start=1):
            clock.write_text(jump)
            address = f"10.1.0.{10 + number}"
            put_pod(api, f"late-{number}", address, app="server")

            async def sees(address: str = address) -> bool:
                return address in rules(namespace)

            async def repaired(number: int = number) -> bool:
                return f"ringfence_drift_repaired_total {number}.0" in (await get(tmp_path, "/metrics"))[1]

            await until(sees)
            process.run(["ip", "netns", "exec", namespace, "nft", "delete table inet ringfence"])
            await until(repaired)
            assert isolated(namespace)
        assert await ready()

    years = {int(line.split("time=")[1][:4]) for line in (tmp_path / "log").read_text().splitlines() if "time=" in line}
    assert max(years) >= datetime.datetime.now(datetime.UTC).year + 9


def test_no_wall_clock_decides() -> None:
    """Agent, dataplanes and API client read the time of day only to write it down, and for credentials that expire."""
    readers = {
        str(path.relative_to(SOURCE))
        for folder in ("agent", "dataplanes", "kube", "host", "compiler", "model", "apis")
        for path in (SOURCE / folder).rglob("*.py")
        if _reads_wall_clock(ast.parse(path.read_text()))
    }

    assert readers == {"agent/reports.py", "agent/verdictlog.py", "kube/credentials.py"}


def _reads_wall_clock(tree: ast.Module) -> bool:
    wall = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}
    wall |= {("time", "localtime"), ("time", "gmtime"), ("time", "clock_gettime")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            if (name, node.attr) in wall:
                return True
    return False
