# SPDX-License-Identifier: Apache-2.0
"""YAML and JSON text to plain values, as kubectl reads it, with the place of every value.

kubectl's YAML is version 1.1 with Go's habits: ``y`` and ``on`` are booleans, dates stay strings, there are no
base-60 numbers. Values come out as JSON would have them. Repeated keys, which kubectl's reader lets the last one
win, are reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from ringfence.apis.fields import within
from ringfence.errors import FieldError

ALIASES_LIMIT = 10
"""How many times as many values a document may have as its text has characters: more is an attack by aliases."""


class Unreadable(Exception):
    """The text is not YAML or JSON from this place on; ``line`` and ``column`` count from 1."""

    def __init__(self, problem: str, line: int, column: int) -> None:
        self.problem = problem
        self.line = line
        self.column = column
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its value, and the YAML nodes that it came from. ``repeated`` complains of repeated keys."""

    value: Any
    root: yaml.Node
    repeated: tuple[FieldError, ...] = ()

    def place(self, path: str) -> tuple[int, int]:
        """Return line and column (from 1) of the field at a path, or of its nearest ancestor that is there."""
        node = self.root
        mark = node.start_mark
        rest = path
        while rest:
            match node:
                case yaml.MappingNode():
                    # Keys may have dots in them; the last of equal keys is the one that counts.
                    found = [(k, v) for k, v in node.value if within(rest, str(k.value))]
                    if not found:
                        break
                    key, node = max(reversed(found), key=lambda pair: len(pair[0].value))
                    mark = key.start_mark
                    rest = rest[len(key.value) :].removeprefix(".")
                case yaml.SequenceNode():
                    index, _, after = rest.removeprefix("[").partition("]")
                    if not index.isdecimal() or int(index) >= len(node.value):
                        break
                    node = node.value[int(index)]
                    mark = node.start_mark
                    rest = after.removeprefix(".")
                case _:
                    break
        return mark.line + 1, mark.column + 1


def documents(text: str) -> Iterator[Document]:
    """Yield the documents of a text, empty ones left out; raises ``Unreadable`` where it stops being YAML."""
    loader = None
    try:
        loader = Loader(_speaking_yaml(text))
        while loader.check_node():
            root = loader.get_node()
            assert root is not None  # check_node has just said so
            builder = _Builder(ALIASES_LIMIT * len(text))
            value = builder.build(root, "")
            if value is not None:
                yield Document(value, root, tuple(builder.repeated))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise Unreadable(error.problem or error.context or "not YAML", line, column) from None
    except yaml.reader.ReaderError as error:
        raise Unreadable(f"unacceptable character: {error.reason}", 1, 1) from None
    except RecursionError:
        raise Unreadable("nested too deeply", 1, 1) from None
    finally:
        if loader is not None:
            loader.dispose()


def _speaking_yaml(text: str) -> str:
    """Return JSON text such that YAML reads it as JSON does; other text as it is.

    JSON writes characters beyond the first plane as two escapes, which YAML refuses, and lets characters stand in
    strings that YAML takes for line breaks or refuses.
    """
    return _JSON_ONLY.sub(_in_yaml, text) if text.lstrip().startswith("{") else text


_JSON_ONLY = re.compile(
    r"\\u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|\\u(?P<half>[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\(?P<escaped>.)"
    r"|(?P<raw>[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff])"
)


def _in_yaml(found: re.Match[str]) -> str:
    if found["high"]:
        high, low = int(found["high"], 16), int(found["low"], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    if found["half"]:
        return "\ufffd"
    return f"\\u{ord(found['raw']):04x}" if found["raw"] else found[0]


class PlainTags:
    """Tells plain scalars, whose meaning is open, from quoted and tagged ones; decides nothing else."""

    def descend_resolver(self, parent: object, index: object) -> None:
        """Take note of nothing: tags do not depend on where a node stands."""

    def ascend_resolver(self) -> None:
        """Take note of nothing."""

    def resolve(self, kind: type[yaml.Node], value: object, implicit: object) -> str:  # noqa: ARG002 - PyYAML's
        """Return the tag of a node that has none of its own."""
        plain = kind is yaml.ScalarNode and isinstance(implicit, tuple) and implicit[0]
        return _PLAIN if plain else _STRING


class PurePythonLoader(PlainTags, yaml.SafeLoader):
    """PyYAML as far as nodes, where it was built without libyaml."""


if yaml.__with_libyaml__:

    class Loader(PlainTags, yaml.CSafeLoader):
        """PyYAML as far as nodes, ten times as fast."""
else:  # pragma: no cover - the tests run PurePythonLoader by itself
    Loader = PurePythonLoader  # type: ignore[misc,assignment]


_PLAIN = "plain"
_STRING = "tag:yaml.org,2002:str"
_DECODED_TAGS = frozenset({_PLAIN, *(f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "int", "null"))})
_BOOLEANS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?")


@dataclass(slots=True)
class _Builder:
    """Makes JSON values of the nodes of one document."""

    left: int
    repeated: list[FieldError] = field(default_factory=list)
    open: list[yaml.Node] = field(default_factory=list)

    def build(self, node: yaml.Node, path: str) -> Any:
        self.left -= 1
        if self.left < 0:
            raise yaml.MarkedYAMLError(problem="aliases make it too large", problem_mark=node.start_mark)
        if any(node is each for each in self.open):
            raise yaml.MarkedYAMLError(problem="an anchor contains itself", problem_mark=node.start_mark)
        self.open.append(node)
        try:
            match node:
                case yaml.MappingNode():
                    return self._mapping(node, path)
                case yaml.SequenceNode():
                    return [self.build(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
                case _:
                    assert isinstance(node, yaml.ScalarNode)
                    return _scalar(node)
        finally:
            self.open.pop()

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a plain value", problem_mark=key_node.start_mark)
            if key_node.value == "<<" and key_node.tag == _PLAIN:
                merged = {**self._merge(value_node, path), **merged}
                continue
            key = _key(key_node)
            at = f"{path}.{key}" if path else key
            value = self.build(value_node, at)
            if key in own:
                line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
                complaint = f'key "{key}" already set in map'
                self.repeated.append(FieldError(at, complaint, "FieldValueDuplicate", line, column))
            own[key] = value
        return {**merged, **own}

    def _merge(self, node: yaml.Node, path: str) -> dict[str, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        result: dict[str, Any] = {}
        for source in sources:
            value = self.build(source, path)
            if not isinstance(value, dict):
                raise yaml.MarkedYAMLError(problem="map merge requires map", problem_mark=source.start_mark)
            result = {**value, **result}
        return result


def _scalar(node: yaml.ScalarNode) -> Any:
    if node.tag in _DECODED_TAGS:
        return _plain(node.value)
    return node.value


def _plain(text: str) -> Any:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        number = float(text.replace("_", ""))
        # Go prints 80.0 as 80, and the API server then reads an integer.
        return int(number) if number.is_integer() else number
    return text


def _integer(text: str) -> Any:
    digits = text.replace("_", "").lstrip("+-")
    sign = -1 if text.startswith("-") else 1
    try:
        if digits.startswith("0") and digits[1:].isdigit():
            return sign * int(digits, 8)
        return sign * int(digits, 0)
    except ValueError:  # digits missing (0x_), or more of them than anyone can mean
        return text


def _key(node: yaml.ScalarNode) -> str:
    value = _scalar(node)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
