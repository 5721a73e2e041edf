# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from ringfence.errors import ClusterError
from ringfence.kube.client import Client
from ringfence.kube.config import load_access
from ringfence.kube.testing import ApiServer
from ringfence.lab.config import LabConfig, LabPaths
from ringfence.lab.credentials import write_credentials

PODS, SPACES, NODES = "/api/v1/pods", "/api/v1/namespaces", "/api/v1/nodes"
POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
EVENTS = "/api/v1/namespaces/demo/events"


def pod(name: str, address: str | None, **labels: str) -> dict[str, Any]:
    """Return a pod of the node n1; its uid is ``uid-NAME``."""
    return {
        "metadata": {"namespace": "demo", "name": name, "uid": f"uid-{name}", "labels": labels},
        "spec": {"nodeName": "n1"},
        "status": {"podIP": address, "podIPs": [{"ip": address}]} if address else {},
    }


def policy(name: str, **spec: Any) -> dict[str, Any]:
    """Return a NetworkPolicy that selects the server."""
    meta = {"namespace": "demo", "name": name, "uid": f"uid-{name}"}
    return {"metadata": meta, "spec": {"podSelector": {"matchLabels": {"app": "server"}}, **spec}}


@pytest.fixture
def api() -> ApiServer:
    """Return a cluster with one node, one namespace, a server and a client."""
    server = ApiServer()
    server.put(SPACES, {"metadata": {"name": "demo", "uid": "uid-demo"}})
    server.put(NODES, {"metadata": {"name": "n1"}, "status": {"addresses": [{"address": "10.0.0.1"}]}})
    server.put(PODS, pod("server", "10.1.0.1", app="server"))
    server.put(PODS, pod("client", "10.1.0.2"))
    server.collections[POLICIES] = {}
    return server


