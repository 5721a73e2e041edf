# SPDX-License-Identifier: Apache-2.0
"""The programs that a simulated container knows: agnhost's commands, a shell of single commands, and a few more.

A program is a coroutine that gets its surroundings and its command line and returns its exit code. agnhost's flags and
messages are those of the real one (``images.agnhost``).
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import shlex
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from ringfence.lab.images.agnhost import connect, netexec, pause, porter, serve_hostname
from ringfence.lab.images.agnhost.addresses import join, split
from ringfence.lab.images.agnhost.flags import Flag, Value, WrongUsage, parse, parse_duration
from ringfence.lab.nodes.simulated_terminal import Terminal

_SYSTEM_TIMEOUT = 130.0  # how long Linux tries to connect by itself
_NOT_FOUND = 127


class Network(Protocol):
    """What programs ask of the simulated network."""

    def listen(self, address: str, protocol: str, port: int, answer: str) -> None:
        """Serve a port; raises ``OSError``."""

    def close(self, address: str, protocol: str, port: int) -> None:
        """Stop serving a port."""

    async def reach(self, source: str, destination: str, protocol: str, port: int) -> str:
        """Return what a server answers; raises ``OSError`` and ``TimeoutError``."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a program runs."""

    terminal: Terminal
    fabric: Network
    hostname: str
    addresses: tuple[str, ...]
    env: Mapping[str, str]


Program = Callable[[Surroundings, Sequence[str]], Awaitable[int]]


def find_program(name: str) -> Program | None:
    """Return the program of a name or path."""
    if name.startswith("/") and name != "/agnhost":
        name = name.rsplit("/", 1)[-1]
    return _PROGRAMS.get(name)


# -- agnhost


async def _agnhost(around: Surroundings, argv: Sequence[str]) -> int:
    command = argv[1] if len(argv) > 1 else "help"
    run = _AGNHOST.get(command)
    if run is None:
        known = ", ".join(sorted(_AGNHOST))
        around.terminal.print(f'Error: unknown command "{command}" for "agnhost"; simulated are: {known}\n', error=True)
        return 1
    program, flags = run
    try:
        values, arguments = parse(argv[2:], flags)
        return await program(around, values, arguments)
    except WrongUsage as error:
        around.terminal.print(f"Error: {error}\n", error=True)
        return 1


