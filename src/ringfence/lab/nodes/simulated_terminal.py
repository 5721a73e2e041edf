# SPDX-License-Identifier: Apache-2.0
"""What a kernel's terminal does for a simulated program: lines of input, echo, erasing, control-C and control-D."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ringfence.lab.nodes import wire


class Terminal:
    """Input and output of one simulated process. Without ``tty`` it is a pair of pipes: no echo, bare newlines."""

    def __init__(self, show: Callable[[int, bytes], None], *, tty: bool, stdin: bool) -> None:
        self._show = show
        self.tty = tty
        self._line = bytearray()
        self._reading = False
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self.prompt = b""
        """The line that the cursor stands in."""
        self.interrupted = asyncio.Event()
        if not stdin:
            self._lines.put_nowait(None)

    def print(self, text: str, *, error: bool = False) -> None:
        """Show output; on a terminal all of it is one stream, with a carriage return before each newline."""
        data = text.encode()
        if self.tty:
            data = data.replace(b"\n", b"\r\n")
            self.prompt = (self.prompt + data).rpartition(b"\n")[2]
        self._show(wire.STDERR if error and not self.tty else wire.STDOUT, data)

    async def line(self) -> str | None:
        """Return the next line of input without its newline; None at its end. A control-C ends it, empty."""
        self._reading = True
        try:
            return await self._lines.get()
        finally:
            self._reading = False

    def feed(self, data: bytes) -> None:
        """Take input from whoever is attached."""
        for byte in data:
            if self.tty:
                self._key(byte)
            elif byte == 0x0A:
                self._finish_line()
            else:
                self._line.append(byte)

    def end(self) -> None:
        """Take the end of input."""
        if self._line:
            self._finish_line()
        self._lines.put_nowait(None)

    def _key(self, byte: int) -> None:
        match byte:
            case 0x0D | 0x0A:
                self.print("\n")
                self._finish_line()
            case 0x03:  # control-C
                self.print("^C\n")
                self._line.clear()
                self.interrupted.set()
                if self._reading and self._lines.empty():
                    self._lines.put_nowait("")
            case 0x04 if not self._line:  # control-D
                self._lines.put_nowait(None)
            case 0x7F | 0x08:  # delete, backspace
                if self._line:
                    self._line.pop()
                    self.print("\b \b")
            case _ if byte >= 0x20 or byte == 0x09:
                self._line.append(byte)
                self._show(wire.STDOUT, bytes([byte]))
            case _:
                return

    def _finish_line(self) -> None:
        self._lines.put_nowait(self._line.decode(errors="replace"))
        self._line.clear()
