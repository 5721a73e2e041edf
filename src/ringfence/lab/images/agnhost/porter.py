# SPDX-License-Identifier: Apache-2.0
"""``porter``: serves, on each port that its environment names, the text that stands there.

``SERVE_PORT_80=text`` answers HTTP on port 80, ``SERVE_SCTP_PORT_80=text`` answers any SCTP message on port 80.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence

from . import http, sctp
from .flags import Flag, WrongUsage, parse
from .http import Response
from .listening import Fatal, hear, in_background, listen, log, wait_for_signal

ABOUT = "Serves the text of SERVE_PORT_n over HTTP and of SERVE_SCTP_PORT_n over SCTP"
USE = "porter"
FLAGS: tuple[Flag, ...] = ()

_HTTP, _SCTP, _TLS = "SERVE_PORT_", "SERVE_SCTP_PORT_", "SERVE_TLS_PORT_"


def main(words: Sequence[str]) -> int:
    """Serve until SIGTERM (exit code 2, as a Go program's); raises ``WrongUsage`` and ``Fatal``."""
    _, arguments = parse(words, FLAGS)
    if arguments:
        raise WrongUsage(f'unknown command "{arguments[0]}" for "agnhost porter"')
    hear(signal.SIGTERM)
    for name, text in sorted(os.environ.items()):
        for prefix, serve in ((_HTTP, _serve_http), (_SCTP, _serve_sctp)):
            if name.startswith(prefix):
                serve(_port(name, prefix), text.encode())
        if name.startswith(_TLS):
            raise Fatal(f"the lab's agnhost serves no TLS: leave out {name}")
    wait_for_signal(signal.SIGTERM)
    return 2


def _port(name: str, prefix: str) -> int:
    try:
        return int(name.removeprefix(prefix), 10)
    except ValueError:
        raise Fatal(f"{name} does not end in a port number") from None


def _serve_http(port: int, text: bytes) -> None:
    sock = listen(socket.SOCK_STREAM, port)
    in_background(lambda: http.serve(sock, lambda _request: Response(text)))
    log(f"Serving HTTP on port {port}")


def _serve_sctp(port: int, text: bytes) -> None:
    try:
        for serve in sctp.servers(port, lambda _data, _sender: text):
            in_background(serve)
    except OSError as error:
        raise Fatal(f"failed to create listener for SCTP port {port}: {error.strerror}") from None
    log(f"Serving SCTP on port {port}")
