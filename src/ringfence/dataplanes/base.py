# SPDX-License-Identifier: Apache-2.0
"""The contract that every dataplane keeps, in as few methods as possible.

1. Atomic: every flow sees the old or the new program, never a mix or a gap.
2. Adopting: at start, what is there stays in force; ``apply`` converges by difference and never flushes.
3. Owning: only our own tables, chains, sets, maps and links are touched.
4. Honest: what cannot be expressed is refused as a whole (``errors.Unsupported``), all refusals at once.
5. Watching: ``drifted`` tells whether somebody else changed what we wrote; ``apply`` repairs it.
6. Naming: the rule that decided is visible in the kernel's own tools.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ringfence.compiler.program import Program


@dataclass(frozen=True, slots=True)
class Applied:
    """What one ``apply`` did: how many kernel transactions, and how many objects it added and deleted."""

    transactions: int
    added: int = 0
    deleted: int = 0
    repaired: bool = False


class Dataplane(Protocol):
    """One engine on one node (in the network namespace of the calling process, unless built for another)."""

    @property
    def name(self) -> str:
        """The engine's name, as ``--dataplane`` takes it."""
        ...

    def apply(self, program: Program) -> Applied:
        """Put a program in force, whole. Raises ``Unsupported``; the old program then stays.

        Raises ``HostRefused``, perhaps half way: each flow then has a verdict of the old program or of this one, and
        only another ``apply``, of whichever program, makes it one of them for all.
        """
        ...

    def drifted(self) -> bool:
        """Tell whether the kernel no longer holds what the last ``apply`` wrote (False before the first)."""
        ...

    def remove(self) -> None:
        """Take everything of ours out of the kernel: what ``uninstall`` does. Nothing is enforced afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class Hook:
    """Where in the kernel a dataplane stands, and why there."""

    name: str
    reason: str


@runtime_checkable
class Hooked(Protocol):
    """A dataplane that could stand in several places."""

    @property
    def hook(self) -> Hook:
        """Where it stands."""
        ...


@runtime_checkable
class Held(Protocol):
    """A dataplane that holds something open in this process, as a kernel's does."""

    def close(self) -> None:
        """Give it back; what is in force stays so."""
        ...


class Answer(enum.Enum):
    """A probe's three answers."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "could not tell"


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether this machine can run something: the answer, why, and for a no the remedy; ``hook``: where it stood."""

    answer: Answer
    reason: str
    remedy: str = ""
    hook: Hook | None = None
