# SPDX-License-Identifier: Apache-2.0
"""Makes connections without a pause, from and to every place, and tells the fate of each packet. Judges nothing.

Runs in a process of its own, in one thread, so that nothing else delays it. A packet between namespaces crosses their
kernels within the system call that sends it, or a moment later. So the verdict of a packet that arrived lies between
its sending and its being read, and that of one that did not within ``CROSSING`` of its sending.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import random
import select
import socket
import struct
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import NamedTuple

from ringfence.host import netns
from tools.torture.conversations import Conversations
from tools.torture.messages import (
    RENEWED,
    Add,
    Batch,
    Command,
    Drop,
    Dropped,
    Kind,
    Observation,
    Renew,
    Report,
    Stop,
    Stopped,
)
from tools.torture.places import Standing, ended, facing
from tools.torture.worlds import TCP_PORTS, UDP_PORTS

SILENCE = 0.5  # seconds after which a packet counts as dropped; shorter than TCP takes to send a second one
CROSSING = 0.05  # seconds that a packet may take through the kernels
_TELL_EVERY = 0.05
_AT_ONCE = 12  # connections started from one place before answers are heard
_FIRST_PORT, _PORTS = 10_000, 50_000  # no server's: a datagram from one could pass as a reply
_ID = struct.Struct("!cQ")
_NEW = b"N"
_REACHED = (0, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)  # connected, and the server may have ended it already


class _Asked(NamedTuple):
    """A packet on its way: what it will be, once its fate is known."""

    kind: Kind
    source: str
    destination: str
    protocol: str
    port: int
    began: float
    crossed: float

    def seen(self, ended_at: float, *, passed: bool) -> Observation:
        return Observation(*self[:6], ended_at, passed)


def run(connection: Connection, *, seed: int, rate: float, kept: int) -> None:
    """Hammer until told to stop: ``rate`` new connections a second, beside ``kept`` open ones."""
    hammer = Hammer(connection, seed=seed, rate=rate, kept=kept)
    try:
        hammer.work()
    finally:
        hammer.close()


class Hammer:
    """All places, and all that is on its way between them."""

    def __init__(self, connection: Connection, *, seed: int, rate: float, kept: int) -> None:
        self._connection = connection
        self._random = random.Random(seed)
        self._rate = rate
        self._epoll = select.epoll()
        self._places: dict[str, Standing] = {}
        self._owner: dict[str, str] = {}  # by address, the place that has it
        self._listeners: dict[int, socket.socket] = {}
        self._receivers: dict[int, tuple[str, socket.socket]] = {}
        self._connects: dict[int, tuple[socket.socket, _Asked, int]] = {}
        self._datagrams: dict[int, _Asked] = {}
        self._silent_after: deque[tuple[float, Kind, int, int]] = deque()
        self._serial = itertools.count(1)
        self._told: list[Observation] = []
        self._tell_due = 0.0
        self._stopping: float | None = None
        self._lag = 0.0
        self._unclear = self._late = self._discarded = 0
        self._conversations = Conversations(self._epoll, self._random, kept=kept, tell=self._told.append)

    def work(self) -> None:
        """Do everything in turn, until stopped."""
        last = time.monotonic()
        while self._stopping is None or time.monotonic() < self._stopping:
            while self._connection.poll(0):
                self._obey(self._connection.recv())
            now = time.monotonic()
            self._lag = max(self._lag, now - last)
            if self._stopping is None and any(each.is_pod for each in self._places.values()) and len(self._places) > 1:
                self._start(min(now - last, 0.1) * self._rate)
                self._conversations.start(*self._ends(), now)
            last = now
            self._hear(0.004)
            self._conversations.tend(time.monotonic())
            self._give_up(time.monotonic())
            self._tell(time.monotonic())
        self._tell_due = 0.0
        self._tell(time.monotonic())
        self._say(Stopped())

    def close(self) -> None:
        """Close every socket."""
        self._conversations.close()
        for made, _, _ in self._connects.values():
            ended(made)
        for standing in self._places.values():
            standing.close()
        self._epoll.close()

    def _say(self, report: Report) -> None:
        self._connection.send(report)

    def _obey(self, command: Command) -> None:
        match command:
            case Add(place):
                standing = Standing(place)
                self._places[place.name] = standing
                self._owner |= dict.fromkeys(place.addresses, place.name)
                for each in standing.listeners:
                    self._listeners[each.fileno()] = each
                    self._epoll.register(each, select.EPOLLIN)
                for each in standing.receivers:
                    self._receivers[each.fileno()] = (place.name, each)
                    self._epoll.register(each, select.EPOLLIN)
            case Drop(name):
                self._forget(name)
                self._say(Dropped(name))
            case Renew():
                self._conversations.renew()
                self._say(Dropped(RENEWED))
            case Stop():
                self._stopping = time.monotonic() + SILENCE + 0.2

    def _forget(self, name: str) -> None:
        standing = self._places.pop(name)
        addresses = set(standing.place.addresses)
        for descriptor, (made, asked, _) in list(self._connects.items()):
            if addresses & {asked.source, asked.destination}:
                self._end(descriptor, made)
                self._discarded += 1
        for number, asked in list(self._datagrams.items()):
            if addresses & {asked.source, asked.destination}:
                del self._datagrams[number]
                self._discarded += 1
        self._conversations.forget(addresses)
        for each in (*standing.listeners, *standing.receivers):
            self._epoll.unregister(each)
            self._listeners.pop(each.fileno(), None)
            self._receivers.pop(each.fileno(), None)
        standing.close()

    def _start(self, many: float) -> None:
        count = int(many) + (self._random.random() < many % 1)
        while count > 0:
            at_once = min(count, _AT_ONCE)
            standing = self._random.choice(list(self._places.values()))
            self._send_datagrams(standing, at_once // 2)
            self._open_connections(standing, at_once - at_once // 2)
            count -= at_once
            self._hear(0)

    def _ends(self, near: Standing | None = None) -> tuple[Standing, Standing]:
        """Choose two places, at least one of them a pod: between outsiders nothing is enforced."""
        places = list(self._places.values())
        near = near or self._random.choice(places)
        return near, self._random.choice([far for far in places if far is not near and (near.is_pod or far.is_pod)])

    def _pair(self, standing: Standing) -> tuple[str, str]:
        near, far = self._ends(standing)
        return facing(near.place, far.place, self._random)

    def _send_datagrams(self, standing: Standing, count: int) -> None:
        for _ in range(count):
            source, destination = self._pair(standing)
            port, number = self._random.choice(UDP_PORTS), next(self._serial)
            began = time.monotonic()
            try:
                standing.send(source, _FIRST_PORT + number % _PORTS, destination, port, _ID.pack(_NEW, number))
            except OSError:
                self._unclear += 1
                continue
            crossed = time.monotonic() + CROSSING
            self._datagrams[number] = _Asked(Kind.NEW_UDP, source, destination, "UDP", port, began, crossed)
            self._silent_after.append((began + SILENCE, Kind.NEW_UDP, -1, number))

    def _open_connections(self, standing: Standing, count: int) -> None:
        with netns.enter(standing.place.netns):
            for _ in range(count):
                source, destination = self._pair(standing)
                port = self._random.choice(TCP_PORTS)
                made = standing.connecting(source)
                began = time.monotonic()
                code = made.connect_ex((destination, port))
                if code not in (0, errno.EINPROGRESS):
                    self._unclear += 1
                    made.close()
                    continue
                crossed = time.monotonic() + CROSSING
                asked = _Asked(Kind.NEW_TCP, source, destination, "TCP", port, began, crossed)
                number = next(self._serial)
                self._connects[made.fileno()] = (made, asked, number)
                self._epoll.register(made, select.EPOLLOUT)
                self._silent_after.append((began + SILENCE, Kind.NEW_TCP, made.fileno(), number))

    def _hear(self, seconds: float) -> int:
        ready = self._epoll.poll(seconds)
        for descriptor, _ in ready:
            if descriptor in self._connects:
                self._connected(descriptor)
            elif descriptor in self._listeners:
                self._accept(self._listeners[descriptor])
            elif descriptor in self._receivers:
                self._receive(*self._receivers[descriptor])
            else:
                self._conversations.handle(descriptor)
        return len(ready)

    def _connected(self, descriptor: int) -> None:
        made, asked, _ = self._connects[descriptor]
        code = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code in _REACHED:
            self._told.append(asked.seen(time.monotonic(), passed=True))
        else:
            self._unclear += 1
        self._end(descriptor, made)

    def _end(self, descriptor: int, made: socket.socket) -> None:
        del self._connects[descriptor]
        self._epoll.unregister(made)
        ended(made)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            for _ in range(256):
                made, peer = listener.accept()
                if not self._conversations.adopt(made, (peer[0], peer[1])):
                    ended(made)

    def _receive(self, name: str, receiver: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(256):
                payload, peer = receiver.recvfrom(64)
                now = time.monotonic()
                if payload[:1] != _NEW:
                    self._conversations.answer(receiver, payload, peer, now)
                    continue
                asked = self._datagrams.pop(_ID.unpack(payload)[1], None)
                # One that went to the last holder of an address cannot arrive here: its namespace is gone.
                if asked is None or self._owner.get(asked.destination) != name:
                    self._late += 1
                else:
                    self._told.append(asked.seen(now, passed=True))

    def _give_up(self, now: float) -> None:
        if not self._silent_after or self._silent_after[0][0] > now:
            return
        while self._hear(0):  # whatever arrived in time has been read, however late we are
            pass
        while self._silent_after and self._silent_after[0][0] <= now:
            _, kind, descriptor, number = self._silent_after.popleft()
            if kind is Kind.NEW_UDP:
                datagram = self._datagrams.pop(number, None)
                if datagram is not None:
                    self._told.append(datagram.seen(datagram.crossed, passed=False))
            elif descriptor in self._connects and self._connects[descriptor][2] == number:
                made, asked, _ = self._connects[descriptor]
                self._told.append(asked.seen(asked.crossed, passed=False))
                self._end(descriptor, made)

    def _tell(self, now: float) -> None:
        if now < self._tell_due:
            return
        self._tell_due = now + _TELL_EVERY
        observations = tuple(self._told)
        self._told.clear()
        self._say(
            Batch(
                observations,
                lag=self._lag,
                unclear=self._unclear,
                late=self._late,
                discarded=self._discarded + self._conversations.discarded,
                open_connections=self._conversations.count,
            )
        )
        self._lag = 0.0
