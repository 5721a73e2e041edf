# SPDX-License-Identifier: Apache-2.0
"""What a set or a verdict map holds, as values. The set's key tells which.

=====================  ===================  ==============================================
key of the set         element              as nft prints it
=====================  ===================  ==============================================
``ipv4_addr``          an address           ``10.0.0.1``
``ipv4_addr``, spans   (first, last)        ``10.0.0.0/8``, ``10.0.0.1-10.0.0.3``
``… . …``              (address, address)   ``10.0.0.1 . 10.0.0.2``
``inet_service``       a number             ``80``
``inet_service``, …    (first, last)        ``80-90``
=====================  ===================  ==============================================

A text is an element that somebody else put there and that is none of these. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeAlias

from ringfence.dataplanes.nftables import spelling
from ringfence.model.addresses import Address


class Span(NamedTuple):
    """Addresses or ports from the first to the last, both included, as numbers."""

    first: int
    last: int


class Pair(NamedTuple):
    """Two addresses, one after the other."""

    one: Address
    other: Address


Element: TypeAlias = Address | int | Span | Pair | str

PORT = "inet_service"


def text(key: str, element: Element) -> str:
    """Return an element as nft prints it."""
    match element:
        case Span(first, last):
            return f"{first}-{last}" if key == PORT else spelling.span(first, last, 4 if key == "ipv4_addr" else 6)
        case Pair(one, other):
            return f"{one} . {other}"
        case _:
            return str(element)


def texts(key: str, elements: Iterable[Element]) -> list[str]:
    """Return elements as nft prints them, sorted as texts."""
    return sorted(text(key, element) for element in elements)


def merged_spans(ranges: Iterable[tuple[int, int]]) -> frozenset[Element]:
    """Return ranges as the elements of an interval set: disjoint and not touching."""
    return frozenset(Span(first, last) for first, last in spelling.merged(ranges))


def spans_of(elements: Iterable[Element]) -> list[Span]:
    """Return the spans among elements."""
    return [element for element in elements if isinstance(element, Span)]


def spans_of_prefixes(elements: Iterable[Element], length: int) -> frozenset[Element]:
    """Return the spans that begin at addresses and are as long as a prefix length says."""
    return frozenset(
        Span(int(each), int(each) + (1 << (each.max_prefixlen - length)) - 1)
        for each in elements
        if isinstance(each, IPv4Address | IPv6Address)
    )


def covered(elements: frozenset[Element], among: frozenset[Address]) -> AbstractSet[Address]:
    """Return the addresses among some that elements of an address set cover."""
    spans = spans_of(elements)
    if not spans:
        return among & elements
    return {address for address in among if any(first <= int(address) <= last for first, last in spans)}
