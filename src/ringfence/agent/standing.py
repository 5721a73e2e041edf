# SPDX-License-Identifier: Apache-2.0
"""What is known, what of it is in force, and why the rest is not: what the gate and readiness answer from."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Iterator, Mapping

from ringfence.agent.evidence import Held
from ringfence.agent.reconcile import Kind, State, StoredPolicy

_ByNamespace = dict[str, dict[str, StoredPolicy]]


BUSY_SECONDS = 30.0
"""After so long a step or a commit counts as hanging: what is in force may be old, and nobody would say so."""


class Stage(enum.Enum):
    """Where something can keep what should be in force from being so."""

    COMPILE = "compile"
    APPLY = "apply"
    SWITCH = "switch"


class Standing:
    """``latest`` is what was heard, ``committed`` what is in force; both move forward only."""

    def __init__(self) -> None:
        self.latest: State | None = None
        self.committed: State | None = None
        self._troubles: dict[Stage, str] = {}
        self._next = asyncio.Event()
        self._busy_since: float | None = None
        self._sorted: list[tuple[Mapping[str, StoredPolicy], _ByNamespace]] = []

    def know(self, state: State) -> None:
        """Note a state that was heard of, before it is in force."""
        if state is not self.latest:
            self.latest = state
            self._moved()

    def commit(self, state: State) -> None:
        """Note that the program of a state is in force."""
        self.clear(Stage.APPLY)
        if state is not self.committed:
            self.committed = state
            self._moved()

    def refuse(self, stage: Stage, trouble: str) -> None:
        """Note that what should be in force is not."""
        self._troubles[stage] = trouble

    def clear(self, stage: Stage) -> None:
        """Note that a stage works again."""
        self._troubles.pop(stage, None)

    @property
    def trouble(self) -> str | None:
        """Why what should be in force is not, None if it is."""
        return "; ".join(text for _, text in sorted(self._troubles.items(), key=lambda item: item[0].value)) or None

    def unready(self) -> str | None:
        """Return why the agent is not ready, None if it is."""
        if self.trouble is not None:
            return self.trouble
        if self.committed is None:
            return "nothing was committed yet"
        busy = 0.0 if self._busy_since is None else asyncio.get_running_loop().time() - self._busy_since
        return None if busy < BUSY_SECONDS else f"a step or commit has been under way for {busy:.0f} s"

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Note that something is under way, until the end of the block."""
        self._busy_since = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self._busy_since = None

    async def moved(self) -> None:
        """Wait until more is known or in force."""
        await self._next.wait()

    def _moved(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    def held(self, state: State | None, namespace: str) -> Held:
        """Return what a state holds of a namespace's policies."""
        policies: Mapping[str, StoredPolicy] = state.objects.get(Kind.POLICIES, {}) if state is not None else {}
        unreadable = state.unreadable if state is not None else {}
        return Held(
            self._by_namespace(policies).get(namespace, {}),
            frozenset(key for kind, key in unreadable if kind is Kind.POLICIES),
        )

    def _by_namespace(self, policies: Mapping[str, StoredPolicy]) -> _ByNamespace:
        """Sort policies once for each change of them, and not for each pod that waits."""
        for known, found in self._sorted:
            if known is policies:
                return found
        by_namespace: _ByNamespace = {}
        for key, each in policies.items():
            by_namespace.setdefault(key.partition("/")[0], {})[key] = each
        self._sorted = [*self._sorted[-1:], (policies, by_namespace)]  # of the latest and the committed state
        return by_namespace
