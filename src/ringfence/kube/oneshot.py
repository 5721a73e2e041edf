# SPDX-License-Identifier: Apache-2.0
"""A few synchronous GETs, for commands that ask and exit: standard library only, since importing aiohttp takes longer
than the whole command should.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import msgspec

from ringfence import __version__
from ringfence.errors import ClusterError, UsageError
from ringfence.kube.config import ClusterAccess
from ringfence.kube.credentials import Credential, CredentialSource
from ringfence.kube.status import refusal, unreachable
from ringfence.kube.tls import tls_context

TIMEOUT_SECONDS = 30.0
PAGE = 500
NO_PARAMS: Mapping[str, str] = {}


class _ListMeta(msgspec.Struct, frozen=True):
    next_page: str | None = msgspec.field(default=None, name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


def get(access: ClusterAccess, path: str, params: Mapping[str, str] = NO_PARAMS) -> bytes:
    """Return the answer to one GET; raises ``ClusterError``."""
    with Connection(access) as connection:
        return connection.get(path, params)


class Connection:
    """One connection to the API server, kept for several GETs; a context manager."""

    def __init__(self, access: ClusterAccess, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._access = access
        self._timeout = timeout
        self._source = CredentialSource(access)
        self._open: tuple[Credential, http.client.HTTPConnection] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next GET opens another."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def get(self, path: str, params: Mapping[str, str] = NO_PARAMS) -> bytes:
        """Return the answer to a GET; raises ``ClusterError``. A 401 is answered once with a new credential."""
        credential = self._source.current()
        status, body = self._ask(path, params, credential)
        if status == 401 and self._source.changeable():
            self._source.reject(credential)
            status, body = self._ask(path, params, self._source.current())
        if status >= 300:
            raise refusal(status, body, self._access.server + path)
        return body

    def items(self, path: str, params: Mapping[str, str] = NO_PARAMS) -> Iterator[bytes]:
        """Yield the JSON of each object of a collection, in pages; raises ``ClusterError``."""
        query = {**params, "limit": str(PAGE)}
        while True:
            try:
                page = msgspec.json.decode(self.get(path, query), type=_Page)
            except msgspec.MsgspecError as error:
                raise ClusterError(f"the list of {path} cannot be read: {error}", reason="Unreadable") from None
            yield from map(bytes, page.items or ())
            if not page.metadata.next_page:
                return
            query["continue"] = page.metadata.next_page

    def _ask(self, path: str, params: Mapping[str, str], credential: Credential) -> tuple[int, bytes]:
        connection = self._connection(credential)
        target = urllib.parse.urlsplit(self._access.server).path + path
        if params:
            target += "?" + urllib.parse.urlencode(params)
        try:
            connection.putrequest("GET", target)
            connection.putheader("Accept", "application/json")
            connection.putheader("User-Agent", f"ringfence/{__version__}")
            for name, value in credential.headers:
                connection.putheader(name, value)
            connection.endheaders()
            with connection.getresponse() as response:
                return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise unreachable(self._access.server, error) from None

    def _connection(self, credential: Credential) -> http.client.HTTPConnection:
        if self._open is not None and self._open[0] is credential:
            return self._open[1]
        self.close()
        self._open = (credential, _connect(self._access, credential, self._timeout))
        return self._open[1]


def _connect(access: ClusterAccess, credential: Credential, timeout: float) -> http.client.HTTPConnection:
    server = urllib.parse.urlsplit(access.server)
    host, port = server.hostname or "", server.port
    context = tls_context(access, credential)
    via = urllib.parse.urlsplit(access.proxy) if access.proxy else None
    if via is not None and via.scheme != "http":
        raise UsageError(f'proxy-url "{access.proxy}" cannot be used; only http:// proxies are supported')
    at = (via.hostname or "", via.port or 80) if via is not None else (host, port)
    if context is None:
        connection = http.client.HTTPConnection(at[0], at[1], timeout=timeout)
    else:
        connection = _NamedTls(at[0], at[1], timeout=timeout, context=context)
        connection.server_name = access.tls_server_name or host
    if via is not None:
        connection.set_tunnel(host, port or (443 if context is not None else 80))
    return connection


class _NamedTls(http.client.HTTPSConnection):
    """HTTPS with a server name (SNI and verification) that may differ from the address, as tls-server-name asks."""

    server_name: str = ""

    def __init__(self, host: str, port: int | None, *, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._tls_context = context

    def connect(self) -> None:
        """Open the connection, through the proxy's tunnel if there is one, and shake hands."""
        http.client.HTTPConnection.connect(self)
        assert isinstance(self.sock, socket.socket)
        self.sock = self._tls_context.wrap_socket(self.sock, server_hostname=self.server_name)
