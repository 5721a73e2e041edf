# SPDX-License-Identifier: Apache-2.0
"""The loop that every controller shares: which keys need a look, and looking at each, one at a time per key.

Level-triggered: a look computes from the whole state what should be done, so that a lost or doubled event changes
nothing. Keys that become dirty while they are looked at are looked at again. Failures come back later, and later.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ringfence.errors import RingfenceError
from ringfence.lab.controllers.actions import Action, Hands, Stale
from ringfence.lab.controllers.resources import Object, Resource
from ringfence.lab.controllers.world import World

_log = logging.getLogger("ringfence.controllers")
_FIRST_RETRY = 0.01
_LAST_RETRY = 5.0
_LATE = 4  # failures in a row after which a person should know


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a look found to do, and after how many seconds to look again even if nothing happens (None: no need)."""

    actions: Sequence[Action] = ()
    again: float | None = None


class Controller(Protocol):
    """One concern. ``affected`` and ``reconcile`` only read the world; everything that is done is an action."""

    name: str
    manager: str

    def affected(
        self, world: World, resource: Resource, key: str, old: Object | None, new: Object | None
    ) -> Iterable[str]:
        """Return the keys of this controller's concern that a change of an object may matter to."""

    def reconcile(self, world: World, key: str, now: datetime.datetime) -> Outcome:
        """Return what is to be done about one key, given the world as it is."""


class Loop:
    """Runs one controller."""

    def __init__(self, controller: Controller, world: World, hands: Hands, *, workers: int = 16) -> None:
        self.controller = controller
        self._world = world
        self._hands = hands
        self._workers = workers
        self._dirty: dict[str, None] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()

    def changed(self, resource: Resource, key: str, old: Object | None, new: Object | None) -> None:
        """Take note of a change in the world."""
        for dirty in self.controller.affected(self._world, resource, key, old, new):
            self.mark(dirty)

    def mark(self, key: str) -> None:
        """Have a key looked at."""
        self._dirty[key] = None
        self._wake.set()

    async def run(self) -> None:
        """Look at dirty keys, for ever."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._start()
        finally:
            for task in self._busy.values():
                task.cancel()
            for timer in self._timers.values():
                timer.cancel()

    def _start(self) -> None:
        """Start looking at what is dirty and not being looked at, as far as there are workers."""
        ready = [key for key in self._dirty if key not in self._busy]
        for key in ready[: self._workers - len(self._busy)]:
            del self._dirty[key]
            task = asyncio.create_task(self._look(key), name=f"{self.controller.name} {key}")
            self._busy[key] = task

    async def _look(self, key: str) -> None:
        try:
            self._cancel_timer(key)
            outcome = self.controller.reconcile(self._world, key, datetime.datetime.now(datetime.UTC))
            if outcome.actions:
                await self._hands.perform(outcome.actions)
            self._failures.pop(key, None)
            if outcome.again is not None:
                self._later(key, outcome.again)
        except Stale as why:
            self._failed(key, why)
        except RingfenceError as error:
            self._failed(key, error)
        except Exception:  # noqa: BLE001 - said why below
            # a bug in one look must not end the cluster's controllers; it is told, and the key tried again
            _log.exception("%s %s: a bug", self.controller.name, key)
            self._failed(key, None)
        finally:
            del self._busy[key]
            self._wake.set()

    def _failed(self, key: str, error: Exception | None) -> None:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(_FIRST_RETRY * 2 ** (count - 1), _LAST_RETRY)
        level = logging.WARNING if count >= _LATE and not isinstance(error, Stale) else logging.DEBUG
        _log.log(level, "%s %s: %s; looking again in %.2f s", self.controller.name, key, error, delay)
        self._later(key, delay)

    def _later(self, key: str, seconds: float) -> None:
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._ring, key)

    def _ring(self, key: str) -> None:
        self._timers.pop(key, None)
        self.mark(key)

    def _cancel_timer(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
