# SPDX-License-Identifier: Apache-2.0
"""Compiled programs as engines, one program a node as agents would have it: interpreted, or run by a dataplane."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.apis.manifests import cluster_from_objects
from ringfence.cases.script import Event, Objects, Way
from ringfence.cases.withoutpackets import WithoutPackets
from ringfence.compiler.compile import compile_program
from ringfence.compiler.interpret import Half, judge
from ringfence.compiler.program import Program
from ringfence.dataplanes.memory import MemoryDataplane
from ringfence.model.addresses import Address
from ringfence.model.settings import DEFAULTS, Settings


class Interpreted(WithoutPackets):
    """Every probe run through the programs themselves; it passes if no node that holds an end of it objects."""

    def __init__(self, settings: Settings = DEFAULTS) -> None:
        super().__init__(settings)
        self._objects = Objects()
        self._programs: tuple[Program, ...] = ()

    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in and compile for every node."""
        self._objects.change(events)
        self._programs = _compile(self._objects, self.settings)

    def passes(self, way: Way) -> bool:
        """Tell whether every node lets a connection pass."""
        return all(
            _allows(judge(program, way.outgoing).egress) and _allows(judge(program, way.incoming).ingress)
            for program in self._programs
        )

    def isolates(self, address: Address) -> bool:
        """Tell whether a program has rules for an address."""
        return _isolated(self._programs, address)


class Memory(WithoutPackets):
    """A memory dataplane a node, kept from change to change; a probe passes if no node objects."""

    def __init__(self, settings: Settings = DEFAULTS) -> None:
        super().__init__(settings)
        self._objects = Objects()
        self._nodes: dict[str, MemoryDataplane] = {}

    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in and put the resulting programs in force; a node that is gone enforces nothing."""
        self._objects.change(events)
        programs = {program.node: program for program in _compile(self._objects, self.settings)}
        self._nodes = {name: self._nodes.get(name, MemoryDataplane()) for name in programs}
        for name, dataplane in self._nodes.items():
            dataplane.apply(programs[name])

    def passes(self, way: Way) -> bool:
        """Tell whether every node lets a connection pass."""
        return all(
            _allows(node.judge(way.outgoing).egress) and _allows(node.judge(way.incoming).ingress)
            for node in self._nodes.values()
        )

    def isolates(self, address: Address) -> bool:
        """Tell whether a program in force has rules for an address."""
        in_force = (node.program for node in self._nodes.values())
        return _isolated([program for program in in_force if program is not None], address)


def _allows(half: Half | None) -> bool:
    return half is None or half.allowed


def _isolated(programs: Sequence[Program], address: Address) -> bool:
    return any(
        entry.address == address and (entry.ingress is not None or entry.egress is not None)
        for program in programs
        for entry in program.endpoints
    )


def _compile(objects: Objects, settings: Settings) -> tuple[Program, ...]:
    cluster, policies, _ = cluster_from_objects(objects.all())
    # A pod may name a node before the node's own object is there.
    names = cluster.nodes.keys() | {endpoint.node for endpoint in cluster.endpoints.values()}
    return tuple(compile_program(cluster, policies, name, settings) for name in sorted(names))
