# SPDX-License-Identifier: Apache-2.0
"""The Service proxy of one node: what kube-proxy does, as one nftables table of our own in the node's namespace.

``render`` is pure: Services and EndpointSlices, read by ``proxy_services``, to nft's language. New connections from
pods and from the node itself are translated before policy sees them: policy is judged on the pod's own address and
target port (SEMANTICS 31). No packet is marked: which connection needs a node's address as its source is told by what
conntrack remembers of the destination that the client asked for.

The whole table is replaced in one transaction. Policy may not be changed so (a flow might be judged by neither the old
nor the new rules); here a new connection in that instant at worst meets no translation, and tries again.

Not here: external and load balancer addresses, node ports on loopback, topology hints. Session affinity chooses by a
hash of the client's address: it holds while the endpoints stay the same, and its timeout is not kept. A node port with
traffic policy ``Local`` is local for the node's own clients too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ringfence.host import netns
from ringfence.host.nft import Nft
from ringfence.lab.proxy_services import PROTOCOLS, Backend, Object, ServicePort, service_ports

TABLE = "inet rf-proxy"

_FAMILIES = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}
_MOST_OF_A_COMMENT = 120  # characters; nftables takes 128 bytes

# Where packets meet the table. The filter chains stand after policy (priority 0): a client that policy keeps from a
# Service learns nothing about the Service's endpoints.
_HOOKS = """
  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject
  }
  chain services {
    ip daddr . meta l4proto . th dport vmap @cluster-ip
    ip6 daddr . meta l4proto . th dport vmap @cluster-ip6
    ip daddr != 127.0.0.0/8 fib daddr type local meta l4proto . th dport vmap @node-port-ip
    ip6 daddr != ::1 fib daddr type local meta l4proto . th dport vmap @node-port-ip6
  }
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    jump services
  }
  chain output {
    type nat hook output priority -100; policy accept;
    jump services
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ct status dnat ip saddr . ip daddr @hairpin-ip masquerade comment "a pod that reached itself"
    ct status dnat ip6 saddr . ip6 daddr @hairpin-ip6 masquerade comment "a pod that reached itself"
    ct status dnat ct original ip daddr != @service-ip jump node-port-source-ip
    ct status dnat ct original ip6 daddr != @service-ip6 jump node-port-source-ip6
  }
  chain unserved {
    ip daddr . meta l4proto . th dport vmap @unserved-ip
    ip6 daddr . meta l4proto . th dport vmap @unserved-ip6
  }
  chain filter-forward {
    type filter hook forward priority 10; policy accept;
    ct state new jump unserved
  }
  chain filter-output {
    type filter hook output priority 10; policy accept;
    ct state new jump unserved
  }
  chain filter-input {
    type filter hook input priority 10; policy accept;
    ct state new meta nfproto ipv4 meta l4proto . th dport vmap @unserved-node-port-ip
    ct state new meta nfproto ipv6 meta l4proto . th dport vmap @unserved-node-port-ip6
  }
