# SPDX-License-Identifier: Apache-2.0
"""A pod sends from its own addresses only: what a CNI has to see to, and policy rests on.

Egress policy is found by a packet's source. Whoever may write packets by hand (NET_RAW, which containers have unless
it is dropped) could send from an address that is not his, and be judged as somebody else. So each node's namespace
has a table of the lab's own beside the engine's: what comes in over a pod's link from another source is dropped.

With ``azure`` the node's routes know who is where: a source that is not routed back over the link it came from is
false. With ``kubenet`` all pods are behind one bridge, where routes tell nothing: there the pairs of link and address
are listed, a pod's while its gate is open, and ARP is held to them too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from ringfence.errors import HostRefused
from ringfence.host import netns
from ringfence.host.nft import Nft
from ringfence.lab.config import NetworkPlugin
from ringfence.lab.topology import NodePlan, PodPlan, Topology
from ringfence.model.addresses import Address

_ROUTED = """
table inet rf-sources {
  chain pods {
    type filter hook prerouting priority raw; policy accept;
    iifname "azv*" ip6 saddr { ::, fe80::/10 } accept comment "neighbour discovery; never routed"
    iifname "azv*" fib saddr . iif oif missing counter drop comment "not an address of this pod"
  }
}
"""
_BRIDGED = """
table bridge rf-sources {
  set pods-ip { type ifname . ipv4_addr; }
  set pods-ip6 { type ifname . ipv6_addr; }
  chain pods {
    type filter hook prerouting priority -300; policy accept;
    iifname != "veth*" accept
    ether type ip iifname . ip saddr != @pods-ip counter drop comment "not an address of this pod"
    ether type arp arp saddr ip != 0.0.0.0 iifname . arp saddr ip != @pods-ip counter drop comment "not its own"
    ether type ip6 ip6 saddr { ::, fe80::/10 } accept comment "neighbour discovery; never routed"
    ether type ip6 iifname . ip6 saddr != @pods-ip6 counter drop comment "not an address of this pod"
  }
}
"""
_TEXTS: dict[NetworkPlugin, str] = {"azure": _ROUTED, "kubenet": _BRIDGED}


def guard_node(topology: Topology, node: NodePlan) -> None:
    """Make the table of a node that has just been made."""
    with _nft(node) as nft:
        nft.run(_TEXTS[topology.plugin])


def admit(topology: Topology, pod: PodPlan) -> None:
    """Let a pod send from its addresses. Admitted already: nothing to do."""
    if topology.plugin == "kubenet":
        with _nft(pod.node) as nft:
            nft.run("\n".join(f"add element bridge rf-sources {pair}" for pair in _pairs(pod)))


def dismiss(topology: Topology, pod: PodPlan) -> None:
    """Forget a pod's addresses, whatever is known of them."""
    if topology.plugin == "kubenet":
        with _nft(pod.node) as nft:
            for pair in _pairs(pod):
                with contextlib.suppress(HostRefused):  # dismissed already
                    nft.run(f"delete element bridge rf-sources {pair}")


def _pairs(pod: PodPlan) -> Sequence[str]:
    return [f"{_set(address)} {{ {pod.host_interface} . {address} }}" for address in pod.addresses]


def _set(address: Address) -> str:
    return "pods-ip" if address.version == 4 else "pods-ip6"


@contextlib.contextmanager
def _nft(node: NodePlan) -> Iterator[Nft]:
    with netns.enter(node.netns):
        nft = Nft()
    with nft:
        yield nft
