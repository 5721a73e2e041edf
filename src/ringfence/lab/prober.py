# SPDX-License-Identifier: Apache-2.0
"""Tries connections between namespaces, many at a time, with real packets: is each answered, or dropped?

One thread and one epoll for all of it: the thread enters each source's namespace once, opens non-blocking sockets
(which stay there), and hears all answers together. Asking is ``prober_asking``'s, answering ``prober_answering``'s;
here is decided how long silence must last to count as a denial.

A drop is silence, so a slow machine could make an open way look closed. Therefore the thread watches itself: if it was
not run when it was due, or an answer came late, what was silent is asked again with more patience. Late answers to
the first question count too.
"""

from __future__ import annotations

import resource
import select
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from ringfence.host import netns
from ringfence.lab.prober_answering import BACKLOG, Answerers
from ringfence.lab.prober_asking import Askers, Outcome, Probe
from ringfence.model.ports import Protocol

__all__ = ["Outcome", "Probe", "Prober"]

TIMEOUT = 0.4  # seconds of silence that are a denial, on a machine that is not overloaded
_ROUNDS = 4  # times that a silent probe is asked at most
_LATE = 0.25  # of the timeout: a thread or an answer that is later than this shows an overloaded machine
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

    def probe(self, probes: Sequence[Probe]) -> list[Outcome]:
        """Try all connections, each of them new, and return an outcome for each, in order.

        Takes the timeout if anything is silent, longer on an overloaded machine or if there are more probes than file
        descriptors. Raises ``HostRefused`` if a probe could not be made (no such namespace, a foreign source address).
        """
        outcomes: list[Outcome] = []
        size = self._batch_size()
        for start in range(0, len(probes), size):
            outcomes += self._probe_batch(probes[start : start + size])
        return outcomes

    def _batch_size(self) -> int:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        free = limit - sum(1 for _ in Path("/proc/self/fd").iterdir()) - _SPARE_DESCRIPTORS
        return max(1, min(free // _ROUNDS, _MOST_AT_ONCE))  # the sockets of earlier rounds stay open

    def _probe_batch(self, probes: Sequence[Probe]) -> list[Outcome]:
        timeout = self._timeout
        try:
            for _ in range(_ROUNDS):
                silent = [number for number in range(len(probes)) if self._is_silent(number)]
                self._start(probes, silent)
                lag = self._wait(len(probes), timeout)
                late = max(lag, self._askers.slowest) > _LATE * timeout
                if not late or not any(self._is_silent(number) for number in silent):
                    break
                timeout *= 2
                self.answerers.drain()
            outcomes = self._askers.outcomes
            return [outcomes.get(number, Outcome.SILENT) for number in range(len(probes))]
        finally:
            self._askers.finish()
            self.answerers.drain()

    def _is_silent(self, number: int) -> bool:
        return self._askers.outcomes.get(number, Outcome.SILENT) is Outcome.SILENT

    def _start(self, probes: Sequence[Probe], numbers: Iterable[int]) -> None:
        by_source: dict[str, list[int]] = {}
        for number in numbers:
            by_source.setdefault(probes[number].netns, []).append(number)
        started = 0
        for name, group in by_source.items():
            with netns.enter(name):
                for number in group:
                    self._askers.start(number, probes[number])
                    started += 1
                    if started % _ANSWER_EVERY == 0:
                        self._hear(0)
                    if started % BACKLOG == 0:
                        self.answerers.drain()

    def _wait(self, count: int, timeout: float) -> float:
        """Hear answers until all are there or the time is up; return this thread's own worst delay, in seconds."""
        worst = 0.0
        began = time.monotonic()
        repeated = False
        while len(self._askers.outcomes) < count:
            before = time.monotonic()
            left = began + timeout - before
            if left <= 0:
                break
            if not repeated and left < timeout / 2:
                self._askers.repeat()
                repeated = True
            self._hear(min(left, _TICK))
            worst = max(worst, time.monotonic() - before - _TICK)
        return worst

    def _hear(self, seconds: float) -> None:
        for descriptor, _ in self._epoll.poll(seconds):
            if not self._askers.handle(descriptor):
                self.answerers.handle(descriptor)
