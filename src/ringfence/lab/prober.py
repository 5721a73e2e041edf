# SPDX-License-Identifier: Apache-2.0
"""Tries connections between namespaces, many at a time, with real packets: is each answered, or dropped?

One thread and one epoll for all of it: the thread enters each source's namespace once, opens non-blocking sockets
(which stay there), and hears all answers together. Asking is ``prober_asking``'s, answering ``prober_answering``'s;
here is decided how long silence must last to count as a denial.

A drop is silence, so a slow machine could make an open way look closed. How long is long enough, answers tell: those
of the same probes, and of ``controls``, ways that are expected to be open. A way is closed if it was silent twice, each
time for many times as long as the slowest answer took, while answers came to fresh questions and this thread was run
when it was due. If not, patience is doubled and what was silent is asked again. Late answers to earlier questions count
too. Where nothing at all answers there is nothing to go by, and silence must last for the whole ``timeout``.
All this is for ways within one machine, which have no delay of their own: a link with one would need more patience.
"""

from __future__ import annotations

import enum
import resource
import select
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from ringfence.host import netns
from ringfence.lab.prober_answering import BACKLOG, Answerers
from ringfence.lab.prober_asking import Askers
from ringfence.lab.prober_question import Outcome, Probe
from ringfence.model.ports import Protocol

__all__ = ["Outcome", "Probe", "Prober"]

TIMEOUT = 0.4  # seconds of silence that are a denial where nothing answers
_PATIENCE = 0.06  # seconds that the first question waits; an answer takes about one thousandth
_MOST_PATIENCE = 4.0
_ROUNDS = 8  # as many as lead from the one to the other, and one
_LATE = 0.25  # of the patience: a thread or an answer that is later than this shows an overloaded machine
_CALM_ROUNDS = 2
_FRESH = 16  # questions that are asked again in each round although they were answered
_TICK = 0.02  # seconds between two looks at the clock
_ANSWER_EVERY = 32  # probes after which answers are heard: receive buffers hold some two hundred datagrams
_SPARE_DESCRIPTORS = 64
_MOST_AT_ONCE = 5000


