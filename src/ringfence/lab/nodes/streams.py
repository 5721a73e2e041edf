# SPDX-License-Identifier: Apache-2.0
"""The kubelets' door: logs, exec and attach, as a real kubelet serves them, on one Unix socket for all nodes.

exec and attach are WebSockets of the protocols ``v5.channel.k8s.io`` and ``v4.channel.k8s.io``: every message starts
with the number of a channel. The exit status travels as a ``Status`` object. Who may ask is the API server's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from ringfence.lab.images import ImageMissing
from ringfence.lab.nodes import logs, wire
from ringfence.lab.nodes.podspec import Unusable
from ringfence.lab.nodes.runtime import NotStarted, Session
from ringfence.lab.nodes.status import Record, Running, Waiting
from ringfence.lab.nodes.worker import Worker

Json = Mapping[str, Any]

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_CHANNELS = {wire.STDOUT: _STDOUT, wire.STDERR: _STDERR}
_TRUE = frozenset({"1", "true"})


def status(code: int, reason: str, message: str, **details: Any) -> dict[str, Any]:
    """Return a Failure as a ``metav1.Status``."""
    found: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return found | {"message": message, "reason": reason, "code": code} | details


def exit_status(code: int) -> dict[str, Any]:
    """Return how a command ended, as a ``metav1.Status``."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": causes},
    }


