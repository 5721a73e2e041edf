# SPDX-License-Identifier: Apache-2.0
"""Connections that stay open between namespaces, and whether data still passes: each way, without a new connection.

The far end is the prober's own listener (``prober_answering``). TCP and UDP. A connection that policy had cut and that
is allowed again goes on when the kernel next sends again what it still holds; how long that takes doubles with every
try, so silence counts only after as long as the connection has been silent before.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ringfence.host import netns
from ringfence.lab.prober_answering import Answerers, Heard
from ringfence.model.addresses import Address
from ringfence.model.ports import Protocol

_OPENING = 3.0  # seconds; a lost SYN is sent again after one
_SILENCE = 0.4  # seconds; the kernel sends again what is not acknowledged after 0.2
_AGAIN = 0.1  # seconds between two datagrams of the same question
_TICK = 0.01


@dataclass(frozen=True, slots=True)
class Opening:
    """A connection to open: from an address in a namespace to an address, heard at any of these namespaces and ports.

    Where no Service is between them ``heard_at`` is the destination's own.
    """

    netns: str
    source: Address
    destination: Address
    protocol: Protocol
    port: int
    heard_at: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Passing:
    """In which directions data passes on an open connection."""

    forward: bool
    backward: bool


@dataclass(slots=True)
class Conversation:
    """An open connection: both of its ends, as sockets of this process, and what has arrived at each.

    UDP connections to one port have the listener in common, and what it has heard.
    """

    opening: Opening
    client: socket.socket
    server: socket.socket
    reply: Heard | None = None  # UDP: by whom and where the client was last heard
    silent_since: float | None = None
    forward: bytearray = field(default_factory=bytearray)
    backward: bytearray = field(default_factory=bytearray)

    @property
    def client_port(self) -> int:
        """The port that the client's end has."""
        return int(self.client.getsockname()[1])

    def say(self, word: bytes) -> None:
        """Send a word in both directions."""
        with suppress(OSError):  # what cannot be sent will not be heard
            self.client.send(word)
        with suppress(OSError):
            if self.reply is None:
                self.server.send(word)
            else:
                self.reply.answer(word)

    def listen(self) -> None:
        """Take what has arrived at both ends."""
        _take(self.client, self.backward)
        if self.reply is None:
            _take(self.server, self.forward)
        else:
            for heard in Heard.all(self.server):
                self.forward += heard.data

    def close(self) -> None:
        """End it; the listener of a UDP connection stays."""
        self.client.close()
        if self.reply is None:
            self.server.close()


class Conversations:
    """Opens connections one after the other, and asks all of them at once."""

    def __init__(self, answerers: Answerers) -> None:
        self._answerers = answerers
        self._inboxes: dict[socket.socket, bytearray] = {}

    def open(self, opening: Opening) -> Conversation | None:
        """Open a connection and exchange a word on it each way; None if that cannot be done."""
        for name, port in opening.heard_at:
            self._answerers.listen(name, opening.protocol, port)
        self._answerers.drain()  # so that what is accepted next is this connection
        kind = socket.SOCK_STREAM if opening.protocol is Protocol.TCP else socket.SOCK_DGRAM
        family = socket.AF_INET if opening.destination.version == 4 else socket.AF_INET6
        with netns.enter(opening.netns):
            client = socket.socket(family, kind)
        client.setblocking(False)
        try:
            client.bind((str(opening.source), 0))
            with suppress(BlockingIOError):
                client.connect((str(opening.destination), opening.port))
            stream = opening.protocol is Protocol.TCP
            opened = self._accepted(opening, client) if stream else self._heard(opening, client)
        except OSError:
            opened = None
        if opened is None:
            client.close()
        return opened

    def _accepted(self, opening: Opening, client: socket.socket) -> Conversation | None:
        poll = select.poll()
        poll.register(client, select.POLLOUT)
        if not poll.poll(_OPENING * 1000) or client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return None
        deadline = time.monotonic() + _OPENING
        while time.monotonic() < deadline:  # the listener has it when the client's last packet of the handshake arrives
            for name, port in opening.heard_at:
                server = self._answerers.accept(name, port)
                if server is not None:
                    server.setblocking(False)
                    return Conversation(opening, client, server)
            time.sleep(_TICK)
        return None

    def _heard(self, opening: Opening, client: socket.socket) -> Conversation | None:
        word = _word()
        deadline = time.monotonic() + _OPENING
        while time.monotonic() < deadline:
            client.send(word)
            until = time.monotonic() + _AGAIN
            while time.monotonic() < until:
                for name, port in opening.heard_at:
                    server = self._answerers.datagrams(name, port)
                    for heard in () if server is None else Heard.all(server):
                        if heard.data == word:
                            inbox = self._inboxes.setdefault(heard.sock, bytearray())
                            return Conversation(opening, client, heard.sock, heard, forward=inbox)
                time.sleep(_TICK)
        return None

    @staticmethod
    def passing(conversations: Sequence[Conversation]) -> list[Passing]:
        """Tell for each connection in which directions data passes now."""
        questions = [_Question(conversation, _word(), time.monotonic()) for conversation in conversations]
        for question in questions:
            question.ask()
        before = time.monotonic()
        while waiting := [question for question in questions if question.is_open(before)]:
            time.sleep(_TICK)
            now = time.monotonic()
            # This thread was kept from running? Then the kernel may have been too: silence counts for less.
            late = now - before if now - before > _SILENCE / 4 else 0.0
            for question in waiting:
                question.until += 2 * late
                question.repeat(now)
            before = now
        return [question.result() for question in questions]


@dataclass(slots=True)
class _Question:
    """Whether a word passes on one connection, each way; ``until`` is when silence is an answer."""

    conversation: Conversation
    word: bytes
    asked: float
    until: float = 0.0
    said: float = 0.0

    def ask(self) -> None:
        """Send the word in both directions."""
        silent = self.conversation.silent_since
        self.until = self.asked + _SILENCE + (0.0 if silent is None else 1.2 * (self.asked - silent))
        self.said = self.asked
        self.conversation.say(self.word)

    def repeat(self, now: float) -> None:
        """Send it again where the kernel does not do that by itself."""
        if self.conversation.reply is not None and now - self.said > _AGAIN:
            self.said = now
            self.conversation.say(self.word)

    def is_open(self, now: float) -> bool:
        """Tell whether something may still arrive."""
        self.conversation.listen()
        return not all(self._heard()) and now < self.until

    def result(self) -> Passing:
        """Return what arrived, and take note of silence."""
        forward, backward = self._heard()
        if forward and backward:
            self.conversation.silent_since = None
        elif self.conversation.silent_since is None:
            self.conversation.silent_since = self.asked
        return Passing(forward, backward)

    def _heard(self) -> tuple[bool, bool]:
        return self.word in self.conversation.forward, self.word in self.conversation.backward


def _take(sock: socket.socket, into: bytearray) -> None:
    with suppress(OSError):
        while data := sock.recv(65536):
            into += data


def _word() -> bytes:
    return os.urandom(12)
