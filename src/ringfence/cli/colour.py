# SPDX-License-Identifier: Apache-2.0
"""Whether output has colour: one answer for all commands."""

from __future__ import annotations

import os


def colour() -> bool | None:
    """Return False where NO_COLOR or TERM=dumb ask for none; None leaves it to whether stdout is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
