# SPDX-License-Identifier: Apache-2.0
"""What does enforcement cost a packet, a connection, a transfer, with 0 to 10,000 policies on the node?

Each variant has namespaces of its own, client - node - server, and its table is written once. Rounds go through all
variants in random order; a ratio is the median, over the rounds, of the variant's value by that of the same round
without enforcement. One thread on one CPU is client and server in turn: between CPUs, wake-ups would be most of what
is measured.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import worlds
from bench.rows import Rows
from ringfence.compiler.program import Program, empty_program
from ringfence.dataplanes.nftables.apply import NftablesDataplane
from ringfence.host import netns, process
from ringfence.host.nft import Nft

CLIENT, SERVER, PORT = "10.9.1.2", "10.9.2.2", 80
_CHUNK = bytes(1 << 16)


@dataclass(slots=True)
class Path3:
    """A client, a node and a server, connected, and open sockets between them."""

    name: str
    listener: socket.socket
    near: socket.socket
    far: socket.socket

    @property
    def client(self) -> str:
        """The client's namespace."""
        return f"{self.name}-c"


def bench_traffic(rows: Rows) -> None:
    """Measure round trips, connections and transfers, each variant by no enforcement."""
    counts = (1, 100) if rows.quick else (1, 100, 1000, 10_000)
    programs: list[tuple[str, Program | None]] = [("no enforcement", None), ("0 policies", empty_program(worlds.NODE))]
    programs += [(f"{count:,} policies on the one server, its own last", _one_pod(count)) for count in counts]
    programs += [(f"{count:,} policies on as many pods", _many_pods(count)) for count in counts]
    rounds = 3 if rows.quick else 15
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with contextlib.ExitStack() as stack:
            paths = {}
            for number, (name, program) in enumerate(programs):
                rows.progress(f"writing {name}")
                paths[name] = stack.enter_context(_path(f"rfb{os.getpid()}-{number}", program))
            for what, unit, measure in _MEASURES:
                rows.progress(what)
                values = _interleaved(paths, measure, rounds)
                for name, each in values.items():
                    rows.row(f"{what}: {name}", each, unit=unit, against=values["no enforcement"])
    finally:
        os.sched_setaffinity(0, before)


def _interleaved(paths: dict[str, Path3], measure: Callable[[Path3], float], rounds: int) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(rounds + 1):
        for name in random.sample(list(paths), len(paths)):
            value = measure(paths[name])
            if number:  # the first round only warms up
                values[name].append(value)
    return values


def _one_pod(count: int) -> Program:
    """All policies select the server; each lets another pod in, the last one the client."""
    pods = [worlds.pod(0, worlds.NODE, address=SERVER, app="server")]
    pods += [worlds.pod(1, worlds.ELSEWHERE, address=CLIENT, app=f"peer{count - 1}")]
    pods += [worlds.pod(2 + n, worlds.ELSEWHERE, app=f"peer{n}") for n in range(count - 1)]
    peers = [worlds.labelled(app=f"peer{n}") for n in range(count)]
    return worlds.program_of(
        pods, [worlds.policy(f"p{n:05}", {"app": "server"}, [peer]) for n, peer in enumerate(peers)]
    )


def _many_pods(count: int) -> Program:
    """Each policy selects another pod of the node; one of them the server, which lets the client in."""
    pods = [worlds.pod(0, worlds.NODE, address=SERVER, app="pod0")]
    pods += [worlds.pod(1, worlds.ELSEWHERE, address=CLIENT, app="client0")]
    pods += [worlds.pod(2 + n, worlds.NODE, app=f"pod{n}") for n in range(1, count)]
    pods += [worlds.pod(2 + count + n, worlds.ELSEWHERE, app=f"client{n}") for n in range(1, count)]
    policies = [
        worlds.policy(f"p{n:05}", {"app": f"pod{n}"}, [worlds.labelled(app=f"client{n}")]) for n in range(count)
    ]
    return worlds.program_of(pods, policies)


@contextlib.contextmanager
def _path(name: str, program: Program | None) -> Iterator[Path3]:
    ends = {f"{name}-c": (CLIENT, 1), f"{name}-s": (SERVER, 2)}
    node = f"{name}-n"
    made: list[str] = []
    try:
        for each in (node, *ends):
            netns.create(each)
            made.append(each)
        with netns.enter(node):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            for end, (_, number) in ends.items():
                link = f"link add e{number} type veth peer name eth0 netns {end}\n"
                process.run(
                    ["ip", "-batch", "-"],
                    stdin=f"{link}addr add 10.9.{number}.1/24 dev e{number}\nlink set e{number} up\n",
                )
        for end, (address, number) in ends.items():
            with netns.enter(end):
                up = f"link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"
                process.run(["ip", "-batch", "-"], stdin=f"{up}route add default via 10.9.{number}.1\n")
        with contextlib.ExitStack() as stack:
            if program is not None:
                with netns.enter(node):
                    engine = NftablesDataplane(Nft())
                stack.callback(engine.close)
                engine.apply(program)
            yield _connected(name, stack)
    finally:
        for each in made:
            netns.delete(each)


def _connected(name: str, stack: contextlib.ExitStack) -> Path3:
    with netns.enter(f"{name}-s"):
        listener = stack.enter_context(socket.create_server((SERVER, PORT), backlog=1024))
    with netns.enter(f"{name}-c"):
        near = stack.enter_context(socket.create_connection((SERVER, PORT), timeout=10))
    far = stack.enter_context(listener.accept()[0])
    for each in (near, far):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Path3(name, listener, near, far)


def _round_trip(path: Path3) -> float:
    near, far = path.near, path.far
    near.settimeout(10)
    far.settimeout(10)
    seconds = []
    for _ in range(300):
        start = time.perf_counter()
        near.send(b"x")
        far.recv(1)
        far.send(b"y")
        near.recv(1)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _connection_rate(path: Path3) -> float:
    linger = struct.pack("ii", 1, 0)
    count, start = 0, time.perf_counter()
    with netns.enter(path.client):
        while (elapsed := time.perf_counter() - start) < 0.05 or count < 5:
            with socket.create_connection((SERVER, PORT), timeout=10) as near:
                near.send(b"x")
                far, _ = path.listener.accept()
                with far:
                    far.recv(1)
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            count += 1
    return count / elapsed


def _throughput(path: Path3) -> float:
    near, far = path.near, path.far
    near.setblocking(False)
    far.setblocking(False)
    moved, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < 0.1:
        with contextlib.suppress(BlockingIOError):
            near.send(_CHUNK)
        moved += _drained(far)
    near.settimeout(10)
    deadline = time.perf_counter() + 0.05
    while time.perf_counter() < deadline:  # what is still on its way is of this round
        _drained(far)
    return 8 * moved / elapsed / 1e9


def _drained(far: socket.socket) -> int:
    moved = 0
    with contextlib.suppress(BlockingIOError):
        while chunk := len(far.recv(1 << 18)):
            moved += chunk
    return moved


_MEASURES: Sequence[tuple[str, str, Callable[[Path3], float]]] = (
    ("round trip", "µs", _round_trip),
    ("new connections", "/s", _connection_rate),
    ("throughput", "Gb/s", _throughput),
)
