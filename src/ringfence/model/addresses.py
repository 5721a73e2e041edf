# SPDX-License-Identifier: Apache-2.0
"""Addresses and address blocks of both families, and the one subtraction that ``except`` needs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network_order(network: Network) -> tuple[int, int, int]:
    """Sort key for networks of both families: family, then address, then length."""
    return network.version, int(network.network_address), network.prefixlen


def address_order(address: Address) -> tuple[int, int]:
    """Sort key for addresses of both families: family, then number."""
    return address.version, int(address)


def contains(network: Network, address: Address) -> bool:
    """Tell whether an address lies in a network; never across families (``0.0.0.0/0`` is not ``::/0``)."""
    return network.version == address.version and address in network


@dataclass(frozen=True, slots=True)
class Block:
    """A CIDR with its exceptions: one ``ipBlock``.

    The exceptions carve only this block: another peer or policy may allow the same addresses again (SEMANTICS 16).
    Exceptions of the other family, or outside of the CIDR, carve nothing.
    """

    cidr: Network
    exceptions: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "exceptions", tuple(sorted(set(self.exceptions), key=network_order)))

    def contains(self, address: Address) -> bool:
        """Tell whether the block covers an address: inside the CIDR and in none of its exceptions."""
        return contains(self.cidr, address) and not any(contains(hole, address) for hole in self.exceptions)

    def networks(self) -> tuple[Network, ...]:
        """Return the disjoint networks that the block covers, sorted; empty if the exceptions take all of it."""
        return subtract(self.cidr, self.exceptions)

    def __str__(self) -> str:
        if not self.exceptions:
            return str(self.cidr)
        return f"{self.cidr} except {', '.join(map(str, self.exceptions))}"


def subtract(network: Network, holes: Iterable[Network]) -> tuple[Network, ...]:
    """Return what is left of a network without the holes: disjoint, sorted, as few networks as possible."""
    left: list[Network] = [network]
    for hole in holes:
        left = [piece for part in left for piece in _without(part, hole)]
    return tuple(sorted(left, key=network_order))


def _without(network: Network, hole: Network) -> Iterable[Network]:
    match network, hole:
        case ipaddress.IPv4Network(), ipaddress.IPv4Network():
            if network.subnet_of(hole):
                return ()
            return network.address_exclude(hole) if hole.subnet_of(network) else (network,)
        case ipaddress.IPv6Network(), ipaddress.IPv6Network():
            if network.subnet_of(hole):
                return ()
            return network.address_exclude(hole) if hole.subnet_of(network) else (network,)
        case _:
            return (network,)
