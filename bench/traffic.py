# SPDX-License-Identifier: Apache-2.0
"""What does enforcement cost a packet, a connection, a transfer, with each engine and with 1 to 10,000 policies?

Each variant has namespaces of its own, client - node - server, and its program is put in force once. Rounds go through
all variants in random order; a ratio is the median, over the rounds, of the variant's value by that of the same round
without enforcement, where the kernel tracks connections too. One thread on one CPU is client, node and server in turn:
between CPUs, wake-ups would be most of what is measured. So the thread's own CPU time is the time that all of it took,
and what else runs on the machine is not in it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench import shapes, worlds
from bench.paths import Path3, Variant, path
from bench.rows import Rows
from bench.shapes import CLIENT, PORT, SERVER
from ringfence.compiler.program import empty_program
from ringfence.dataplanes.registry import ENGINES
from ringfence.host import netns

BASELINE = Variant("no enforcement", sources=tuple(map(worlds.pod_address, range(10_000))))
_CHUNK = bytes(1 << 16)
_BIND_ADDRESS_NO_PORT = 24  # linux/in.h
_ENOUGH = 0.1  # seconds of CPU for one measurement


@dataclass(frozen=True, slots=True)
class Measure:
    """A measurement: how it is called, its unit, and itself. The number is how much of it, 1 for a whole one.

    ``of_many``: it needs a path whose client has many addresses.
    """

    name: str
    unit: str
    of: Callable[[Path3, float], float]
    of_many: bool = False


def bench_traffic(rows: Rows) -> None:
    """Measure round trips, connections, transfers and packets, each variant by no enforcement."""
    with pinned(), contextlib.ExitStack() as stack:
        paths = {}
        for number, variant in enumerate(_variants(quick=rows.quick)):
            rows.progress(f"writing {variant.name}")
            paths[variant.name] = stack.enter_context(path(number, variant))
        for measure in MEASURES:
            rows.progress(measure.name)
            values = interleaved(
                measurable(paths, measure), measure, rounds=3 if rows.quick else 30, scale=0.1 if rows.quick else 1
            )
            for name, each in values.items():
                aim = "within 3 % of no enforcement" if name.startswith("ebpf") else ""
                rows.row(f"{measure.name}: {name}", each, unit=measure.unit, against=values[BASELINE.name], aim=aim)
            _row_most_by_least(rows, measure, values)


def _row_most_by_least(rows: Rows, measure: Measure, values: Mapping[str, Sequence[float]]) -> None:
    """Tell whether it matters how many there are."""
    for engine, series in itertools.product(filtering(), shapes.series(quick=rows.quick)):
        least, most = (f"{engine}, {series.named(count)}" for count in (series.counts[0], series.counts[-1]))
        if least in values and most in values:
            what = f"{measure.name}: {most} (by {series.counts[0]})"
            aim = "1" if engine == "ebpf" else ""
            rows.row(what, values[most], unit=measure.unit, against=values[least], aim=aim)


def measurable(paths: Mapping[str, Path3], measure: Measure) -> dict[str, Path3]:
    """Return the paths on which something can be measured: if it is of many, those that have the most."""
    most = max(len(path.sources) for path in paths.values())
    return {name: path for name, path in paths.items() if not measure.of_many or len(path.sources) == most}


def filtering() -> Iterable[str]:
    """Return the names of the engines that filter packets."""
    return [engine.name for engine in ENGINES.values() if engine.filters]


def _variants(*, quick: bool) -> Iterator[Variant]:
    baseline = replace(BASELINE, sources=BASELINE.sources[:100] if quick else BASELINE.sources)
    yield replace(baseline, name="no enforcement, connections not tracked", tracked=False)
    yield baseline
    yield replace(baseline, name="no enforcement, again")  # its distance from 1 is what this run cannot tell
    for engine in filtering():
        yield Variant(f"{engine}, 0 policies", engine, empty_program(worlds.NODE))
    for series in shapes.series(quick=quick):
        for count in series.counts:
            program = series.of(count)
            for engine in filtering():
                yield Variant(f"{engine}, {series.named(count)}", engine, program, sources=series.sources(count))


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Stay on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def interleaved(paths: Mapping[str, Path3], measure: Measure, *, rounds: int, scale: float) -> dict[str, list[float]]:
    """Return each path's values, round by round; each round goes through all paths in another order."""
    values: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(rounds + 1):
        for name in random.sample(list(paths), len(paths)):
            value = measure.of(paths[name], scale)
            if number:  # the first round only warms up
                values[name].append(value)
    return values


