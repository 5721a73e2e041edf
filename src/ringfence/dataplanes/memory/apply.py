# SPDX-License-Identifier: Apache-2.0
"""Holds the program that is in force, and changes it in one step. There is nothing that anyone else could change."""

from __future__ import annotations

from ringfence.compiler.diff import diff
from ringfence.compiler.interpret import Judgement
from ringfence.compiler.program import Program
from ringfence.dataplanes.base import Applied
from ringfence.dataplanes.memory.render import Table, render
from ringfence.model.flow import Flow


class MemoryDataplane:
    """A ``dataplanes.base.Dataplane`` that answers instead of filtering."""

    name = "memory"

    def __init__(self) -> None:
        self._program: Program | None = None
        self._table: Table | None = None

    @property
    def program(self) -> Program | None:
        """The program in force, None before the first and after ``remove``."""
        return self._program

    def apply(self, program: Program) -> Applied:
        """Put a program in force, whole."""
        if self._program is None:
            added = len(program.rulesets) + len(program.peer_sets)
            self._take(program)
            return Applied(transactions=1, added=added)
        change = diff(self._program, program)
        if change.empty:
            return Applied(transactions=0)
        self._take(program)
        return Applied(
            transactions=1,
            added=len(change.rulesets_added) + len(change.peer_sets_added),
            deleted=len(change.rulesets_removed) + len(change.peer_sets_removed),
        )

    def drifted(self) -> bool:
        """Tell that nobody else changed anything: nobody else can."""
        return False

    def remove(self) -> None:
        """Enforce nothing any more."""
        self._program = self._table = None

    def judge(self, flow: Flow) -> Judgement:
        """Return what the program in force decides of a flow; with none, no half is this node's."""
        return Judgement(None, None) if self._table is None else self._table.judge(flow)

    def _take(self, program: Program) -> None:
        # One assignment switches what flows see; the table is complete before it.
        table = render(program)
        self._program, self._table = program, table
