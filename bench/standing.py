# SPDX-License-Identifier: Apache-2.0
"""What does it cost where the eBPF programs stand: at netfilter's hooks, at devices too, or at devices alone?

The same paths, programs and rounds as ``traffic``; then the kernel's own count of each program's time on the same
traffic, which adds about 60 ns to each run.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping

from bench import shapes
from bench.packets import cost_of_a_run, instance_of
from bench.paths import Path3, Variant, path
from bench.rows import Rows
from bench.traffic import MEASURES, Measure, interleaved, pinned
from ringfence.dataplanes.ebpf.hooks import AT_DEVICES, AT_NETFILTER, FILTER, Hooks
from ringfence.host.bpf.programs import BpfProgram, counting

_BASELINE = "no enforcement"


def bench_hooks(rows: Rows) -> None:
    """Measure what ``traffic`` does, and the programs alone, for each way to stand."""
    program = shapes.on_both_ends(10 if rows.quick else 100)
    variants = [Variant(_BASELINE)]
    variants += [Variant(hooks.value, "ebpf", program, ebpf_hook=hooks.value) for hooks in Hooks]
    with pinned(), contextlib.ExitStack() as stack:
        paths = {each.name: stack.enter_context(path(number, each)) for number, each in enumerate(variants)}
        measures = [measure for measure in MEASURES if not measure.of_many]
        for measure in measures:
            rows.progress(measure.name)
            rounds, scale = (3, 0.1) if rows.quick else (30, 1)
            values = interleaved(paths, measure, rounds=rounds, scale=scale)
            for name, each in values.items():
                rows.row(f"{measure.name}: {name}", each, unit=measure.unit, against=values[_BASELINE])
        found = {
            f"{hooks.value}: {name}": (paths[hooks.value], instance_of(paths[hooks.value], stack).programs[name])
            for hooks in Hooks
            for name in _asked(hooks)
        }
        for measure in measures:
            rows.progress(f"the programs on {measure.name}")
            _row_programs(rows, measure, found)


def _asked(hooks: Hooks) -> list[str]:
    """Return the programs that packets meet there."""
    return [*([FILTER] if AT_NETFILTER[hooks] else []), *AT_DEVICES[hooks].values()]


def _row_programs(rows: Rows, measure: Measure, found: Mapping[str, tuple[Path3, BpfProgram]]) -> None:
    values: dict[str, list[float]] = {name: [] for name in found}
    with counting():
        for _ in range(3 if rows.quick else 10):
            for name in random.sample(list(found), len(found)):
                where, program = found[name]
                before = program.cost()
                measure.of(where, 0.1 if rows.quick else 0.3)
                values[name].append(cost_of_a_run(program, before))
    for name, each in values.items():
        rows.row(f"the program on {measure.name}: {name}", each, unit="ns")
