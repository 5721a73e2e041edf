# SPDX-License-Identifier: Apache-2.0
"""Progress of a command that may take over a second: one line on stderr that is gone when the command ends."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self


class Steps:
    """Shows the step that a command is at, on a terminal only; elsewhere it is silent."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.hide()

    def show(self, step: str) -> None:
        """Say what is being done now."""
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{self._subject}: {step} ...")
            sys.stderr.flush()

    def hide(self) -> None:
        """Take the line away, for a moment in which something else is printed."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
