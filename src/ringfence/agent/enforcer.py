# SPDX-License-Identifier: Apache-2.0
"""Keeps the wanted program in the dataplane: commits it, tries again what was refused, undoes what others changed.

A refused program changes nothing: the last good one stays in force and readiness says why. ``agent.loop`` calls
``enforce`` with every new state, and at the moment that ``due`` names.
"""

from __future__ import annotations

import asyncio
import time

from ringfence.agent.logs import Log
from ringfence.agent.metrics import Metrics
from ringfence.agent.predecessors import Predecessors
from ringfence.agent.reconcile import State
from ringfence.agent.retry import InWorker, Retry
from ringfence.agent.standing import Stage, Standing
from ringfence.compiler.program import Program
from ringfence.dataplanes.base import Applied, Dataplane
from ringfence.errors import HostLacks, HostRefused, RingfenceError
from ringfence.model.policy import listed

LOOK_REST_SECONDS = 0.05
"""Between two looks, however often somebody touches our rules: a look may read all of them."""


class EngineFailed(Exception):
    """The dataplane did not take its first program, for a reason that lies in this machine: ``why``."""

    def __init__(self, why: RingfenceError) -> None:
        self.why = why
        super().__init__(str(why))


class Enforcer:
    """One dataplane, and the program that it should hold. ``drift_seconds``: how often it is looked over.

    ``fatal``: what is not tried again, if the first program fails by it: ``enforce`` then raises ``EngineFailed``.
    """

    def __init__(
        self,
        dataplane: Dataplane,
        in_worker: InWorker,
        *,
        standing: Standing,
        metrics: Metrics,
        log: Log,
        drift_seconds: float,
        fatal: tuple[type[RingfenceError], ...] = (),
        predecessors: Predecessors | None = None,
    ) -> None:
        self._dataplane = dataplane
        self._in_worker = in_worker
        self._standing = standing
        self._metrics = metrics
        self._log = log
        self._drift_seconds = drift_seconds
        self._fatal = fatal
        self._predecessors = predecessors
        self._good: Program | None = None  # the last that the dataplane took
        self._enforced: Program | None = None  # the same, unless it may not be there any more
        self._refused: Program | None = None
        self._retry = Retry()
        self._look_due = float("inf")
        self._looked = 0.0
        self._since: float | None = None

    @property
    def due(self) -> float:
        """When ``enforce`` wants to be called even if nothing changed (the event loop's clock)."""
        other = float("inf") if self._predecessors is None else self._predecessors.due
        return min(self._look_due, self._retry.due, other)

    def look_soon(self) -> None:
        """Look at the next ``enforce`` whether somebody else changed our rules: somebody did touch them."""
        if self._good is not None:
            self._look_due = min(self._look_due, self._looked + LOOK_REST_SECONDS)

    async def enforce(self, state: State, heard_at: float | None, *, passing: bool = False) -> None:
        """Bring the dataplane to a state's program; ``heard_at`` is when the oldest change in it was heard of.

        ``passing``: another state follows at once, and this one opens no gate.
        """
        wanted = state.program
        assert wanted is not None
        now = _now()
        if self._since is None:
            self._since = heard_at
        if wanted == self._enforced:
            await self._settled(state, passing=passing)
        elif wanted != self._refused or now >= self._retry.due:
            await self._commit(state, wanted, passing=passing)
        if self._good is not None and now >= self._look_due:
            await self._look(self._good)

    async def _settled(self, state: State, *, passing: bool) -> None:
        self._since = None
        self._refused = None
        self._retry.worked()
        # A predecessor may still deny an address to a pod what it denied to the last holder: no gate opens beside it.
        if not passing and (self._predecessors is None or await self._predecessors.dismissed(self._whole)):
            self._standing.commit(state)

    async def _whole(self) -> bool:
        """Look now whether what was committed is there, and mend it if not; True if it is then."""
        return self._good is not None and await self._look(self._good)

    async def _commit(self, state: State, wanted: Program, *, passing: bool) -> None:
        due, self._look_due = self._look_due, float("inf")
        applied = await self._apply(wanted)
        if applied is None:
            self._look_due = min(self._look_due, due)
            return
        if self._since is not None:
            self._metrics.policy_realized_seconds.observe(_now() - self._since)
        await self._settled(state, passing=passing)
        # Sooner if somebody touched our rules meanwhile, perhaps after they had been read.
        self._look_due = min(self._look_due, _now() + self._drift_seconds)
        self._metrics.ruleset_rules.set(sum(len(ruleset.rules) for ruleset in wanted.rulesets))
        self._log.info(
            "committed",
            transactions=applied.transactions,
            added=applied.added,
            deleted=applied.deleted,
            addresses=len(wanted.endpoints),
            rulesets=len(wanted.rulesets),
            peer_sets=len(wanted.peer_sets),
        )

    async def _apply(self, wanted: Program) -> Applied | None:
        began = time.perf_counter()
        try:
            applied = await self._in_worker(lambda: self._dataplane.apply(wanted))
        except RingfenceError as error:
            if self._good is None and isinstance(error, self._fatal):
                raise EngineFailed(error) from error
            self._refuse(wanted, error)
            return None
        except Exception as error:  # noqa: BLE001 - a bug in a dataplane must not take the rules' keeper away
            self._log.exception("the dataplane failed in a way that is a bug in ringfence")
            self._refuse(wanted, error)
            return None
        self._metrics.apply_seconds.observe(time.perf_counter() - began)
        self._metrics.programs_applied.inc()
        self._good = self._enforced = wanted
        return applied

    def _refuse(self, wanted: Program, error: Exception) -> None:
        self._refused = wanted
        self._enforced = None  # what was done before the refusal is in force: going back takes another commit
        self._metrics.sync_errors.labels(stage="apply").inc()
        seconds = self._retry.failed(_now())
        facts = {"asked": error.asked[:2000]} if isinstance(error, HostRefused) else {}
        self._log.error(
            "the dataplane refused a program; the last one that it took stays in force",
            error=str(error) or type(error).__name__,
            dataplane=self._dataplane.name,
            policies=_policies(wanted),
            retry_in=round(seconds, 2),
            **facts,
        )
        self._standing.refuse(Stage.APPLY, f"the {self._dataplane.name} dataplane refused the program: {error}")

    async def _look(self, good: Program) -> bool:
        """Look whether the last good program is whole, and mend it: also while another one is wanted and refused.

        Return whether it is whole then.
        """
        self._looked = _now()
        self._look_due = self._looked + self._drift_seconds
        try:
            drifted = await self._in_worker(self._dataplane.drifted)
        except (HostRefused, HostLacks, OSError) as error:
            self._metrics.sync_errors.labels(stage="observe").inc()
            self._log.error("the dataplane cannot be read; tried again", error=str(error), retry_in=self._drift_seconds)
            return False
        if not drifted:
            return self._enforced is not None
        self._log.warning("somebody changed our rules; they are written again", dataplane=self._dataplane.name)
        self._enforced = None  # not what is there any more: if writing fails now, it is tried again until it works
        if await self._apply(good) is None:
            return False
        self._metrics.drift_repaired.inc()
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()


def _policies(program: Program) -> str:
    """Name the policies that a program comes from: those that somebody has to look at if it is refused."""
    refs = sorted({ref for ruleset in program.rulesets for ref in ruleset.policies})
    return listed(refs, 10) if refs else "none"
