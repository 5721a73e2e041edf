# SPDX-License-Identifier: Apache-2.0
"""Every fuzzer by name: what it draws, what it holds against what. Each ``check`` counts what it compared.

A fuzzer is a function of a ``Bench`` (what costs to set up, and is shared by examples) and of hypothesis' data. It
raises ``Disagreement``; hypothesis then looks for the smallest example that still does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hypothesis import strategies as st

from ringfence.dataplanes.ebpf.apply import EbpfDataplane
from ringfence.dataplanes.nftables.apply import NftablesDataplane
from tests.apiserver.test_no_body_breaks_the_server import SEEDS, answer_bodies
from tests.fuzz import agents, broken, kernel
from tests.fuzz.agreement import compare, compare_meaning
from tests.fuzz.asking import Asking, MakeEbpf, asking, compare_answers
from tests.fuzz.walks import contrasts, walks
from tests.fuzz.wire import MakeDataplane, Wire, wire
from tests.fuzz.worlds import settings, worlds
from tests.semantics.small_worlds import clusters, deciding_tiers

FLIPS = 8


@dataclass
class Bench:
    """What fuzzers work on. The wire and the places are built when first asked for, and gone after ``close``."""

    make_dataplane: MakeDataplane = NftablesDataplane
    make_ebpf: MakeEbpf = EbpfDataplane
    verdicts: int = 0
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _wires: dict[str, Wire] = field(default_factory=dict)
    _asking: Asking | None = None

    @property
    def asking(self) -> Asking:
        """The nodes whose eBPF programs are asked."""
        if self._asking is None:
            self._asking = self._stack.enter_context(asking(self.make_ebpf))
        return self._asking

    @property
    def wire(self) -> Wire:
        """The two nodes, on nftables."""
        return self._wire("nftables", self.make_dataplane)

    @property
    def ebpf_wire(self) -> Wire:
        """Two other nodes, on eBPF."""
        return self._wire("ebpf", lambda _: EbpfDataplane())

    def _wire(self, engine: str, make: MakeDataplane) -> Wire:
        if engine not in self._wires:
            self._wires[engine] = self._stack.enter_context(wire(make))
        return self._wires[engine]

    def close(self) -> None:
        """Take everything away."""
        self._stack.close()
        self._asking = None
        self._wires.clear()


Fuzzer = Callable[[Bench, st.DataObject], None]


def meaning(bench: Bench, data: st.DataObject) -> None:
    """Oracle, interpreted program and memory dataplane agree on every cell of a cluster with its API objects."""
    bench.verdicts += compare(data.draw(worlds()))


def rules(bench: Bench, data: st.DataObject) -> None:
    """They agree on policies that no NetworkPolicy can say: ordered, with rules that deny."""
    cluster, policies = data.draw(clusters()), data.draw(deciding_tiers())
    bench.verdicts += compare_meaning(cluster, policies, data.draw(settings), (cluster, policies))


def tidings(bench: Bench, data: st.DataObject) -> None:
    """Agents that hear of a cluster's life in any order and any batches end where one begins that starts last."""
    bench.verdicts += agents.draw_and_check(data, data.draw(walks(steps=5)))


def breakage(bench: Bench, data: st.DataObject) -> None:
    """Keep what is left of a policy that something broke, and never allow more than before."""
    world = data.draw(worlds(broken=False).filter(lambda drawn: bool(drawn.policies)))
    number = data.draw(st.integers(0, len(world.policies) - 1))
    values = data.draw(st.sampled_from((broken.NOTHING, broken.ANYTHING)))
    manifest, where = data.draw(broken.mutated(world.policies[number], values, below="spec"))
    bench.verdicts += broken.check_left_over(world, number, manifest)
    bench.verdicts += broken.check_never_wider(world, number, manifest, where)


def rubbish(bench: Bench, data: st.DataObject) -> None:
    """Take any JSON for any object, and go on."""
    world = data.draw(worlds())
    bench.verdicts += broken.check_readable(world, data.draw(st.lists(broken.rubbish(world), min_size=1, max_size=25)))


def bodies(bench: Bench, data: st.DataObject) -> None:
    """Have the lab's API server answer every body, whatever is in it, and show what it stored."""
    answer_bodies(data.draw(st.randoms(use_true_random=False)), data.draw(st.sampled_from(sorted(SEEDS))))
    bench.verdicts += 1


def lookups(bench: Bench, data: st.DataObject) -> None:
    """Have the eBPF program answer as the oracle does, packet by packet and by the same rule, after any change."""
    if data.draw(st.integers(0, 3)):
        walk = data.draw(walks(steps=2))
        for number, world in enumerate(walk, start=1):
            seed = data.draw(st.integers(0, 2**32))
            bench.verdicts += compare_answers(
                bench.asking, *world.meaning, world.settings, seed=seed, steps=walk[:number]
            )
    else:
        cluster, policies = data.draw(clusters()), data.draw(deciding_tiers())
        seed = data.draw(st.integers(0, 2**32))
        bench.verdicts += compare_answers(bench.asking, cluster, policies, data.draw(settings), seed=seed)


def packets(bench: Bench, data: st.DataObject) -> None:
    """Give first packets the oracle's verdict in the kernel, whatever program was in force before."""
    bench.verdicts += kernel.check_state(bench.wire, data.draw(worlds()))


def packets_ebpf(bench: Bench, data: st.DataObject) -> None:
    """Do so on eBPF."""
    bench.verdicts += kernel.check_state(bench.ebpf_wire, data.draw(worlds()))


def journeys(bench: Bench, data: st.DataObject) -> None:
    """Any path through the worlds of a walk, with restarts on the way, ends where a fresh start would begin."""
    bench.verdicts += _journey(bench.wire, data)


def journeys_ebpf(bench: Bench, data: st.DataObject) -> None:
    """So it does on eBPF."""
    bench.verdicts += _journey(bench.ebpf_wire, data)


def _journey(on: Wire, data: st.DataObject) -> int:
    walk = data.draw(walks(steps=4))
    stops = st.builds(kernel.Stop, st.integers(0, len(walk) - 1), st.booleans())
    return kernel.check_journey(on, walk, data.draw(st.lists(stops, max_size=5)))


def changes(bench: Bench, data: st.DataObject) -> None:
    """While one program replaces another, no packet meets a verdict of neither."""
    bench.verdicts += _change(bench.wire, data)


def changes_ebpf(bench: Bench, data: st.DataObject) -> None:
    """Nor does any on eBPF."""
    bench.verdicts += _change(bench.ebpf_wire, data)


def _change(on: Wire, data: st.DataObject) -> int:
    before, after = data.draw(st.one_of(contrasts(), contrasts(), walks(steps=1)))
    return kernel.check_change(on, before, after, flips=FLIPS)


_ON_NFTABLES = (packets, journeys, changes)
_ON_EBPF = (lookups, packets_ebpf, journeys_ebpf, changes_ebpf)
FUZZERS: Mapping[str, Fuzzer] = {
    each.__name__: each for each in (meaning, rules, tidings, breakage, rubbish, bodies, *_ON_NFTABLES, *_ON_EBPF)
}
NEED_A_KERNEL = frozenset(each.__name__ for each in (*_ON_NFTABLES, *_ON_EBPF))
