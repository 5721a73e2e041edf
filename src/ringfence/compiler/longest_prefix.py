# SPDX-License-Identifier: Apache-2.0
"""A map from networks in which an address finds the longest network that contains it: what a kernel's LPM trie does.

One look-up for each length that occurs, longest first.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from typing import Generic, TypeVar

from ringfence.model.addresses import Address, Network

V = TypeVar("V")


class LongestPrefix(Generic[V]):
    """Networks of both families with a value each."""

    def __init__(self, items: Mapping[Network, V] | None = None) -> None:
        self._lengths: dict[int, list[int]] = {4: [], 6: []}  # negative, so that the longest is the first
        self._values: dict[tuple[int, int], dict[int, V]] = {}
        for network, value in (items or {}).items():
            self.put(network, value)

    def put(self, network: Network, value: V) -> None:
        """Set a network's value."""
        length = network.prefixlen
        key = network.version, -length
        if key not in self._values:
            insort(self._lengths[network.version], -length)
            self._values[key] = {}
        self._values[key][_leading(int(network.network_address), network.max_prefixlen, length)] = value

    def drop(self, network: Network) -> None:
        """Take a network out that is in it."""
        length = network.prefixlen
        key = network.version, -length
        values = self._values[key]
        del values[_leading(int(network.network_address), network.max_prefixlen, length)]
        if not values:
            self._lengths[network.version].remove(-length)
            del self._values[key]

    def find(self, address: Address) -> V | None:
        """Return the value of the longest network that contains an address, None if there is none."""
        return self._find(int(address), address.version, address.max_prefixlen, address.max_prefixlen)

    def above(self, network: Network) -> V | None:
        """Return the value of the longest network that contains a network and is not the network itself."""
        width = network.max_prefixlen
        return self._find(int(network.network_address), network.version, width, network.prefixlen - 1)

    def _find(self, bits: int, version: int, width: int, longest: int) -> V | None:
        for negative in self._lengths[version]:
            if -negative <= longest:
                found = self._values[version, negative].get(bits >> (width + negative))
                if found is not None:
                    return found
        return None


def _leading(bits: int, width: int, length: int) -> int:
    return bits >> (width - length)
