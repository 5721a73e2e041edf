# SPDX-License-Identifier: Apache-2.0
"""The start-up gate and the agent's other answers, over HTTP.

::

    GET /v1/pods/{namespace}/{name}?uid=UID&timeout=SECONDS    200 once that pod's traffic may start, else 503;
                                                               with address=IP..., for each of these addresses
    GET /v1/verdict?source=&destination=&protocol=&port=       with the memory dataplane: what its program says
    GET /readyz    200 after the first commit, while the last wanted program is in force
    GET /livez     200
    GET /metrics   Prometheus text

On the Unix socket (0600) whoever starts pods asks whether a pod may have its first packet: "A pod is isolated before
its first packet" (SEMANTICS 30): ``podgate`` decides. On the metrics address only the last three are served.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from ringfence.agent.metrics import Metrics
from ringfence.agent.podgate import PodGate, Question
from ringfence.agent.standing import Standing
from ringfence.compiler.interpret import Half, Judgement
from ringfence.errors import UsageError
from ringfence.model.flow import Flow
from ringfence.model.ports import Protocol

DEFAULT_WAIT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 600.0
_SOCKET_PATH_LIMIT = 100  # sun_path has 108 bytes, and the socket is made under a longer name first


Judge = Callable[[Flow], Judgement]


class Answers:
    """The HTTP handlers. ``judge`` answers for flows on the memory dataplane, where no packet can ask."""

    def __init__(self, standing: Standing, pods: PodGate, metrics: Metrics, judge: Judge | None) -> None:
        self._standing = standing
        self._pods = pods
        self._metrics = metrics
        self._judge = judge

    def health(self) -> web.Application:
        """Return the application for the metrics address."""
        app = web.Application()
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/livez", self._live)
        app.router.add_get("/metrics", self._text)
        return app

    def gate(self) -> web.Application:
        """Return the application for the Unix socket."""
        app = self.health()
        app.router.add_get("/v1/pods/{namespace}/{name}", self._pod)
        if self._judge is not None:
            app.router.add_get("/v1/verdict", self._verdict)
        return app

    async def _ready(self, _: web.Request) -> web.Response:
        reason = self._standing.unready()
        return web.Response(text="ok\n") if reason is None else web.Response(text=f"{reason}\n", status=503)

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _text(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _pod(self, request: web.Request) -> web.Response:
        uid = request.query.get("uid", "")
        try:
            seconds = float(request.query.get("timeout", DEFAULT_WAIT_SECONDS))
        except ValueError:
            return _json({"reason": "timeout must be a number of seconds"}, status=400)
        if not uid:
            return _json({"reason": "uid is required: a pod of the same name may have been another"}, status=400)
        seconds = min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)
        names = request.match_info
        question = Question(names["namespace"], names["name"], uid, tuple(request.query.getall("address", [])))
        opening = await self._pods.ask(question, seconds)
        if opening.ground is None:
            return _json({"open": False, "inForce": False, "reason": opening.reason}, status=503)
        return _json({"open": True, "inForce": opening.in_force, "ground": opening.ground.value})

    async def _verdict(self, request: web.Request) -> web.Response:
        if self._judge is None or self._standing.committed is None:
            return _json({"reason": "nothing was committed yet"}, status=503)
        try:
            flow = _flow(request)
        except ValueError as error:
            return _json({"reason": str(error)}, status=400)
        judgement = self._judge(flow)
        return _json(
            {
                "allowed": judgement.allowed,
                "source": judgement.egress is not None,
                "destination": judgement.ingress is not None,
                "egress": _half(judgement.egress),
                "ingress": _half(judgement.ingress),
            }
        )


def _half(half: Half | None) -> dict[str, Any] | None:
    if half is None:
        return None
    return {"allowed": half.allowed, "why": half.ground.value, "rule": str(half.origin) if half.origin else None}


def _flow(request: web.Request) -> Flow:
    query = request.query
    protocol = Protocol(query.get("protocol", "TCP"))
    return Flow(
        ipaddress.ip_address(query.get("source", "")),
        ipaddress.ip_address(query.get("destination", "")),
        protocol,
        int(query["port"]) if "port" in query else None,
    )


def _json(answer: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type="application/json")


@contextlib.asynccontextmanager
async def serving_socket(app: web.Application, path: Path) -> AsyncIterator[None]:
    """Serve on a Unix socket that appears, ready and private, in one step: also over one that a killed agent left.

    The file stays when we end: a successor may have put its own there already.
    """
    listener = _listen(path)
    async with _serving(app) as runner:
        await web.SockSite(runner, listener).start()
        yield


@contextlib.asynccontextmanager
async def serving_address(app: web.Application, address: str) -> AsyncIterator[None]:
    """Serve on ``host:port`` (``:9090`` for every address, ``[::1]:9090`` for IPv6); raises ``UsageError``."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise UsageError(f'"{address}" is no address to bind to; write host:port, such as 127.0.0.1:9090')
    async with _serving(app) as runner:
        try:
            await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        except OSError as error:
            raise UsageError(
                f"cannot listen on {address} ({os.strerror(error.errno or 0)}); choose another --metrics-bind-address"
            ) from None
        yield


@contextlib.asynccontextmanager
async def _serving(app: web.Application) -> AsyncIterator[web.AppRunner]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT:
        raise UsageError(f"the path of the gate socket {path} is too long for a socket; choose a shorter one")
    fresh = path.with_name(path.name + ".new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fresh.unlink(missing_ok=True)
        listener.bind(str(fresh))
        fresh.chmod(0o600)  # before listen: nobody can connect earlier
        listener.listen(128)
        fresh.rename(path)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot make the gate socket {path} ({error.strerror}); check its directory and its permissions"
        ) from None
    return listener
