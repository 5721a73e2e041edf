# SPDX-License-Identifier: Apache-2.0
"""Bodies that Kubernetes' own serializer wrote, and what we read in them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.lab.apiserver.protobuf import UnsupportedBody, decode, is_protobuf

RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "recorded" / "protobuf-0.32.3.json").read_text())


def meaningful(value: Any) -> Any:
    """Return JSON without what Go writes of fields that are not set."""
    if isinstance(value, dict):
        kept = {key: meaningful(below) for key, below in value.items() if below is not None}
        return {
            key: below for key, below in kept.items() if below != {} or key.endswith(("Selector", "Context", "Dir"))
        }
    if isinstance(value, list):
        return [meaningful(item) for item in value]
    return value


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["json"]["kind"])
def test_a_body_says_what_its_json_says(case: dict[str, Any]) -> None:
    """Every kind that kubectl sends is read whole: zeros of pointers, inlined structs, quantities, times, bytes."""
    assert meaningful(decode(base64.b64decode(case["protobuf"]))) == meaningful(case["json"])


def test_a_zero_that_is_sent_by_pointer_is_kept() -> None:
    """``replicas: 0`` is not "no replicas given"."""
    body = next(case["protobuf"] for case in RECORDED if case["json"]["kind"] == "Deployment")

    assert decode(base64.b64decode(body))["spec"]["replicas"] == 0


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{}", "expected prefix"),
        (b"k8s\0\x0a\x0c\x0a\x02v1\x12\x06Gadget", "not understood"),
        (b"k8s\0\x0a", "malformed"),
        (b"k8s\0\x0a\x7fx", "malformed"),
        (b"k8s\0\x0b", "malformed"),
        (b"k8s\0\x0d\x00", "malformed"),
        # a namespace whose metadata is a number, whose metadata.name is one, whose generation is a string
        (b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x02\x08\x01", "malformed"),
        (b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x04\x0a\x02\x08\x01", "malformed"),
        (b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x05\x0a\x03\x3a\x01x", "malformed"),
        (b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x04\x0a\x02\x40\x01", "malformed"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(body: bytes, why: str) -> None:
    """A body that is not protobuf, not whole, or of a kind without a table is refused, never misread."""
    with pytest.raises(UnsupportedBody, match=why):
        decode(body)


def test_unknown_fields_are_skipped_whatever_their_wire_type() -> None:
    """Fields that a newer client sends do not matter: varint, fixed64, bytes and fixed32."""
    unknown = b"\xf8\x07\x01" + b"\xf9\x07" + bytes(8) + b"\xfa\x07\x01x" + b"\xfd\x07" + bytes(4)
    raw = b"\x0a\x06\x0a\x04demo" + unknown
    body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12" + bytes([len(raw)]) + raw

    assert decode(body)["metadata"] == {"name": "demo"}


def test_lists_that_are_map_values_are_read() -> None:
    """A named list is a message of its own: the groups of a user's extra attributes."""
    extra = b"\x0a\x01k\x12\x06\x0a\x01v\x0a\x01w"
    user = b"\x22" + bytes([len(extra)]) + extra
    status = b"\x0a" + bytes([len(user)]) + user
    raw = b"\x12" + bytes([len(status)]) + status
    meta = b"\x0a\x18authentication.k8s.io/v1\x12\x11SelfSubjectReview"
    body = b"k8s\0\x0a" + bytes([len(meta)]) + meta + b"\x12" + bytes([len(raw)]) + raw

    assert decode(body)["status"]["userInfo"]["extra"] == {"k": ["v", "w"]}


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(noise: bytes) -> None:
    """Whatever follows the prefix is either read or refused."""
    try:
        decode(b"k8s\0" + noise)
    except UnsupportedBody:
        return


def test_the_media_type_is_recognised_with_its_parameters() -> None:
    """Clients may add parameters to the media type."""
    assert is_protobuf("application/vnd.kubernetes.protobuf;charset=utf-8")
    assert not is_protobuf("application/json")
