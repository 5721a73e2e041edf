# SPDX-License-Identifier: Apache-2.0
"""Which cases are meant: the files below paths, each case by a name of its own, and ``-k`` expressions over names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ringfence.errors import UsageError

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_WORDS = re.compile(r"\s*([()]|[^\s()]+)")

Matches = Callable[[str], bool]


def case_files(paths: Iterable[str], *, recursive: bool) -> list[Path]:
    """Return the case files that paths mean, each once: files as they are given, directories sorted.

    Raises ``UsageError`` for a path that is not there, for no file at all, and for two files whose cases have one name.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise UsageError(f'the path "{path}" does not exist')
        for file in _below(path, recursive=recursive) if path.is_dir() else [path]:
            found.setdefault(file.resolve(), file)
    if not found:
        hint = "" if recursive else "; directories below are read with -R"
        raise UsageError(f"no case: there is no .yaml, .yml or .json file in {', '.join(paths)}{hint}")
    names: dict[str, Path] = {}
    for file in found.values():
        other = names.setdefault(case_name(file), file)
        if other != file:
            raise UsageError(f'two cases are named "{case_name(file)}": {other} and {file}; rename one of the files')
    return list(found.values())


def case_name(file: Path) -> str:
    """Return the name of the case in a file."""
    return file.stem


def select(files: Sequence[Path], expression: str | None) -> list[Path]:
    """Return the files whose cases an expression means; raises ``UsageError`` if that is none of them."""
    if expression is None:
        return list(files)
    matches = parse(expression)
    chosen = [file for file in files if matches(case_name(file))]
    if not chosen:
        some = ", ".join(case_name(file) for file in files[:3])
        raise UsageError(f'-k "{expression}" means none of the {len(files)} cases; their names are like {some}')
    return chosen


def parse(expression: str) -> Matches:
    """Read an expression: parts of names, upper or lower case, with ``and``, ``or``, ``not`` and parentheses.

    ``not`` binds closest, ``or`` least. Raises ``UsageError``.
    """
    return _Parser(expression).whole()


def _below(directory: Path, *, recursive: bool) -> list[Path]:
    found = directory.rglob("*") if recursive else directory.glob("*")
    return sorted(file for file in found if file.suffix in _SUFFIXES and file.is_file())


class _Parser:
    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._words = _WORDS.findall(expression)

    def whole(self) -> Matches:
        """Read everything."""
        matches = self._any()
        if self._words:
            raise self._error(f'unexpected "{self._words[0]}"')
        return matches

    def _any(self) -> Matches:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return lambda name: any(part(name) for part in parts)

    def _all(self) -> Matches:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return lambda name: all(part(name) for part in parts)

    def _one(self) -> Matches:
        if self._take("not"):
            negated = self._one()
            return lambda name: not negated(name)
        if self._take("("):
            inner = self._any()
            if not self._take(")"):
                raise self._error('a ")" is missing')
            return inner
        if not self._words or self._words[0] in (")", "and", "or"):
            raise self._error("a part of a name is missing" + (f' before "{self._words[0]}"' if self._words else ""))
        wanted = self._words.pop(0).lower()
        return lambda name: wanted in name.lower()

    def _take(self, word: str) -> bool:
        taken = bool(self._words) and self._words[0] == word
        if taken:
            self._words.pop(0)
        return taken

    def _error(self, what: str) -> UsageError:
        return UsageError(f'-k "{self._expression}": {what}; write for example "port and not (named or udp)"')
