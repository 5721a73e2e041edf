# SPDX-License-Identifier: Apache-2.0
"""Makes a lab's network: namespaces, links, addresses and routes, as ``topology`` plans and ``topology_state`` spells.

Everything happens in namespaces of the lab; the machine's own is never written to. All functions are synchronous, quick
(a pod takes about a millisecond) and may be called from any thread, for different pods at the same time. They keep
nothing in memory: what there is, the kernel knows, and everything is found again by its name.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from ringfence.errors import HostLacks, HostRefused, UsageError
from ringfence.host import netns
from ringfence.lab import engines, rtnetlink, sources, topology_state
from ringfence.lab.rtnetlink import Request, RouteSocket
from ringfence.lab.topology import BRIDGE, PREFIX, UPLINK, ExternalPlan, NodePlan, PodPlan, Topology, lab_of
from ringfence.lab.topology_state import GATEWAY_MAC, RouteKind, Settings, State
from ringfence.model.addresses import Address

_UPLINK_INDEX = 2  # the first link of a namespace after lo
_READY_TIMEOUT = 5.0  # seconds; it takes a millisecond, and one second at the very most
_ROUTE_KINDS = {
    RouteKind.UNICAST: rtnetlink.UNICAST,
    RouteKind.UNREACHABLE: rtnetlink.UNREACHABLE,
    RouteKind.BLACKHOLE: rtnetlink.BLACKHOLE,
}


def build(topology: Topology) -> None:
    """Make the fabric and the nodes of a lab. Raises, and leaves nothing, if anything fails or something is left over
    from a lab of the same name.
    """
    left = leftovers(topology.lab)
    if left:
        raise UsageError(
            f'lab "{topology.lab}" has namespaces already ({left[0]}, …); '
            f'remove them first: "ringfence lab down --name {topology.lab}"'
        )
    try:
        netns.create(topology.fabric_netns)
        with _inside(topology.fabric_netns) as route:
            state = topology_state.fabric_state(topology)
            _apply_settings(state.settings)
            route.send([rtnetlink.link_up(rtnetlink.LOOPBACK), *_requests(state)])
        for node in topology.nodes:
            _build_node(topology, node)
        with _inside(topology.fabric_netns) as route:
            for node in topology.nodes:
                up = rtnetlink.link_up(socket.if_nametoindex(node.fabric_interface))
                route.send([up, *_requests(topology_state.fabric_link_state(node))])
            _wait_for_addresses(route, topology.apiserver_addresses)
        for node in topology.nodes:
            own = [held.address for held in topology_state.node_state(topology, node).addresses]
            _wait_for_uplink(node.netns, own)
    except BaseException:
        destroy(topology.lab)
        raise


def destroy(lab: str) -> None:
    """Take the names of all of a lab's namespaces away, also of a lab that was killed, and what engines hold in them.

    The kernel ends a namespace with the last process in it: those are the caller's to end, before.
    """
    for name in leftovers(lab):
        if netns.exists(name):
            engines.forget(name)
        netns.delete(name)


def leftovers(lab: str) -> list[str]:
    """Return the names of all namespaces of a lab, sorted: what is there of it."""
    return [name for name in netns.listing(f"{PREFIX}-{lab}-") if lab_of(name) == lab]


def add_pod(topology: Topology, pod: PodPlan) -> None:
    """Make a pod's namespace with its link and addresses. The gate is closed: the node's end is down, nothing passes.

    Raises ``HostRefused`` if it is there already.
    """
    netns.create(pod.netns)
    try:
        _attach(
            pod.netns,
            topology_state.pod_state(topology, pod),
            mac=pod.mac,
            peer=pod.host_interface,
            peer_netns=pod.node.netns,
        )
        through_fabric = topology_state.fabric_pod_state(pod)
        if through_fabric.routes:
            with _inside(topology.fabric_netns) as route:
                route.send(_requests(through_fabric))
    except BaseException:
        remove_pod(topology, pod)
        raise


def open_pod(topology: Topology, pod: PodPlan) -> None:
    """Open a pod's gate: its link is up on the node and packets flow. Open already: nothing to do."""
    sources.admit(topology, pod)
    with _inside(pod.node.netns) as route:
        index = _index(pod.host_interface)
        if topology.plugin == "kubenet":
            up = [rtnetlink.link_up(index, master=_index(BRIDGE)), rtnetlink.hairpin(index)]
        else:
            up = [rtnetlink.link_up(index, proxy_arp=True)]
        route.send([*up, *_requests(topology_state.opening(topology, pod))])
        if topology.plugin == "kubenet":
            bridge = _index(BRIDGE)  # which carries nothing before its first port does
            _wait_until(partial(route.carries, bridge), f"bridge {BRIDGE} of {pod.node.name}")
        for held in topology_state.opening(topology, pod).addresses:
            _wait_until(partial(route.delivers, held.address, index), f"address {held.address} on {held.device}")
    _wait_for_uplink(pod.netns, pod.addresses)