"""


class ServiceProxy:
    """The proxy of one node: keeps the table in the node's namespace as ``render`` says.

    ``netns_name`` is the namespace of the node called ``node``.
    """

    def __init__(self, netns_name: str, node: str) -> None:
        with netns.enter(netns_name):
            self._nft = Nft()
        self._node = node
        self._text = ""

    def apply(self, services: Iterable[Object], slices: Iterable[Object]) -> bool:
        """Put Services and EndpointSlices in force, all that there are; False if nothing had to change.

        Raises ``HostRefused``; what was in force then stays.
        """
        text = render(services, slices, self._node)
        if text == self._text:
            return False
        self._nft.run(text)
        self._text = text
        return True

    def close(self) -> None:
        """Give the handle back; the table stays in force."""
        self._nft.close()


def render(services: Iterable[Object], slices: Iterable[Object], node: str) -> str:
    """Return the transaction that puts exactly these Services in force on a node, in nft's language.

    The same objects give the same text, in whatever order they come.
    """
    ports = service_ports(services, slices, node)
    lines = [f"add table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
    for family in _FAMILIES:
        lines += _collections(family, [port for port in ports if port.family == family])
        lines += _node_port_source(family)
    for port in ports:
        lines += _chains(port)
    return "\n".join(lines) + _HOOKS + "}\n"


def _collections(family: str, ports: Sequence[ServicePort]) -> Iterator[str]:
    """Write one family's sets and maps: which destinations are Services, and what becomes of them."""
    address = _FAMILIES[family]
    where, who = f"{address} . inet_proto . inet_service", "inet_proto . inet_service"
    on_node = [port for port in ports if port.node_port]
    served = [port for port in ports if _internal(port)]
    served_on_node = [port for port in on_node if _external(port)]
    pods = {backend.address for port in ports for backend in port.backends if backend.local}
    yield from _collection(
        f"map cluster-{family}",
        f"{where} : verdict",
        (f"{_destination(p)} : goto {_internal_chain(p)}" for p in served),
    )
    yield from _collection(
        f"map unserved-{family}",
        f"{where} : verdict",
        (f"{_destination(p)} : {_refusal(p)}" for p in ports if not _internal(p)),
    )
    yield from _collection(
        f"map node-port-{family}",
        f"{who} : verdict",
        (f"{p.protocol} . {p.node_port} : goto {_external_chain(p)}" for p in served_on_node),
    )
    yield from _collection(
        f"map unserved-node-port-{family}",
        f"{who} : verdict",
        (f"{p.protocol} . {p.node_port} : {_refusal(p)}" for p in on_node if not _external(p)),
    )
    yield from _collection(f"set service-{family}", address, {p.cluster_ip for p in ports})
    yield from _collection(
        f"set masquerade-{family}",
        who,
        (f"{p.protocol} . {p.node_port}" for p in served_on_node if not p.only_local_external),
    )
    yield from _collection(f"set hairpin-{family}", f"{address} . {address}", (f"{pod} . {pod}" for pod in pods))


def _collection(head: str, kind: str, elements: Iterable[str]) -> Iterator[str]:
    yield f"  {head} {{"
    yield f"    type {kind}"
    listed = sorted(elements)
    if listed:
        yield "    elements = {"
        yield from (f"      {element}," for element in listed)
        yield "    }"
    yield "  }"


def _node_port_source(family: str) -> Iterator[str]:
    """Write the chain that gives connections to a node port the node's address, so that answers come back this way."""
    yield f"  chain node-port-source-{family} {{"
    for protocol in PROTOCOLS.values():  # nft must know the protocol before it takes ports from conntrack
        yield f"    meta l4proto {protocol} meta l4proto . ct original proto-dst @masquerade-{family} masquerade"
    yield "  }"


def _chains(port: ServicePort) -> Iterator[str]:
    """Write the chains that choose a backend: one, or two where ClusterIP and node port choose among different ones."""
    chosen = {}
    if _internal(port):
        chosen[_internal_chain(port)] = _internal(port)
    if port.node_port and _external(port):
        chosen[_external_chain(port)] = _external(port)
    for chain, backends in chosen.items():
        yield f"  chain {chain} {{"
        yield f'    meta l4proto {port.protocol} {_translation(port, backends)} comment "{_comment(port)}"'
        yield "  }"


def _translation(port: ServicePort, backends: Sequence[Backend]) -> str:
    if len(backends) == 1:
        host = f"[{backends[0].address}]" if port.family == "ip6" else backends[0].address
        return f"dnat {port.family} to {host}:{backends[0].port}"
    choice = f"jhash {port.family} saddr" if port.sticky else "numgen random"
    targets = ", ".join(f"{number} : {b.address} . {b.port}" for number, b in enumerate(backends))
    return f"dnat {port.family} addr . port to {choice} mod {len(backends)} map {{ {targets} }}"


def _internal(port: ServicePort) -> tuple[Backend, ...]:
    return port.reachable(only_local=port.only_local_internal)


def _external(port: ServicePort) -> tuple[Backend, ...]:
    return port.reachable(only_local=port.only_local_external)


def _internal_chain(port: ServicePort) -> str:
    return f"service-{port.digest}"


def _external_chain(port: ServicePort) -> str:
    return _internal_chain(port) if _external(port) == _internal(port) else f"node-port-{port.digest}"


def _destination(port: ServicePort) -> str:
    return f"{port.cluster_ip} . {port.protocol} . {port.port}"


def _refusal(port: ServicePort) -> str:
    """Refuse where there is no endpoint at all; lose where there are some, but none on this node (as kube-proxy)."""
    return "drop" if port.backends else "goto refuse"


def _comment(port: ServicePort) -> str:
    return re.sub(r"[^a-zA-Z0-9:/._-]", "", port.name)[:_MOST_OF_A_COMMENT]
