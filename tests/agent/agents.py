# SPDX-License-Identifier: Apache-2.0
"""Agents for tests: real processes with the nftables dataplane, in a namespace of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from ringfence.dataplanes.ebpf.decode import decode
from ringfence.dataplanes.ebpf.folders import forget
from ringfence.dataplanes.ebpf.place import Place
from ringfence.host import netns, process
from ringfence.kube.testing import ApiServer

NAME = f"rfagent-{os.getpid()}"
POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"


def made_namespace() -> Iterator[str]:
    """Yield a namespace with nothing but a loopback that is up."""
    netns.create(NAME)
    process.run(["ip", "-n", NAME, "link", "set", "lo", "up"])
    yield NAME
    forget(netns.path(NAME))
    netns.delete(NAME)


def small_cluster() -> ApiServer:
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
async def agent(
    namespace: str,
    directory: Path,
    url: str,
    *words: str,
    dataplane: str = "nftables",
    drift_interval: float = 0.1,
    env: dict[str, str] | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an agent in the namespace, with the nftables dataplane unless told otherwise. ``words``: more options."""
    kubeconfig = directory / "kubeconfig"
    context = [{"name": "x", "context": {"cluster": "c"}}]
    clusters = [{"name": "c", "cluster": {"server": url}}]
    kubeconfig.write_text(json.dumps({"clusters": clusters, "contexts": context, "current-context": "x"}))
    with netns.enter(namespace), (directory / "log").open("ab") as stderr:
        command = [sys.executable, "-m", "ringfence", "agent", "--kubeconfig", str(kubeconfig), "--node-name", "n1"]
        options = [
            "--dataplane",
            dataplane,
            "--gate-socket",
            str(directory / "gate"),
            f"--drift-interval={drift_interval:g}",
            *words,
        ]
        started = await asyncio.create_subprocess_exec(
            *command, *options, stderr=stderr, env={**os.environ, **(env or {})}
        )
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
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - another process decides
            await asyncio.sleep(0.005)


def rules(namespace: str, dataplane: str = "nftables") -> str:
    """Return all that a dataplane holds in a namespace: equal text means that nothing was written.

    Of nftables the whole ruleset with its handles, of eBPF the program that the tables hold, and their generation.
    """
    if dataplane == "nftables":
        return process.run(["ip", "netns", "exec", namespace, "nft", "-a", "list", "ruleset"]).stdout
    with netns.enter(namespace):
        found = Place().adopt()
    if found is None:
        return ""
    store = found.read()
    found.close()
    flat = decode(store)
    lines = [*map(str, flat.views.items()), *map(str, flat.blocks.items()), *map(str, flat.rules.items())]
    return "\n".join([f"{store.word >> 8}", *sorted(lines)])
