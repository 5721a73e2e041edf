# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.images.agnhosts import Agnhost

NAME = socket.gethostname()


def free_port() -> int:
    """Return a port that is free for both TCP and UDP, most probably."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def ask_tcp(port: int) -> bytes:
    """Return all that a TCP server says before it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        answer = b""
        while part := sock.recv(100):
            answer += part
        return answer


def ask_udp(port: int, question: bytes) -> bytes:
    """Return the answer to a datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(question, ("127.0.0.1", port))
        return sock.recv(2048)


def fetch(port: int, path: str, data: bytes | None = None) -> tuple[int, str]:
    """Return the code and text of an HTTP answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_serve_hostname_answers_with_the_bare_name_over_tcp_and_udp(agnhost: Agnhost) -> None:
    """No newline, and over TCP the connection is closed after it."""
    port = free_port()
    with agnhost.serving(
        "serve-hostname", "--tcp", "--udp", "--http=false", "--port", str(port), said="Serving on port"
    ):
        assert ask_tcp(port) == NAME.encode()
        assert ask_udp(port, b"anything") == NAME.encode()
        done = agnhost.run("connect", f"127.0.0.1:{port}", "--protocol=udp", "--timeout=3s")

    assert (done.code, done.out, done.err) == (0, "", "")


def test_serve_hostname_speaks_http_unless_told_otherwise(agnhost: Agnhost) -> None:
    """HTTP is the default, and excludes the others."""
    port = free_port()
    with agnhost.serving("serve-hostname", "--port", str(port), said="Serving on port"):
        assert fetch(port, "/") == (200, NAME)

    wrong = agnhost.run("serve-hostname", "--tcp", "--port", str(port))
    assert wrong.code == 1
    assert re.fullmatch(
        r"\d{4}/\d\d/\d\d [\d:]{8} Can't serve TCP/UDP mode and HTTP mode at the same time\n", wrong.err
    )