class _Refused(Exception):
    """A request cannot be answered."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        self.answer = web.json_response(status(code, reason, message), status=code)
        super().__init__(message)


class Streams:
    """Serves the pods of some kubelets."""

    def __init__(self, kubelets: Iterable[Mapping[Any, Worker]], directory: Path) -> None:
        self._kubelets = list(kubelets)
        self._directory = directory

    def application(self) -> web.Application:
        """Return the web application."""
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._guard(self._logs))
        app.router.add_get("/exec/{namespace}/{pod}/{container}", self._guard(self._exec))
        app.router.add_get("/attach/{namespace}/{pod}/{container}", self._guard(self._attach))
        return app

    @staticmethod
    def _guard(handler: Any) -> Any:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                response: web.StreamResponse = await handler(request)
            except _Refused as refused:
                return refused.answer
            return response

        return guarded

    def _find(self, request: web.Request) -> tuple[Worker, Record]:
        namespace, pod, container = (request.match_info[name] for name in ("namespace", "pod", "container"))
        for workers in self._kubelets:
            for worker in workers.values():
                if (worker.id.namespace, worker.id.name) == (namespace, pod):
                    for record in worker.records:
                        if record.name == container:
                            return worker, record
                    raise _Refused(404, "NotFound", f"container {container} is not in pod {pod}")
        raise _Refused(404, "NotFound", f"pod {pod} is not on a node of this lab")

    # -- logs

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker, record = self._find(request)
        wanted = _wanted(request.query)
        attempt = self._attempt(worker, record, previous=_flag(request.query, "previous"))
        path = self._directory / worker.id.directory / record.name / f"{attempt}.log"
        if not path.exists():
            state = record.state.reason if isinstance(record.state, Waiting) else "ContainerCreating"
            raise _Refused(
                400, "BadRequest",
                f'container "{record.name}" in pod "{worker.id.name}" is waiting to start: {state}',
            )  # fmt: skip

        def ended() -> bool:
            return record.restarts != attempt or not isinstance(record.state, Running)

        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for text in logs.read(path, wanted, ended):
                if text:
                    await response.write(text)
            await response.write_eof()
        return response

    def _attempt(self, worker: Worker, record: Record, *, previous: bool) -> int:
        """Return the number of the attempt whose log is meant: one that waits for its restart shows the last."""
        attempt = record.restarts
        here = self._directory / worker.id.directory / record.name
        if not (here / f"{attempt}.log").exists() and not previous and record.last is not None:
            return attempt - 1
        if previous:
            if record.last is None or attempt == 0:
                message = f'previous terminated container "{record.name}" in pod "{worker.id.name}" not found'
                raise _Refused(400, "BadRequest", message)
            return attempt - 1
        return attempt

    # -- exec and attach

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        worker, record = self._running(request)
        command = request.query.getall("command", [])
        if not command:
            raise _Refused(400, "BadRequest", "you must specify at least 1 command for the container")
        socket = await _accept(request)
        try:
            container = await worker.describe(record)
            process = replace(
                container.process,
                argv=command,
                tty=_flag(request.query, "tty"),
                stdin=_flag(request.query, "stdin"),
                once=False,
            )
            session = await worker.runtime.exec(record.id, process)
        except (NotStarted, Unusable, ImageMissing, OSError) as error:
            message = f"error executing command in container: unable to start container process: {error}"
            await _fail(socket, message)
            return socket
        await _Relay(socket, session, exit_status).run()
        return socket

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        worker, record = self._running(request)
        socket = await _accept(request)
        try:
            session = await worker.runtime.attach(record.id, stdin=_flag(request.query, "stdin"))
        except (NotStarted, OSError) as error:
            await _fail(socket, f"error attaching to container: {error}")
            return socket
        # Being attached was a success, however the container ended: its exit code stands in the pod's status.
        await _Relay(socket, session, lambda _code: exit_status(0)).run()
        return socket

    def _running(self, request: web.Request) -> tuple[Worker, Record]:
        worker, record = self._find(request)
        if not isinstance(record.state, Running):
            # As a kubelet answers: the API server passes it on.
            raise _Refused(400, "BadRequest", f'container "{record.name}" is not running in pod "{worker.id.name}"')
        return worker, record


class _Relay:
    """Passes frames between a WebSocket and a session until the process has ended or the client has left."""

    def __init__(self, socket: web.WebSocketResponse, session: Session, ended: Callable[[int], Json]) -> None:
        self._socket = socket
        self._session = session
        self._ended = ended

    async def run(self) -> None:
        """Relay both directions."""
        inward = asyncio.create_task(self._inward())
        outward = asyncio.create_task(self._outward())
        try:
            await asyncio.wait((inward, outward), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (inward, outward):
                task.cancel()
            await asyncio.gather(inward, outward, return_exceptions=True)
            await self._session.close()
            await self._socket.close()

    async def _inward(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            match channel:
                case 0 if data:
                    await self._session.send(wire.STDIN, data)
                case 4:
                    await self._session.send(wire.RESIZE, data)
                case 255 if data[:1] == bytes([_STDIN]):  # v5: "close" of one channel, here the end of input
                    await self._session.send(wire.STDIN_END, b"")
                case _:
                    continue

    async def _outward(self) -> None:
        with contextlib.suppress(ConnectionError):
            while (frame := await self._session.receive()) is not None:
                if frame.kind in _CHANNELS:
                    await self._socket.send_bytes(bytes([_CHANNELS[frame.kind]]) + frame.payload)
                elif frame.kind == wire.EXIT:
                    await self._tell(self._ended(frame.json()["code"]))
                    return
            await self._tell(status(500, "InternalError", "Internal error occurred: the container's runner is gone"))

    async def _tell(self, value: Mapping[str, Any]) -> None:
        await self._socket.send_bytes(bytes([_ERROR]) + json.dumps(value).encode())


async def _accept(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=PROTOCOLS, compress=False, max_msg_size=0)
    if not socket.can_prepare(request):
        raise _Refused(400, "BadRequest", "exec and attach need a WebSocket upgrade (kubectl 1.30 or newer)")
    await socket.prepare(request)
    return socket


async def _fail(socket: web.WebSocketResponse, message: str) -> None:
    error = status(500, "InternalError", f"Internal error occurred: {message}")
    with contextlib.suppress(ConnectionError):
        await socket.send_bytes(bytes([_ERROR]) + json.dumps(error).encode())
    await socket.close()


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in _TRUE


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not text.isdigit():
        raise _Refused(400, "BadRequest", f"{name}: {text} is no number")
    return int(text)


def _wanted(query: Mapping[str, str]) -> logs.Wanted:
    since = 0.0
    seconds = _number(query, "sinceSeconds")
    if seconds is not None:
        since = time.time() - seconds
    elif query.get("sinceTime"):
        since = logs.seconds(query["sinceTime"])
    return logs.Wanted(
        tail=_number(query, "tailLines"),
        since=since,
        limit=_number(query, "limitBytes"),
        timestamps=_flag(query, "timestamps"),
        follow=_flag(query, "follow"),
    )


async def serve(streams: Streams, path: Path) -> None:
    """Serve on a Unix socket until cancelled."""
    path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, before anything is served
    runner = web.AppRunner(streams.application(), handle_signals=False, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(path)).start()
        path.chmod(0o600)  # noqa: ASYNC240 - once
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
