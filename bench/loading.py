# SPDX-License-Identifier: Apache-2.0
"""How long does the kernel take for 10,000 policies at once, and for one member more of a large set?

``apply`` whole is the dataplane's own work and the kernel's; "in nftables" is the part of it inside of libnftables and
the kernel. The baseline of an increment is the one into the smallest set.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator

from bench import worlds
from bench.rows import Rows, timed
from ringfence.compiler.compile import compile_program
from ringfence.compiler.program import Program
from ringfence.dataplanes.nftables.apply import NftablesDataplane
from ringfence.host import netns
from ringfence.host.nft import Nft
from ringfence.host.nft_elements import ElementChange

_LOCAL = 250


class TimedNft(Nft):
    """nftables, and how long it was at work."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def run(self, text: str) -> str:
        """Run, and note the time."""
        start = time.perf_counter()
        try:
            return super().run(text)
        finally:
            self.seconds += time.perf_counter() - start

    def change_elements(self, changes: Iterable[ElementChange]) -> None:
        """Change elements, and note the time."""
        start = time.perf_counter()
        try:
            super().change_elements(changes)
        finally:
            self.seconds += time.perf_counter() - start


@contextlib.contextmanager
def dataplane() -> Iterator[tuple[NftablesDataplane, TimedNft]]:
    """Make a dataplane in a namespace of its own."""
    name = f"rfb-{os.getpid()}-load"
    netns.create(name)
    try:
        with netns.enter(name):
            nft = TimedNft()
        engine = NftablesDataplane(nft)
        yield engine, nft
        engine.close()
    finally:
        netns.delete(name)


def bench_load(rows: Rows) -> None:
    """Measure a node's first program: policies select its 250 pods, each lets another group of four pods in."""
    for count in (100, 1000) if rows.quick else (100, 1000, 10_000):
        groups = max(1, count // 4)
        pods = [worlds.pod(n, worlds.NODE, app=f"a{n}") for n in range(_LOCAL)]
        pods += [worlds.pod(_LOCAL + n, worlds.ELSEWHERE, group=f"g{n % groups}") for n in range(4 * groups)]
        policies = [
            worlds.policy(f"p{n}", {"app": f"a{n % _LOCAL}"}, [worlds.labelled(group=f"g{n % groups}")])
            for n in range(count)
        ]
        cluster, lowered = worlds.cluster_of(pods), worlds.policies_of(policies)
        compiles, applies, inside = [], [], []
        for _ in range(3):
            rows.progress(f"{count} policies")
            compiles.append(timed(lambda: compile_program(cluster, lowered, worlds.NODE)))  # noqa: B023 - called here
            program = compile_program(cluster, lowered, worlds.NODE)
            with dataplane() as (engine, nft):
                applies.append(timed(lambda: engine.apply(program)))  # noqa: B023 - called here
                inside.append(nft.seconds)
        rows.row(f"{count:,} policies: compile", compiles)
        rows.row(f"{count:,} policies: apply whole", applies, aim="10,000 under 1 s")
        rows.row(f"{count:,} policies: of which in nftables", inside)


def bench_increment(rows: Rows) -> None:
    """Measure how one member comes and goes in the set of a server's peers: a pod's address, or a block."""
    repeats = 3 if rows.quick else 10
    for kind in ("pods", "blocks"):
        baseline: list[float] = []
        for members in (100, 1000) if rows.quick else (1000, 10_000, 100_000):
            rows.progress(f"{members} {kind}")
            applies, inside = _increments(_with_members(kind, members), _with_members(kind, members + 1), repeats)
            baseline = baseline or inside
            rows.row(f"one more or less of {members:,} {kind}: apply whole", applies)
            rows.row(f"one more or less of {members:,} {kind}: in nftables", inside, against=baseline, aim="under 1 ms")


def _with_members(kind: str, members: int) -> Program:
    server = worlds.pod(0, worlds.NODE, app="server")
    if kind == "blocks":
        peers = [worlds.block(n) for n in range(members)]
        return worlds.program_of([server], [worlds.policy("p", {"app": "server"}, peers)])
    pods = [worlds.pod(1 + n, worlds.ELSEWHERE, app="client") for n in range(members)]
    return worlds.program_of([server, *pods], [worlds.policy("p", {"app": "server"}, [worlds.labelled(app="client")])])


def _increments(small: Program, large: Program, repeats: int) -> tuple[list[float], list[float]]:
    applies, inside = [], []
    with dataplane() as (engine, nft):
        engine.apply(small)
        for number in range(2 * repeats):
            program = small if number % 2 else large
            before = nft.seconds
            applies.append(timed(lambda: engine.apply(program)))  # noqa: B023 - called here
            inside.append(nft.seconds - before)
    return applies, inside
