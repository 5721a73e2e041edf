# SPDX-License-Identifier: Apache-2.0
"""One spelling for everything that is compared between what we write and what nft prints. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable

MAX_COMMENT = 128  # bytes; nft refuses more (NFTNL_UDATA_COMMENT_MAXLEN)


def named(kind: str, content: Iterable[str], *, salt: int) -> str:
    """Return the name of an object: its kind and a digest of its content."""
    return f"{kind}-{digest((kind, str(salt), *content))}"


def digest(texts: Iterable[str]) -> str:
    """Return 16 hexadecimal digits that stand for texts."""
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def span(first: int, last: int, version: int) -> str:
    """Return a range of addresses as nft prints it: an address, a prefix, or first-last."""
    if first == last:
        return _text(first, version)
    size = last - first + 1
    if size.bit_count() == 1 and first % size == 0:
        return f"{_text(first, version)}/{(32 if version == 4 else 128) - size.bit_length() + 1}"
    return f"{_text(first, version)}-{_text(last, version)}"


def _text(number: int, version: int) -> str:
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges (first and last number, both included) sorted, disjoint, and joined where they touch."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def comment(text: str) -> str:
    """Return a text as a comment that nft takes: one line without quotes, at most 128 bytes.

    A longer one keeps its start and its end, which tell most, around a digest of the whole.
    """
    clean = "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)
    if len(clean) <= MAX_COMMENT:
        return clean
    mark = f"~{hashlib.sha256(text.encode()).hexdigest()[:8]}~"
    end = clean[-32:]
    return clean[: MAX_COMMENT - len(end) - len(mark)] + mark + end
