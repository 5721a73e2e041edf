# SPDX-License-Identifier: Apache-2.0
"""One fact about this machine, and the ways in which facts are found: by trying, or by looking for a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ringfence.errors import HostLacks, HostRefused
from ringfence.host import netns


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing about this machine. ``there`` is None where it could not be told; ``remedy`` belongs to a no."""

    name: str
    wanted_for: str
    there: bool | None
    detail: str
    remedy: str = ""


def tried(name: str, wanted_for: str, attempt: Callable[[], str], *, remedy: str) -> Fact:
    """Try something in a namespace of its own that is gone afterwards; it returns the detail of a yes."""
    try:
        return Fact(name, wanted_for, True, netns.in_fresh(attempt))
    except HostLacks as error:
        return Fact(name, wanted_for, False, error.what, error.remedy)
    except HostRefused as error:
        return Fact(name, wanted_for, False, str(error), remedy)
    except OSError as error:
        return Fact(name, wanted_for, None, f"could not be tried: {error}")


def present(name: str, wanted_for: str, file: Path, *, remedy: str) -> Fact:
    """Look for a file that the kernel shows where it has the thing."""
    try:
        there = file.exists()
    except OSError as error:
        return Fact(name, wanted_for, None, f"{file}: {error.strerror}")
    return Fact(name, wanted_for, there, str(file) if there else f"there is no {file}", remedy)


def read(file: Path) -> str | None:
    """Return what is in a file, or None if it cannot be read."""
    try:
        return file.read_text()
    except OSError:
        return None
