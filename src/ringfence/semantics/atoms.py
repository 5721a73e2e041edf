# SPDX-License-Identifier: Apache-2.0
"""The whole address space of a family, cut at every boundary of every block, so that no block tells a piece apart.

A *family of blocks* (all blocks of one rule's peers) is a bit; every address has the set of bits of the families that
cover it. Pieces with the same bits are one *atom*, however scattered: a rule with a thousand blocks makes two atoms,
not two thousand. Addresses are plain numbers here.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from operator import xor

from ringfence.model.addresses import Address, Block, Network

NumberRange = tuple[int, int]
_BITS = {4: 32, 6: 128}


class Atoms:
    """The atoms of one address family. ``families`` gives the blocks of each bit (a number, from 0)."""

    __slots__ = ("_masks", "_starts", "version")

    def __init__(self, version: int, families: Mapping[int, Iterable[Block]]) -> None:
        flips: dict[int, int] = defaultdict(int)
        flips[0] = 0
        for bit, blocks in families.items():
            for first, last in _union(block_ranges(block) for block in blocks if block.cidr.version == version):
                flips[first] ^= 1 << bit
                flips[last + 1] ^= 1 << bit
        flips.pop(1 << _BITS[version], None)
        self.version = version
        self._starts = sorted(flips)
        self._masks: list[int] = list(accumulate((flips[start] for start in self._starts), xor))

    def mask(self, address: Address) -> int:
        """Return the bits of the families that cover an address."""
        return self._masks[bisect_right(self._starts, int(address)) - 1]

    def members(self) -> dict[int, tuple[NumberRange, ...]]:
        """Return the atoms: the ranges of each set of bits, sorted and as few as possible."""
        found: dict[int, list[NumberRange]] = defaultdict(list)
        ends = [*self._starts[1:], 1 << _BITS[self.version]]
        for first, after, mask in zip(self._starts, ends, self._masks, strict=True):
            found[mask].append((first, after - 1))
        return {mask: tuple(_joined(ranges)) for mask, ranges in found.items()}


def block_ranges(block: Block) -> list[NumberRange]:
    """Return the ranges of addresses that a block covers."""
    first, last = _range(block.cidr)
    left: list[NumberRange] = []
    for hole_first, hole_last in sorted(_range(h) for h in block.exceptions if h.version == block.cidr.version):
        if hole_first > first:
            left.append((first, min(hole_first - 1, last)))
        first = max(first, hole_last + 1)
        if first > last:
            return left
    return [*left, (first, last)]


def networks(version: int, ranges: Iterable[NumberRange]) -> tuple[Network, ...]:
    """Return ranges of numbers as networks."""
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    return tuple(
        network for first, last in ranges for network in ipaddress.summarize_address_range(kind(first), kind(last))
    )


def _range(network: Network) -> NumberRange:
    return int(network.network_address), int(network.broadcast_address)


def _union(groups: Iterable[Iterable[NumberRange]]) -> Iterator[NumberRange]:
    return _joined(sorted(each for group in groups for each in group))


def _joined(ranges: Iterable[NumberRange]) -> Iterator[NumberRange]:
    """Join sorted ranges that overlap or touch."""
    current: NumberRange | None = None
    for first, last in ranges:
        if current is None:
            current = first, last
        elif first <= current[1] + 1:
            current = current[0], max(current[1], last)
        else:
            yield current
            current = first, last
    if current is not None:
        yield current
