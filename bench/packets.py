# SPDX-License-Identifier: Apache-2.0
"""What does a packet cost in the eBPF program alone, in nanoseconds?

"The first of a connection" is the program that asks the tables anew for each packet (``rf_ask``), run by the kernel on
one packet again and again. "Of live traffic" is the program at the hooks (``rf_filter``) on what ``traffic`` sends; the
kernel counts its time, which adds about 60 ns to each run.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import struct
from collections.abc import Mapping

from bench import shapes
from bench.paths import Path3, Variant, path
from bench.rows import Rows
from bench.shapes import CLIENT, PORT, SERVER
from bench.traffic import MEASURES, measurable, pinned
from ringfence.dataplanes.ebpf.instance import ASK, FILTER, Instance
from ringfence.dataplanes.ebpf.place import Place
from ringfence.host import netns
from ringfence.host.bpf.programs import BpfProgram, counting

_NANO = 1e-9


def bench_packet(rows: Rows) -> None:
    """Measure the program that asks, then the one at the hooks, for each series of programs."""
    rounds, repeat = (3, 2000) if rows.quick else (15, 100_000)
    with pinned(), contextlib.ExitStack() as stack:
        paths: dict[str, Path3] = {}
        found: dict[str, Instance] = {}
        for number, variant in enumerate(_variants(quick=rows.quick)):
            rows.progress(f"writing {variant.name}")
            paths[variant.name] = stack.enter_context(path(number, variant))
            found[variant.name] = _instance(paths[variant.name], stack)
        rows.progress("the first packet of a connection")
        asked: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(rounds):
            for name in random.sample(list(found), len(found)):
                asked[name].append(_ask(found[name].programs[ASK], repeat, name))
        baseline = next(iter(asked.values()))
        for name, values in asked.items():
            rows.row(f"the first of a connection: {name}", values, unit="ns", against=baseline)
        _live(rows, paths, found)


def _variants(*, quick: bool) -> list[Variant]:
    return [
        Variant(series.named(count), "ebpf", series.of(count), sources=series.sources(count))
        for series in shapes.series(quick=quick)
        for count in series.counts
    ]


def _instance(path: Path3, stack: contextlib.ExitStack) -> Instance:
    with netns.enter(path.node):
        place = Place()
    stack.callback(place.close)
    found = place.adopt()
    if found is None:
        raise SystemExit("the engine's programs are not where they should be")
    stack.callback(found.close)
    return found


def _ask(program: BpfProgram, repeat: int, name: str) -> float:
    ran = program.test_run(_opening(), repeat=repeat)
    if ran.retval != 1:
        raise SystemExit(f"{name}: the packet that is measured would be dropped")
    return ran.duration_ns * _NANO


def _opening() -> bytes:
    """Return the packet with which the client opens a connection to the server: Ethernet, IPv4, TCP with SYN."""
    ends = ipaddress.ip_address(CLIENT).packed + ipaddress.ip_address(SERVER).packed
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + ends
    return bytes(12) + b"\x08\x00" + ip + struct.pack("!HHIIBBHHH", 40000, PORT, 1, 0, 0x50, 2, 65535, 0, 0)


def _live(rows: Rows, paths: Mapping[str, Path3], found: Mapping[str, Instance]) -> None:
    rounds, scale = (3, 0.1) if rows.quick else (10, 0.3)
    for measure in MEASURES:
        rows.progress(f"of live traffic: {measure.name}")
        chosen = measurable(paths, measure)
        costs: dict[str, list[float]] = {name: [] for name in chosen}
        with counting():
            for _ in range(rounds):
                for name in random.sample(list(chosen), len(chosen)):
                    before = found[name].programs[FILTER].cost()
                    measure.of(chosen[name], scale)
                    after = found[name].programs[FILTER].cost()
                    costs[name].append((after.ns - before.ns) / (after.runs - before.runs) * _NANO)
        least = next(iter(costs.values()))
        for name, each in costs.items():
            rows.row(f"of live traffic, {measure.name}: {name}", each, unit="ns", against=least)
