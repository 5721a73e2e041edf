# SPDX-License-Identifier: Apache-2.0
"""The selectors of a list or a watch: ``labelSelector`` and ``fieldSelector``, parsed as apimachinery parses them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ringfence.lab.apiserver.objects import Object, dig, labels_of
from ringfence.lab.apiserver.status import Failure, bad_request

_WORD = r"[^\s,()!=<>]+"
_SET = re.compile(rf"({_WORD})\s+(in|notin)\s*\(([^()]*)\)")
_ORDER = re.compile(rf"({_WORD})\s*([<>])\s*(-?\d+)")
_EQUAL = re.compile(rf"({_WORD})\s*(==|=|!=)\s*([^\s,()!=<>]*)")
_EXISTS = re.compile(rf"(!?)\s*({_WORD})")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_ALWAYS_SELECTABLE = ("metadata.name", "metadata.namespace")

LabelTest = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """``path=value`` or, negated, ``path!=value``. A missing field counts as the empty string."""

    path: str
    value: str
    negated: bool

    def matches(self, obj: Object) -> bool:
        """Tell whether an object meets it."""
        return (_text(dig(obj, self.path)) == self.value) is not self.negated


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or watch asks for: all requirements must hold."""

    labels: tuple[LabelTest, ...] = ()
    fields: tuple[FieldRequirement, ...] = ()

    def matches(self, obj: Object) -> bool:
        """Tell whether an object, in the version that the selectors were parsed for, is selected."""
        if self.labels:
            labels = labels_of(obj)
            if not all(test(labels) for test in self.labels):
                return False
        return all(requirement.matches(obj) for requirement in self.fields)

    @property
    def everything(self) -> bool:
        """Tell whether nothing is required."""
        return not self.labels and not self.fields


def parse(labels: str, fields: str, *, selectable: Sequence[str] = ()) -> Selection:
    """Parse both selectors; ``selectable`` names the kind's own fields. Raises ``Failure`` 400."""
    return Selection(_parse_labels(labels), _parse_fields(fields, selectable))


def _parse_labels(text: str) -> tuple[LabelTest, ...]:
    tests: list[LabelTest] = []
    rest = text.strip()
    while rest:
        test, rest = _next_test(rest, text)
        tests.append(test)
        rest = rest.lstrip()
        if not rest:
            break
        if not rest.startswith(","):
            raise _unparsable(text, f"found '{rest.split()[0]}', expected: ',' or 'end of string'")
        rest = rest[1:].lstrip()
        if not rest:
            raise _unparsable(text, "found '', expected: identifier after ','")
    return tuple(tests)


def _next_test(rest: str, text: str) -> tuple[LabelTest, str]:
    if found := _SET.match(rest):
        key, operator, listed = found.groups()
        values = frozenset(value.strip() for value in listed.split(","))
        _check(text, key, *values)
        return _in(key, values, negated=operator == "notin"), rest[found.end() :]
    if found := _ORDER.match(rest):
        key, operator, number = found.groups()
        _check(text, key)
        return _compares(key, int(number), above=operator == ">"), rest[found.end() :]
    if found := _EQUAL.match(rest):
        key, operator, value = found.groups()
        _check(text, key, value)
        return _in(key, frozenset({value}), negated=operator == "!="), rest[found.end() :]
    if found := _EXISTS.match(rest):
        absent, key = found.groups()
        _check(text, key)
        return (lambda labels: (key in labels) is not bool(absent)), rest[found.end() :]
    raise _unparsable(text, f"found '{rest.split(maxsplit=1)[0]}', expected: !, identifier, or 'end of string'")


def _in(key: str, values: frozenset[str], *, negated: bool) -> LabelTest:
    if negated:
        return lambda labels: key not in labels or labels[key] not in values
    return lambda labels: key in labels and labels[key] in values


def _compares(key: str, number: int, *, above: bool) -> LabelTest:
    def test(labels: Mapping[str, str]) -> bool:
        try:
            value = int(labels[key])
        except (KeyError, ValueError):
            return False
        return value > number if above else value < number

    return test


def _check(text: str, key: str, *values: str) -> None:
    if not _KEY.fullmatch(key):
        raise _unparsable(text, f'key: Invalid value: "{key}": name part must consist of alphanumeric characters')
    for value in values:
        if not _VALUE.fullmatch(value):
            raise _unparsable(
                text, f'values[0][{key}]: Invalid value: "{value}": a valid label must be an empty string'
            )


def _unparsable(text: str, why: str) -> Failure:
    return bad_request(f'unable to parse requirement in label selector "{text}": {why}')


def _parse_fields(text: str, selectable: Sequence[str]) -> tuple[FieldRequirement, ...]:
    found = []
    for part in filter(None, text.split(",")):
        path, operator, value = _split_field(part)
        if not operator:
            raise bad_request(f"invalid field selector: {text!r}; can't understand {part!r}")
        if path not in _ALWAYS_SELECTABLE and path not in selectable:
            raise bad_request(f'field label not supported: "{path}"')
        found.append(FieldRequirement("source.component" if path == "source" else path, value, operator == "!="))
    return tuple(found)


def _split_field(part: str) -> tuple[str, str, str]:
    for operator in ("!=", "==", "="):
        path, found, value = part.partition(operator)
        if found:
            return path.strip(), operator, value.strip()
    return part, "", ""


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)
