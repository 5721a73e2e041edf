# SPDX-License-Identifier: Apache-2.0
"""What does a packet cost in the eBPF program alone, in nanoseconds?

``rf_ask`` is run on packets of ours: the same question again and again, which it remembers; questions that nobody has
asked yet, about one UDP port after the other; and such questions about TCP from one peer after the other, for which
nothing is in the processor's caches either. ``rf_filter`` at the hooks is measured on what ``traffic`` sends. The
kernel counts their time (all but the first), which adds about 60 ns to each run.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import random
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence

from bench import shapes
from bench.paths import Path3, Variant, path
from bench.rows import Rows
from bench.shapes import CLIENT, PORT, SERVER
from bench.traffic import MEASURES, measurable, pinned
from ringfence.dataplanes.ebpf.hooks import ASK, FILTER
from ringfence.dataplanes.ebpf.instance import Instance
from ringfence.dataplanes.ebpf.place import Place
from ringfence.host import netns
from ringfence.host.bpf.programs import BpfProgram, Cost, Runner, counting

TCP, UDP = 6, 17  # IANA
_NANO = 1e-9


def bench_packet(rows: Rows) -> None:
    """Measure the program that asks, then the one at the hooks, for each series of programs."""
    with pinned(), contextlib.ExitStack() as stack:
        paths: dict[str, Path3] = {}
        found: dict[str, Instance] = {}
        for number, variant in enumerate(_variants(quick=rows.quick)):
            rows.progress(f"writing {variant.name}")
            paths[variant.name] = stack.enter_context(path(number, variant))
            found[variant.name] = instance_of(paths[variant.name], stack)
        programs = {name: each.programs[ASK] for name, each in found.items()}
        _asked_again(rows, programs)
        _asked_anew(rows, programs, {name: each.sources for name, each in paths.items()})
        _live(rows, paths, found)


def _variants(*, quick: bool) -> list[Variant]:
    return [
        Variant(series.named(count), "ebpf", series.of(count), sources=series.sources(count))
        for series in shapes.series(quick=quick)
        for count in series.counts
    ]


def instance_of(path: Path3, stack: contextlib.ExitStack) -> Instance:
    """Return the engine's programs of a path."""
    with netns.enter(path.node):
        place = Place()
    stack.callback(place.close)
    found = place.adopt()
    if found is None:
        raise SystemExit("the engine's programs are not where they should be")
    stack.callback(found.close)
    return found


def _asked_again(rows: Rows, programs: Mapping[str, BpfProgram]) -> None:
    rows.progress("the same question again")
    rounds, repeat = (3, 2000) if rows.quick else (15, 100_000)
    packet = _packet(CLIENT, PORT, TCP)

    def ask(name: str) -> float:
        ran = programs[name].test_run(packet, repeat=repeat)
        if ran.retval != 1:
            raise SystemExit(f"{name}: the packet that is measured would be dropped")
        return ran.duration_ns * _NANO

    _rows(rows, "the same question again", _rounds(programs, ask, rounds))


def _asked_anew(rows: Rows, programs: Mapping[str, BpfProgram], sources: Mapping[str, Sequence[str]]) -> None:
    rounds, count = (3, 200) if rows.quick else (15, 2000)
    most = max(map(len, sources.values()))
    many = [name for name, each in sources.items() if len(each) == most]
    ports = itertools.cycle(range(1, 1 << 16))

    def ask(name: str, packets: Sequence[bytes]) -> float:
        run, before = Runner(programs[name], longest=100), programs[name].cost()
        if not all(map(run, packets)):
            raise SystemExit(f"{name}: a packet that is measured would be dropped")
        return cost_of_a_run(programs[name], before)

    def of_a_port(name: str) -> float:
        return ask(name, [_packet(CLIENT, next(ports), UDP) for _ in range(count)])

    peers = {name: itertools.cycle(random.sample(sources[name], most)) for name in many}

    def of_a_peer(name: str) -> float:
        return ask(name, [_packet(next(peers[name]), PORT, TCP) for _ in range(count)])

    rows.progress("questions that are new")
    with counting():
        of_ports, of_peers = _rounds(programs, of_a_port, rounds), _rounds(many, of_a_peer, rounds)
    _rows(rows, "a new question, about another port each", of_ports)
    _rows(rows, "a new question, about another peer each", of_peers)


def _packet(source: str, port: int, protocol: int) -> bytes:
    """Return a packet that opens a connection to the server: Ethernet, IPv4, TCP with SYN or UDP."""
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(SERVER).packed
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, protocol, 0) + ends
    ports = struct.pack("!HH", 40000, port)
    rest = struct.pack("!IIBBHHH", 1, 0, 0x50, 2, 65535, 0, 0) if protocol == TCP else struct.pack("!HH", 20, 0)
    return bytes(12) + b"\x08\x00" + ip + ports + rest.ljust(16, b"\0")


def _rounds(names: Iterable[str], measure: Callable[[str], float], rounds: int) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in random.sample(list(values), len(values)):
            values[name].append(measure(name))
    return values


def _rows(rows: Rows, what: str, values: Mapping[str, Sequence[float]]) -> None:
    """Add a row for each variant; the baseline is the first one, the smallest."""
    least = next(iter(values.values()))
    for name, each in values.items():
        rows.row(f"{what}: {name}", each, unit="ns", against=least)


def cost_of_a_run(program: BpfProgram, before: Cost) -> float:
    """Return the seconds that a run took since then."""
    after = program.cost()
    return (after.ns - before.ns) / (after.runs - before.runs) * _NANO


def _live(rows: Rows, paths: Mapping[str, Path3], found: Mapping[str, Instance]) -> None:
    rounds, scale = (3, 0.1) if rows.quick else (10, 0.3)
    for measure in MEASURES:
        rows.progress(f"live traffic: {measure.name}")
        chosen = measurable(paths, measure)

        def send(name: str) -> float:
            program = found[name].programs[FILTER]
            before = program.cost()
            measure.of(chosen[name], scale)  # noqa: B023 - called here
            return cost_of_a_run(program, before)

        with counting():
            values = _rounds(chosen, send, rounds)
        _rows(rows, f"live traffic, {measure.name}", values)
