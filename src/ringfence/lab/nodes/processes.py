# SPDX-License-Identifier: Apache-2.0
"""The runner's side of one running process: its output to the log and to whoever is attached, its input from them.

Knows no namespaces and no requests. Output is read only as fast as the slowest listener takes it, so that nothing is
lost and nothing grows without bound, as with a real container runtime.
"""

from __future__ import annotations

import functools
import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ringfence.lab.nodes import wire
from ringfence.lab.nodes.birth import Stdio, set_size

_CHUNK = 65536
_MOST_WAITING = 1 << 20
_MOST_LOG = 10 << 20
_MOST_PROMPT = 4096

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
NAMES = {wire.STDOUT: b"stdout", wire.STDERR: b"stderr"}


class Loop(Protocol):
    """What a process needs of the runner's event loop."""

    def watch(self, descriptor: int, events: int, ready: Callable[[int], None]) -> None:
        """Call ``ready`` with the events when the descriptor has them; 0 stops watching."""


class Listener(Protocol):
    """Somebody attached to a process."""

    def tell(self, data: bytes) -> None:
        """Queue a frame for the listener."""

    def is_behind(self) -> bool:
        """Tell whether the listener has too much waiting already."""

    def go_on(self) -> None:
        """Take the process's input again: there is room for it."""


class Log:
    """A container's log, one entry a line: time, stream, P (part of a line) or F (full line), text.

    When the file is full it becomes ``NAME.1``, replacing the one before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()

    def write(self, kind: int, data: bytes) -> None:
        """Append what a stream printed just now."""
        now = time.time_ns()
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
        head = f"{second}.{now % 10**9:09d}Z ".encode() + NAMES[kind]
        lines = data.split(b"\n")
        entries = [head + b" F " + line + b"\n" for line in lines[:-1]]
        if lines[-1]:
            entries.append(head + b" P " + lines[-1] + b"\n")
        text = b"".join(entries)
        if self._size + len(text) > _MOST_LOG:
            self._file.close()
            self._path.replace(f"{self._path}.1")
            self._file = self._path.open("ab", buffering=0)
            self._size = 0
        self._file.write(text)
        self._size += len(text)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Streams:
    """The pipes or the terminal of one process."""

    def __init__(self, loop: Loop, log: Log | None, *, tty: bool, stdin: bool) -> None:
        self._loop = loop
        self._log = log
        self.tty = tty
        self.listeners: list[Listener] = []
        self._pending = bytearray()
        self._end_input = False
        self._paused = False
        self._prompt = b""
        self._outputs: dict[int, int] = {}  # descriptor -> stream
        self._input = -1
        self.child = self._terminal() if tty else self._pipes(stdin=stdin)
        for descriptor in {*self._outputs, self._input} - {-1}:
            os.set_blocking(descriptor, False)

    def _terminal(self) -> Stdio:
        master, slave = os.openpty()
        self._outputs[master] = wire.STDOUT
        self._input = master
        return Stdio(slave, slave, slave, tty=True)

    def _pipes(self, *, stdin: bool) -> Stdio:
        if stdin:
            source, self._input = os.pipe()
        else:
            source = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        out, out_child = os.pipe()
        err, err_child = os.pipe()
        self._outputs = {out: wire.STDOUT, err: wire.STDERR}
        return Stdio(source, out_child, err_child, tty=False)

    def started(self) -> None:
        """Close the child's ends, and begin to read."""
        for descriptor in set(self.child[:3]):
            os.close(descriptor)
        self._watch()

    def _watch(self) -> None:
        for descriptor in {*self._outputs, self._input} - {-1}:
            events = READ * (descriptor in self._outputs and not self._paused)
            events |= WRITE * (descriptor == self._input and bool(self._pending))
            self._loop.watch(descriptor, events, functools.partial(self._ready, descriptor))

    def _ready(self, descriptor: int, events: int) -> None:
        if events & READ:
            self._read(descriptor)
        if events & WRITE and descriptor == self._input:
            self._write()

    def _read(self, descriptor: int) -> bool:
        """Read once and pass it on; False when there is nothing (more) to read."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # a terminal whose last user has gone answers EIO
        if not data:
            self._close(descriptor)
            return False
        kind = self._outputs[descriptor]
        if self._log is not None:
            self._log.write(kind, data)
        if self.tty:
            self._prompt = (self._prompt + data).rpartition(b"\n")[2][-_MOST_PROMPT:]
        frame = wire.encode(kind, data)
        for listener in self.listeners:
            listener.tell(frame)
        self.balance()
        return True

    def balance(self) -> None:
        """Stop reading while a listener is behind, and go on when none is."""
        behind = any(listener.is_behind() for listener in self.listeners)
        if behind != self._paused:
            self._paused = behind
            self._watch()

    def attach(self, listener: Listener) -> None:
        """Add a listener; on a terminal it first sees the line that the cursor stands in, the prompt."""
        if self._prompt:
            listener.tell(wire.encode(wire.STDOUT, self._prompt))
        self.listeners.append(listener)

    def detach(self, listener: Listener) -> None:
        """Remove a listener."""
        if listener in self.listeners:
            self.listeners.remove(listener)
            self.balance()

    def feed(self, data: bytes) -> None:
        """Queue input for the process."""
        if self._input >= 0 and not self._end_input:
            self._pending += data
            self._write()

    def end_input(self) -> None:
        """Let the process see the end of its input, after what is queued. A terminal gets a control-D."""
        if self.tty:
            self.feed(b"\x04")
            return
        self._end_input = True
        if not self._pending:
            self._close(self._input)

    def is_full(self) -> bool:
        """Tell whether the process is slow to take its input."""
        return len(self._pending) > _MOST_WAITING

    def _write(self) -> None:
        was_full = self.is_full()
        try:
            del self._pending[: os.write(self._input, self._pending)]
        except BlockingIOError:
            pass
        except OSError:
            self._pending.clear()  # the process closed its input
        if self._end_input and not self._pending:
            self._close(self._input)
        self._watch()
        if was_full and not self.is_full():
            for listener in self.listeners:
                listener.go_on()

    def resize(self, width: int, height: int) -> None:
        """Tell the terminal its size; nothing without one."""
        if self.tty and self._input >= 0:
            set_size(self._input, width, height)

    def is_open(self) -> bool:
        """Tell whether output can still come."""
        return bool(self._outputs)

    def drain(self) -> None:
        """Read what is there already."""
        for descriptor in list(self._outputs):
            while descriptor in self._outputs and self._read(descriptor):
                pass

    def hang_up(self) -> None:
        """Close everything: the process sees the end of its input, and a terminal's processes get SIGHUP."""
        for descriptor in {*self._outputs, self._input} - {-1}:
            self._close(descriptor)
        if self._log is not None:
            self._log.close()
            self._log = None

    def _close(self, descriptor: int) -> None:
        if descriptor < 0 or (descriptor not in self._outputs and descriptor != self._input):
            return
        self._loop.watch(descriptor, 0, lambda _events: None)
        self._outputs.pop(descriptor, None)
        if descriptor == self._input:
            self._input = -1
            self._pending.clear()
        os.close(descriptor)