async def _connect(around: Surroundings, values: Mapping[str, Value], arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        raise WrongUsage(f"accepts 1 arg(s), received {len(arguments)}")
    timeout = float(values["timeout"]) or _SYSTEM_TIMEOUT
    problem = await _attempt(around, arguments[0], str(values["protocol"]) or "tcp", timeout)
    if problem:
        around.terminal.print(f"{problem}\n", error=True)
    return 1 if problem else 0


async def _attempt(around: Surroundings, destination: str, protocol: str, seconds: float) -> str:
    """Return agnhost's complaint about a connection, or nothing."""
    if protocol not in ("tcp", "udp", "sctp"):
        return f"Unsupported protocol\n{protocol}"
    try:
        host, port_text = split(destination)
    except ValueError as error:
        return f"{'UNKNOWN' if protocol == 'tcp' else 'DNS'}: {error}"
    if not port_text.isdigit() or int(port_text) > 65535:
        return f"DNS: lookup {protocol}/{port_text}: unknown port"
    source, target = _ends(around, host)
    if target is None:
        return f"DNS: lookup {host}: no such host"
    if source is None:
        return f"OTHER: dial {protocol} {destination}: connect: network is unreachable"
    try:
        await around.fabric.reach(source, target, protocol, int(port_text))
    except TimeoutError:
        await asyncio.sleep(seconds)
        return "TIMEOUT" if protocol != "udp" else f"TIMEOUT: read udp {source}->{destination}: i/o timeout"
    except OSError as error:
        return _refusal(protocol, source, destination, error)
    return ""


def _ends(around: Surroundings, host: str) -> tuple[str | None, str | None]:
    """Return the pod's own address of the destination's family, and the destination; None for what there is not."""
    if host in ("localhost", ""):
        host = "127.0.0.1"
    try:
        target = ipaddress.ip_address(host)
    except ValueError:
        return None, None
    own = [address for address in around.addresses if ipaddress.ip_address(address).version == target.version]
    source = own[0] if own else None
    return source, source if target.is_loopback else str(target)


def _refusal(protocol: str, source: str, destination: str, error: OSError) -> str:
    refused = error.errno == errno.ECONNREFUSED
    text = (error.strerror or "").lower()
    if refused and protocol == "tcp":
        return "REFUSED"
    if protocol == "udp":
        return f"{'REFUSED' if refused else 'UNKNOWN'}: read udp {source}->{destination}: read: {text}"
    return f"OTHER: {text}" if protocol == "sctp" else f"OTHER: dial tcp {destination}: connect: {text}"


@contextmanager
def _serving(around: Surroundings, ports: Sequence[tuple[str, int]], answer: str) -> Iterator[None]:
    held: list[tuple[str, str, int]] = []
    try:
        for protocol, port in ports:
            for address in around.addresses:
                around.fabric.listen(address, protocol, port, answer)
                held.append((address, protocol, port))
        yield
    finally:
        for one in held:
            around.fabric.close(*one)


async def _serve(around: Surroundings, ports: Sequence[tuple[str, int]], answer: str) -> int:
    """Serve until the container is stopped."""
    try:
        with _serving(around, ports, answer):
            await asyncio.Event().wait()
    except OSError as error:
        where = ", ".join(f"{protocol} {join('', port)}" for protocol, port in ports)
        around.terminal.print(f"listen {where}: bind: {(error.strerror or '').lower()}\n", error=True)
    return 1


async def _serve_hostname(around: Surroundings, values: Mapping[str, Value], _arguments: Sequence[str]) -> int:
    if values["http"] and (values["tcp"] or values["udp"]):
        around.terminal.print("Can't serve TCP/UDP mode and HTTP mode at the same time\n", error=True)
        return 1
    port = int(values["port"])
    ports = [("udp", port)] * bool(values["udp"]) + [("tcp", port)] * bool(values["tcp"] or values["http"])
    around.terminal.print(f"Serving on port {port}.\n", error=True)
    return await _serve(around, ports, around.hostname)


async def _netexec(around: Surroundings, values: Mapping[str, Value], _arguments: Sequence[str]) -> int:
    named = [("tcp", "http-port"), ("udp", "udp-port"), ("sctp", "sctp-port")]
    ports = [(protocol, int(values[flag])) for protocol, flag in named if int(values[flag]) != -1]
    around.terminal.print(f"Started HTTP server on port {values['http-port']}\n", error=True)
    return await _serve(around, ports, around.hostname)


async def _porter(around: Surroundings, _values: Mapping[str, Value], _arguments: Sequence[str]) -> int:
    prefixes = {"SERVE_PORT_": "tcp", "SERVE_SCTP_PORT_": "sctp"}
    ports = [
        (protocol, int(name.removeprefix(prefix)))
        for name in around.env
        for prefix, protocol in prefixes.items()
        if name.startswith(prefix) and name.removeprefix(prefix).isdigit()
    ]
    return await _serve(around, ports, around.hostname)


async def _pause(around: Surroundings, _values: Mapping[str, Value], _arguments: Sequence[str]) -> int:
    around.terminal.print("Paused\n")
    await asyncio.Event().wait()
    return 0


_AGNHOST: Mapping[
    str, tuple[Callable[[Surroundings, Mapping[str, Value], Sequence[str]], Awaitable[int]], Sequence[Flag]]
] = {
    "connect": (_connect, connect.FLAGS),
    "netexec": (_netexec, netexec.FLAGS),
    "pause": (_pause, pause.FLAGS),
    "porter": (_porter, porter.FLAGS),
    "serve-hostname": (_serve_hostname, serve_hostname.FLAGS),
}


# -- the shell and friends


async def _shell(around: Surroundings, argv: Sequence[str]) -> int:
    if "-c" in argv[1:]:
        script = argv[list(argv).index("-c") + 1 :]
        return await _lines(around, script[0] if script else "")
    code = 0
    while True:
        if around.terminal.tty:
            around.terminal.print(f"root@{around.hostname}:/# ")
        around.terminal.interrupted.clear()
        line = await around.terminal.line()
        if line is None:
            if around.terminal.tty:
                around.terminal.print("exit\n")
            return code
        words = _words(around, line)
        if words[:1] == ["exit"]:
            if around.terminal.tty:
                around.terminal.print("exit\n")
            return int(words[1]) if len(words) > 1 and words[1].isdigit() else code
        code = await _interruptible(around, words, code)


async def _interruptible(around: Surroundings, words: Sequence[str], last: int) -> int:
    """Run a command; control-C ends it."""
    running = asyncio.ensure_future(_command(around, words, last))
    stopping = asyncio.ensure_future(around.terminal.interrupted.wait())
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        return running.result() if running.done() else 130
    finally:
        running.cancel()
        stopping.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)