def close_pod(topology: Topology, pod: PodPlan) -> None:
    """Close a pod's gate: nothing passes any more, in either direction. Closed already: nothing to do."""
    with _inside(pod.node.netns) as route:
        route.send([rtnetlink.link_down(_index(pod.host_interface)), *_undoing(topology_state.opening(topology, pod))])
    sources.dismiss(topology, pod)


def remove_pod(topology: Topology, pod: PodPlan) -> None:
    """Remove a pod's network, whatever is there of it. Processes in its namespace are the caller's to end, before.

    On return no packet passes and all names and routes are free; the kernel takes the links a moment later, by itself
    (to wait for that takes 40 ms a pod).
    """
    if netns.exists(pod.node.netns):
        with _inside(pod.node.netns) as route:
            _abandon(route, pod.host_interface)
            opening = topology_state.opening(topology, pod)
            learnt = topology_state.learnt(topology, pod)
            route.send(_undoing(replace(opening, neighbours=(*opening.neighbours, *learnt))))
        sources.dismiss(topology, pod)
    through_fabric = topology_state.fabric_pod_state(pod)
    if through_fabric.routes and netns.exists(topology.fabric_netns):
        with _inside(topology.fabric_netns) as route:
            route.send(_undoing(through_fabric))
    netns.delete(pod.netns)


def add_external(topology: Topology, external: ExternalPlan) -> None:
    """Make a host outside of the cluster: a namespace on the fabric that is reached at any addresses at once."""
    netns.create(external.netns)
    try:
        state = topology_state.external_state(external)
        peer = external.fabric_interface
        _attach(external.netns, state, mac=external.mac, peer=peer, peer_netns=topology.fabric_netns)
        with _inside(topology.fabric_netns) as route:
            up = rtnetlink.link_up(_index(peer))
            route.send([up, *_requests(topology_state.fabric_external_state(external))])
        _wait_for_uplink(external.netns, external.addresses)
    except BaseException:
        remove_external(topology, external)
        raise


def remove_external(topology: Topology, external: ExternalPlan) -> None:
    """Remove a host outside of the cluster, whatever is there of it, in the way of ``remove_pod``."""
    if netns.exists(topology.fabric_netns):
        with _inside(topology.fabric_netns) as route:
            _abandon(route, external.fabric_interface)
    netns.delete(external.netns)


def _build_node(topology: Topology, node: NodePlan) -> None:
    state = topology_state.node_state(topology, node)
    links = []
    if topology.plugin == "kubenet":
        links.append(rtnetlink.new_bridge(BRIDGE, mac=node.bridge_mac))
    netns.create(node.netns)
    _attach(
        node.netns, state, mac=node.mac, peer=node.fabric_interface, peer_netns=topology.fabric_netns, extra_links=links
    )
    sources.guard_node(topology, node)


