# SPDX-License-Identifier: Apache-2.0
"""Reads the logs that the runner writes (``processes.Log``): the last lines, since when, with times, following."""

from __future__ import annotations

import asyncio
import calendar
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

_POLL = 0.03


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of a log: ``tail`` None is all of it, ``since`` is Unix time, ``limit`` is in bytes."""

    tail: int | None = None
    since: float = 0.0
    limit: int | None = None
    timestamps: bool = False
    follow: bool = False


class Shown:
    """Turns log entries into what ``kubectl logs`` prints. Parts of a line come without a newline between them."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._left = wanted.limit
        self._line_begins = True

    def text(self, entry: bytes) -> bytes:
        """Return what to print for one entry; nothing when it is too old, or the limit is reached."""
        stamp, _, rest = entry.partition(b" ")
        _, _, rest = rest.partition(b" ")
        tag, _, content = rest.partition(b" ")
        if self._wanted.since and seconds(stamp.decode()) < self._wanted.since:
            return b""
        text = content + (b"\n" if tag == b"F" else b"")
        if self._wanted.timestamps and self._line_begins:
            text = stamp + b" " + text
        self._line_begins = tag == b"F"
        if self._left is not None:
            text = text[: self._left]
            self._left -= len(text)
        return text

    def is_full(self) -> bool:
        """Tell whether the limit is reached."""
        return self._left == 0


def seconds(stamp: str) -> float:
    """Return the Unix time of a time in UTC (RFC 3339 with a ``Z``)."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction or 0}")


def last_lines(found: list[bytes], count: int) -> list[bytes]:
    """Return the entries of the last ``count`` lines; a line may have several entries."""
    at, lines = len(found), 0
    while at > 0:
        ends_line = found[at - 1].split(b" ", 3)[2:3] == [b"F"]
        if ends_line or at == len(found):
            if lines == count:
                break
            lines += 1
        at -= 1
    return found[at:]


class _Reader:
    """Reads whole entries of a log that grows, and that may be put aside (``NAME.1``) and begun anew meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._file = path.open("rb")

    def all(self) -> list[bytes]:
        """Return all entries that there are, those put aside included."""
        aside = Path(f"{self._path}.1")
        before = aside.read_bytes().split(b"\n")[:-1] if aside.exists() else []
        return before + self.more()

    def more(self) -> list[bytes]:
        """Return the entries written since the last time."""
        data = self._file.read()
        if not data and self._is_put_aside():
            self._file.close()
            self._file = self._path.open("rb")
            data = self._file.read()
        *whole, self._rest = (self._rest + data).split(b"\n")
        return whole

    def _is_put_aside(self) -> bool:
        try:
            return self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file."""
        self._file.close()


async def read(path: Path, wanted: Wanted, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield pieces of text; with ``follow`` until ``ended`` says that nothing more will be written.

    Raises ``FileNotFoundError`` if there is no such log.
    """
    shown = Shown(wanted)
    reader = await asyncio.to_thread(_Reader, path)
    try:
        found = await asyncio.to_thread(reader.all)
        chosen = found if wanted.tail is None else last_lines(found, wanted.tail)
        yield b"".join(shown.text(entry) for entry in chosen)
        while wanted.follow and not shown.is_full():
            over = ended()  # asked before reading, so that what was written last is read
            text = b"".join(shown.text(entry) for entry in reader.more())
            if text:
                yield text
            elif over:
                return
            else:
                await asyncio.sleep(_POLL)
    finally:
        reader.close()
