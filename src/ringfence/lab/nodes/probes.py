# SPDX-License-Identifier: Apache-2.0
"""One look at a container: does it answer on a port, over HTTP, or to a command? How often, and what follows, is
``containers``'s.

The look comes from the node's own network namespace: it is the kubelet's traffic, which policy must let pass
(SEMANTICS: a pod's own node may always reach it).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from ringfence.lab.nodes import wire
from ringfence.lab.nodes.runtime import NotStarted, Process, Runtime

Json = Mapping[str, Any]
_MOST_ANSWER = 10240


class Failure(Exception):
    """The look found fault; ``str()`` is what a kubelet would say."""


class Dialer(Protocol):
    """The kubelet's way to a pod: connections that come from the node."""

    async def tcp(self, host: str, port: int) -> None:
        """Connect and close; raises ``OSError``."""

    async def http(self, host: str, port: int, request: bytes, *, secure: bool) -> bytes:
        """Send a request and return the answer's first line; raises ``OSError``."""


def port_number(container: Json, port: int | str) -> int:
    """Return a probe's port, looking a name up among the container's ports; raises ``Failure``."""
    if isinstance(port, int):
        return port
    for known in container.get("ports", ()):
        if known.get("name") == port:
            return int(known["containerPort"])
    raise Failure(f"couldn't find port: {port}")


async def look(
    probe: Json, container: Json, *, host: str, runtime: Runtime, running: str, env: Process, dialer: Dialer
) -> None:
    """Look once, for at most the probe's ``timeoutSeconds``; raises ``Failure``."""
    seconds = probe.get("timeoutSeconds", 1)
    try:
        async with asyncio.timeout(seconds):
            if "exec" in probe:
                await _run(runtime, running, env, probe["exec"].get("command") or [])
            elif "httpGet" in probe:
                await _get(dialer, probe["httpGet"], container, host)
            elif "tcpSocket" in probe:
                await _connect(dialer, probe["tcpSocket"], container, host)
            else:
                raise Failure(f"the lab has no probes of the kind {', '.join(sorted(probe))}")
    except TimeoutError:
        raise Failure(f"timed out after {seconds} s") from None


async def _run(runtime: Runtime, running: str, env: Process, command: list[str]) -> None:
    process = Process(argv=command, env=env.env, cwd=env.cwd, uid=env.uid, gid=env.gid, add=env.add, drop=env.drop)
    try:
        session = await runtime.exec(running, process)
    except NotStarted as error:
        raise Failure(str(error)) from None
    output = b""
    try:
        while (frame := await session.receive()) is not None:
            if frame.kind == wire.EXIT:
                code = frame.json()["code"]
                if code != 0:
                    raise Failure(output.decode(errors="replace").strip() or f"exit code {code}")
                return
            output = (output + frame.payload)[:_MOST_ANSWER]
    finally:
        await session.close()


async def _connect(dialer: Dialer, target: Json, container: Json, host: str) -> None:
    host, port = target.get("host") or host, port_number(container, target["port"])
    try:
        await dialer.tcp(host, port)
    except OSError as error:
        raise Failure(f"dial tcp {_name(host, port)}: connect: {_sentence(error)}") from None


async def _get(dialer: Dialer, target: Json, container: Json, host: str) -> None:
    host, port = target.get("host") or host, port_number(container, target["port"])
    name, path = _name(host, port), target.get("path") or "/"
    scheme = target.get("scheme", "HTTP").lower()
    headers = {"Host": name, "User-Agent": "kube-probe/ringfence", "Accept": "*/*", "Connection": "close"}
    headers |= {header["name"]: header["value"] for header in target.get("httpHeaders") or ()}
    lines = [f"GET {path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items()), "", ""]
    try:
        first = await dialer.http(host, port, "\r\n".join(lines).encode(), secure=scheme == "https")
    except OSError as error:
        raise Failure(f'Get "{scheme}://{name}{path}": dial tcp {name}: connect: {_sentence(error)}') from None
    words = first.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        raise Failure(f'Get "{scheme}://{name}{path}": malformed HTTP response')
    if not 200 <= int(words[1]) < 400:
        raise Failure(f"HTTP probe failed with statuscode: {int(words[1])}")


def _name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sentence(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