def test_a_port_in_use_is_one_sentence(agnhost: Agnhost) -> None:
    """The server ends, and says why as Go would."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = agnhost.run("serve-hostname", "--tcp", "--http=false", f"--port={port}")

    assert done.code == 1
    assert done.err.endswith(f"listen tcp :{port}: bind: address already in use\n")


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("serve-hostname",), "Serving on port", 0),
        (("netexec", "--udp-port=-1"), "Started HTTP server", 2),
    ],
)
def test_servers_end_at_sigterm_at_once(agnhost: Agnhost, words: tuple[str, ...], said: str, code: int) -> None:
    """A pod of the lab does not linger; SIGTERM has a handler, so the kubelet knows that it is heard."""
    flag = "--http-port" if words[0] == "netexec" else "--port"
    with agnhost.serving(*words, flag, str(free_port()), said=said) as process:
        process.send_signal(signal.SIGTERM)

        assert process.wait(5) == code


def test_netexec_answers_the_endpoints_that_suites_use(agnhost: Agnhost) -> None:
    """/, /hostname, /echo with a code, /clientip, /healthz, /redirect, /shell with output and error."""
    port, udp = free_port(), free_port()
    with agnhost.serving("netexec", f"--http-port={port}", f"--udp-port={udp}", said="Started HTTP"):
        assert fetch(port, "/")[1].startswith("NOW: ")
        assert fetch(port, "/hostname") == fetch(port, "/hostName") == (200, NAME)
        assert fetch(port, "/echo?msg=two%20words+more") == (200, "two words more")
        assert fetch(port, "/echo?msg=gone&code=404") == (404, "gone")
        assert fetch(port, "/echo", b"msg=in+a+form") == (200, "in a form")
        assert fetch(port, "/echo?code=x") == (200, "argument 'code' must be an integer or empty, got \"x\"\n")
        assert re.fullmatch(r"127\.0\.0\.1:\d+", fetch(port, "/clientip")[1])
        assert fetch(port, "/healthz") == (200, "")
        assert fetch(port, "/redirect?location=/hostname") == (200, NAME)
        assert json.loads(fetch(port, "/shell?cmd=echo%20hi")[1]) == {"output": "hi\n"}
        assert json.loads(fetch(port, "/shell?cmd=exit%203")[1]) == {"error": "exit status 3"}


def test_netexec_without_a_datagram_server_is_not_healthy(agnhost: Agnhost) -> None:
    """The server counts as ready when a UDP or SCTP server of it runs; 412 until then."""
    port = free_port()
    with agnhost.serving("netexec", f"--http-port={port}", "--udp-port=-1", said="Started HTTP"):
        assert fetch(port, "/healthz") == (412, "")


def test_netexec_answers_udp_commands_and_ignores_others(agnhost: Agnhost) -> None:
    """hostname, echo and clientip, in any case; what it does not know gets no answer."""
    port, udp = free_port(), free_port()
    with agnhost.serving("netexec", f"--http-port={port}", f"--udp-port={udp}", said="Started HTTP"):
        assert ask_udp(udp, b"hostName\n") == NAME.encode()
        assert ask_udp(udp, b"echo Hello There") == b"hello there"
        assert re.fullmatch(rb"127\.0\.0\.1:\d+", ask_udp(udp, b"clientip"))
        with pytest.raises(TimeoutError):
            _ask_briefly(udp)


def _ask_briefly(port: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        sock.sendto(b"dance", ("127.0.0.1", port))
        return sock.recv(100)


def test_netexec_dials_others_and_reports_answers_and_errors(agnhost: Agnhost) -> None:
    """/dial asks over HTTP or UDP as often as told, and a closed port is an error in its list."""
    port, udp = free_port(), free_port()
    with agnhost.serving("netexec", f"--http-port={port}", f"--udp-port={udp}", said="Started HTTP"):

        def dial(query: str) -> tuple[int, str]:
            return fetch(port, f"/dial?host=127.0.0.1&{query}")

        assert json.loads(dial(f"port={port}&request=hostname&tries=2")[1]) == {"responses": [NAME, NAME]}
        assert json.loads(dial(f"port={udp}&request=echo%20x&protocol=udp")[1]) == {"responses": ["x"]}
        refused = json.loads(dial(f"port={free_port()}&request=hostname")[1])
        assert list(refused) == ["errors"]
        assert "connection refused" in refused["errors"][0]
        assert dial(f"port={port}")[0] == 400
        assert dial(f"port={port}&request=x&protocol=smtp") == (400, "unsupported protocol. smtp\n")


@pytest.mark.parametrize(("path", "code"), [("/exit?code=7", 7), ("/shutdown", 0)])
def test_netexec_exits_when_asked_to(agnhost: Agnhost, path: str, code: int) -> None:
    """Suites end a server from the outside, to see it restarted."""
    port = free_port()
    with agnhost.serving("netexec", f"--http-port={port}", "--udp-port=-1", said="Started HTTP") as process:
        with pytest.raises((ConnectionError, urllib.error.URLError)):
            fetch(port, path)

        assert process.wait(5) == code


def test_netexec_refuses_tls_instead_of_serving_in_the_clear(agnhost: Agnhost) -> None:
    """What cannot be done is said."""
    done = agnhost.run("netexec", "--tls-cert-file=/localhost.crt")

    assert done.code == 1
    assert "serves no TLS" in done.err


def test_a_broken_request_ends_only_its_own_connection(agnhost: Agnhost) -> None:
    """Garbage, half a request and a body that never comes do not disturb others."""
    port = free_port()
    with agnhost.serving("netexec", f"--http-port={port}", "--udp-port=-1", said="Started HTTP"):
        for garbage in (b"\x00\xff\r\n\r\n", b"GET / HT", b"POST /echo HTTP/1.1\r\nContent-Length: 100\r\n\r\nshort"):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                sock.sendall(garbage)
                sock.shutdown(socket.SHUT_WR)
                assert sock.recv(100) == b""

        assert fetch(port, "/hostname") == (200, NAME)


def test_connections_are_kept_alive_for_a_second_request(agnhost: Agnhost) -> None:
    """HTTP/1.1 as clients with connection pools expect it, pipelined requests included."""
    port = free_port()
    with (
        agnhost.serving("netexec", f"--http-port={port}", "--udp-port=-1", said="Started HTTP"),
        socket.create_connection(("127.0.0.1", port), timeout=5) as sock,
    ):
        sock.sendall(b"GET /echo?msg=a HTTP/1.1\r\n\r\nGET /echo?msg=b HTTP/1.0\r\n\r\n")
        answer = b""
        while part := sock.recv(1000):
            answer += part

    assert [text.partition(b"\r\n\r\n")[2] for text in answer.split(b"HTTP/1.1 200 OK")[1:]] == [b"a", b"b"]


def test_pause_waits_for_its_signal(agnhost: Agnhost) -> None:
    """Exit code 2 for SIGTERM, 1 for SIGINT."""

    def end(number: signal.Signals) -> int:
        with subprocess.Popen([str(agnhost.program), "pause"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"Paused\n"
            process.send_signal(number)
            return process.wait(5)

    assert (end(signal.SIGTERM), end(signal.SIGINT)) == (2, 1)
