# SPDX-License-Identifier: Apache-2.0
"""Keeps all that the kernel's verifier says of a program that it refuses: hundreds of lines, too many for an error.

One file for each program, the latest refusal in it. In the user's folder for state, or where that cannot be written, in
one for temporary files.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

from ringfence.errors import ProgramRefused


def kept(error: ProgramRefused) -> ProgramRefused:
    """Return the error with what to do about it, after its log was written to a file."""
    text = f"{error.asked}\nkernel {' '.join(os.uname()[2:])}\n{error}\n\n{error.log}"
    try:
        place = f"all that it says is in {_write(error.program, text)}"
    except OSError as problem:
        place = f"what it says further could not be kept ({problem})"
    return ProgramRefused(
        error.program,
        file=error.file,
        answered=error.answered,
        log=error.log,
        advice=f"use --dataplane nftables on this machine, and report it; {place}",
    )


def _write(program: str, text: str) -> Path:
    try:
        folder = _state()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = folder / f"verifier-{program}.log"
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=place.name, delete=False) as written:
            written.write(text)
        return Path(written.name).replace(place)
    except OSError:
        place = _temporary(program)
        place.write_text(text)
        return place


def _state() -> Path:
    home = os.environ.get("XDG_STATE_HOME", "")
    if not Path(home).is_absolute():  # the XDG specification: a relative path is to be ignored
        home = os.path.expanduser("~/.local/state")  # noqa: PTH111 - pathlib raises where there is no home
    return Path(home) / "ringfence"


@functools.cache
def _temporary(program: str) -> Path:
    # Made once: a process that tries again and again writes to the same file, which nobody else could have put there.
    descriptor, name = tempfile.mkstemp(prefix=f"ringfence-verifier-{program}-", suffix=".log")
    os.close(descriptor)
    return Path(name)
