# SPDX-License-Identifier: Apache-2.0
"""A program on a terminal of its own, typed at and read as a person would: for ``kubectl run -it``."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from ringfence.errors import HostRefused

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r")
_PROMPT = re.compile(r"(?:^|\n)[^\n]*[#$] $")
_NUDGE = 1.0  # seconds without a prompt after which a person would press Enter


class Terminal:
    """Runs a program on a pseudo-terminal until ``close``. Commands are typed one at a time, at a prompt."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._argv = tuple(argv)
        pid, descriptor = pty.fork()
        if pid == 0:
            os.execvpe(argv[0], list(argv), dict(environment))  # replaces the child, or raises in it
        self._pid, self._descriptor = pid, descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    def prompt(self, *, seconds: float) -> str:
        """Wait for a prompt, pressing Enter where none comes; return what was shown. Raises ``HostRefused`` if none."""
        shown, deadline, nudge = "", time.monotonic() + seconds, time.monotonic() + _NUDGE
        while not _PROMPT.search(shown):
            if time.monotonic() > deadline:
                raise HostRefused("no prompt came", asked=" ".join(self._argv), answered=shown.strip())
            if time.monotonic() > nudge:
                os.write(self._descriptor, b"\n")
                nudge = deadline
            shown += self._read(0.1)
        return shown

    def type(self, line: str, *, seconds: float) -> str:
        """Type a line, wait for the next prompt, and return what was printed in between, without prompt and echo."""
        self._read(0.05)
        os.write(self._descriptor, line.encode() + b"\n")
        shown, deadline = "", time.monotonic() + seconds
        while "\n" not in shown or not _PROMPT.search(shown.split("\n", 1)[1]):
            if time.monotonic() > deadline:
                raise HostRefused("the command did not end", asked=line, answered=shown.strip())
            shown += self._read(0.1)
        return "\n".join(shown.split("\n")[1:-1])

    def _read(self, seconds: float) -> str:
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return ""
        try:
            content = os.read(self._descriptor, 65536)
        except OSError:  # EIO: the program has ended
            content = b""
        if not content:
            raise HostRefused("the program ended", asked=" ".join(self._argv), answered="")
        return _ESCAPES.sub("", content.decode(errors="replace"))

    def close(self) -> None:
        """End the program and its terminal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1
