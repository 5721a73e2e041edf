# SPDX-License-Identifier: Apache-2.0
"""API objects as plain JSON, and the few questions that every part asks of their metadata."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

Object = dict[str, Any]

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(value: Any) -> bytes:
    """Return JSON."""
    return _encoder.encode(value)


def decode(raw: bytes) -> Any:
    """Return what JSON says; raises ``msgspec.DecodeError``."""
    return _decoder.decode(raw)


def copy(obj: Object) -> Object:
    """Return a deep copy. By way of JSON, which is several times quicker than ``copy.deepcopy``."""
    duplicate: Object = _decoder.decode(_encoder.encode(obj))
    return duplicate


def metadata(obj: Object) -> Object:
    """Return the object's metadata, for reading; empty if it has none or none that is an object."""
    meta = obj.get("metadata")
    return meta if isinstance(meta, dict) else {}


def name_of(obj: Object) -> str:
    """Return ``metadata.name``, empty if there is none."""
    return metadata(obj).get("name") or ""


def namespace_of(obj: Object) -> str:
    """Return ``metadata.namespace``, empty for cluster-wide objects."""
    return metadata(obj).get("namespace") or ""


def labels_of(obj: Object) -> dict[str, str]:
    """Return ``metadata.labels``, for reading."""
    return metadata(obj).get("labels") or {}


def is_terminating(obj: Object) -> bool:
    """Tell whether somebody asked for the object's deletion."""
    return bool(metadata(obj).get("deletionTimestamp"))


def spec_of(obj: Object) -> Object:
    """Return the object's spec, for reading; empty if it has none."""
    spec = obj.get("spec")
    return spec if isinstance(spec, dict) else {}


def status_of(obj: Object) -> Object:
    """Return the object's status, for reading; empty if it has none."""
    status = obj.get("status")
    return status if isinstance(status, dict) else {}


def dig(obj: Any, path: str) -> Any:
    """Return what a dotted path of field names leads to (``spec.nodeName``), None where it ends early."""
    for part in path.split("."):
        if not isinstance(obj, dict):
            return None
        obj = obj.get(part)
    return obj


def timestamp(moment: datetime.datetime) -> str:
    """Return a meta/v1 Time: RFC 3339, in UTC, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def moment_of(stamp: Any) -> datetime.datetime | None:
    """Return the moment that a meta/v1 Time or MicroTime says, None if it says none."""
    if not isinstance(stamp, str) or not stamp:
        return None
    try:
        return datetime.datetime.fromisoformat(stamp)
    except ValueError:
        return None
