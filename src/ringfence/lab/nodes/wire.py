# SPDX-License-Identifier: Apache-2.0
"""What kubelet and runner say to each other: one connection is one request, then frames in both directions.

A frame is a kind (one byte), a length (four bytes, big endian) and a payload. The first frame of a connection is the
kubelet's REQUEST (JSON; the network namespace's descriptor rides on it), the second the runner's REPLY (JSON). After
``start``, ``watch``, ``exec`` and ``attach`` the connection stays: output, input, sizes, and at the end EXIT.
"""

from __future__ import annotations

import json
import struct
from typing import Any, NamedTuple

STDIN, STDOUT, STDERR, EXIT, RESIZE, REQUEST, REPLY, STDIN_END = range(8)

HEADER = struct.Struct("!BI")
MOST_PAYLOAD = 16 << 20


class Frame(NamedTuple):
    """One frame."""

    kind: int
    payload: bytes

    def json(self) -> Any:
        """Return the payload of a frame that carries JSON."""
        return json.loads(self.payload)


def encode(kind: int, payload: bytes) -> bytes:
    """Return a frame's bytes."""
    return HEADER.pack(kind, len(payload)) + payload


def encode_json(kind: int, value: Any) -> bytes:
    """Return the bytes of a frame that carries JSON."""
    return encode(kind, json.dumps(value, separators=(",", ":")).encode())


def take(buffer: bytearray) -> Frame | None:
    """Remove and return the first frame of ``buffer``, or None if it is not whole yet; raises ``ValueError``."""
    if len(buffer) < HEADER.size:
        return None
    kind, length = HEADER.unpack_from(buffer)
    if length > MOST_PAYLOAD:
        raise ValueError(f"a frame of {length} bytes")
    end = HEADER.size + length
    if len(buffer) < end:
        return None
    frame = Frame(kind, bytes(buffer[HEADER.size : end]))
    del buffer[:end]
    return frame
