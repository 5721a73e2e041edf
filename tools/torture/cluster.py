# SPDX-License-Identifier: Apache-2.0
"""The cluster under fire: a lab's network, its real API server and one real agent for each node, started from here.

In place of the kubelets, whoever uses this makes pods: so it chooses their addresses, and the moment that they start.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from ringfence.errors import RingfenceError
from ringfence.host import netns
from ringfence.host.nft import Nft
from ringfence.kube.client import Client
from ringfence.kube.config import load_access
from ringfence.lab import fabric
from ringfence.lab.config import LabConfig, LabPaths
from ringfence.lab.credentials import write_credentials
from ringfence.lab.lifecycle import SERVICE_ADDRESS
from ringfence.lab.nodes.gate import AgentGate
from ringfence.lab.supervisor import Child, children_of
from ringfence.lab.topology import PodPlan, plan_external, plan_pod, plan_topology
from tools.torture.messages import Place
from tools.torture.rules import ENGINES, Rules
from tools.torture.worlds import OUTSIDERS, Object

DRIFT_SECONDS = 1.0  # what agents here are told to look over their rules in
_PATIENCE = 60.0


class Node:
    """A node, its agent's process and its kernel's rules."""

    def __init__(self, name: str, namespace: str, agent: Child, paths: LabPaths, engine: str) -> None:
        self.name = name
        self.netns = namespace
        self.steady = asyncio.Lock()  # who holds it keeps the agent from being killed
        self.gate = AgentGate(paths.gate_socket(name), name)
        self.starts = 0
        self.engine = engine
        self.rules_of = {each: make(namespace) for each, make in ENGINES.items()}
        with netns.enter(namespace):
            self.nft = Nft()
        self._socket = paths.gate_socket(name)
        self._process = _Process(
            (*agent.argv, "--drift-interval", str(DRIFT_SECONDS), "--log-format", "json", "--dataplane", engine),
            paths.log(agent.name),
            namespace,
        )

    @property
    def rules(self) -> Rules:
        """What is in force, when its agent has committed."""
        return self.rules_of[self.engine]

    def switch(self) -> None:
        """Let the next agent use another engine."""
        names = list(self.rules_of)
        self.engine = names[(names.index(self.engine) + 1) % len(names)]
        self._process.change_last_word(self.engine)

    def close(self) -> None:
        """End the agent, and give back what is held open."""
        self.kill()
        for rules in self.rules_of.values():
            rules.close()
        self.nft.close()

    def start(self) -> None:
        """Start the agent."""
        self.starts += 1
        self._process.start()

    def kill(self) -> None:
        """End the agent as SIGKILL does; what it wrote stays in the kernel."""
        self._process.kill()

    def died(self) -> bool:
        """Tell whether the agent ended though nobody killed it."""
        return self._process.died()

    async def metrics(self) -> dict[str, float]:
        """Return the agent's metrics without labels; none if it does not answer."""
        connector = aiohttp.UnixConnector(str(self._socket))
        try:
            async with aiohttp.ClientSession("http://agent", connector=connector) as session:
                text = await (await session.get("/metrics")).text()
        except (aiohttp.ClientError, OSError):
            return {}
        lines = (line.split() for line in text.splitlines() if line and line[0] != "#" and "{" not in line)
        return {words[0]: float(words[1]) for words in lines}


