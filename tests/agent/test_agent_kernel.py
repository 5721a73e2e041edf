# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ringfence.host import netns, process
from ringfence.kube.testing import ApiServer

pytestmark = pytest.mark.kernel

NAME = f"rfagent-{os.getpid()}"
POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"


@pytest.fixture
def namespace() -> Iterator[str]:
    """Yield a namespace with nothing but a loopback that is up."""
    netns.create(NAME)
    process.run(["ip", "-n", NAME, "link", "set", "lo", "up"])
    yield NAME
    netns.delete(NAME)


@pytest.fixture
def api() -> ApiServer:
    """Return a cluster with a node, an isolated server and a client that it lets in."""
    server = ApiServer()
    server.put("/api/v1/namespaces", {"metadata": {"name": "demo"}})
    server.put("/api/v1/nodes", {"metadata": {"name": "n1"}, "status": {"addresses": [{"address": "10.0.0.1"}]}})
    for number, name in enumerate(("server", "client"), start=1):
        put_pod(server, name, f"10.1.0.{number}")
    spec = {
        "podSelector": {"matchLabels": {"app": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}],
    }
    server.put(POLICIES, {"metadata": {"namespace": "demo", "name": "demo-policy"}, "spec": spec})
    return server


def put_pod(api: ApiServer, name: str, address: str, app: str | None = None) -> None:
    """Put a pod on the node; its app label is its name, unless given."""
    api.put(
        "/api/v1/pods",
        {
            "metadata": {"namespace": "demo", "name": name, "uid": f"uid-{name}", "labels": {"app": app or name}},
            "spec": {"nodeName": "n1"},
            "status": {"podIP": address, "podIPs": [{"ip": address}]},
        },
    )


@contextlib.asynccontextmanager
async def serving(api: ApiServer, namespace: str, port: int = 0) -> AsyncIterator[None]:
    """Serve the API on the loopback of the namespace."""
    with netns.enter(namespace):
        listener = socket.create_server(("127.0.0.1", port))
    async with api.serving(listener=listener):
        yield


@contextlib.asynccontextmanager
async def agent(namespace: str, directory: Path, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an agent with the nftables dataplane in the namespace."""
    kubeconfig = directory / "kubeconfig"
    context = [{"name": "x", "context": {"cluster": "c"}}]
    clusters = [{"name": "c", "cluster": {"server": url}}]
    kubeconfig.write_text(json.dumps({"clusters": clusters, "contexts": context, "current-context": "x"}))
    with netns.enter(namespace), (directory / "log").open("ab") as stderr:
        command = [sys.executable, "-m", "ringfence", "agent", "--kubeconfig", str(kubeconfig), "--node-name", "n1"]
        options = ["--dataplane", "auto", "--gate-socket", str(directory / "gate"), "--drift-interval", "0.1"]
        started = await asyncio.create_subprocess_exec(*command, *options, stderr=stderr)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


async def get(directory: Path, target: str) -> tuple[int, Any]:
    """Ask the gate; status 0 while nobody answers."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(directory / "gate"))) as session,
            session.get(f"http://gate{target}") as response,
        ):
            return response.status, await response.text()
    except aiohttp.ClientConnectorError:
        return 0, ""


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Poll until something is so."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - another process decides
            await asyncio.sleep(0.005)


def rules(namespace: str) -> str:
    """Return the namespace's whole nftables ruleset with its handles: equal text means that nothing was written."""
    return process.run(["ip", "netns", "exec", namespace, "nft", "-a", "list", "ruleset"]).stdout


async def test_rules_outlive_agent_and_api_server(namespace: str, api: ApiServer, tmp_path: Path) -> None:
    """Killed, or without API server, the agent leaves every rule as it is; its successor takes over what is there,
    writes nothing that is right already, and enforces what happened meanwhile.
    """

    async def ready() -> bool:
        return (await get(tmp_path, "/readyz"))[0] == 200

    async def sees_late() -> bool:
        return "10.1.0.3" in rules(namespace)

    async with serving(api, namespace):
        port = int(api.url.rpartition(":")[2])
        async with agent(namespace, tmp_path, api.url) as first:
            await until(ready)
            enforced = rules(namespace)
            assert "10.1.0.1" in enforced
            assert "demo-policy" in enforced
            first.send_signal(signal.SIGKILL)
            await first.wait()
        assert rules(namespace) == enforced
        async with agent(namespace, tmp_path, api.url) as second:
            await until(ready)
            assert rules(namespace) == enforced
            second.terminate()
            assert await second.wait() == 0
        assert rules(namespace) == enforced
    async with agent(namespace, tmp_path, api.url) as third:

        async def answers() -> bool:
            return (await get(tmp_path, "/livez"))[0] == 200

        async def complains() -> bool:
            return "cannot follow the API server" in (tmp_path / "log").read_text()

        await until(answers)
        await until(complains)
        assert not await ready()
        assert rules(namespace) == enforced
        put_pod(api, "late", "10.1.0.3", app="server")
        async with serving(api, namespace, port):
            await until(sees_late)
        assert third.returncode is None


async def test_foreign_change_is_undone_and_counted(namespace: str, api: ApiServer, tmp_path: Path) -> None:
    """Somebody deletes our table: within the interval it is back, and the metric says so; other tables stay."""

    async def repaired() -> bool:
        return "ringfence_drift_repaired_total 1.0" in (await get(tmp_path, "/metrics"))[1]

    async def in_force() -> bool:
        return (await get(tmp_path, "/v1/pods/demo/server?uid=uid-server"))[0] == 200

    async with serving(api, namespace), agent(namespace, tmp_path, api.url):
        await until(in_force)
        nft = ["ip", "netns", "exec", namespace, "nft"]
        process.run([*nft, "add table inet other; delete table inet ringfence"])
        await until(repaired)
        after = rules(namespace)

    assert "demo-policy" in after
    assert "table inet other" in after
