# SPDX-License-Identifier: Apache-2.0
"""Compiled programs as engines, one program a node as agents would have it: interpreted, or run by a dataplane."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.apis.manifests import cluster_from_objects
from ringfence.cases.script import Event, Objects, Probe
from ringfence.compiler.compile import compile_program
from ringfence.compiler.interpret import judge
from ringfence.compiler.program import Program
from ringfence.dataplanes.memory import MemoryDataplane


class Interpreted:
    """Every probe run through the programs themselves; it passes if no node that holds an end of it objects."""

    def __init__(self) -> None:
        self._objects = Objects()
        self._programs: tuple[Program, ...] = ()

    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in and compile for every node."""
        self._objects.change(events)
        self._programs = _compile(self._objects)

    def verdicts(self, probes: Sequence[Probe]) -> list[bool]:
        """Tell for each probe whether every node lets it pass."""
        return [all(judge(program, probe.flow).allowed for program in self._programs) for probe in probes]

    def close(self) -> None:
        """Hold nothing, give nothing back."""


class Memory:
    """A memory dataplane a node, kept from change to change; a probe passes if no node objects."""

    def __init__(self) -> None:
        self._objects = Objects()
        self._nodes: dict[str, MemoryDataplane] = {}

    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in and put the resulting programs in force; a node that is gone enforces nothing."""
        self._objects.change(events)
        programs = {program.node: program for program in _compile(self._objects)}
        self._nodes = {name: self._nodes.get(name, MemoryDataplane()) for name in programs}
        for name, dataplane in self._nodes.items():
            dataplane.apply(programs[name])

    def verdicts(self, probes: Sequence[Probe]) -> list[bool]:
        """Tell for each probe whether every node lets it pass."""
        return [all(node.judge(probe.flow).allowed for node in self._nodes.values()) for probe in probes]

    def close(self) -> None:
        """Hold nothing, give nothing back."""


def _compile(objects: Objects) -> tuple[Program, ...]:
    cluster, policies, _ = cluster_from_objects(objects.all())
    # A pod may name a node before the node's own object is there.
    names = cluster.nodes.keys() | {endpoint.node for endpoint in cluster.endpoints.values()}
    return tuple(compile_program(cluster, policies, name) for name in sorted(names))
