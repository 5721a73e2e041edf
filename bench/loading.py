# SPDX-License-Identifier: Apache-2.0
"""How long does each engine take for 10,000 policies at once, and for one member more of a large set?

``apply`` whole is the dataplane's own work and the kernel's; "in nftables" is the part of it inside of libnftables and
the kernel. The baseline of an increment is the one into the smallest set.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from bench import worlds
from bench.rows import Rows, timed
from bench.traffic import filtering
from ringfence.apis.census import Census
from ringfence.apis.core import Pod, convert, endpoint
from ringfence.compiler.compile import compile_program
from ringfence.compiler.incremental import KeptProgram
from ringfence.compiler.program import Program
from ringfence.dataplanes import registry
from ringfence.dataplanes.base import Dataplane
from ringfence.dataplanes.nftables.apply import NftablesDataplane
from ringfence.host import netns
from ringfence.host.nft import Nft
from ringfence.host.nft_elements import ElementChange
from ringfence.model.cluster import Namespace, Node
from ringfence.model.policy import Policy
from ringfence.model.settings import DEFAULTS

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
def dataplane(engine: str) -> Iterator[tuple[Dataplane, TimedNft | None]]:
    """Make a dataplane in a namespace of its own; with it what tells its time in the kernel, if anything does."""
    name = f"rfb-{os.getpid()}-load"
    netns.create(name)
    try:
        with netns.enter(name):
            nft = TimedNft() if engine == "nftables" else None
            made = registry.engine(engine).build() if nft is None else NftablesDataplane(nft)
        try:
            yield made, nft
        finally:
            made.remove()  # what an engine holds of a namespace would outlive it
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
        compiles = [timed(lambda: compile_program(cluster, lowered, worlds.NODE)) for _ in range(3)]  # noqa: B023 - called here
        rows.row(f"{count:,} policies: compile", compiles)
        program = compile_program(cluster, lowered, worlds.NODE)
        for engine in filtering():
            _load(rows, engine, program, f"{engine}, {count:,} policies")


def _load(rows: Rows, engine: str, program: Program, about: str) -> None:
    applies, inside = [], []
    for _ in range(3):
        rows.progress(about)
        with dataplane(engine) as (made, nft):
            applies.append(timed(lambda: made.apply(program)))
            inside += [nft.seconds] if nft is not None else []
    rows.row(f"{about}: apply whole", applies, aim="10,000 under 1 s")
    if inside:
        rows.row(f"{about}: of which in nftables", inside)


def bench_increment(rows: Rows) -> None:
    """Measure how one member comes and goes in the set of a server's peers: a pod's address, or a block."""
    repeats = 3 if rows.quick else 10
    for engine, kind in itertools.product(filtering(), ("pods", "blocks")):
        first: Increments | None = None
        for members in (100, 1000) if rows.quick else (1000, 10_000, 100_000):
            about = f"{engine}, one more or less of {members:,} {kind}"
            rows.progress(about)
            changes = _pods(members) if kind == "pods" else _blocks(members)
            found = _increments(engine, changes, 2 * repeats)
            first = first or found
            rows.row(f"{about}: compile", found.compiles)
            rows.row(f"{about}: apply whole", found.applies, against=first.applies)
            if found.inside:
                rows.row(f"{about}: in nftables", found.inside, against=first.inside, aim="under 1 ms")


def _kept(pods: list[worlds.Object], policy: worlds.Object) -> tuple[KeptProgram, Policy]:
    """Return a program that is kept up with its cluster, as an agent keeps it, and its one policy."""
    census = Census({each["metadata"]["uid"]: convert(Pod, each) for each in pods})
    policies = worlds.policies_of([policy])
    spaces = {worlds.SPACE: Namespace(worlds.SPACE)}
    kept = KeptProgram(spaces, Node(worlds.NODE), worlds.NODE, census.endpoints, policies, DEFAULTS)
    return kept, policies.tiers[0].policies[0]


def _pods(members: int) -> Iterator[Callable[[], Program]]:
    """Yield the first program, then changes: a client comes, and goes."""
    pods = [worlds.pod(0, worlds.NODE, app="server")]
    pods += [worlds.pod(1 + n, worlds.ELSEWHERE, app="client") for n in range(members)]
    kept, _ = _kept(pods, worlds.policy("p", {"app": "server"}, [worlds.labelled(app="client")]))
    yield lambda: kept.program
    late = endpoint(convert(Pod, worlds.pod(1 + members, worlds.ELSEWHERE, app="client")))
    while True:
        yield lambda: kept.change({late.uid: late}, [])
        yield lambda: kept.change({late.uid: None}, [])


def _blocks(members: int) -> Iterator[Callable[[], Program]]:
    """Yield the first program, then changes: a policy gets a block more, and loses it."""
    server = worlds.pod(0, worlds.NODE, app="server")
    peers = [worlds.block(n) for n in range(members + 1)]
    kept, small = _kept([server], worlds.policy("p", {"app": "server"}, peers[:-1]))
    tier = worlds.policies_of([]).tiers[0]
    large = worlds.policies_of([worlds.policy("p", {"app": "server"}, peers)]).tiers[0].policies[0]
    yield lambda: kept.program
    while True:
        yield lambda: kept.change({}, [(tier, small, large)])
        yield lambda: kept.change({}, [(tier, large, small)])


@dataclass(slots=True)
class Increments:
    """What each change took: to compile, to apply, and inside of the kernel if that is known."""

    compiles: list[float] = field(default_factory=list)
    applies: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)


def _increments(engine: str, changes: Iterator[Callable[[], Program]], repeats: int) -> Increments:
    found = Increments()
    with dataplane(engine) as (made, nft):
        made.apply(next(changes)())
        for number, change in enumerate(itertools.islice(changes, repeats + 2)):
            time.sleep(0.03)  # two changes in a row wait for each other's packets; this is about one that comes alone
            start = time.perf_counter()
            program = change()
            compiled = time.perf_counter()
            before = nft.seconds if nft is not None else 0
            made.apply(program)
            if number > 1:  # the first ones find what they need later remembered
                found.compiles.append(compiled - start)
                found.applies.append(time.perf_counter() - compiled)
                found.inside += [nft.seconds - before] if nft is not None else []
    return found
