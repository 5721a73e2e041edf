# SPDX-License-Identifier: Apache-2.0
"""``netexec``: HTTP, UDP and SCTP servers that answer, echo, and run commands or connections when asked to.

TLS (``--tls-cert-file``) is not served here; asking for it is refused rather than answered in clear text.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from . import http, netexec_dial, sctp
from .flags import Flag, WrongUsage, parse, parse_duration
from .http import Request, Response
from .listening import Fatal, hear, in_background, listen, log, sender_name, wait_for_signal

ABOUT = "Starts HTTP, UDP and (if asked) SCTP servers with various endpoints"
USE = "netexec"
FLAGS = (
    Flag("http-port", 8080, "HTTP port"),
    Flag("udp-port", 8081, "UDP port; -1 for none"),
    Flag("sctp-port", -1, "SCTP port; -1 for none"),
    Flag("udp-listen-addresses", "", "Addresses to serve UDP on, with commas between them"),
    Flag("http-override", "", "Path and parameters to answer every request as"),
    Flag("tls-cert-file", "", "Not supported in the lab"),
    Flag("tls-private-key-file", "", "Not supported in the lab"),
)

_ready: list[str] = []  # the datagram servers that run; /healthz is well once there is one


class _Invalid(Exception):
    """A parameter that cannot be read; ``str()`` is the answer's text."""


def main(words: Sequence[str]) -> int:
    """Serve until SIGTERM (exit code 2, as a Go program's); raises ``WrongUsage`` and ``Fatal``."""
    values, arguments = parse(words, FLAGS)
    if arguments:
        raise WrongUsage(f'unknown command "{arguments[0]}" for "agnhost netexec"')
    if values["tls-cert-file"] or values["tls-private-key-file"]:
        raise Fatal("the lab's agnhost serves no TLS: leave out --tls-cert-file and --tls-private-key-file")
    udp_port, sctp_port, http_port = (values[name] for name in ("udp-port", "sctp-port", "http-port"))
    assert isinstance(udp_port, int)
    assert isinstance(sctp_port, int)
    assert isinstance(http_port, int)
    hear(signal.SIGTERM)
    if udp_port != -1:
        for host in sorted(set(str(values["udp-listen-addresses"]).split(","))):
            _serve_udp(host, udp_port)
    if sctp_port != -1:
        _serve_sctp(sctp_port)
    override = str(values["http-override"])
    web = listen(socket.SOCK_STREAM, http_port)
    log(f"Started HTTP server on port {http_port}")
    in_background(lambda: http.serve(web, lambda request: _route(_overridden(request, override))))
    wait_for_signal(signal.SIGTERM)
    return 2


def _overridden(request: Request, override: str) -> Request:
    if not override:
        return request
    path, _, query = override.partition("?")
    return request._replace(method="GET", path=path, query=http.parse_query(query))


def command(data: bytes, sender: str, protocol: str) -> bytes:
    """Answer one datagram or message: ``hostname``, ``echo TEXT``, ``clientip``; anything else gets no answer."""
    text = data.decode(errors="replace").strip().lower()
    if text == "hostname":
        log(f"Sending {protocol} hostName response")
        return socket.gethostname().encode()
    if text.startswith("echo "):
        log(f"Echoing {text[5:]} to {protocol} client {sender}")
        return text[5:].encode()
    if text == "clientip":
        log(f"Sending clientip back to {protocol} client {sender}")
        return sender.encode()
    if text:
        log(f"Unknown {protocol} command received from {sender}: {text}")
    return b""


def _serve_udp(host: str, port: int) -> None:
    sock = listen(socket.SOCK_DGRAM, port, host)

    def serve() -> None:
        while True:
            try:
                data, sender = sock.recvfrom(2048)
            except ConnectionError:
                continue  # a client closed before our answer reached it
            answer = command(data, sender_name(sender), "UDP")
            if answer:
                sock.sendto(answer, sender)

    in_background(serve)
    log(f"Started UDP server on port {host} {port}")
    _ready.append("udp")


def _serve_sctp(port: int) -> None:
    try:
        for serve in sctp.servers(port, lambda data, sender: command(data, sender, "SCTP")):
            in_background(serve)
    except OSError as error:
        raise Fatal(f"failed to create listener for SCTP port {port}: {error.strerror}") from None
    log("Started SCTP server")
    _ready.append("sctp")


def _route(request: Request) -> Response:
    log(f"{request.method} {request.path}")
    endpoint = _ENDPOINTS.get(request.path, _root)
    try:
        return endpoint(request)
    except _Invalid as error:
        return Response(f"{error}\n".encode())


def _number(text: str, name: str, allowed: str) -> int:
    try:
        return int(text or "0", 10)
    except ValueError:
        raise _Invalid(f"argument '{name}' must be {allowed} or empty, got \"{text}\"") from None


def _seconds(request: Request, name: str) -> float:
    text = request.query.get(name, "")
    try:
        return parse_duration(text) if text else 0.0
    except ValueError:
        raise _Invalid(f"argument '{name}' must be a valid golang duration or empty, got \"{text}\"") from None


def _root(_request: Request) -> Response:
    return Response(f"NOW: {time.strftime('%Y-%m-%d %H:%M:%S')}.{time.time_ns() % 10**9:09d} +0000 UTC".encode())


def _echo(request: Request) -> Response:
    code = _number(request.query.get("code", ""), "code", "an integer")
    return Response(request.query.get("msg", "").encode(), code or 200)


def _hostname(_request: Request) -> Response:
    return Response(socket.gethostname().encode())


def _client(request: Request) -> Response:
    return Response(request.sender.encode())


def _health(_request: Request) -> Response:
    return Response(code=200 if _ready else 412)


def _exit(request: Request) -> Response:
    wait, timeout = _seconds(request, "wait"), _seconds(request, "timeout")
    code = _number(request.query.get("code", ""), "code", "an integer [0-127]")
    log(f"Will begin shutdown in {wait:g}s, allowing {timeout:g}s for connections to close, then will exit with {code}")
    time.sleep(wait)
    os._exit(code)


def _shutdown(_request: Request) -> Response:
    os._exit(0)


def _redirect(request: Request) -> Response:
    code = _number(request.query.get("code", ""), "code", "an integer")
    return Response(code=code or 302, headers=(("Location", request.query.get("location", "")),))


class _Ran(NamedTuple):
    output: str
    error: str


def _run(text: str) -> _Ran:
    import subprocess  # noqa: PLC0415 - slow to import, and few pods need it

    done = subprocess.run(["/bin/sh", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    error = "" if done.returncode == 0 else f"exit status {done.returncode}"
    if done.returncode < 0:
        error = f"signal: {signal.strsignal(-done.returncode)}".lower()
    return _Ran(done.stdout.decode(errors="replace"), error)


def _shell(request: Request) -> Response:
    ran = _run(request.query.get("shellCommand") or request.query.get("cmd", ""))
    return Response(netexec_dial.to_json({name: text for name, text in ran._asdict().items() if text}))


def _dial(request: Request) -> Response:
    return netexec_dial.dial(request.query)


_ENDPOINTS = {
    "/": _root,
    "/clientip": _client,
    "/dial": _dial,
    "/echo": _echo,
    "/exit": _exit,
    "/healthz": _health,
    "/hostname": _hostname,
    "/hostName": _hostname,
    "/redirect": _redirect,
    "/shell": _shell,
    "/shutdown": _shutdown,
}
