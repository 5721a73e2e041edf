# SPDX-License-Identifier: Apache-2.0
"""``serve-hostname``: answers with the pod's name, over HTTP, or over TCP and UDP; the answer has no newline."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence

from . import http
from .flags import Flag, WrongUsage, parse
from .http import Request, Response
from .listening import Fatal, accept, hear, in_background, listen, log, sender_name, wait_for_signal

ABOUT = "Serves the hostname through HTTP, TCP or UDP on the given port"
USE = "serve-hostname"
FLAGS = (
    Flag("tcp", False, "Serve the bare name over TCP"),
    Flag("udp", False, "Serve the bare name over UDP"),
    Flag("http", True, "Serve the name over HTTP"),
    Flag("close", False, "Close the connection after each HTTP request"),
    Flag("port", 9376, "Port number"),
)


def main(words: Sequence[str]) -> int:
    """Serve until SIGTERM; raises ``WrongUsage`` and ``Fatal``."""
    values, arguments = parse(words, FLAGS)
    if arguments:
        raise WrongUsage(f'unknown command "{arguments[0]}" for "agnhost serve-hostname"')
    if values["http"] and (values["tcp"] or values["udp"]):
        raise Fatal("Can't serve TCP/UDP mode and HTTP mode at the same time")
    name = socket.gethostname().encode()
    port = values["port"]
    assert isinstance(port, int)
    hear(signal.SIGTERM)
    if values["tcp"]:
        tcp = listen(socket.SOCK_STREAM, port)
        in_background(lambda: accept(tcp, lambda connection, sender: _tell(connection, sender, name)))
    if values["udp"]:
        udp = listen(socket.SOCK_DGRAM, port)
        in_background(lambda: _answer(udp, name))
    if values["http"]:
        web = listen(socket.SOCK_STREAM, port)
        in_background(lambda: http.serve(web, lambda request: _respond(request, name, close=bool(values["close"]))))
    log(f"Serving on port {port}.")
    wait_for_signal(signal.SIGTERM)
    # agnhost lingers for a minute here, for tests of load balancers; a lab's pods end when they are told to.
    log("Shutting down after receiving signal: terminated.")
    return 0


def _tell(connection: socket.socket, sender: str, name: bytes) -> None:
    log(f"TCP request from {sender}")
    connection.sendall(name)


def _answer(sock: socket.socket, name: bytes) -> None:
    while True:
        try:
            _, sender = sock.recvfrom(16)
        except ConnectionError:
            continue  # a client closed before our answer reached it
        log(f"UDP request from {sender_name(sender)}")
        sock.sendto(name, sender)


def _respond(request: Request, name: bytes, *, close: bool) -> Response:
    log(f"HTTP request from {request.sender}")
    return Response(name, close=close)
