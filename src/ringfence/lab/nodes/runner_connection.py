# SPDX-License-Identifier: Apache-2.0
"""The runner's end of one connection: a request, and then whatever belongs to it; and the process it may belong to."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ringfence.lab.nodes import wire
from ringfence.lab.nodes.processes import READ, WRITE, Streams

_MOST_WAITING = 1 << 18


class Host(Protocol):
    """What a connection needs of the runner."""

    def watch(self, descriptor: int, events: int, ready: Callable[[int], None]) -> None:
        """Call ``ready`` with the events when the descriptor has them; 0 stops watching."""

    def answer(self, connection: Connection, request: Mapping[str, Any]) -> None:
        """Do what a request asks."""

    def forget(self, connection: Connection) -> None:
        """Drop a connection that has closed."""


class Process:
    """A process that the runner started: a container's first, or one of ``exec``."""

    def __init__(self, pid: int, streams: Streams, request: Mapping[str, Any]) -> None:
        self.pid = pid
        self.streams = streams
        self.request = request
        self.started = time.time()
        self.born = False
        self.exit: dict[str, Any] | None = None
        self.watchers: list[Connection] = []

    def describe(self) -> dict[str, Any]:
        """Return what ``list`` says of a container."""
        return {"id": self.request["id"], "pid": self.pid, "started": self.started, "exit": self.exit,
                "about": self.request["about"]}  # fmt: skip


class Connection:
    """One connection of the kubelet: a request, then whatever belongs to it."""

    def __init__(self, runner: Host, sock: socket.socket) -> None:
        self._runner = runner
        self._sock = sock
        self._input = bytearray()
        self._output = bytearray()
        self._closing = False
        self.descriptors: list[int] = []
        self.process: Process | None = None
        self.feeds = False
        self.closed = False
        self._watch()

    def _watch(self) -> None:
        if self.closed:
            return
        full = self.process is not None and self.process.streams.is_full()
        self._runner.watch(self._sock.fileno(), READ * (not full) | WRITE * bool(self._output), self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & READ and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, 1 << 16, 4, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        self.descriptors += descriptors
        if not data:
            self.close()
            return
        self._input += data
        try:
            while (frame := wire.take(self._input)) is not None:
                self._handle(frame)
        except ValueError:
            self.close()
        self._watch()

    def _handle(self, frame: wire.Frame) -> None:
        if frame.kind == wire.REQUEST:
            self._runner.answer(self, frame.json())
        elif self.process is not None:
            streams = self.process.streams
            match frame.kind:
                case wire.STDIN:
                    streams.feed(frame.payload)
                case wire.STDIN_END:
                    streams.end_input()
                case wire.RESIZE:
                    size = frame.json()
                    streams.resize(size["Width"], size["Height"])
                case _:
                    self.close()

    def tell(self, data: bytes) -> None:
        """Queue bytes for the kubelet."""
        if not self.closed:
            self._output += data
            self._flush()

    def reply(self, value: Mapping[str, Any], *, last: bool = False) -> None:
        """Answer the request; ``last`` closes the connection when the answer is out."""
        self._closing = last
        self.tell(wire.encode_json(wire.REPLY, value))

    def finish(self, value: Mapping[str, Any]) -> None:
        """Say how the process ended, and close."""
        self._closing = True
        self.tell(wire.encode_json(wire.EXIT, value))

    def go_on(self) -> None:
        """Read from the kubelet again: the process has taken its input."""
        self._watch()

    def is_behind(self) -> bool:
        """Tell whether too much is waiting for the kubelet."""
        return len(self._output) > _MOST_WAITING

    def _flush(self) -> None:
        was_behind = self.is_behind()
        try:
            del self._output[: self._sock.send(self._output)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._closing and not self._output:
            self.close()
            return
        if was_behind and self.process is not None:
            self.process.streams.balance()
        self._watch()

    def close(self) -> None:
        """Forget the kubelet's end; a process of ``exec`` loses its input, a container only a listener."""
        if self.closed:
            return
        self.closed = True
        self._runner.watch(self._sock.fileno(), 0, lambda _events: None)
        self._sock.close()
        self.drop_descriptors()
        self._runner.forget(self)

    def drop_descriptors(self) -> None:
        """Close what came with the request; an open namespace would outlive its pod."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
