# SPDX-License-Identifier: Apache-2.0
"""Command lines as agnhost reads them: GNU-like long flags, Go durations, Go's words for what is wrong.

Decides how words become values; what a value means is each command's own business. ``argparse`` is not used: it costs
as much time to import as the whole program takes to start, and it knows no ``--http=false``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

Value = str | int | float | bool

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DIGITS = frozenset("0123456789.")
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
# Logging flags that agnhost accepts everywhere; tests pass them along, and they change nothing here.
_LOGGING = frozenset({"v", "logtostderr", "alsologtostderr", "stderrthreshold", "vmodule"})


class Flag(NamedTuple):
    """One flag: its name without dashes, what it does, and a default whose type is the flag's type.

    A ``float`` default makes the flag a duration in seconds.
    """

    name: str
    default: Value
    about: str


class WrongUsage(Exception):
    """The command line cannot be read; ``str()`` is what agnhost's flag library says about it."""


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration (``3s``, ``1m30s``, ``0``); raises ``ValueError`` in Go's words."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    seconds = 0.0
    wrong = ValueError(f'time: invalid duration "{text}"')
    if not rest:
        raise wrong
    while rest:
        number = _leading(rest, digits=True)
        unit = _leading(rest[len(number) :], digits=False)
        rest = rest[len(number) + len(unit) :]
        if number in ("", ".") or number.count(".") > 1:
            raise wrong
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        seconds += float(number) * _UNITS[unit]
    return sign * seconds


def _leading(text: str, *, digits: bool) -> str:
    """Return the longest start of ``text`` that is all digits and dots, or has none of them."""
    for at, letter in enumerate(text):
        if (letter in _DIGITS) != digits:
            return text[:at]
    return text


def _convert(text: str, default: Value) -> Value:
    if isinstance(default, bool):
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    if isinstance(default, int):
        try:
            return int(text, 10)
        except ValueError:
            raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    return parse_duration(text) if isinstance(default, float) else text


def parse(words: Sequence[str], flags: Sequence[Flag]) -> tuple[Mapping[str, Value], list[str]]:
    """Split a command's words into flag values (defaults filled in) and the arguments left over.

    A boolean flag takes its value only after ``=``, every other flag also from the next word. Raises ``WrongUsage``.
    """
    known = {flag.name: flag.default for flag in flags}
    values: dict[str, Value] = dict(known)
    arguments: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return values, arguments + rest
        if not word.startswith("-") or word == "-":
            arguments.append(word)
            continue
        name, given, text = word.lstrip("-").partition("=")
        if name in _LOGGING:
            if not given and name == "v" and rest:
                rest.pop(0)
            continue
        if name not in known or not word.startswith("--"):
            raise WrongUsage(f"unknown flag: {word}" if word.startswith("--") else f"unknown shorthand flag: {word}")
        if not given and isinstance(known[name], bool):
            values[name] = True
            continue
        if not given and not rest:
            raise WrongUsage(f"flag needs an argument: --{name}")
        text = text if given else rest.pop(0)
        try:
            values[name] = _convert(text, known[name])
        except ValueError as error:
            raise WrongUsage(f'invalid argument "{text}" for "--{name}" flag: {error}') from None
    return values, arguments


def describe(flags: Sequence[Flag]) -> str:
    """Return one line of help for each flag."""
    lines = []
    for flag in flags:
        default = f"{flag.default:g}s" if isinstance(flag.default, float) else str(flag.default).lower()
        lines.append(f"      --{flag.name:<22} {flag.about} (default {default or 'none'})")
    return "\n".join(lines)
