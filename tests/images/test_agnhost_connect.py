# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.images.agnhosts import Agnhost, Done


def listening(
    family: socket.AddressFamily = socket.AF_INET, kind: socket.SocketKind = socket.SOCK_STREAM
) -> socket.socket:
    """Return a server socket on the loopback."""
    sock = socket.socket(family, kind)
    sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def port_of(sock: socket.socket) -> int:
    """Return a socket's own port."""
    port: int = sock.getsockname()[1]
    return port


def closed_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port on which nobody listens."""
    with listening(kind=kind) as sock:
        return port_of(sock)


@contextlib.contextmanager
def deaf() -> Iterator[int]:
    """Yield a TCP port that answers nothing: the kernel drops what comes to a full queue."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield port_of(server)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]")])
def test_a_connection_that_works_prints_nothing(agnhost: Agnhost, family: socket.AddressFamily, host: str) -> None:
    """The document: if the connection succeeds, there is no output."""
    with listening(family) as server:
        done = agnhost.run("connect", f"{host}:{port_of(server)}", "--timeout=3s", "--protocol=tcp")

    assert done == Done(0, "", "")


def test_a_closed_port_is_refused(agnhost: Agnhost) -> None:
    """An answer that says no is REFUSED, on stderr, with exit code 1."""
    assert agnhost.run("connect", f"127.0.0.1:{closed_port()}", "--timeout=3s") == Done(1, "", "REFUSED\n")


def test_no_answer_is_a_timeout_after_the_time_that_was_given(agnhost: Agnhost) -> None:
    """TIMEOUT, not before the time is over and not long after."""
    with deaf() as port:
        began = time.monotonic()
        done = agnhost.run("connect", f"127.0.0.1:{port}", "--timeout=700ms")

    assert done == Done(1, "", "TIMEOUT\n")
    assert 0.7 <= time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("destination", "complaint"),
    [
        ("10.0.0.1", "UNKNOWN: address 10.0.0.1: missing port in address"),
        ("fd00::1:80", "UNKNOWN: address fd00::1:80: too many colons in address"),
        ("[fd00::1", "UNKNOWN: address [fd00::1: missing ']' in address"),
        ("127.0.0.1:99999", "DNS: address 99999: invalid port"),
        ("127.0.0.1:nonsense", "DNS: lookup tcp/nonsense: unknown port"),
        ("no such host:80", "DNS: lookup no such host: no such host"),
    ],
)
def test_a_destination_that_makes_no_sense_is_told_apart_from_one_that_is_down(
    agnhost: Agnhost, destination: str, complaint: str
) -> None:
    """UNKNOWN for what cannot be read, DNS for what cannot be found."""
    assert agnhost.run("connect", destination, "--timeout=1s") == Done(1, "", f"{complaint}\n")


@pytest.mark.kernel
def test_an_unreachable_network_is_other(isolated: Agnhost) -> None:
    """Other network errors come with Go's sentence."""
    done = isolated.run("connect", "192.0.2.1:80", "--timeout=1s")

    assert done == Done(1, "", "OTHER: dial tcp 192.0.2.1:80: connect: network is unreachable\n")


def test_udp_counts_as_reached_only_when_something_comes_back(agnhost: Agnhost) -> None:
    """A server that is silent is TIMEOUT; a closed port is REFUSED."""
    with listening(kind=socket.SOCK_DGRAM) as silent:
        quiet = agnhost.run("connect", f"127.0.0.1:{port_of(silent)}", "--protocol=udp", "--timeout=300ms")
        asked = silent.recv(100)
    closed = agnhost.run("connect", f"127.0.0.1:{closed_port(socket.SOCK_DGRAM)}", "--protocol=udp", "--timeout=3s")

    assert asked == b"hostname\n"
    assert (quiet.code, closed.code) == (1, 1)
    assert quiet.err.startswith("TIMEOUT: read udp 127.0.0.1:")
    assert quiet.err.endswith(": i/o timeout\n")
    assert closed.err.startswith("REFUSED: read udp 127.0.0.1:")


def test_a_protocol_that_there_is_not_is_refused(agnhost: Agnhost) -> None:
    """Only tcp, udp and sctp."""
    done = agnhost.run("connect", "127.0.0.1:1", "--protocol=icmp")

    assert done == Done(1, "", "Unsupported protocol\nicmp\n")


def test_one_destination_is_needed(agnhost: Agnhost) -> None:
    """None and two are both wrong."""
    assert "accepts 1 arg(s), received 0" in agnhost.run("connect").err
    assert "accepts 1 arg(s), received 2" in agnhost.run("connect", "a:1", "b:2").err


@pytest.mark.kernel
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_sctp_reaches_a_server_and_tells_a_closed_port_from_one_that_nobody_answers_for(
    isolated: Agnhost, host: str
) -> None:
    """A whole association over raw sockets: opened, one message each way, shut down; ABORT and ICMP are refusals."""
    words = ("--protocol=sctp", "--timeout=3s")

    assert isolated.run("connect", f"{host}:5000", *words) == Done(1, "", "OTHER: connection refused\n")
    with isolated.serving("netexec", "--http-port", "8080", "--sctp-port", "5000", said="HTTP server"):
        assert isolated.run("connect", f"{host}:5000", *words) == Done(0, "", "")
        assert isolated.run("connect", f"{host}:5001", *words) == Done(1, "", "OTHER: connection refused\n")


@pytest.mark.kernel
def test_two_sctp_servers_of_one_pod_do_not_refuse_each_others_clients(isolated: Agnhost) -> None:
    """Raw sockets know no ports: each server sees the other's packets, and must not answer for it."""
    with (
        isolated.serving("porter", said="SCTP on port 5000", env={"SERVE_SCTP_PORT_5000": "one"}),
        isolated.serving("porter", said="SCTP on port 5001", env={"SERVE_SCTP_PORT_5001": "two"}),
    ):
        answers = [
            isolated.run("connect", f"127.0.0.1:{port}", "--protocol=sctp", "--timeout=3s") for port in (5000, 5001)
        ]
        taken = isolated.run("netexec", "--http-port=0", "--udp-port=-1", "--sctp-port=5000")

    assert answers == [Done(0, "", "")] * 2
    assert "failed to create listener for SCTP port 5000: Address already in use" in taken.err
