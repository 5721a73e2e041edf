# SPDX-License-Identifier: Apache-2.0
"""netexec's ``/dial``: asks another pod over HTTP, UDP or SCTP, some number of times, and reports what came back."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from . import sctp
from .addresses import Address, Unresolved, explain, join, resolve
from .http import Response

_SECONDS = 5.0


def to_json(value: Mapping[str, object]) -> bytes:
    """Return compact JSON, as Go's encoder writes it."""
    import json  # noqa: PLC0415 - slow to import, and few pods need it

    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def dial(query: Mapping[str, str]) -> Response:
    """Answer ``/dial?host=&port=&request=&protocol=&tries=`` with ``{"responses": [...], "errors": [...]}``."""
    tries, request = query.get("tries") or "1", query.get("request", "")
    protocol = query.get("protocol", "").lower() or "http"
    if not tries.isdigit():
        return Response(f"tries parameter is invalid. {tries!r} is no number\n".encode(), 400)
    if not request:
        return Response(b"request parameter not specified.\n", 400)
    if protocol not in _DIALERS:
        return Response(f"unsupported protocol. {protocol}\n".encode(), 400)
    try:
        address = resolve(join(query.get("host", ""), query.get("port", "")), protocol)[0]
    except Unresolved as error:
        return Response(f"host and/or port param are invalid. {error}\n".encode(), 400)
    responses, errors = [], []
    for _ in range(int(tries)):
        try:
            responses.append(_DIALERS[protocol](request, address))
        except TimeoutError:
            errors.append(f"dial {protocol} {address}: i/o timeout")
        except OSError as error:
            errors.append(f"dial {protocol} {address}: {explain(error)}")
    output = {"responses": responses, "errors": errors}
    return Response(to_json({name: values for name, values in output.items() if values}))


def _http(request: str, address: Address) -> str:
    with socket.create_connection((address.host, address.port), timeout=_SECONDS) as sock:
        head = f"GET /{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode())
        answer = b""
        while part := sock.recv(65536):
            answer += part
    return answer.partition(b"\r\n\r\n")[2].decode(errors="replace")


def _udp(request: str, address: Address) -> str:
    with socket.socket(address.family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_SECONDS)
        sock.connect((address.host, address.port))
        sock.send(request.encode())
        return sock.recv(2048).decode(errors="replace")


def _sctp(request: str, address: Address) -> str:
    return sctp.exchange(address, request.encode(), _SECONDS).decode(errors="replace")


_DIALERS = {"http": _http, "udp": _udp, "sctp": _sctp}
