# SPDX-License-Identifier: Apache-2.0
"""Reads the protobuf bodies that kubectl sends for built-in kinds; answers are always JSON.

kubectl posts what it makes itself (``create namespace``, ``create service``, ``auth can-i``) as
``application/vnd.kubernetes.protobuf`` and does not fall back on JSON when refused. The wire: four magic bytes, then a
``runtime.Unknown`` that names apiVersion and kind and holds the object. Field numbers come from tables made of the Go
types (``tools/protobuf_tables.py``); what a table does not name is skipped, as protobuf wants.
"""

from __future__ import annotations

import base64
import datetime
import functools
import gzip
import importlib.resources
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


class UnsupportedBody(Exception):
    """The body cannot be read: not Kubernetes' protobuf, malformed, or of a kind that has no table."""


class _Field(NamedTuple):
    name: str
    kind: str
    flags: str  # p pointer, r repeated, m map, i inlined in JSON, k written even if zero


_Table = dict[str, _Field]


def is_protobuf(content_type: str) -> bool:
    """Tell whether a Content-Type is Kubernetes' protobuf."""
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


def decode(body: bytes) -> dict[str, Any]:
    """Return the object in a protobuf body, as JSON would say it; raises ``UnsupportedBody``."""
    if not body.startswith(_MAGIC):
        raise UnsupportedBody("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    try:
        return _envelope(body[len(_MAGIC) :])
    except (IndexError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise UnsupportedBody(f"the protobuf body is malformed: {error}") from error


def _envelope(body: bytes) -> dict[str, Any]:
    """Read ``runtime.Unknown``: 1 typeMeta {1 apiVersion, 2 kind}, 2 raw."""
    type_meta, raw = b"", b""
    for number, value in _fields(body):
        if isinstance(value, bytes):
            if number == 1:
                type_meta = value
            elif number == 2:
                raw = value
    names = {number: value.decode() for number, value in _fields(type_meta) if isinstance(value, bytes)}
    api_version, kind = names.get(1, ""), names.get(2, "")
    message = _message_of(api_version, kind)
    if message not in _tables():
        raise UnsupportedBody(f"protobuf bodies of {api_version} {kind} are not understood; send JSON")
    return {"apiVersion": api_version, "kind": kind, **_message(message, raw)}


def _message_of(api_version: str, kind: str) -> str:
    if kind == "DeleteOptions":  # registered in every group
        return "meta/v1.DeleteOptions"
    group, _, version = api_version.rpartition("/")
    return f"{group.partition('.')[0] or 'core'}/{version}.{kind}"


@functools.cache
def _tables() -> dict[str, _Table]:
    packed = importlib.resources.files("ringfence.lab.apiserver").joinpath("data", "protobuf.json.gz").read_bytes()
    return msgspec.json.decode(gzip.decompress(packed), type=dict[str, dict[str, _Field]])


def _message(name: str, data: bytes) -> dict[str, Any]:
    table = _tables()[name]
    made: dict[str, Any] = {}
    for number, wire in _fields(data):
        field = table.get(str(number))
        if field is None:
            continue
        if "m" in field.flags:
            key, value = _entry(field, wire)
            made.setdefault(field.name, {})[key] = value
            continue
        value = _value(field.kind, wire)
        if "r" in field.flags:
            made.setdefault(field.name, []).append(value)
        elif "i" in field.flags:
            made.update(value)
        elif "p" in field.flags or not _is_zero(value, field):
            made[field.name] = value
    return made


def _is_zero(value: Any, field: _Field) -> bool:
    """Tell whether Go would leave a value out of JSON; protobuf carries it all the same."""
    return value is None or ("k" not in field.flags and value in ("", 0, False, {}))


def _entry(field: _Field, wire: bytes | int) -> tuple[str, Any]:
    """Read a map's entry: a message of 1 key, 2 value."""
    assert isinstance(wire, bytes)
    parts = dict(_fields(wire))
    key = parts.get(1, b"")
    assert isinstance(key, bytes)
    return key.decode(), _value(field.kind, parts.get(2, b""))


def _value(kind: str, wire: bytes | int) -> Any:
    reader = _READERS.get(kind)
    if reader is not None:
        return reader(wire)
    if not isinstance(wire, bytes):
        raise UnsupportedBody(f"the protobuf body is malformed: {kind} is not a message in it")
    return _message(kind, wire)


def _text(wire: bytes | int) -> str:
    if not isinstance(wire, bytes):
        raise UnsupportedBody("the protobuf body is malformed: a string is a number in it")
    return wire.decode()


def _integer(wire: bytes | int) -> int:
    if isinstance(wire, bytes):
        raise UnsupportedBody("the protobuf body is malformed: a number is a string in it")
    return wire - (1 << 64) if wire >= 1 << 63 else wire


def _moment(wire: bytes | int) -> datetime.datetime | None:
    """Read a Time: 1 seconds, 2 nanoseconds. Go's zero time is sent as nothing at all."""
    parts = dict(_fields(_raw(wire)))
    if not parts:
        return None
    moment = datetime.datetime.fromtimestamp(_integer(parts.get(1, 0)), datetime.UTC)
    return moment.replace(microsecond=_integer(parts.get(2, 0)) // 1000)


def _time(wire: bytes | int) -> str | None:
    moment = _moment(wire)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def _microtime(wire: bytes | int) -> str | None:
    moment = _moment(wire)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else None


def _int_or_string(wire: bytes | int) -> int | str:
    """Read an IntOrString: 1 type (0 number, 1 string), 2 number, 3 string."""
    parts = dict(_fields(_raw(wire)))
    return _text(parts.get(3, b"")) if parts.get(1, 0) else _integer(parts.get(2, 0))


def _first_text(wire: bytes | int) -> str:
    """Read a Quantity: its text is field 1."""
    return _text(dict(_fields(_raw(wire))).get(1, b""))


def _embedded_json(wire: bytes | int) -> Any:
    """Read a RawExtension or FieldsV1: JSON in field 1."""
    return msgspec.json.decode(_raw(dict(_fields(_raw(wire))).get(1, b"null")))


def _strings(wire: bytes | int) -> list[str]:
    """Read a named list of strings (ExtraValue): field 1, repeated."""
    return [_text(value) for _, value in _fields(_raw(wire))]


def _raw(wire: bytes | int) -> bytes:
    if not isinstance(wire, bytes):
        raise UnsupportedBody("the protobuf body is malformed: a message is a number in it")
    return wire


_READERS: dict[str, Callable[[bytes | int], Any]] = {
    "bool": lambda wire: bool(_integer(wire)),
    "bytes": lambda wire: base64.b64encode(_raw(wire)).decode(),
    "int": _integer,
    "intstr": _int_or_string,
    "json": _embedded_json,
    "list": _strings,
    "microtime": _microtime,
    "quantity": _first_text,
    "string": _text,
    "time": _time,
}


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Read a message's fields: (number, payload or number), in the order of the wire."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        match wire_type:
            case 0:  # varint
                value, at = _varint(data, at)
                yield number, value
            case 2:  # length, then bytes
                length, at = _varint(data, at)
                if at + length > len(data):
                    raise IndexError("a field is longer than the message")
                yield number, data[at : at + length]
                at += length
            case 1 | 5:  # fixed64, fixed32
                width = 8 if wire_type == 1 else 4
                if at + width > len(data):
                    raise IndexError("a field is longer than the message")
                yield number, int.from_bytes(data[at : at + width], "little")
                at += width
            case _:
                raise IndexError(f"wire type {wire_type} is not known")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
