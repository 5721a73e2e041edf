# SPDX-License-Identifier: Apache-2.0
"""Everything that ringfence raises on purpose, and whose fault each one says it is.

::

    RingfenceError
    ├── UsageError            the caller asked for something that cannot be (exit code 2)
    ├── InvalidObject         a policy or manifest is wrong: carries object, field path and, from files, line and column
    │   └── UnreadablePath    a file or directory of manifests is not there, or cannot be read
    ├── ClusterError          the API server refused, or could not be reached
    ├── HostLacks             this machine has no such feature or tool: carries the remedy
    ├── HostRefused           the kernel or a tool said no: carries what was asked and what was answered
    │   └── ProgramRefused    the kernel's verifier does not accept a BPF program: carries its whole log
    └── Unsupported           a dataplane cannot express a program: carries every refusal at once

Whatever else escapes is a bug in ringfence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RingfenceError(Exception):
    """Base of all errors that ringfence raises on purpose; ``str()`` is one clear sentence for a person."""

    exit_code = 2


class UsageError(RingfenceError):
    """The caller asked for something that cannot be; the message says what to do instead."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One complaint about one field, worded as kube-apiserver words it.

    ``path`` is the field path (``spec.ingress[0].from[1].ipBlock.cidr``), ``message`` what follows it
    (``Invalid value: "10.0.0.0/33": must be a valid CIDR``), ``reason`` the machine-readable cause
    (``FieldValueInvalid``, ``FieldValueRequired``, …; k8s.io/apimachinery/pkg/util/validation/field).
    ``line`` and ``column`` (both from 1) are set where the object came from a file.
    """

    path: str
    message: str
    reason: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidObject(RingfenceError):
    """An object breaks its API's rules. All complaints at once.

    ``kind`` and ``name`` say which object (``NetworkPolicy.networking.k8s.io``, ``demo-policy``); ``file`` where from.
    """

    def __init__(self, kind: str, name: str, errors: Sequence[FieldError], *, file: str | None = None) -> None:
        self.kind = kind
        self.name = name
        self.errors = tuple(errors)
        self.file = file
        super().__init__(self._text())

    def _text(self) -> str:
        lines = []
        for error in self.errors:
            place = ""
            if self.file is not None:
                place = f"{self.file}:{error.line or 1}:{error.column or 1}: "
            lines.append(f'{place}{self.kind} "{self.name}" is invalid: {error}')
        return "\n".join(lines)


class UnreadablePath(InvalidObject):
    """A path that objects should come from is not there, or cannot be read: one complaint among those of others."""

    def __init__(self, path: str, problem: str) -> None:
        self.problem = problem
        super().__init__("path", path, [FieldError("", problem, "")], file=path)

    def _text(self) -> str:
        return f'the path "{self.name}" {self.problem}'


class ClusterError(RingfenceError):
    """The API server refused a request (``code``, ``reason`` from its Status) or could not be reached (``code`` 0)."""

    def __init__(self, message: str, *, code: int = 0, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        super().__init__(message)


class HostLacks(RingfenceError):
    """This machine lacks a feature or a tool; ``remedy`` says how to get it."""

    def __init__(self, what: str, *, remedy: str) -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}; {remedy}")


class HostRefused(RingfenceError):
    """The kernel or a tool refused: ``asked`` is what we sent (argv, a transaction), ``answered`` what came back."""

    def __init__(self, message: str, *, asked: str, answered: str) -> None:
        self.asked = asked
        self.answered = answered
        super().__init__(f"{message}: {answered}" if answered else message)


class ProgramRefused(HostRefused):
    """The kernel's verifier does not accept a BPF program. ``answered`` is its complaint, ``log`` all that it said.

    ``advice`` ends the sentence: what to do, and where the log is kept.
    """

    def __init__(self, program: str, *, file: str, answered: str, log: str, advice: str = "") -> None:
        self.program = program
        self.file = file
        self.log = log
        self.advice = advice
        super().__init__(
            f"the kernel's verifier refuses the BPF program {program}", asked=f"load {file}", answered=answered
        )

    def __str__(self) -> str:
        return f"{self.fact}; {self.advice}" if self.advice else self.fact

    @property
    def fact(self) -> str:
        """The sentence without the advice."""
        return super().__str__()


class Unsupported(RingfenceError):
    """A dataplane cannot express a program. ``refusals`` lists every reason, not just the first."""

    def __init__(self, dataplane: str, refusals: Sequence[str]) -> None:
        self.dataplane = dataplane
        self.refusals = tuple(refusals)
        super().__init__(f"the {dataplane} dataplane cannot enforce this: " + "; ".join(self.refusals))
