# SPDX-License-Identifier: Apache-2.0
"""Pods without processes, for labs without root: the kubelet's ``Runtime`` and ``Network``, played in this process.

A simulated container runs a *program* (``simulated_programs``), which knows a handful of commands. What it prints, its
log, exec and attach are as real as kubectl can tell. Connections are decided by asking the agents (``Fabric``), so the
policy is really judged; only the packets are missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from ringfence.lab.config import LabPaths
from ringfence.lab.nodes import wire
from ringfence.lab.nodes.network import PodName
from ringfence.lab.nodes.processes import Log
from ringfence.lab.nodes.runtime import Container, Exit, NotStarted, Process
from ringfence.lab.nodes.simulated_programs import Program, Surroundings, find_program
from ringfence.lab.nodes.simulated_terminal import Terminal
from ringfence.lab.nodes.wire import Frame

_KILLED, _ENDED = 137, 143


class _Verdict(msgspec.Struct):
    allowed: bool = False


class Fabric:
    """What stands for the network: who has which address, who listens where, and what the agents say."""

    def __init__(self, paths: LabPaths) -> None:
        self._paths = paths
        self._nodes: dict[str, str] = {}  # address -> node
        self._listening: dict[tuple[str, str, int], str] = {}  # address, protocol, port -> answer
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def place(self, addresses: Sequence[str], node: str) -> None:
        """Say on which node addresses are."""
        self._nodes |= dict.fromkeys(addresses, node)

    def forget(self, addresses: Sequence[str]) -> None:
        """Take addresses away."""
        for address in addresses:
            self._nodes.pop(address, None)

    def listen(self, address: str, protocol: str, port: int, answer: str) -> None:
        """Serve a port; raises ``OSError`` (EADDRINUSE)."""
        if (address, protocol, port) in self._listening:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._listening[address, protocol, port] = answer

    def close(self, address: str, protocol: str, port: int) -> None:
        """Stop serving a port."""
        self._listening.pop((address, protocol, port), None)

    async def reach(self, source: str, destination: str, protocol: str, port: int) -> str:
        """Return what the destination's server answers.

        Raises ``OSError``: EHOSTUNREACH for an address that nobody has, ECONNREFUSED where nobody listens; and
        ``TimeoutError`` if policy lets nothing pass. In doubt, closed: an agent that does not answer allows nothing.
        """
        nodes = {self._nodes[address] for address in (source, destination) if address in self._nodes}
        if source != destination:
            for node in sorted(nodes):
                if not await self._allows(node, source, destination, protocol, port):
                    raise TimeoutError
        if destination not in self._nodes:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        if (destination, protocol, port) not in self._listening:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return self._listening[destination, protocol, port]

    async def _allows(self, node: str, source: str, destination: str, protocol: str, port: int) -> bool:
        params = {"source": source, "destination": destination, "protocol": protocol.upper(), "port": str(port)}
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
            async with self._session(node).get("/v1/verdict", params=params) as response:
                return msgspec.json.decode(await response.read(), type=_Verdict).allowed and response.status == 200
        return False

    def _session(self, node: str) -> aiohttp.ClientSession:
        if node not in self._sessions:
            connector = aiohttp.UnixConnector(str(self._paths.gate_socket(node)))
            timeout = aiohttp.ClientTimeout(total=10)
            self._sessions[node] = aiohttp.ClientSession("http://agent", connector=connector, timeout=timeout)
        return self._sessions[node]

    async def shutdown(self) -> None:
        """Close all connections to agents."""
        for session in self._sessions.values():
            await session.close()


class _Conversation:
    """A session with a simulated process."""

    def __init__(self, process: _Process) -> None:
        self._process = process
        self._frames: asyncio.Queue[Frame] = asyncio.Queue()
        process.listeners.append(self)

    def tell(self, frame: Frame) -> None:
        self._frames.put_nowait(frame)

    async def receive(self) -> Frame | None:
        return await self._frames.get()

    async def send(self, kind: int, payload: bytes) -> None:
        if kind == wire.STDIN:
            self._process.terminal.feed(payload)
        elif kind == wire.STDIN_END:
            self._process.terminal.end()

    async def close(self) -> None:
        with contextlib.suppress(ValueError):
            self._process.listeners.remove(self)


@dataclass(eq=False)
class _Process:
    """One running program, its listeners and its end."""

    task: asyncio.Task[int] | None = None
    log: Log | None = None
    listeners: list[_Conversation] = field(default_factory=list)
    end_code: int = _KILLED
    terminal: Terminal = field(init=False)
    exit: asyncio.Future[Exit] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    pid: int = 0
    started: float = field(default_factory=time.time)

    def write(self, kind: int, data: bytes) -> None:
        """Show output to the log and to everybody attached."""
        if not data:
            return
        if self.log is not None:
            self.log.write(kind, data)
        for listener in self.listeners:
            listener.tell(Frame(kind, data))

    async def run(self, program: Program, around: Surroundings, argv: Sequence[str]) -> None:
        """Run the program to its end, and say how it ended."""
        self.task = asyncio.ensure_future(program(around, argv))
        try:
            code = await self.task
        except asyncio.CancelledError:
            code = self.end_code
        end = Exit(code, 0, time.time())
        self.exit.set_result(end)
        if self.log is not None:
            self.log.close()
        about = {"code": end.code, "signal": 0, "finished": end.finished}
        for listener in self.listeners:
            listener.tell(Frame(wire.EXIT, msgspec.json.encode(about)))

    def stop(self, code: int) -> None:
        """End the program; ``code`` is what it exits with."""
        self.end_code = code
        if self.task is not None:
            self.task.cancel()

    async def wait(self) -> Exit:
        """Wait for the end."""
        return await asyncio.shield(self.exit)


class SimulatedRuntime:
    """Runs programs in place of processes."""

    def __init__(self, paths: LabPaths) -> None:
        self.fabric = Fabric(paths)
        self._directory = paths.pods
        self._containers: dict[str, tuple[Container, _Process]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ensure(self) -> None:
        """Do nothing: there is nothing to start."""

    async def shutdown(self) -> None:
        """End everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.fabric.shutdown()

    async def start(self, container: Container) -> _Process:
        """Start a container; raises ``NotStarted`` for a program that is not simulated."""
        program = _program(container.process.argv)
        path = self._directory / container.log
        path.parent.mkdir(parents=True, exist_ok=True)
        process = _Process(log=Log(path))
        self.fabric.place(container.about["addresses"], container.about["node"])
        self._begin(process, program, container, container.process)
        self._containers[container.id] = (container, process)
        return process

    def _begin(self, process: _Process, program: Program, container: Container, what: Process) -> None:
        process.terminal = Terminal(process.write, tty=what.tty, stdin=what.stdin)
        around = Surroundings(
            terminal=process.terminal,
            fabric=self.fabric,
            hostname=container.hostname,
            addresses=tuple(container.about["addresses"]),
            env=dict(what.env),
        )
        task = asyncio.create_task(process.run(program, around, list(what.argv)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def adopt(self) -> list[Mapping[str, Any]]:
        """Return nothing: simulated containers end with their kubelet."""
        return []

    async def watch(self, container: str, pid: int, started: float) -> _Process:  # noqa: ARG002 - the protocol's
        """Refuse: there is never anything to adopt."""
        raise NotStarted(f"container {container} is not here")

    async def exec(self, container: str, process: Process) -> _Conversation:
        """Run a further program in a container."""
        found = self._find(container)
        program = _program(process.argv)
        running = _Process()
        conversation = _Conversation(running)
        self._begin(running, program, found[0], process)
        return conversation

    async def attach(self, container: str, *, stdin: bool) -> _Conversation:  # noqa: ARG002 - the protocol's
        """Listen and speak to a container's program."""
        _, process = self._find(container)
        conversation = _Conversation(process)
        if process.terminal.prompt:
            conversation.tell(Frame(wire.STDOUT, process.terminal.prompt))
        return conversation

    def _find(self, container: str) -> tuple[Container, _Process]:
        found = self._containers.get(container)
        if found is None or found[1].exit.done():
            raise NotStarted(f"container {container} is not running")
        return found

    async def terminate(self, container: str, pid: int) -> bool:  # noqa: ARG002 - the protocol's
        """Ask a container to end; a simulated one does."""
        found = self._containers.get(container)
        if found is not None:
            found[1].stop(_ENDED)
        return True

    async def kill(self, container: str) -> None:
        """End a container."""
        found = self._containers.get(container)
        if found is not None:
            found[1].stop(_KILLED)

    async def remove(self, container: str) -> None:
        """Forget a container."""
        self._containers.pop(container, None)


def _program(argv: Sequence[str]) -> Program:
    program = find_program(argv[0])
    if program is None:
        raise NotStarted(
            f'exec: "{argv[0]}": this lab is simulated (network policy "memory") and knows only /agnhost, sh, bash, '
            "sleep and a few more; for real processes run a lab as root with --network-policy nftables"
        )
    return program


class SimulatedNetwork:
    """The network of the nodes of a simulated lab: nothing to make, and the kubelet reaches every pod of its node."""

    def __init__(self, runtime: SimulatedRuntime, node_address: str) -> None:
        self._fabric = runtime.fabric
        self._address = node_address

    async def add(self, pod: PodName, addresses: Sequence[str]) -> None:
        """Do nothing."""

    async def open(self, pod: PodName, addresses: Sequence[str]) -> None:
        """Do nothing."""

    async def remove(self, pod: PodName, addresses: Sequence[str]) -> None:  # noqa: ARG002 - the protocol's
        """Take the pod's addresses away."""
        self._fabric.forget(addresses)

    def path(self, pod: PodName, addresses: Sequence[str]) -> Path | None:  # noqa: ARG002 - the protocol's
        """Return None: there are no namespaces."""
        return None

    def node_path(self) -> Path | None:
        """Return None: there are no namespaces."""
        return None

    async def tcp(self, host: str, port: int) -> None:
        """Connect from the node."""
        await self._fabric.reach(self._address, host, "tcp", port)

    async def http(self, host: str, port: int, request: bytes, *, secure: bool) -> bytes:  # noqa: ARG002 - same
        """Ask from the node; whatever listens is well."""
        await self._fabric.reach(self._address, host, "tcp", port)
        return b"HTTP/1.1 200 OK\r\n"
