# SPDX-License-Identifier: Apache-2.0
"""How long from an event of the API to the kernel, with each engine, where 1,000 to 100,000 pods are peers of a rule?

250 pods are here and the peers elsewhere. Those here are isolated, and let all peers in. The agent is the real one, in
a namespace; the API server is the one of tests, in this process, since it takes so many pods at once. The end is the
agent's log line of the commit. The dataplane's part is the agent's own metric.
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
from bench.traffic import filtering
from ringfence.dataplanes import registry
from ringfence.host import netns, process
from ringfence.kube.testing import ApiServer

PODS, SPACES, NODES = "/api/v1/pods", "/api/v1/namespaces", "/api/v1/nodes"
POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
_LOCAL, _SPACES, _PATIENCE = 250, 20, 180.0


def bench_commit(rows: Rows) -> None:
    """Measure a pod that comes, a label that changes, a policy that changes."""
    for peers in (300,) if rows.quick else (1000, 10_000, 100_000):
        for engine in filtering():
            asyncio.run(_measure(rows, engine, peers=peers, repeats=3 if rows.quick else 11))


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


async def _measure(rows: Rows, engine: str, *, peers: int, repeats: int) -> None:
    rows.progress(f"{engine}, {peers:,} peers")
    api = _cluster(peers)
    async with _running(api, engine) as agent:
        await agent.commit()
        await asyncio.sleep(0.5)
        for what, change in _changes(api, peers):
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
                await asyncio.sleep(0.03 if rows.quick else 0.1)
            rows.row(f"{engine}, {peers:,} peers, {what}: event to commit", totals)
            rows.row(f"{engine}, {peers:,} peers, {what}: of which the dataplane", applies)


def _cluster(peers: int) -> ApiServer:
    api = ApiServer()
    api.put(NODES, {"metadata": {"name": worlds.NODE}, "status": {"addresses": [{"address": "10.0.0.1"}]}})
    for number in range(_SPACES):
        api.put(SPACES, {"metadata": {"name": f"space-{number}"}})
        api.put(POLICIES, _policy(number))
    for number in range(_LOCAL + peers):
        api.put(PODS, _pod(number))
    api.compact()
    return api


def _policy(number: int, *, port: int = 80) -> worlds.Object:
    everywhere = {"namespaceSelector": {}, **worlds.labelled(app="client")}
    made = worlds.policy("servers", {"app": "server"}, [everywhere], space=f"space-{number}")
    made["spec"]["ingress"][0]["ports"][0] = {"protocol": "TCP", "port": port}
    return made


def _pod(number: int, app: str | None = None) -> worlds.Object:
    """Return a pod; the first ones are servers here, the others clients elsewhere, unless a label is given."""
    here = number < _LOCAL
    label = app or ("server" if here else "client")
    return worlds.pod(number, worlds.NODE if here else worlds.ELSEWHERE, space=f"space-{number % _SPACES}", app=label)


def _changes(api: ApiServer, peers: int) -> list[tuple[str, Callable[[int], object]]]:
    def add_server(number: int) -> object:
        pod = _pod(_LOCAL + peers + number, "server")
        pod["spec"]["nodeName"] = worlds.NODE
        return api.put(PODS, pod)

    def add_peer(number: int) -> object:
        return api.put(PODS, _pod(_LOCAL + peers + 100 + number))

    def label(number: int) -> object:
        return api.put(PODS, _pod(_LOCAL + 1, "client" if number % 2 else "other"))

    def edit(number: int) -> object:
        return api.put(POLICIES, _policy(3, port=8000 + number))

    def blocks(count: int) -> Callable[[int], object]:
        def change(number: int) -> object:
            chosen = [worlds.block(n) for n in range(count - 1)] + [worlds.block(count + number)]
            return api.put(POLICIES, worlds.policy(f"blocks-{count}", {"app": "server"}, chosen, space="space-1"))

        return change

    return [
        ("pod added here", add_server),
        ("peer added", add_peer),
        ("peer's label changed", label),
        ("policy's port changed", edit),
        *((f"one of {count:,} CIDRs changed", blocks(count)) for count in (1, 100, 1000)),
    ]


@contextlib.asynccontextmanager
async def _running(api: ApiServer, engine: str) -> AsyncIterator[_Agent]:
    name = f"rfb-{os.getpid()}-agent"
    netns.create(name)
    try:
        with tempfile.TemporaryDirectory(prefix="rfb-", dir="/tmp") as home:
            directory = Path(home)
            process.run(["ip", "-n", name, "link", "set", "lo", "up"])
            with netns.enter(name):
                listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            async with api.serving(listener=listener):
                started = await _start(directory, name, engine, api.url)
                try:
                    yield _Agent(directory)
                finally:
                    started.terminate()
                    await started.wait()
                    with netns.enter(name):
                        registry.engine(engine).build().remove()  # what an engine holds of a namespace would outlive it
    finally:
        netns.delete(name)


async def _start(directory: Path, namespace: str, engine: str, url: str) -> asyncio.subprocess.Process:
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "contexts": [{"name": "x", "context": {"cluster": "c"}}],
        "current-context": "x",
    }
    (directory / "kubeconfig").write_text(json.dumps(kubeconfig))
    with netns.enter(namespace), (directory / "log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ringfence", "agent", "--kubeconfig", str(directory / "kubeconfig")),
            *("--node-name", worlds.NODE, "--dataplane", engine, "--gate-socket", str(directory / "gate")),
            *("--log-format", "json"),
            stderr=log,
        )