class Agent:
    """An agent in a process of its own, and its gate."""

    def __init__(self, process: asyncio.subprocess.Process, gate: Path, log: Path) -> None:
        self.process = process
        self.gate = gate
        self.log = log

    async def get(self, target: str) -> tuple[int, Any]:
        """Ask the gate; status 0 while there is none."""
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.gate))) as session,
                session.get(f"http://gate{target}") as response,
            ):
                text = await response.text()
                return response.status, json.loads(text) if response.content_type == "application/json" else text
        except aiohttp.ClientConnectorError:
            return 0, None

    async def allowed(self, source: str, destination: str) -> bool:
        """Tell whether the agent lets a connection to port 80 pass."""
        _, answer = await self.get(f"/v1/verdict?source={source}&destination={destination}&port=80")
        return bool(answer["allowed"])

    async def ready(self) -> bool:
        """Tell whether the agent is ready."""
        return (await self.get("/readyz"))[0] == 200

    async def metric(self, name: str) -> float:
        """Return the value of a metric."""
        _, text = await self.get("/metrics")
        return next((float(line.split()[-1]) for line in (text or "").splitlines() if line.startswith(f"{name} ")), 0.0)

    def lines(self) -> list[dict[str, Any]]:
        """Return the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextlib.asynccontextmanager
async def running(directory: Path, url: str | None, *options: str) -> AsyncIterator[Agent]:
    """Run an agent with the memory dataplane until the end of the block; None: the kubeconfig is there already."""
    kubeconfig = directory / "kubeconfig"
    context = [{"name": "x", "context": {"cluster": "c"}}]
    clusters = [{"name": "c", "cluster": {"server": url}}]
    if url is not None:
        kubeconfig.write_text(json.dumps({"clusters": clusters, "contexts": context, "current-context": "x"}))
    gate, log = directory / "gate.sock", directory / "log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ringfence", "agent", "--kubeconfig", str(kubeconfig), "--node-name", "n1"),
            *("--dataplane", "memory", "--gate-socket", str(gate), "--log-format", "json", *options),
            stderr=stderr,
        )
    try:
        yield Agent(process, gate, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> float:
    """Poll until something is so; returns the seconds that it took."""
    began = time.perf_counter()
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - another process decides
            await asyncio.sleep(0.002)
    return time.perf_counter() - began


async def test_walk_through_at_the_memory_dataplane(api: ApiServer, tmp_path: Path) -> None:
    """Open; a policy; denied; a label; open again: each change is in force well within a second."""
    async with api.serving(), running(tmp_path, api.url) as agent:
        await until(agent.ready)
        assert await agent.allowed("10.1.0.2", "10.1.0.1")
        peer = {"podSelector": {"matchLabels": {"app": "client"}}}
        api.put(POLICIES, policy("demo-policy", ingress=[{"from": [peer]}]))

        async def denied() -> bool:
            return not await agent.allowed("10.1.0.2", "10.1.0.1")

        async def open_again() -> bool:
            return await agent.allowed("10.1.0.2", "10.1.0.1")

        assert await until(denied) < 1.0
        api.put(PODS, pod("client", "10.1.0.2", app="client"))
        assert await until(open_again) < 1.0
        assert await denied() is False
        assert await agent.metric("ringfence_programs_applied_total") == 3
        assert await agent.metric("ringfence_policy_realized_seconds_sum") < 1.0


async def test_new_pod_passes_the_gate_with_its_address(api: ApiServer, tmp_path: Path) -> None:
    """A pod without an address is kept waiting; with one it is let in at the commit."""
    async with api.serving(), running(tmp_path, api.url) as agent:
        await until(agent.ready)
        api.put(PODS, pod("web", None))
        status, answer = await agent.get("/v1/pods/demo/web?uid=uid-web&timeout=0.05")
        assert (status, answer["inForce"]) == (503, False)
        asking = asyncio.create_task(agent.get("/v1/pods/demo/web?uid=uid-web"))
        api.put(PODS, pod("web", "10.1.0.7"))
        assert (await asking)[0] == 200
        assert await agent.metric("ringfence_pod_gate_seconds_count") == 1


async def test_nothing_is_committed_before_every_list(api: ApiServer, tmp_path: Path) -> None:
    """While one collection cannot be listed the agent is alive, unready, and writes nothing."""
    del api.collections[POLICIES]
    api.watch_list = "refused"
    async with api.serving(), running(tmp_path, api.url) as agent:

        async def complains() -> bool:
            return await agent.metric('ringfence_sync_errors_total{stage="follow"}') >= 2

        await until(complains)
        assert await agent.get("/readyz") == (503, "nothing was committed yet\n")
        assert (await agent.get("/livez"))[0] == 200
        assert await agent.metric("ringfence_programs_applied_total") == 0
        api.collections[POLICIES] = {}
        await until(agent.ready)


async def test_lost_api_server_changes_nothing(api: ApiServer, tmp_path: Path) -> None:
    """Verdicts and readiness stay while nobody answers; what happened meanwhile is enforced afterwards."""
    api.put(POLICIES, policy("deny"))
    async with contextlib.AsyncExitStack() as stack:
        async with api.serving():
            port = int(api.url.rpartition(":")[2])
            agent = await stack.enter_async_context(running(tmp_path, api.url))
            await until(agent.ready)

        async def complains() -> bool:
            return await agent.metric('ringfence_sync_errors_total{stage="follow"}') >= 8

        async def open_again() -> bool:
            return await agent.allowed("10.1.0.2", "10.1.0.1")

        await until(complains)
        assert not await open_again()
        assert await agent.ready()
        api.remove(POLICIES, "demo/deny")
        api.compact()
        async with api.serving(port=port):
            await until(open_again)


@contextlib.asynccontextmanager
async def lab_api_server(directory: Path) -> AsyncIterator[Client]:
    """Run the lab's API server: TLS, a token, state on disk. The first run makes the credentials."""
    paths = LabPaths(directory)
    if not paths.config.exists():
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = LabConfig(name="agent-test", port=port, nodes=("n1",), network_policy="memory")
        paths.config.write_bytes(msgspec.json.encode(config))
        write_credentials(paths, name="x", port=port, fabric=(), service=ipaddress.ip_address("10.0.0.1"))
    with paths.log("apiserver").open("ab") as log:
        command = (sys.executable, "-m", "ringfence.lab.apiserver", "--lab-dir", str(directory))
        process = await asyncio.create_subprocess_exec(*command, stderr=log)
    try:
        async with Client(load_access(str(paths.kubeconfig))) as client:

            async def answers() -> bool:
                with contextlib.suppress(ClusterError):
                    return bool(await client.get("/version"))
                return False

            await until(answers)
            yield client
    finally:
        process.kill()
        await process.wait()


async def run_pod(client: Client, name: str, address: str, **labels: str) -> None:
    """Create a pod on the node and give it an address, as a kubelet does."""
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "x"}]}
    await client.create("/api/v1/namespaces/demo/pods", {"metadata": {"name": name, "labels": labels}, "spec": spec})
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    await client.patch(f"/api/v1/namespaces/demo/pods/{name}/status", {"status": status})


