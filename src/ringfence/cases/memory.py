# SPDX-License-Identifier: Apache-2.0
"""Compiled programs as an engine: one memory dataplane a node, as agents would run them, without a kernel."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.apis.manifests import cluster_from_objects
from ringfence.cases.script import Event, Objects, Probe
from ringfence.compiler.compile import compile_program
from ringfence.dataplanes.memory import MemoryDataplane


class Memory:
    """A program per node, each run by a memory dataplane; a flow passes if no node that holds an end of it objects."""

    def __init__(self) -> None:
        self._objects = Objects()
        self._nodes: dict[str, MemoryDataplane] = {}

    def change(self, events: Sequence[Event]) -> None:
        """Take the changes in and put the resulting program in force on every node."""
        self._objects.change(events)
        cluster, policies, _ = cluster_from_objects(self._objects.all())
        names = cluster.nodes.keys() | {endpoint.node for endpoint in cluster.endpoints.values()}
        self._nodes = {name: self._nodes.get(name, MemoryDataplane()) for name in sorted(names)}
        for name, dataplane in self._nodes.items():
            dataplane.apply(compile_program(cluster, policies, name))

    def verdicts(self, probes: Sequence[Probe]) -> list[bool]:
        """Tell for each probe whether every node lets it pass."""
        return [all(node.verdict(probe.flow).allowed for node in self._nodes.values()) for probe in probes]

    def close(self) -> None:
        """Hold nothing, give nothing back."""