class Prober:
    """Probes and their listeners. A context manager: listeners are there until its end.

    ::

        with Prober() as prober:
            prober.listen("rf-lab-pod.demo.server.1a2b3c4d", [(Protocol.TCP, 80)])
            outcomes = prober.probe([Probe("rf-lab-pod.demo.client.5e6f7a8b", address, Protocol.TCP, 80)])
    """

    def __init__(self, *, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._epoll = select.epoll()
        self.answerers = Answerers(self._epoll)
        self._askers = Askers(self._epoll)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, and close everything."""
        self._askers.close()
        self.answerers.close()
        self._epoll.close()

    def listen(self, name: str, ports: Iterable[tuple[Protocol, int]]) -> None:
        """Listen on ports of all addresses of a namespace, for both families; once is enough.

        Where something else in the namespace has a port already, that will be what answers.
        """
        for protocol, port in ports:
            self.answerers.listen(name, protocol, port)

    def forget(self, name: str) -> None:
        """Close everything in a namespace: one with a socket in it outlives its name, and so do its links."""
        self._askers.forget(name)
        self.answerers.forget(name)

    def probe(self, probes: Sequence[Probe], *, controls: Sequence[Probe] = ()) -> list[Outcome]:
        """Try all connections, each of them new, and return an outcome for each, in order.

        ``controls`` are asked too, for their answers show how quick the machine is; nothing is wrong if they have none.
        Takes longer if anything is silent, the more so on an overloaded machine or if there are more probes than file
        descriptors. Raises ``HostRefused`` if a probe could not be made (no such namespace, a foreign source address).
        """
        outcomes: list[Outcome] = []
        size = self._batch_size()
        for start in range(0, len(probes), size):
            outcomes += self._probe_batch(probes[start : start + size], controls)
        return outcomes

    def _batch_size(self) -> int:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        free = limit - sum(1 for _ in Path("/proc/self/fd").iterdir()) - _SPARE_DESCRIPTORS - _ROUNDS * _FRESH
        return max(1, min(free // _ROUNDS, _MOST_AT_ONCE))  # the sockets of earlier rounds stay open

    def _probe_batch(self, probes: Sequence[Probe], controls: Sequence[Probe]) -> list[Outcome]:
        try:
            batch = _Batch([*probes, *controls], len(probes), self._askers.outcomes)
            patience, calm = min(_PATIENCE, self._timeout), 0
            asked = list(range(len(batch.probes)))
            for _ in range(_ROUNDS):
                seen = self._round(batch, asked, patience)
                silent = batch.silent()
                if not silent:
                    break
                answered = batch.answered()
                if not answered:
                    if seen is _Seen.NOTHING_LATE and patience >= self._timeout:
                        break
                    patience = max(self._timeout, 2 * patience)
                else:
                    calm = calm + 1 if seen is _Seen.NOTHING_LATE else 0
                    if calm == _CALM_ROUNDS:
                        break
                    patience *= 1 if calm else 2
                if patience > _MOST_PATIENCE:
                    break
                asked = [*silent, *batch.ask_again(answered)]
            return [batch.outcome(number) for number in range(len(probes))]
        finally:
            self._askers.finish()
            self.answerers.drain()

    def _round(self, batch: _Batch, numbers: Sequence[int], patience: float) -> _Seen:
        """Ask, wait, and tell whether this round's silence says something."""
        self._askers.slowest = 0.0
        self.answerers.drain()
        self._start(batch, numbers)
        lag = self._wait(batch, numbers, patience)
        # What should have answered and did not is as late as can be.
        missing = any(batch.outcome(number) is Outcome.SILENT for number in numbers if batch.is_fresh(number))
        late = missing or max(lag, self._askers.slowest) > _LATE * patience
        return _Seen.SOMETHING_LATE if late else _Seen.NOTHING_LATE

    def _start(self, batch: _Batch, numbers: Iterable[int]) -> None:
        by_source: dict[str, list[int]] = {}
        for number in numbers:
            by_source.setdefault(batch.probes[number].netns, []).append(number)
        started = 0
        for name, group in by_source.items():
            with netns.enter(name):
                for number in group:
                    self._askers.start(number, batch.probes[number])
                    started += 1
                    if started % _ANSWER_EVERY == 0:
                        self._hear(0)
                    if started % BACKLOG == 0:
                        self.answerers.drain()

    def _wait(self, batch: _Batch, numbers: Sequence[int], patience: float) -> float:
        """Hear answers until all are there or the time is up; return this thread's own worst delay, in seconds."""
        worst = 0.0
        began = time.monotonic()
        repeated = False
        waiting = numbers
        # What could not even be sent is waited for too: it may be another moment's luck.
        while waiting := [number for number in waiting if batch.outcome(number) is Outcome.SILENT]:
            before = time.monotonic()
            left = began + patience - before
            if left <= 0:
                break
            if not repeated and left < patience / 2:
                self._askers.repeat()
                repeated = True
            tick = min(left, _TICK)
            self._hear(tick)
            worst = max(worst, time.monotonic() - before - tick)
        return worst

    def _hear(self, seconds: float) -> None:
        for descriptor, _ in self._epoll.poll(seconds):
            if not self._askers.handle(descriptor):
                self.answerers.handle(descriptor)


class _Seen(enum.Enum):
    """Whether a round showed an overloaded machine, whose silence says little."""

    NOTHING_LATE = "everything was in time"
    SOMETHING_LATE = "an answer, or this thread, was late"


class _Batch:
    """The questions of one batch by number: ``count`` probes, then controls, then those that are asked again."""

    def __init__(self, probes: list[Probe], count: int, outcomes: Mapping[int, Outcome]) -> None:
        self.probes = probes
        self._count = count
        self._first_again = len(probes)
        self._outcomes = outcomes

    def outcome(self, number: int) -> Outcome:
        """Return what is known of a question so far."""
        return self._outcomes.get(number, Outcome.SILENT)

    def silent(self) -> list[int]:
        """Return the probes that have no answer."""
        return [number for number in range(self._count) if self.outcome(number) is Outcome.SILENT]

    def answered(self) -> list[int]:
        """Return the probes and controls that were answered."""
        return [number for number in range(self._first_again) if self.outcome(number).passed]

    def ask_again(self, answered: Sequence[int]) -> list[int]:
        """Return new numbers for some of the answered questions, spread over all of them."""
        chosen = answered[:: -(-len(answered) // _FRESH) or 1]
        start = len(self.probes)
        self.probes += [self.probes[number] for number in chosen]
        return list(range(start, len(self.probes)))

    def is_fresh(self, number: int) -> bool:
        """Tell whether a question had been answered before it was asked under this number."""
        return number >= self._first_again
