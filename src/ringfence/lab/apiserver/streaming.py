# SPDX-License-Identifier: Apache-2.0
"""Streams of a pod (logs, exec, attach): checked here, answered by the kubelet, passed on both ways unread.

Between kubectl and the kubelet's Unix socket the server is a pipe: bytes of logs, frames of WebSockets, and the close
in either direction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web

from ringfence.lab.apiserver import writing
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.objects import Object, name_of, spec_of, status_of
from ringfence.lab.apiserver.requests import Target
from ringfence.lab.apiserver.status import Failure, bad_request, internal, not_found

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_CONTAINER_LISTS = ("containers", "initContainers", "ephemeralContainers")
_LOG_PARAMETERS = ("follow", "tailLines", "previous", "timestamps", "sinceSeconds", "sinceTime", "limitBytes")
_STREAM_PARAMETERS = ("command", "stdin", "stdout", "stderr", "tty")
_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


class KubeletProxy:
    """The way to the kubelet's socket. One HTTP session, made when first needed, closed with ``close``."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections to the kubelet."""
        if self._session is not None:
            await self._session.close()

    async def stream(self, request: web.BaseRequest, api: Api, target: Target) -> web.StreamResponse:
        """Answer a request for a pod's stream; raises ``Failure`` 400, 404 or 500."""
        part = target.subresource
        if part == "portforward":
            raise bad_request(
                "port-forward is not available in a lab: reach the pod from its network (ringfence lab exec)"
            )
        pod = writing.existing(api, Target(target.resource, target.namespace, target.name)).object
        container = _container(pod, request.query.get("container", ""))
        place = "/".join(quote(word, safe="") for word in (target.namespace, target.name, container))
        if part == "log":
            _check_log(pod, container)
            return await self._logs(request, f"/containerLogs/{place}?{_query(request, _LOG_PARAMETERS)}")
        # kubectl asks again by SPDY when a WebSocket is refused, and shows that second answer
        _check_running(pod, container, part)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise bad_request("Upgrade request required: exec and attach need WebSockets (kubectl 1.30 or newer)")
        return await self._frames(request, f"/{part}/{place}?{_query(request, _STREAM_PARAMETERS)}")

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(path=str(self._socket), limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        return self._session

    async def _logs(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        try:
            async with self._client().get(f"http://kubelet{path}") as source:
                if source.status != 200:
                    raise _relayed(source.status, await source.text())
                response = web.StreamResponse(headers={"Content-Type": "text/plain"})
                await response.prepare(request)
                async for chunk in source.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except aiohttp.ClientConnectorError:
            raise _away() from None

    async def _frames(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        shared = [protocol for protocol in PROTOCOLS if protocol in offered]
        if not shared:
            raise bad_request(
                f"unable to upgrade: none of the protocols {offered} is spoken here: {', '.join(PROTOCOLS)}"
            )
        try:
            kubelet = await self._client().ws_connect(
                f"http://kubelet{path}", protocols=shared[:1], compress=0, max_msg_size=0, autoclose=False
            )
        except aiohttp.WSServerHandshakeError as error:
            raise _relayed(error.status, error.message) from None
        except aiohttp.ClientConnectorError:
            raise _away() from None
        async with kubelet:
            client = web.WebSocketResponse(protocols=shared[:1], compress=False, max_msg_size=0, autoclose=False)
            await client.prepare(request)
            await _join(client, kubelet)
            return client


async def _join(client: web.WebSocketResponse, kubelet: aiohttp.ClientWebSocketResponse) -> None:
    """Pass frames on both ways until either side closes."""
    ways = [asyncio.ensure_future(_pump(client, kubelet)), asyncio.ensure_future(_pump(kubelet, client))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await kubelet.close()
        await client.close()


_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pump(source: _Socket, sink: _Socket) -> None:
    try:
        while True:
            message = await source.receive()
            match message.type:
                case aiohttp.WSMsgType.BINARY:
                    await sink.send_bytes(message.data)
                case aiohttp.WSMsgType.TEXT:
                    await sink.send_str(message.data)
                case _:
                    return
    except ConnectionError:
        return


def _query(request: web.BaseRequest, names: Iterable[str]) -> str:
    return urlencode([(name, value) for name in names for value in request.query.getall(name, ())])


def _containers(pod: Object) -> list[str]:
    return [c.get("name", "") for field in _CONTAINER_LISTS for c in spec_of(pod).get(field) or ()]


def _container(pod: Object, asked: str) -> str:
    """Return the container that is meant; raises ``Failure`` 400 if that is not clear or there is none."""
    names = _containers(pod)
    name = name_of(pod)
    if asked:
        if asked not in names:
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    default = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER, "")
    if default in names:
        return str(default)
    regular = [c.get("name", "") for c in spec_of(pod).get("containers") or ()]
    if len(regular) == 1:
        return str(regular[0])
    raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]")


def _state(pod: Object, container: str) -> Object:
    status = status_of(pod)
    for field in ("containerStatuses", "initContainerStatuses"):
        for entry in status.get(field) or ():
            if entry.get("name") == container:
                return entry.get("state") or {}
    return {}


def _check_log(pod: Object, container: str) -> None:
    if not spec_of(pod).get("nodeName"):
        raise bad_request(f"pod {name_of(pod)} does not have a host assigned")
    state = _state(pod, container)
    if "running" not in state and "terminated" not in state:
        reason = (state.get("waiting") or {}).get("reason") or "ContainerCreating"
        if reason in ("ContainerCreating", "PodInitializing"):
            message = f'container "{container}" in pod "{name_of(pod)}" is waiting to start: {reason}'
            raise bad_request(message)


def _check_running(pod: Object, container: str, part: str) -> None:
    if not spec_of(pod).get("nodeName"):
        raise bad_request(f"pod {name_of(pod)} does not have a host assigned")
    phase = status_of(pod).get("phase")
    if phase in ("Succeeded", "Failed"):
        raise bad_request(f"cannot {part} in a container in a completed pod; current phase is {phase}")
    if "running" not in _state(pod, container):
        raise internal(f'unable to upgrade connection: container not found ("{container}")')


def _relayed(code: int, text: str) -> Failure:
    """Return the kubelet's refusal."""
    return (
        not_found("", "containers", text) if code == 404 and not text else Failure(code, _REASONS.get(code, ""), text)
    )


_REASONS = {400: "BadRequest", 404: "NotFound", 500: "InternalError"}


def _away() -> Failure:
    why = "the lab's kubelet does not answer; see: ringfence lab status"
    return Failure(503, "ServiceUnavailable", f"error trying to reach service: {why}")
