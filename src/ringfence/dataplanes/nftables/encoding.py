# SPDX-License-Identifier: Apache-2.0
"""Changes of elements as the kernel takes them over netlink: keys in network order, spans by their ends."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from ringfence.dataplanes.nftables import elements
from ringfence.dataplanes.nftables.changes import Change
from ringfence.dataplanes.nftables.elements import Element, Pair, Span
from ringfence.dataplanes.nftables.layout import TABLE
from ringfence.host.nft_elements import Element as Encoded
from ringfence.host.nft_elements import ElementChange

_BYTES = {"ipv4_addr": 4, "ipv6_addr": 16, elements.PORT: 2}


def encode(change: Change) -> ElementChange:
    """Return a change of one set or map for ``host.nft``."""
    found = [part for element, verdict in change.elements for part in _encoded(change.key, element, verdict)]
    return ElementChange(change.adds, TABLE, change.name, found)


def _encoded(key: str, element: Element, verdict: str) -> Iterator[Encoded]:
    """Return an element: a span as where it begins and where the next could."""
    match element:
        case IPv4Address() | IPv6Address():
            yield Encoded(element.packed, verdict)
        case int():
            yield Encoded(element.to_bytes(_BYTES[key]), verdict)
        case Span(first, last):
            size = _BYTES[key]
            yield Encoded(first.to_bytes(size), verdict)
            if last + 1 < 1 << 8 * size:
                yield Encoded((last + 1).to_bytes(size), ends=True)
        case Pair(one, other):
            yield Encoded(one.packed + other.packed, verdict)
        case _:
            raise TypeError(f"not an element of ours: {element!r}")
