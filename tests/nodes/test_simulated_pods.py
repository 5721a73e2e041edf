# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ringfence.lab.config import LabPaths
from ringfence.lab.nodes import wire
from ringfence.lab.nodes.node import PodId
from ringfence.lab.nodes.runtime import NotStarted, Process, Session
from ringfence.lab.nodes.simulated import SimulatedNetwork, SimulatedRuntime
from tests.nodes.conversations import Said, container, hear, listen, log_text, process

CLIENT, SERVER = "10.0.1.5", "10.0.0.5"
CLIENT_V6, SERVER_V6 = "fd00::1:5", "fd00::5"


class Agent:
    """What an agent's gate says: allowed, unless the source and destination stand among the denied."""

    def __init__(self) -> None:
        self.denied: set[tuple[str, str]] = set()
        self.asked: list[dict[str, str]] = []

    async def verdict(self, request: web.Request) -> web.Response:
        """Answer ``/v1/verdict``."""
        query = dict(request.query)
        self.asked.append(query)
        return web.json_response({"allowed": (query["source"], query["destination"]) not in self.denied})


@pytest.fixture
async def agents(tmp_path: Path) -> AsyncIterator[dict[str, Agent]]:
    """Yield the agents of two nodes, each on its gate socket."""
    agents = {"one": Agent(), "two": Agent()}
    runners = []
    for node, agent in agents.items():
        app = web.Application()
        app.router.add_get("/v1/verdict", agent.verdict)
        runners.append(web.AppRunner(app))
        await runners[-1].setup()
        await web.UnixSite(runners[-1], str(LabPaths(tmp_path).gate_socket(node))).start()
    yield agents
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def runtime(tmp_path: Path, agents: dict[str, Agent]) -> AsyncIterator[SimulatedRuntime]:
    """Yield a runtime with a client on node two, idle, and nothing else."""
    assert agents
    runtime = SimulatedRuntime(LabPaths(tmp_path))
    await started(runtime, "client", process("sleep", "inf"), "two", CLIENT, CLIENT_V6)
    yield runtime
    await runtime.shutdown()


async def started(runtime: SimulatedRuntime, name: str, what: Process, node: str, *addresses: str) -> Any:
    """Start a container with addresses on a node."""
    return await runtime.start(container(name, what, about={"addresses": list(addresses), "node": node}))


async def serving(runtime: SimulatedRuntime, *words: str) -> None:
    """Start a server on node one."""
    await started(runtime, "server", process("/agnhost", *words), "one", SERVER, SERVER_V6)
    session = await runtime.exec("server", process("true"))
    assert (await listen(session)).code == 0


async def connect(runtime: SimulatedRuntime, *words: str) -> Said:
    """Run ``/agnhost connect`` in the client."""
    return await listen(await runtime.exec("client", process("/agnhost", "connect", *words)))


async def test_connections_are_decided_by_the_agents_of_both_nodes(
    runtime: SimulatedRuntime, agents: dict[str, Agent]
) -> None:
    """Nothing printed when both allow; TIMEOUT, after its time, when either does not."""
    await serving(runtime, "serve-hostname", "--tcp", "--http=false", "--port", "80")
    assert await connect(runtime, f"{SERVER}:80", "--timeout=3s") == Said("", "", 0)
    expected = {"source": CLIENT, "destination": SERVER, "protocol": "TCP", "port": "80"}
    assert agents["one"].asked == agents["two"].asked == [expected]

    for agent in agents.values():
        agent.denied.add((CLIENT, SERVER))
        began = time.monotonic()
        assert await connect(runtime, f"{SERVER}:80", "--timeout=200ms") == Said("", "TIMEOUT\n", 1)
        assert time.monotonic() - began >= 0.2
        agent.denied.clear()


async def test_an_agent_that_does_not_answer_allows_nothing(runtime: SimulatedRuntime, tmp_path: Path) -> None:
    """In doubt, closed."""
    await serving(runtime, "netexec", "--http-port=80")
    LabPaths(tmp_path).gate_socket("one").unlink()

    assert (await connect(runtime, f"{SERVER}:80", "--timeout=100ms")).err == "TIMEOUT\n"


@pytest.mark.parametrize(
    ("destination", "words", "code", "error"),
    [
        (f"[{SERVER_V6}]:80", [], 0, ""),
        (f"{SERVER}:81", [], 1, "REFUSED\n"),
        (f"{SERVER}:8081", ["--protocol=udp"], 0, ""),
        (f"{SERVER}:80", ["--protocol=udp"], 1, f"REFUSED: read udp {CLIENT}->{SERVER}:80: read: connection refused\n"),
        (f"{SERVER}:5000", ["--protocol=sctp"], 0, ""),
        (f"{SERVER}:80", ["--protocol=sctp"], 1, "OTHER: connection refused\n"),
        ("10.9.9.9:80", [], 1, "OTHER: dial tcp 10.9.9.9:80: connect: no route to host\n"),
        ("server:80", [], 1, "DNS: lookup server: no such host\n"),
        (f"{SERVER}:http", [], 1, "DNS: lookup tcp/http: unknown port\n"),
        (SERVER, [], 1, f"UNKNOWN: address {SERVER}: missing port in address\n"),
        ("localhost:80", [], 1, "REFUSED\n"),
        (f"{SERVER}:80", ["--protocol=icmp"], 1, "Unsupported protocol\nicmp\n"),
    ],
)
async def test_failures_are_told_apart_as_agnhost_does(
    runtime: SimulatedRuntime, destination: str, words: list[str], code: int, error: str
) -> None:
    """The same words as the real program's."""
    await serving(runtime, "netexec", "--http-port=80", "--sctp-port=5000")

    assert await connect(runtime, destination, *words, "--timeout=1s") == Said("", error, code)