class _Process:
    """A process that is started again and again, always in one network namespace."""

    def __init__(self, argv: Sequence[str], log: Path, namespace: str | None) -> None:
        # If this process is killed, its children go with it (prctl(2), PR_SET_PDEATHSIG).
        self._argv = ("setpriv", "--pdeathsig", "KILL", *argv) if shutil.which("setpriv") else tuple(argv)
        self._log = log
        self._netns = namespace
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            if self._netns is None:
                self._running = self._spawn(log.fileno())
            else:
                with netns.enter(self._netns):
                    self._running = self._spawn(log.fileno())

    def change_last_word(self, word: str) -> None:
        self._argv = (*self._argv[:-1], word)

    def _spawn(self, log: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._running is not None:
            self._running.send_signal(number)
            self._running.wait()
            self._running = None

    def died(self) -> bool:
        return self._running is not None and self._running.poll() is not None


class Cluster:
    """Two or more nodes and an API server. A context manager; nothing of it is left afterwards."""

    def __init__(self, node_count: int, engine: str) -> None:
        self.lab = f"torture{os.getpid()}"
        self.paths = LabPaths(Path(tempfile.mkdtemp(prefix="rfto-", dir="/tmp")))
        names = tuple(f"node-{chr(ord('a') + number)}" for number in range(node_count))
        self._config = LabConfig(self.lab, _free_port(), names)
        self.topology = plan_topology(self.lab, "azure", names)
        self.nodes: dict[str, Node] = {}
        self._engine = engine

    def __enter__(self) -> Self:
        try:
            fabric.build(self.topology)
            addresses = self.topology.apiserver_addresses
            write_credentials(
                self.paths, name=self.lab, port=self._config.port, fabric=addresses, service=SERVICE_ADDRESS
            )
            self.paths.config.write_bytes(msgspec.json.encode(self._config))
            children = children_of(self._config, self.paths, lambda name: self.topology.node(name).netns)
            by_name = {child.name: child for child in children}
            self._api = _Process(by_name["apiserver"].argv, self.paths.log("apiserver"), None)
            for plan in self.topology.nodes:
                agent = by_name[f"agent-{plan.name}"]
                self.nodes[plan.name] = Node(plan.name, plan.netns, agent, self.paths, self._engine)
            for outsider in OUTSIDERS:
                fabric.add_external(self.topology, self._external(outsider.name, outsider.addresses))
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._clean()

    def _clean(self) -> None:
        for node in self.nodes.values():
            node.close()
        if hasattr(self, "_api"):
            self._api.kill()
        fabric.destroy(self.lab)
        shutil.rmtree(self.paths.directory, ignore_errors=True)

    def _external(self, name: str, addresses: Sequence[str]) -> Any:
        return plan_external(self.topology, name, [ipaddress.ip_address(each) for each in addresses])

    def outsiders(self) -> list[Place]:
        """Return the hosts outside of the cluster."""
        return [Place(each.name, self._external(each.name, each.addresses).netns, each.addresses) for each in OUTSIDERS]

    def client(self) -> Client:
        """Return a client of the API server; to be closed."""
        return Client(load_access(str(self.paths.kubeconfig)))

    async def start_api(self, client: Client) -> None:
        """Start the API server, and wait until it answers."""
        self._api.start()
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                await client.get("/api/v1/namespaces", {"limit": "1"})
            except RingfenceError as error:
                if self._api.died() or time.monotonic() > deadline:
                    said = self.paths.log("apiserver").read_text()[-2000:]
                    raise RuntimeError(f"the API server does not answer ({error}): {said}") from error
                await asyncio.sleep(0.02)
            else:
                return

    def stop_api(self, *, rudely: bool) -> None:
        """Stop the API server, by SIGTERM or SIGKILL; its database stays."""
        self._api.kill(signal.SIGKILL if rudely else signal.SIGTERM)

    async def register_nodes(self, client: Client) -> None:
        """Create the Node objects."""
        for plan in self.topology.nodes:
            addresses = [{"type": "InternalIP", "address": str(each)} for each in plan.addresses]
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": plan.name}}
            await client.create("/api/v1/nodes", {**body, "status": {"addresses": addresses}})

    def blocks(self) -> dict[str, list[str]]:
        """Return the pod blocks of each node."""
        return {plan.name: [str(each) for each in plan.pod_networks] for plan in self.topology.nodes}

    def plan(self, pod: Object, addresses: Sequence[str]) -> PodPlan:
        """Return how a pod stands in the network."""
        meta = pod["metadata"]
        found = [ipaddress.ip_address(each) for each in addresses]
        return plan_pod(self.topology, pod["spec"]["nodeName"], meta["namespace"], meta["name"], meta["uid"], found)

    def last_words(self) -> Mapping[str, list[str]]:
        """Return the last lines of each log."""
        return {
            log.stem: log.read_text(errors="replace").splitlines()[-200:] for log in self.paths.directory.glob("*.log")
        }


def complaints(lines: Sequence[str]) -> list[str]:
    """Return the lines of an agent's log that are errors."""
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            found.append(line)
            continue
        if entry.get("level") in ("error", "critical"):
            found.append(line)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
