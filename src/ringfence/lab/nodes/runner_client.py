# SPDX-License-Identifier: Apache-2.0
"""The runtime of labs with namespaces: tells the runner what the kubelet wants, and starts it if there is none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence.errors import HostLacks, HostRefused
from ringfence.lab import images
from ringfence.lab.nodes import wire
from ringfence.lab.nodes.runtime import Container, Exit, NotStarted, Process
from ringfence.lab.nodes.wire import Frame

_START_SECONDS = 20.0
_END_SECONDS = 5.0


class _Connection:
    """A connection to the runner, from its request to its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: set[_Connection]) -> None:
        self._reader = reader
        self._writer = writer
        self._open = open_
        open_.add(self)

    async def receive(self) -> Frame | None:
        try:
            kind, length = wire.HEADER.unpack(await self._reader.readexactly(wire.HEADER.size))
            return Frame(kind, await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def send(self, kind: int, payload: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(wire.encode(kind, payload))
            await self._writer.drain()

    async def close(self) -> None:
        self._open.discard(self)
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


class _Watched:
    """A container of the runner's; the connection that started it says how it ends."""

    def __init__(self, connection: _Connection, pid: int, started: float) -> None:
        self._connection = connection
        self.pid = pid
        self.started = started

    async def wait(self) -> Exit:
        try:
            while (frame := await self._connection.receive()) is not None:
                if frame.kind == wire.EXIT:
                    return Exit(**frame.json())
        finally:
            await self._connection.close()
        raise HostRefused("the lab's container runner is gone", asked="wait for a container", answered="")


class RunnerRuntime:
    """The runtime of labs with namespaces. ``directory`` is ``LabPaths.pods``; it needs root."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = asyncio.Lock()
        self._greeting: _Connection | None = None
        self._connections: set[_Connection] = set()
        self._started: subprocess.Popen[bytes] | None = None

    async def ensure(self) -> None:
        """Start the runner if there is none; raises ``HostRefused`` if it does not come up."""
        async with self._lock:
            if self._greeting is not None:
                return
            with contextlib.suppress(OSError):
                self._greeting = await self._greet()
                return
            await asyncio.to_thread(self._prepare)
            starting = self._started = subprocess.Popen(  # noqa: ASYNC220 - a fork, not a wait
                [sys.executable, "-m", "ringfence.lab.nodes.runner", str(self._directory)],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            end = time.monotonic() + _START_SECONDS
            while self._greeting is None:
                with contextlib.suppress(OSError):
                    self._greeting = await self._greet()
                    return
                # 3: another runner was quicker, and its socket is about to appear.
                if starting.poll() not in (None, 3) or time.monotonic() > end:
                    raise HostRefused(
                        "the lab's container runner does not start",
                        asked="ringfence.lab.nodes.runner",
                        answered=f"exit code {starting.poll()}; see the log of the lab's nodes",
                    )
                await asyncio.sleep(0.01)

    def _prepare(self) -> None:
        if os.geteuid() != 0:
            raise HostLacks("pods with real packets need root", remedy="run as root, or use --network-policy memory")
        (self._directory / "root").mkdir(parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        images.build_agnhost(self._directory / "agnhost")

    async def _greet(self) -> _Connection:
        connection, _ = await self._open({"op": "hello"})
        return connection

    async def _open(
        self, request: Mapping[str, Any], network: Path | None = None
    ) -> tuple[_Connection, Mapping[str, Any]]:
        """Send a request and return its connection and reply; raises ``OSError`` if there is no runner."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            data = wire.encode_json(wire.REQUEST, request)
            sent = self._send_with(sock, data, network)
            sock.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=sock, limit=1 << 20)
        except OSError:
            sock.close()
            raise
        writer.write(data[sent:])
        connection = _Connection(reader, writer, self._connections)
        try:
            frame = await connection.receive()
        except BaseException:
            self._connections.discard(connection)
            writer.close()  # the runner ends what nobody waits for
            raise
        if frame is None:
            await connection.close()
            raise ConnectionError("the lab's container runner hung up")
        return connection, frame.json()

    def _connect(self, sock: socket.socket) -> None:
        # Through the directory's descriptor, because the path of a Unix socket may have only 107 bytes.
        directory = os.open(self._directory, os.O_PATH | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{directory}/runner.sock")
        finally:
            os.close(directory)

    @staticmethod
    def _send_with(sock: socket.socket, data: bytes, network: Path | None) -> int:
        if network is None:
            return 0
        descriptor = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return socket.send_fds(sock, [data[:1]], [descriptor])
        finally:
            os.close(descriptor)

    async def _ask(
        self, request: Mapping[str, Any], network: Path | None = None
    ) -> tuple[_Connection, Mapping[str, Any]]:
        """Send a request; a runner that has died is started again once. Raises ``NotStarted`` with its complaint."""
        await self.ensure()
        greeting = self._greeting
        try:
            connection, reply = await self._open(request, network)
        except FileNotFoundError:
            if network is not None and not network.exists():  # noqa: ASYNC240 - in /run, which is memory
                raise NotStarted(f"the pod's network namespace {network} is gone") from None
            raise
        except OSError:
            if self._greeting is greeting:  # else another request has started a new one already
                await self._hang_up()
            await self.ensure()
            connection, reply = await self._open(request, network)
        if "error" in reply:
            await connection.close()
            raise NotStarted(reply["error"])
        return connection, reply

    async def start(self, container: Container) -> _Watched:
        """Start a container; raises ``NotStarted``."""
        request = {
            **_process(container.process),
            "op": "start",
            "id": container.id,
            "hostname": container.hostname,
            "log": container.log,
            "files": container.files,
            "volumes": container.volumes,
            "about": container.about,
        }
        connection, reply = await self._ask(request, container.network)
        return _Watched(connection, reply["pid"], reply["started"])

    async def adopt(self) -> list[Mapping[str, Any]]:
        """Return the containers that the runner knows."""
        connection, reply = await self._ask({"op": "list"})
        await connection.close()
        found: list[Mapping[str, Any]] = reply["containers"]
        return found

    async def watch(self, container: str, pid: int, started: float) -> _Watched:
        """Watch a container that an earlier kubelet started; raises ``NotStarted`` if it is not there."""
        connection, _ = await self._ask({"op": "watch", "id": container})
        return _Watched(connection, pid, started)

    async def exec(self, container: str, process: Process) -> _Connection:
        """Run a further process in a container; raises ``NotStarted``."""
        connection, _ = await self._ask({**_process(process), "op": "exec", "id": container})
        return connection

    async def attach(self, container: str, *, stdin: bool) -> _Connection:
        """Listen and speak to a container's first process; raises ``NotStarted``."""
        connection, _ = await self._ask({"op": "attach", "id": container, "stdin": stdin})
        return connection

    async def terminate(self, container: str, pid: int) -> bool:
        """Ask a container to end: SIGTERM, and a hang-up of its terminal; tell whether its program has a say in it.

        PID 1 of a process namespace gets only signals that it has asked for (pid_namespaces(7)), so a program that left
        SIGTERM at its default sits out its grace period in a real cluster, and is killed all the same. Here it is given
        what the default means, at once. One that handles, blocks or ignores SIGTERM has its time.
        """
        heard = _hears_sigterm(pid)
        await self._tell({"op": "signal", "id": container, "signal": signal.SIGTERM})
        await self._tell({"op": "hang-up", "id": container})
        return heard

    async def kill(self, container: str) -> None:
        """End a container."""
        await self._tell({"op": "signal", "id": container, "signal": signal.SIGKILL})

    async def remove(self, container: str) -> None:
        """Forget a container that has ended."""
        await self._tell({"op": "remove", "id": container})

    async def shutdown(self) -> None:
        """End the runner and every container."""
        await self._tell({"op": "shutdown"})
        await self._hang_up()
        for connection in list(self._connections):
            await connection.close()

    async def _hang_up(self) -> None:
        """Let go of a runner that is going or gone."""
        greeting, self._greeting = self._greeting, None
        started, self._started = self._started, None
        if greeting is not None:
            await greeting.close()
        if started is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(started.wait, _END_SECONDS)

    async def _tell(self, request: Mapping[str, Any]) -> None:
        """Send a request that has nothing to do where its container, or the runner, is gone."""
        with contextlib.suppress(OSError):
            connection, _ = await self._open(request)
            await connection.close()


def _process(process: Process) -> dict[str, Any]:
    return {
        "argv": list(process.argv),
        "env": dict(process.env),
        "cwd": process.cwd,
        "tty": process.tty,
        "stdin": process.stdin,
        "once": process.once,
        "uid": process.uid,
        "gid": process.gid,
        "groups": list(process.groups),
        "add": list(process.add),
        "drop": list(process.drop),
        "privileged": process.privileged,
    }


def _hears_sigterm(pid: int) -> bool:
    """Tell whether SIGTERM is anything but left alone (caught, blocked or ignored) by a process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    bit = 1 << (signal.SIGTERM - 1)
    masks = [line.split()[1] for line in status.splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
    return any(int(mask, 16) & bit for mask in masks)
