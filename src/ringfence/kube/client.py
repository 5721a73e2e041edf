# SPDX-License-Identifier: Apache-2.0
"""An asynchronous client of one API server: JSON in, JSON out, refusals as ``ClusterError``.

Decides what may be sent twice: a request that the server says it did not take up (429), and any request once more
with a new credential after a 401. Nothing else is retried: whether a lost answer may be asked for again is the
caller's to know. Lists that follow changes are ``kube.reflector``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from ringfence import __version__
from ringfence.errors import ClusterError
from ringfence.kube.config import ClusterAccess
from ringfence.kube.credentials import Credential, CredentialSource
from ringfence.kube.status import refusal, unreachable
from ringfence.kube.tls import tls_context

USER_AGENT = f"ringfence/{__version__}"
NO_PARAMS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds: for a connection, for an answer, for the next bytes of a watch that sleeps.

    ``idle`` is longer than the minute at which API servers send bookmarks. ``first_retry`` and ``last_retry`` bound
    the reflector's back-off. ``tries`` is how often a 429 is obeyed before it is an error.
    """

    connect: float = 10.0
    answer: float = 60.0
    idle: float = 150.0
    watch: float = 300.0
    first_retry: float = 0.1
    last_retry: float = 10.0
    longest_wait: float = 30.0
    tries: int = 5


class Client:
    """Talks to one API server; an asynchronous context manager. Paths start with ``/`` (``/api/v1/pods``)."""

    def __init__(
        self, access: ClusterAccess, *, patience: Patience | None = None, user_agent: str = USER_AGENT
    ) -> None:
        self.access = access
        self.patience = patience or Patience()
        self._agent = user_agent
        self._source = CredentialSource(access)
        self._session: aiohttp.ClientSession | None = None
        self._tls: tuple[tuple[bytes | None, bytes | None], ssl.SSLContext | None] | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, socket_factory=_watched_socket)
        self._session = aiohttp.ClientSession(connector=connector, headers={"User-Agent": self._agent})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, params: Mapping[str, str] = NO_PARAMS) -> Any:
        """Return the decoded answer to a GET."""
        return _decoded(await self.get_bytes(path, params))

    async def get_bytes(self, path: str, params: Mapping[str, str] = NO_PARAMS) -> bytes:
        """Return the answer to a GET as it came."""
        return await self._request("GET", path, params=params)

    async def create(self, path: str, obj: Mapping[str, Any], params: Mapping[str, str] = NO_PARAMS) -> Any:
        """POST an object to a collection (or a subresource) and return what was stored."""
        return _decoded(await self._request("POST", path, body=obj, params=params))

    async def replace(self, path: str, obj: Mapping[str, Any], params: Mapping[str, str] = NO_PARAMS) -> Any:
        """PUT an object and return what was stored."""
        return _decoded(await self._request("PUT", path, body=obj, params=params))

    async def delete(
        self, path: str, body: Mapping[str, Any] | None = None, params: Mapping[str, str] = NO_PARAMS
    ) -> Any:
        """DELETE an object; ``body`` are DeleteOptions."""
        return _decoded(await self._request("DELETE", path, body=body, params=params))

    async def patch(
        self,
        path: str,
        patch: Any,
        *,
        content_type: str = "application/merge-patch+json",
        params: Mapping[str, str] = NO_PARAMS,
    ) -> Any:
        """PATCH an object and return what was stored."""
        return _decoded(await self._request("PATCH", path, body=patch, params=params, content_type=content_type))

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str] = NO_PARAMS, *, idle: float | None = None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Open a GET whose answer has no end (a watch, a followed log); ``idle`` seconds without a byte end it.

        Raises ``ClusterError`` for a refusal; errors while reading are ``aiohttp.ClientError`` or ``TimeoutError``.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.patience.connect, sock_read=self.patience.idle if idle is None else idle
        )
        response = await self._accepted("GET", path, params=params, timeout=timeout)
        try:
            yield response.content
        finally:
            response.close()

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        body: Any = None,
        content_type: str = "application/json",
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=self.patience.answer, sock_connect=self.patience.connect)
        response = await self._accepted(
            method, path, params=params, timeout=timeout, body=body, content_type=content_type
        )
        async with response:
            try:
                return await response.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise unreachable(self.access.server, error) from None

    async def _accepted(self, method: str, path: str, **request: Any) -> aiohttp.ClientResponse:
        """Send until the server takes the request up; raises ``ClusterError`` for every other answer than a 2xx."""
        tries = 0
        renewed = False
        while True:
            credential = self._source.fresh()
            if credential is None:
                credential = await asyncio.to_thread(self._source.current)
            response = await self._send(method, path, credential, **request)
            if response.status < 300:
                return response
            async with response:
                error = refusal(response.status, await _body(response), self.access.server + path)
            tries += 1
            if response.status == 401 and not renewed and self._source.changeable():
                renewed = True
                self._source.reject(credential)
            elif response.status == 429 and tries < self.patience.tries:
                # "429: the request was not processed", whatever the method, so it may be sent again
                await asyncio.sleep(min(_retry_after(response), self.patience.longest_wait))
            else:
                raise error

    async def _send(
        self,
        method: str,
        path: str,
        credential: Credential,
        *,
        params: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - a description for aiohttp, not a deadline of ours
        body: Any = None,
        content_type: str = "application/json",
    ) -> aiohttp.ClientResponse:
        assert self._session is not None, "use the client as: async with Client(access) as client"
        headers = [("Accept", "application/json"), *credential.headers]
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            headers.append(("Content-Type", content_type))
        try:
            return await self._session.request(
                method,
                self.access.server + path,
                params=params,
                headers=headers,
                data=data,
                timeout=timeout,
                ssl=self._context(credential) or True,
                server_hostname=self.access.tls_server_name,
                proxy=self.access.proxy,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise unreachable(self.access.server, error) from None

    def _context(self, credential: Credential) -> ssl.SSLContext | None:
        shown = (credential.certificate, credential.key)
        if self._tls is None or self._tls[0] != shown:
            self._tls = (shown, tls_context(self.access, credential))
        return self._tls[1]


def _decoded(body: bytes) -> Any:
    return msgspec.json.decode(body) if body else None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.read()
    except (aiohttp.ClientError, TimeoutError):
        return b""  # the status code alone says enough


def _retry_after(response: aiohttp.ClientResponse) -> float:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "1")))
    except ValueError:
        return 1.0


def _watched_socket(info: tuple[Any, ...]) -> socket.socket:
    """Make a TCP socket whose kernel finds out within half a minute that the peer is gone (a watch only listens)."""
    family, kind, protocol, _, _ = info
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    made.setblocking(False)
    return made


__all__ = ["NO_PARAMS", "USER_AGENT", "Client", "ClusterError", "Patience"]