def _attach(
    name: str, state: State, *, mac: str, peer: str, peer_netns: str, extra_links: Sequence[Request] = ()
) -> None:
    """Hang a namespace on another one by a veth and write its state; the other end stays down."""
    descriptor = os.open(netns.path(peer_netns), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _inside(name) as route:
            _apply_settings(state.settings)
            veth = rtnetlink.new_veth(
                UPLINK, index=_UPLINK_INDEX, mac=mac, peer=peer, peer_mac=GATEWAY_MAC, peer_netns=descriptor
            )
            up = [rtnetlink.link_up(index) for index in (rtnetlink.LOOPBACK, _UPLINK_INDEX)]
            route.send([veth, *up, *extra_links])
            route.send([rtnetlink.link_up(_index(BRIDGE))] if extra_links else [])
            route.send(_requests(state))
    finally:
        os.close(descriptor)


def _wait_for_uplink(name: str, own: Sequence[Address]) -> None:
    """Wait until packets leave and reach a namespace: until then they are lost, and a lost SYN costs a second."""
    with _inside(name) as route:
        _wait_until(partial(route.carries, _UPLINK_INDEX), f"the link of {name}")
        _wait_for_addresses(route, own)


def _wait_for_addresses(route: RouteSocket, own: Sequence[Address]) -> None:
    for address in own:
        _wait_until(partial(route.delivers, address), f"address {address}")


def _wait_until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT
    while not ready():
        if time.monotonic() > deadline:
            raise HostRefused(f"{what} did not come up within {_READY_TIMEOUT:.0f} s", asked=what, answered="")
        time.sleep(0.0005)


def _abandon(route: RouteSocket, name: str) -> None:
    """Set a link down for ever, and free its name: the kernel deletes it when the namespace of the other end ends."""
    with suppress(OSError, HostRefused):  # not there, or not there any more
        index = socket.if_nametoindex(name)
        route.send([rtnetlink.link_down(index), rtnetlink.rename(index, f"gone{index}")])


@contextmanager
def _inside(name: str) -> Iterator[RouteSocket]:
    with netns.enter(name), RouteSocket() as route:
        yield route


def _requests(state: State) -> list[Request]:
    """Return what writes a state, once its links are up; to be called in the state's own namespace."""
    return [
        *(rtnetlink.new_address(_index(held.device), held.address, held.length) for held in state.addresses),
        *(rtnetlink.new_neighbour(_index(n.device), n.address, n.mac) for n in state.neighbours),
        *(
            rtnetlink.new_route(
                route.destination,
                index=0 if route.device is None else _index(route.device),
                gateway=route.gateway,
                kind=_ROUTE_KINDS[route.kind],
            )
            for route in state.routes
        ),
    ]


def _undoing(state: State) -> list[Request]:
    """Return what takes a state's neighbours and routes away; those on links that are gone went with them."""
    present = {name: index for index, name in socket.if_nameindex()}
    return [
        *(
            rtnetlink.neighbour_delete(present[n.device], n.address, n.mac)
            for n in state.neighbours
            if n.device in present
        ),
        *(
            rtnetlink.route_delete(route.destination, index=present[route.device], gateway=route.gateway)
            for route in state.routes
            if route.device is not None and route.device in present
        ),
    ]


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise HostRefused(
            f"there is no link {name} in this namespace", asked=f"index of {name}", answered=error.strerror or ""
        ) from error


def _apply_settings(settings: Settings) -> None:
    """Write settings under /proc/sys, where a thread sees those of the network namespace that it is in."""
    for name, value in settings:
        path = Path("/proc/sys") / name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _lacking(name) from None
        try:
            os.write(descriptor, value.encode())
        except OSError as error:
            raise HostRefused(
                f"the kernel refused to set {path}", asked=f"{path} = {value}", answered=error.strerror or ""
            ) from error
        finally:
            os.close(descriptor)


def _lacking(setting: str) -> HostLacks:
    if setting.startswith("net/bridge/"):
        return HostLacks(
            "this kernel has no bridge netfilter, which kubenet needs",
            remedy="load it (modprobe br_netfilter), or use --network-plugin azure",
        )
    if setting.startswith("net/ipv6/"):
        return HostLacks("this kernel has no IPv6", remedy="boot it without ipv6.disable=1")
    return HostLacks(f"this kernel has no setting {setting.replace('/', '.')}", remedy="use a newer kernel")