def _round_trip(path: Path3, scale: float) -> float:
    near, far = path.near, path.far
    near.settimeout(10)
    far.settimeout(10)
    seconds = []
    for _ in range(int(500 * scale)):
        start = time.perf_counter()
        near.send(b"x")
        far.recv(1)
        far.send(b"y")
        near.recv(1)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _connection_rate(path: Path3, scale: float) -> float:
    return _connections(path, itertools.repeat(CLIENT), scale)


def _connection_rate_of_many(path: Path3, scale: float) -> float:
    return _connections(path, iter(random.choices(path.sources, k=400)), scale)


def _connections(path: Path3, sources: Iterator[str], scale: float) -> float:
    reset = struct.pack("ii", 1, 0)  # so that no port waits for stragglers
    count, start = 0, time.thread_time()
    with netns.enter(path.client):
        while count < int(400 * scale) and time.thread_time() - start < _ENOUGH:
            with socket.socket() as near:
                near.settimeout(10)
                near.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                near.bind((next(sources), 0))
                near.connect((SERVER, PORT))
                near.send(b"x")
                far, _ = path.listener.accept()
                with far:
                    far.recv(1)
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            count += 1
        return count / (time.thread_time() - start)


def _throughput(path: Path3, scale: float) -> float:
    return _transfer(path.near, path.far, scale)


def _small_throughput(path: Path3, scale: float) -> float:
    return _transfer(*path.small, scale)


def _transfer(near: socket.socket, far: socket.socket, scale: float) -> float:
    near.setblocking(False)
    far.setblocking(False)
    moved, start, last = 0, time.thread_time(), time.perf_counter() + 10
    while (elapsed := time.thread_time() - start) < 0.06 * scale and time.perf_counter() < last:
        with contextlib.suppress(BlockingIOError):
            near.send(_CHUNK)
        moved += _drained(far)
    near.settimeout(10)
    deadline = time.perf_counter() + 0.02
    while time.perf_counter() < deadline:  # what is still on its way is of this round
        _drained(far)
    return 8 * moved / elapsed / 1e9


def _drained(far: socket.socket) -> int:
    moved = 0
    with contextlib.suppress(BlockingIOError):
        while chunk := len(far.recv(1 << 18)):
            moved += chunk
    return moved


def _packet(path: Path3, scale: float) -> float:
    near, far = path.talk
    near.send(b"x")
    far.recv(1)
    far.send(b"y")  # from now on the connection is established
    near.recv(1)
    return _datagrams(near, far, scale)


def _unanswered_packet(path: Path3, scale: float) -> float:
    return _datagrams(*path.shout, scale)


def _datagrams(near: socket.socket, far: socket.socket, scale: float) -> float:
    content = bytes(64)
    count, start = 0, time.thread_time()
    while count < int(2000 * scale) and time.thread_time() - start < _ENOUGH:
        for _ in range(20):
            near.send(content)
            far.recv(64)
        count += 20
    return (time.thread_time() - start) / count


MEASURES: Sequence[Measure] = (
    Measure("round trip of an open connection", "µs", _round_trip),
    Measure("new connections in a second of CPU", "/s", _connection_rate),
    Measure("new connections, each from another peer", "/s", _connection_rate_of_many, of_many=True),
    Measure("throughput in a second of CPU", "Gb/s", _throughput),
    Measure("throughput in a second of CPU, without GSO", "Gb/s", _small_throughput),
    Measure("CPU for a packet, UDP", "µs", _packet),
    Measure("CPU for a packet, UDP that nobody answers", "µs", _unanswered_packet),
)
