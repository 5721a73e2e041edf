# SPDX-License-Identifier: Apache-2.0
"""Just enough HTTP/1.1 to serve tests: request line, headers, bodies with a length, keep-alive.

The standard library's server costs more time to import than a pod may take to start.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .listening import accept

_REASONS = {
    200: "OK", 201: "Created", 301: "Moved Permanently", 302: "Found",
    307: "Temporary Redirect", 308: "Permanent Redirect",
    400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 412: "Precondition Failed",
    417: "Expectation Failed", 500: "Internal Server Error",
}  # fmt: skip
_MOST_HEAD = 65536
_MOST_BODY = 64 << 20


class Request(NamedTuple):
    """One request: ``query`` holds the first value of each parameter of the URL and of a form body."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    sender: str


class Response(NamedTuple):
    """What to answer."""

    body: bytes = b""
    code: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


Handler = Callable[[Request], Response]


def unquote(text: str) -> str:
    """Return a query value with ``+`` and ``%XX`` decoded; a broken escape stays as it is."""
    first, *parts = text.replace("+", " ").split("%")
    data = first.encode()
    for part in parts:
        try:
            data += bytes([int(part[:2], 16)]) + part[2:].encode()
        except ValueError:
            data += b"%" + part.encode()
    return data.decode(errors="replace")


def parse_query(text: str) -> dict[str, str]:
    """Return the first value of each parameter of a query string."""
    values: dict[str, str] = {}
    for pair in text.split("&"):
        name, _, value = pair.partition("=")
        if name:
            values.setdefault(unquote(name), unquote(value))
    return values


def _read(connection: socket.socket, buffered: bytes, sender: str) -> tuple[Request, bytes] | None:
    """Read one request; None when the client closed, or sent what is no HTTP."""
    while b"\r\n\r\n" not in buffered:
        more = connection.recv(65536)
        if not more or len(buffered) > _MOST_HEAD:
            return None
        buffered += more
    head, _, rest = buffered.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        return None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length", "0")
    size = int(length) if length.isdigit() else 0
    if size > _MOST_BODY:
        return None
    while len(rest) < size:
        more = connection.recv(65536)
        if not more:
            return None
        rest += more
    body, rest = rest[:size], rest[size:]
    path, _, query = words[1].partition("?")
    values = parse_query(query)
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        values = parse_query(body.decode(errors="replace")) | values
    if words[2] == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return Request(words[0], unquote(path), values, headers, body, sender), rest


def _write(connection: socket.socket, request: Request, response: Response, *, close: bool) -> None:
    lines = [f"HTTP/1.1 {response.code} {_REASONS.get(response.code, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in response.headers]
    lines += ["Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(response.body)}"]
    if close:
        lines.append("Connection: close")
    body = b"" if request.method == "HEAD" else response.body
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def serve(sock: socket.socket, handler: Handler) -> None:
    """Answer HTTP on a listening socket for ever."""

    def converse(connection: socket.socket, sender: str) -> None:
        buffered = b""
        while True:
            read = _read(connection, buffered, sender)
            if read is None:
                return
            request, buffered = read
            response = handler(request)
            close = response.close or request.headers.get("connection", "").lower() == "close"
            _write(connection, request, response, close=close)
            if close:
                return

    accept(sock, converse)
