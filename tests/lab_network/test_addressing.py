# SPDX-License-Identifier: Apache-2.0
"""Which addresses nodes, pods and Services have, and that a released one is not handed out again soon."""

from __future__ import annotations

import ipaddress
import itertools
import threading

import pytest

from ringfence.errors import UsageError
from ringfence.lab.addressing import API_SERVER, MOST_NODES, SERVICE_NETWORKS, AddressPool, node_addresses, pod_networks
from ringfence.lab.config import NetworkPlugin
from ringfence.model.addresses import Address, Network
from tests.lab_network.networks import PLUGINS, addresses

each_plugin = pytest.mark.parametrize("plugin", PLUGINS)


def _pool(plugin: NetworkPlugin = "azure") -> AddressPool:
    return AddressPool(plugin, pod_networks(plugin, 0))


def test_nodes_and_pods_have_the_addresses_of_aks() -> None:
    """The numbers that the document shows: pods of the nodes' network with azure, of 10.244/16 with kubenet."""
    assert node_addresses("azure", 1) == addresses("10.224.1.4", "fd00:10:224:1::4")
    assert node_addresses("kubenet", 1) == addresses("10.224.0.5", "fd00:10:224::5")
    assert _pool("azure").allocate() == addresses("10.224.0.5", "fd00:10:224::5")
    assert _pool("kubenet").allocate() == addresses("10.244.0.2", "fd00:10:244::2")


@each_plugin
def test_no_two_things_of_a_full_lab_have_the_same_address(plugin: NetworkPlugin) -> None:
    """Nodes, blocks of pods, the API server and Services: disjoint for every number of nodes that a lab may have."""
    hosts: list[Address] = [*API_SERVER, *(a for i in range(MOST_NODES) for a in node_addresses(plugin, i))]
    blocks: list[Network] = [*SERVICE_NETWORKS, *(n for i in range(MOST_NODES) for n in pod_networks(plugin, i))]
    assert len(set(hosts)) == len(hosts)
    assert len(set(blocks)) == len(blocks)
    for address in API_SERVER:
        assert not any(address.version == block.version and address in block for block in blocks)
    for version in (4, 6):
        same = sorted((block for block in blocks if block.version == version), key=lambda block: int(block[0]))
        assert all(int(one[-1]) < int(two[0]) for one, two in itertools.pairwise(same))


@each_plugin
def test_a_pool_never_hands_out_a_nodes_or_gateways_address(plugin: NetworkPlugin) -> None:
    """All pods of a full node have addresses of their own, none of them special."""
    pool = _pool(plugin)
    special = {*node_addresses(plugin, 0), *(network[1] for network in pod_networks(plugin, 0))}
    count = {"azure": 250, "kubenet": 253}[plugin]
    seen = {address for _ in range(count) for address in pool.allocate()}
    assert len(seen) == 2 * count
    with pytest.raises(UsageError, match=rf"all {count} pod addresses of 10\.2.4\.0\.0/24 are in use"):
        pool.allocate()
    assert not seen & special
    assert ipaddress.ip_network("10.224.0.0/16")[255] not in seen


def test_a_released_address_is_the_last_to_be_used_again() -> None:
    """Addresses go round in a circle."""
    pool = _pool()
    first = pool.allocate()
    pool.release(first)
    later = [pool.allocate() for _ in range(249)]
    assert first not in later
    assert pool.allocate() == first


def test_a_pool_knows_of_pods_that_were_there_before_it() -> None:
    """After a restart, held addresses are not handed out, and the circle goes on behind them."""
    pool = _pool()
    pool.hold(addresses("10.224.0.9", "fd00:10:224::9"))
    pool.hold(addresses("192.168.1.1"))  # of another network: nothing to hold
    assert pool.allocate() == addresses("10.224.0.10", "fd00:10:224::a")
    rest = [pool.allocate() for _ in range(248)]
    assert addresses("10.224.0.9", "fd00:10:224::9") not in rest
    pool.release(addresses("10.224.0.9"))
    assert pool.allocate() == addresses("10.224.0.9", "fd00:10:224::9")


def test_threads_never_get_the_same_address() -> None:
    """Kubelets allocate at the same time."""
    pool = _pool()
    got: list[tuple[Address, ...]] = []
    threads = [threading.Thread(target=lambda: got.extend(pool.allocate() for _ in range(50))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 250
