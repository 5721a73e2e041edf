# SPDX-License-Identifier: Apache-2.0
"""Which addresses a lab's nodes, pods and services have, and which pod gets the next one.

The numbers copy AKS. ``azure``: pods take addresses of the nodes' own network, and so that one route per node is
enough, node *i* owns the block 10.224.i.0/24. ``kubenet``: nodes share 10.224.0.0/24, and each has a block of
10.244.0.0/16 for its pods. IPv6 mirrors it digit by digit: node 12 is 10.224.12.4 and fd00:10:224:12::4.
Names and links are ``topology``'s.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Sequence

from ringfence.errors import UsageError
from ringfence.lab.config import NetworkPlugin
from ringfence.model.addresses import Address, Network

MOST_NODES = 200
FIRST_NODE_HOST = 4  # Azure keeps the first hosts of a subnet for itself
API_SERVER: tuple[Address, ...] = (ipaddress.ip_address("10.224.255.254"), ipaddress.ip_address("fd00:10:224:ff::fffe"))
SERVICE_NETWORKS: tuple[Network, ...] = (ipaddress.ip_network("10.0.0.0/16"), ipaddress.ip_network("fd00:10::/112"))
_LAST_POD_HOST = 254


def node_addresses(plugin: NetworkPlugin, index: int) -> tuple[Address, ...]:
    """Return the IPv4 and the IPv6 address of node ``index`` (from 0)."""
    if plugin == "azure":
        texts = f"10.224.{index}.{FIRST_NODE_HOST}", f"fd00:10:224:{index}::{FIRST_NODE_HOST}"
    else:
        texts = f"10.224.0.{FIRST_NODE_HOST + index}", f"fd00:10:224::{FIRST_NODE_HOST + index}"
    return tuple(ipaddress.ip_address(text) for text in texts)


def pod_networks(plugin: NetworkPlugin, index: int) -> tuple[Network, ...]:
    """Return the IPv4 and the IPv6 block that pods of node ``index`` (from 0) get their addresses from."""
    second = 224 if plugin == "azure" else 244
    return (
        ipaddress.ip_network(f"10.{second}.{index}.0/24"),
        ipaddress.ip_network(f"fd00:10:{second}:{index}::/64"),
    )


def first_pod_host(plugin: NetworkPlugin) -> int:
    """Return the number in a block of the first pod: after the node itself, or after the bridge's gateway."""
    return FIRST_NODE_HOST + 1 if plugin == "azure" else 2


class AddressPool:
    """The pod addresses of one node: one of each family for a pod, the same host number in every block.

    Addresses are handed out in a circle, so one that was released stays unused for as long as possible: a packet, or a
    policy, that is still on its way must not meet another pod there (SEMANTICS 29). May be used from several threads.
    """

    def __init__(self, plugin: NetworkPlugin, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)
        self._first = first_pod_host(plugin)
        self._next = self._first
        self._held: set[int] = set()
        self._lock = threading.Lock()

    def allocate(self) -> tuple[Address, ...]:
        """Return free addresses, one for each block in order. Raises ``UsageError`` if all are in use."""
        with self._lock:
            for offset in range(_LAST_POD_HOST - self._first + 1):
                host = self._wrap(self._next + offset)
                if host not in self._held:
                    self._held.add(host)
                    self._next = self._wrap(host + 1)
                    return tuple(network[host] for network in self._networks)
        raise UsageError(
            f"all {len(self._held)} pod addresses of {self._networks[0]} are in use; delete pods or add nodes"
        )

    def hold(self, addresses: Sequence[Address]) -> None:
        """Count addresses as in use: a pod that was there before this pool has them."""
        with self._lock:
            for host in self._hosts(addresses):
                self._held.add(host)
                self._next = self._wrap(host + 1)

    def release(self, addresses: Sequence[Address]) -> None:
        """Give addresses back. Foreign ones, and ones that are free already, are nothing to do."""
        with self._lock:
            self._held.difference_update(self._hosts(addresses))

    def _wrap(self, host: int) -> int:
        return self._first + (host - self._first) % (_LAST_POD_HOST - self._first + 1)

    def _hosts(self, addresses: Sequence[Address]) -> set[int]:
        return {
            int(address) - int(network.network_address)
            for address in addresses
            for network in self._networks
            if address.version == network.version and address in network
        }