async def test_whole_story_against_the_labs_api_server(tmp_path: Path) -> None:
    """With TLS, a token and real resource versions; the API server is killed, comes back with its state from disk,
    and what is deleted then takes effect.
    """
    network_policies = "/apis/networking.k8s.io/v1/namespaces/demo/networkpolicies"
    async with contextlib.AsyncExitStack() as stack:
        async with lab_api_server(tmp_path) as client:
            agent = await stack.enter_async_context(running(tmp_path, None))
            await until(agent.ready)
            await client.create("/api/v1/namespaces", {"metadata": {"name": "demo"}})
            await run_pod(client, "server", "10.1.0.1", app="server")
            await run_pod(client, "client", "10.1.0.2")
            made = policy("deny")
            await client.create(network_policies, {"metadata": {"name": "deny"}, "spec": made["spec"]})
            uid = (await client.get("/api/v1/namespaces/demo/pods/server"))["metadata"]["uid"]
            assert (await agent.get(f"/v1/pods/demo/server?uid={uid}"))[0] == 200

            async def denied() -> bool:
                return not await agent.allowed("10.1.0.2", "10.1.0.1")

            async def open_again() -> bool:
                return await agent.allowed("10.1.0.2", "10.1.0.1")

            await until(denied)
        assert await agent.ready()
        assert await denied()
        async with lab_api_server(tmp_path) as client:
            await client.delete(f"{network_policies}/deny")
            await until(open_again)


async def test_invalid_policy_is_reported_once(api: ApiServer, tmp_path: Path) -> None:
    """Isolation stands; a log line, one Event on the object and the metric tell; a restart tells no second Event."""
    broken = policy("half", ingress=[{"from": [{"ipBlock": {"cidr": "10.1.0.0/40"}}]}])
    api.put(POLICIES, broken)
    async with api.serving():
        for _ in range(2):
            async with running(tmp_path, api.url) as agent:
                await until(agent.ready)

                async def posted() -> bool:
                    return any(request.startswith("POST") for request in api.requests)

                await until(posted)
                assert not await agent.allowed("10.1.0.2", "10.1.0.1")
                assert await agent.metric("ringfence_policy_problems") == 1
                agent.process.send_signal(signal.SIGTERM)
                assert await agent.process.wait() == 0
                (line,) = [each for each in agent.lines() if "stored object is invalid" in each["msg"]]
                assert line["object"] == "NetworkPolicy demo/half"
                assert "spec.ingress[0].from[0].ipBlock.cidr" in line["problem"]
            api.requests.clear()

    (event,) = api.collections[EVENTS].values()
    assert event["involvedObject"] == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "namespace": "demo",
        "name": "half",
        "uid": "uid-half",
    }
    assert (event["type"], event["source"]["component"]) == ("Warning", "ringfence-agent")


async def test_burst_of_changes_is_few_commits(api: ApiServer, tmp_path: Path) -> None:
    """Three hundred changes at once end in force, with far fewer commits than changes."""
    async with api.serving(), running(tmp_path, api.url) as agent:
        await until(agent.ready)
        for number in range(300):
            api.put(PODS, pod(f"p{number}", f"10.1.{1 + number // 200}.{number % 200}", app="server"))
        assert (await agent.get("/v1/pods/demo/p299?uid=uid-p299"))[0] == 200
        assert await agent.metric("ringfence_programs_applied_total") < 60


async def test_sigterm_ends_in_order_and_the_log_is_json_in_utc(api: ApiServer, tmp_path: Path) -> None:
    """Exit code 0 on SIGTERM; every line is JSON with RFC 3339 time, level and message."""
    async with api.serving(), running(tmp_path, api.url) as agent:
        await until(agent.ready)
        agent.process.send_signal(signal.SIGTERM)
        assert await agent.process.wait() == 0
        lines = agent.lines()

    assert lines[-1]["msg"] == "stopped; what is enforced stays in force"
    for line in lines:
        assert {"time", "level", "msg"} <= line.keys()
        assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param(("--dataplane", "magic"), 'there is no dataplane "magic"', id="dataplane"),
        pytest.param(
            ("--kubeconfig", "/nowhere/config"), "there is no kubeconfig file /nowhere/config", id="kubeconfig"
        ),
        pytest.param(("--gate-socket", "/nowhere/gate.sock"), "cannot make the gate socket", id="socket"),
    ],
)
async def test_agent_that_cannot_start_says_why_in_one_sentence(
    tmp_path: Path, options: tuple[str, ...], complaint: str
) -> None:
    """Exit code 2 and one line that begins with Error."""
    async with running(tmp_path, "http://127.0.0.1:9", *options) as agent:
        assert await agent.process.wait() == 2
        last = agent.log.read_text().splitlines()[-1]

    assert last.startswith("Error: ")
    assert complaint in last