async def _lines(around: Surroundings, script: str) -> int:
    """Run the commands of a script one after the other: ``;`` and newlines separate them, nothing else is known."""
    code = 0
    for line in script.replace("\n", ";").split(";"):
        words = _words(around, line)
        if words[:1] == ["exit"]:
            return int(words[1]) if len(words) > 1 and words[1].isdigit() else code
        if words[:1] == ["exec"]:
            words = words[1:]
        code = await _command(around, words, code)
    return code


def _words(around: Surroundings, line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        around.terminal.print(f"sh: {error}\n", error=True)
        return []


async def _command(around: Surroundings, words: Sequence[str], last: int) -> int:
    if not words:
        return last
    program = find_program(words[0])
    if program is None:
        known = ", ".join(sorted(_PROGRAMS))
        around.terminal.print(f"{words[0]}: not in this simulated pod, which knows: {known}\n", error=True)
        return _NOT_FOUND
    # A command has the shell's terminal, but a shell in a shell would fight it for its lines.
    return await program(replace(around), [word.replace("$?", str(last)) for word in words])


async def _sleep(around: Surroundings, argv: Sequence[str]) -> int:
    total = 0.0
    for word in argv[1:]:
        if word in ("inf", "infinity"):
            await asyncio.Event().wait()
        try:
            total += parse_duration(word if word[-1:] in "smh" else f"{word}s") if word else 0.0
        except ValueError:
            around.terminal.print(f"sleep: invalid time interval '{word}'\n", error=True)
            return 1
    await asyncio.sleep(total)
    return 0


async def _echo(around: Surroundings, argv: Sequence[str]) -> int:
    around.terminal.print(" ".join(argv[1:]) + "\n")
    return 0


async def _hostname(around: Surroundings, argv: Sequence[str]) -> int:
    text = " ".join(around.addresses) if argv[1:2] in (["-i"], ["-I"]) else around.hostname
    around.terminal.print(f"{text}\n")
    return 0


async def _env(around: Surroundings, _argv: Sequence[str]) -> int:
    around.terminal.print("".join(f"{name}={value}\n" for name, value in around.env.items()))
    return 0


async def _cat(around: Surroundings, argv: Sequence[str]) -> int:
    if len(argv) > 1:
        around.terminal.print(f"cat: {argv[1]}: a simulated pod has no files\n", error=True)
        return 1
    while (line := await around.terminal.line()) is not None:
        around.terminal.print(f"{line}\n")
    return 0


async def _true(_around: Surroundings, _argv: Sequence[str]) -> int:
    return 0


async def _false(_around: Surroundings, _argv: Sequence[str]) -> int:
    return 1


_PROGRAMS: Mapping[str, Program] = {
    "/agnhost": _agnhost,
    "bash": _shell,
    "cat": _cat,
    "echo": _echo,
    "env": _env,
    "false": _false,
    "hostname": _hostname,
    "sh": _shell,
    "sleep": _sleep,
    "true": _true,
}
