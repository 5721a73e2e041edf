# SPDX-License-Identifier: Apache-2.0
"""How long from an event of the API to the kernel, with 1,000 and 10,000 pods in the cluster, 250 of them here?

The agent is the real one, in a namespace; the API server is the one of tests, in this process, since it takes 10,000
pods at once. The end is the agent's log line of the commit. The dataplane's part is the agent's own metric.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp

from bench import worlds
from bench.rows import Rows
from ringfence.host import netns, process
from ringfence.kube.testing import ApiServer

PODS, SPACES, NODES = "/api/v1/pods", "/api/v1/namespaces", "/api/v1/nodes"
POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
_LOCAL, _SPACES, _PATIENCE = 250, 20, 60.0


def bench_commit(rows: Rows) -> None:
    """Measure a pod that comes, a label that changes, a policy that changes."""
    for pods in (300,) if rows.quick else (1000, 10_000):
        asyncio.run(_measure(rows, pods, 3 if rows.quick else 11))


class _Agent:
    """A real agent, and when it committed."""

    def __init__(self, directory: Path) -> None:
        self.gate = directory / "gate"
        self.log = (directory / "log").open()

    async def commit(self) -> float:
        """Return when the next program was committed (seconds of the epoch)."""
        deadline = time.monotonic() + _PATIENCE
        line = ""
        while time.monotonic() < deadline:
            line += self.log.readline()  # it may be half written yet
            if not line.endswith("\n"):
                await asyncio.sleep(0.001)
                continue
            entry, line = json.loads(line), ""
            if entry["msg"] == "committed":
                return datetime.datetime.fromisoformat(entry["time"]).timestamp()
        raise SystemExit(f"the agent committed nothing within {_PATIENCE:.0f} s")

    async def apply_seconds(self) -> float:
        """Return how long the dataplane has been at work in all."""
        connector = aiohttp.UnixConnector(str(self.gate))
        async with aiohttp.ClientSession("http://agent", connector=connector) as session:
            text = await (await session.get("/metrics")).text()
        return next(
            float(line.split()[1]) for line in text.splitlines() if line.startswith("ringfence_apply_seconds_sum")
        )

    def skip(self) -> None:
        """Go to the log's end."""
        self.log.seek(0, os.SEEK_END)


async def _measure(rows: Rows, pods: int, repeats: int) -> None:
    rows.progress(f"a cluster of {pods} pods")
    api = _cluster(pods)
    async with _running(api) as agent:
        await agent.commit()
        await asyncio.sleep(0.5)
        for what, change in _changes(api, pods):
            totals, applies = [], []
            for number in range(repeats + 1):
                agent.skip()
                before = await agent.apply_seconds()
                began = time.time()
                change(number)
                ended = await agent.commit()
                if number:
                    totals.append(ended - began)
                    applies.append(await agent.apply_seconds() - before)
                await asyncio.sleep(0.1)
            rows.row(f"{what}, {pods:,} pods: event to commit", totals)
            rows.row(f"{what}, {pods:,} pods: of which the dataplane", applies)


def _cluster(pods: int) -> ApiServer:
    """Twenty namespaces in which servers let clients in: 250 pods here, the others elsewhere."""
    api = ApiServer()
    api.put(NODES, {"metadata": {"name": worlds.NODE}, "status": {"addresses": [{"address": "10.0.0.1"}]}})
    for number in range(_SPACES):
        space = f"space-{number}"
        api.put(SPACES, {"metadata": {"name": space}})
        api.put(POLICIES, worlds.policy("servers", {"app": "server"}, [worlds.labelled(app="client")], space=space))
    for number in range(pods):
        api.put(PODS, _pod(number))
    api.compact()
    return api


def _pod(number: int, app: str | None = None) -> worlds.Object:
    node = worlds.NODE if number < _LOCAL else worlds.ELSEWHERE
    label = app or ("server" if number % 3 else "client")
    return worlds.pod(number, node, space=f"space-{number % _SPACES}", app=label)


def _changes(api: ApiServer, pods: int) -> list[tuple[str, Callable[[int], object]]]:
    def add(number: int) -> object:
        pod = _pod(pods + number, "server")
        pod["spec"]["nodeName"] = worlds.NODE
        return api.put(PODS, pod)

    def label(number: int) -> object:
        return api.put(PODS, _pod(_LOCAL + 1, "server" if number % 2 else "client"))

    def blocks(count: int) -> Callable[[int], object]:
        def change(number: int) -> object:
            peers = [worlds.block(n) for n in range(count - 1)] + [worlds.block(count + number)]
            return api.put(POLICIES, worlds.policy(f"blocks-{count}", {"app": "server"}, peers, space="space-1"))

        return change

    return [
        ("pod added", add),
        ("pod label changed", label),
        *((f"one of {count:,} ipBlocks changed", blocks(count)) for count in (1, 100, 1000)),
    ]


@contextlib.asynccontextmanager
async def _running(api: ApiServer) -> AsyncIterator[_Agent]:
    name = f"rfb-{os.getpid()}-agent"
    netns.create(name)
    try:
        with tempfile.TemporaryDirectory(prefix="rfb-", dir="/tmp") as home:
            directory = Path(home)
            process.run(["ip", "-n", name, "link", "set", "lo", "up"])
            with netns.enter(name):
                listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            async with api.serving(listener=listener):
                started = await _start(directory, name, api.url)
                try:
                    yield _Agent(directory)
                finally:
                    started.terminate()
                    await started.wait()
    finally:
        netns.delete(name)


async def _start(directory: Path, namespace: str, url: str) -> asyncio.subprocess.Process:
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "contexts": [{"name": "x", "context": {"cluster": "c"}}],
        "current-context": "x",
    }
    (directory / "kubeconfig").write_text(json.dumps(kubeconfig))
    with netns.enter(namespace), (directory / "log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ringfence", "agent", "--kubeconfig", str(directory / "kubeconfig")),
            *("--node-name", worlds.NODE, "--dataplane", "nftables", "--gate-socket", str(directory / "gate")),
            *("--log-format", "json"),
            stderr=log,
        )