async def test_a_server_that_ended_listens_no_more(runtime: SimulatedRuntime) -> None:
    """Neither its ports nor, once its network is gone, its addresses are there."""
    network = SimulatedNetwork(runtime, "10.0.0.4")
    running = await started(runtime, "server", process("/agnhost", "netexec", "--http-port=80"), "one", SERVER)
    await connect(runtime, f"{SERVER}:80")
    await runtime.terminate("server", 0)
    assert (await running.wait()).code == 143

    assert (await connect(runtime, f"{SERVER}:80")).err == "REFUSED\n"
    await network.remove(PodId("demo", "server", "uid"), [SERVER])
    assert "no route to host" in (await connect(runtime, f"{SERVER}:80")).err


async def test_probes_reach_what_listens(runtime: SimulatedRuntime) -> None:
    """The kubelet's own looks."""
    await serving(runtime, "netexec", "--http-port=80")
    network = SimulatedNetwork(runtime, "10.0.0.4")

    await network.tcp(SERVER, 80)
    assert (await network.http(SERVER, 80, b"GET / HTTP/1.1\r\n\r\n", secure=False)).startswith(b"HTTP/1.1 200")
    with pytest.raises(ConnectionRefusedError):
        await network.tcp(SERVER, 81)


async def keys(session: Session, text: str) -> None:
    """Press keys."""
    await session.send(wire.STDIN, text.encode())


async def test_a_shell_on_a_terminal_echoes_edits_and_interrupts(runtime: SimulatedRuntime) -> None:
    """Backspace, control-C during a command and on a line, an unknown command, control-D."""
    session = await runtime.exec("client", process("bash", tty=True, stdin=True))
    await hear(session, "root@client:/# ")
    await keys(session, "echo wrongg\x7f\r")
    assert await hear(session, "# ") == "echo wrongg\b \b\r\nwrong\r\nroot@client:/# "
    await keys(session, "sleep 1000\r")
    await hear(session, "sleep 1000\r\n")
    await keys(session, "\x03")
    assert "^C\r\n" in await hear(session, "# ")
    await keys(session, "dance\r")
    assert "dance: not in this simulated pod" in await hear(session, "# ")
    await keys(session, "\x04")

    assert (await listen(session)).code == 127


async def test_a_shell_without_a_terminal_reads_a_script(runtime: SimulatedRuntime) -> None:
    """No prompt, no echo; the last line needs no newline; ``exit`` has a code."""
    session = await runtime.exec("client", process("sh", stdin=True))
    await session.send(wire.STDIN, b"hostname\n# a comment\n'unbalanced\nexit 3\nhostname")
    await session.send(wire.STDIN_END, b"")

    said = await listen(session)
    assert (said.out, said.code) == ("client\n", 3)
    assert "No closing quotation" in said.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sh", "-c", "echo a; false; echo $?; exit 4"], Said("a\n1\n", "", 4)),
        (["hostname", "-i"], Said(f"{CLIENT} {CLIENT_V6}\n", "", 0)),
        (["sleep", "0.01", "0.01s"], Said("", "", 0)),
        (["sleep", "soon"], Said("", "sleep: invalid time interval 'soon'\n", 1)),
        (["/bin/echo", "x", "y"], Said("x y\n", "", 0)),
        (["env"], Said("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n", "", 0)),
        (["cat", "/etc/hosts"], Said("", "cat: /etc/hosts: a simulated pod has no files\n", 1)),
    ],
)
async def test_a_few_programs_are_known(runtime: SimulatedRuntime, argv: list[str], said: Said) -> None:
    """Enough to try policies."""
    assert await listen(await runtime.exec("client", process(*argv))) == said


async def test_what_is_not_simulated_says_so_and_how_to_have_it(runtime: SimulatedRuntime) -> None:
    """No quiet half-truths."""
    with pytest.raises(NotStarted, match=r'exec: "nginx": this lab is simulated .* --network-policy nftables'):
        await started(runtime, "web", process("nginx"), "one", "10.0.0.6")
    assert "simulated are: connect" in (await listen(await runtime.exec("client", process("/agnhost", "dns")))).err


async def test_output_is_logged_and_shown_to_who_attaches(runtime: SimulatedRuntime, tmp_path: Path) -> None:
    """The log of a simulated container reads like any other; attaching finds the prompt."""
    await started(runtime, "shell", process("bash", tty=True, stdin=True), "one", "10.0.0.7")
    session = await runtime.attach("shell", stdin=True)
    await hear(session, "root@shell:/# ")
    await keys(session, "exit 5\r")

    assert (await listen(session)).code == 5
    assert "stdout P root@shell:/# " in log_text(tmp_path / "pods", "shell")


async def test_a_port_is_served_once(runtime: SimulatedRuntime) -> None:
    """A second server on the same port of a pod ends with the reason."""
    await serving(runtime, "netexec", "--http-port=80", "--udp-port=-1")
    second = await runtime.exec("server", process("/agnhost", "serve-hostname", "--port=80"))

    said = await listen(second)
    assert (said.code, said.err.splitlines()[-1]) == (1, "listen tcp :80: bind: address already in use")
