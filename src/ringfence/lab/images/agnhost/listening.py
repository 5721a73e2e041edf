# SPDX-License-Identifier: Apache-2.0
"""Listening sockets on all addresses, a thread per connection, and log lines shaped as Go's ``log`` prints them."""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

from .addresses import explain, join


class Fatal(Exception):
    """The server cannot go on; ``str()`` is the last log line, and the exit code is 1."""


def log(text: str) -> None:
    """Print one line to stderr, with the time."""
    sys.stderr.write(f"{time.strftime('%Y/%m/%d %H:%M:%S')} {text}\n")
    sys.stderr.flush()


def sender_name(address: tuple[str, int]) -> str:
    """Return a peer's address and port as Go prints them."""
    return join(address[0].partition("%")[0], address[1])


def listen(kind: socket.SocketKind, port: int, host: str = "") -> socket.socket:
    """Return a socket that serves ``port`` over IPv4 and IPv6 (or IPv4 alone where there is no IPv6).

    Raises ``Fatal``, worded as Go words it.
    """
    family = socket.AF_INET if host and ":" not in host else socket.AF_INET6
    try:
        sock = socket.socket(family, kind)
    except OSError:
        family = socket.AF_INET
        sock = socket.socket(family, kind)
    name = "tcp" if kind == socket.SOCK_STREAM else "udp"
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(host)))
        sock.bind((host, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(1024)
    except OSError as error:
        sock.close()
        raise Fatal(f"listen {name} {join(host, port)}: bind: {explain(error)}") from None
    except OverflowError:
        sock.close()
        raise Fatal(f"listen {name}: address {port}: invalid port") from None
    return sock


def in_background(work: Callable[[], None]) -> None:
    """Run endless ``work`` in a thread; if it fails, the whole program ends with exit code 1."""

    def run() -> None:
        try:
            work()
        except (OSError, Fatal) as error:
            log(str(error))
            os._exit(1)

    _thread.start_new_thread(run, ())


def accept(sock: socket.socket, handle: Callable[[socket.socket, str], None]) -> None:
    """Accept for ever, each connection in a thread of its own; a client that breaks off ends only its own thread."""

    def run(connection: socket.socket, sender: str) -> None:
        with connection:
            try:
                handle(connection, sender)
            except OSError:
                return

    while True:
        connection, address = sock.accept()
        _thread.start_new_thread(run, (connection, sender_name(address)))


def hear(*numbers: signal.Signals) -> None:
    """Hold signals back in this thread and all that it starts, until ``wait_for_signal``.

    As PID 1 of a container, the process hears only signals that it has a handler for; and only such signals tell the
    container's runtime that it is worth waiting for.
    """
    for number in numbers:
        signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def wait_for_signal(*numbers: signal.Signals) -> int:
    """Wait for one of the signals and return it."""
    hear(*numbers)
    return signal.sigwait(numbers)
