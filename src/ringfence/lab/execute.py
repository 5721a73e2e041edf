# SPDX-License-Identifier: Apache-2.0
"""Run a command in a pod through the API server, as ``kubectl exec`` does, without needing kubectl."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Sequence

import aiohttp
import msgspec

from ringfence.errors import ClusterError
from ringfence.lab.config import LabPaths, read_config

_PROTOCOLS = ("v5.channel.k8s.io",)
_STDOUT, _STDERR, _STATUS = 1, 2, 3  # its channels


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] = []


class _Status(msgspec.Struct):
    status: str = ""
    message: str = ""
    details: _Details = msgspec.field(default_factory=_Details)

    def exit_code(self) -> int:
        if self.status == "Success":
            return 0
        for cause in self.details.causes:
            if cause.reason == "ExitCode":
                return int(cause.message)
        raise ClusterError(self.message)


def run_in_pod(paths: LabPaths, namespace: str, pod: str, argv: Sequence[str]) -> int:
    """Run a command in a pod's first container and return its exit code; its output goes to ours."""
    return asyncio.run(_run(paths, f"/api/v1/namespaces/{namespace}/pods/{pod}/exec", argv))


async def _run(paths: LabPaths, path: str, argv: Sequence[str]) -> int:
    config = read_config(paths)
    tls = ssl.create_default_context(cafile=str(paths.ca_certificate))
    headers = {"Authorization": f"Bearer {paths.token.read_text().strip()}"}
    params = [("command", word) for word in argv] + [("stdout", "true"), ("stderr", "true")]
    async with aiohttp.ClientSession(f"https://127.0.0.1:{config.port}", headers=headers) as session:
        try:
            socket = await session.ws_connect(path, params=params, ssl=tls, protocols=_PROTOCOLS, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            raise ClusterError(await _refusal(session, path, tls), code=error.status) from error
        except aiohttp.ClientError as error:
            raise ClusterError(f'the API server of lab "{config.name}" does not answer: {error}') from error
        async with socket:
            return await _relay(socket)


async def _relay(socket: aiohttp.ClientWebSocketResponse) -> int:
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, content = message.data[0], message.data[1:]
        if channel == _STATUS:
            return msgspec.json.decode(content, type=_Status).exit_code()
        stream = sys.stdout if channel == _STDOUT else sys.stderr
        stream.buffer.write(content)
        stream.flush()
    raise ClusterError("the connection to the pod ended before its exit code came")


async def _refusal(session: aiohttp.ClientSession, path: str, tls: ssl.SSLContext) -> str:
    """Ask for the pod itself: a handshake's refusal does not say why."""
    async with session.get(path.removesuffix("/exec"), ssl=tls) as response:
        if response.ok:
            return "the pod does not run; see: kubectl describe pod"
        return msgspec.json.decode(await response.read(), type=_Status).message
