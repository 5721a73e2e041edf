# SPDX-License-Identifier: Apache-2.0
"""Pods, Namespaces and Nodes (core/v1): the few fields that policy needs, and the cluster that they make up.

The wire structs hold only what is used; everything else in an object is skipped while decoding (20,000 pods in a
fraction of a second). ``build_cluster`` decides who counts as an endpoint and who holds an address; it takes objects
in any order, and the same objects always make the same cluster.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import msgspec

from ringfence.apis.fields import TYPE_INVALID
from ringfence.apis.meta import OBJECT_META
from ringfence.apis.shapes import conform
from ringfence.errors import FieldError, InvalidObject
from ringfence.model.addresses import Address, Network
from ringfence.model.cluster import Cluster, ContainerPort, Endpoint, Namespace, Node, PodKey
from ringfence.model.labels import Labels
from ringfence.model.ports import LAST_PORT, Protocol

NAME_LABEL = "kubernetes.io/metadata.name"
_NOBODYS = (ipaddress.ip_address("198.18.0.0"), ipaddress.ip_address("2001:db8:198:18::"))
_FINISHED = frozenset({"Succeeded", "Failed"})
_PROTOCOLS = {protocol.value: protocol for protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP)}


class ObjectMeta(msgspec.Struct, gc=False):
    """The part of an object's metadata that policy needs."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    creationTimestamp: str | None = None  # noqa: N815 - the wire's name


class PodPort(msgspec.Struct, gc=False):
    """A port that a container declares."""

    containerPort: int = 0  # noqa: N815 - the wire's name
    name: str | None = None
    protocol: str | None = None


class Container(msgspec.Struct, gc=False):
    """A container, or an init container."""

    ports: list[PodPort] | None = None
    restartPolicy: str | None = None  # noqa: N815 - the wire's name


class PodSpec(msgspec.Struct, gc=False):
    """What a pod asked for."""

    nodeName: str | None = None  # noqa: N815 - the wire's name
    hostNetwork: bool | None = None  # noqa: N815 - the wire's name
    containers: list[Container] | None = None
    initContainers: list[Container] | None = None  # noqa: N815 - the wire's name


class PodIP(msgspec.Struct, gc=False):
    """One address of a pod."""

    ip: str | None = None


class PodStatus(msgspec.Struct, gc=False):
    """What a pod got."""

    phase: str | None = None
    podIP: str | None = None  # noqa: N815 - the wire's name
    podIPs: list[PodIP] | None = None  # noqa: N815 - the wire's name


def _pod_spec() -> PodSpec:
    return PodSpec()


def _pod_status() -> PodStatus:
    return PodStatus()


class Pod(msgspec.Struct, gc=False):
    """A Pod."""

    metadata: ObjectMeta
    spec: PodSpec = msgspec.field(default_factory=_pod_spec)
    status: PodStatus = msgspec.field(default_factory=_pod_status)


class NamespaceObject(msgspec.Struct, gc=False):
    """A Namespace."""

    metadata: ObjectMeta


class NodeAddress(msgspec.Struct, gc=False):
    """One address of a node: InternalIP, ExternalIP, or a name."""

    address: str = ""


class NodeSpec(msgspec.Struct, gc=False):
    """What a node was given."""

    podCIDR: str | None = None  # noqa: N815 - the wire's name
    podCIDRs: list[str] | None = None  # noqa: N815 - the wire's name


class NodeStatus(msgspec.Struct, gc=False):
    """What a node reports."""

    addresses: list[NodeAddress] | None = None


def _node_spec() -> NodeSpec:
    return NodeSpec()


def _node_status() -> NodeStatus:
    return NodeStatus()


class NodeObject(msgspec.Struct, gc=False):
    """A Node."""

    metadata: ObjectMeta
    spec: NodeSpec = msgspec.field(default_factory=_node_spec)
    status: NodeStatus = msgspec.field(default_factory=_node_status)


_Object = TypeVar("_Object", Pod, NamespaceObject, NodeObject)
_pod_decoder = msgspec.json.Decoder(Pod)
_namespace_decoder = msgspec.json.Decoder(NamespaceObject)
_node_decoder = msgspec.json.Decoder(NodeObject)


def decode_pod(raw: bytes) -> Pod:
    """Decode a Pod from its JSON; raises ``msgspec.DecodeError``."""
    return _pod_decoder.decode(raw)


def decode_namespace(raw: bytes) -> NamespaceObject:
    """Decode a Namespace from its JSON; raises ``msgspec.DecodeError``."""
    return _namespace_decoder.decode(raw)


def decode_node(raw: bytes) -> NodeObject:
    """Decode a Node from its JSON; raises ``msgspec.DecodeError``."""
    return _node_decoder.decode(raw)


def convert(kind: type[_Object], obj: Mapping[str, Any]) -> _Object:
    """Read a Pod, Namespace or Node from decoded JSON or YAML; raises ``InvalidObject`` with the field's path."""
    try:
        return msgspec.convert(obj, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        path = place.rstrip("`").removeprefix(".")
        meta, _ = conform(obj.get("metadata"), OBJECT_META, "metadata")
        complaint = FieldError(path, f"Invalid value: {message}", TYPE_INVALID)
        raise InvalidObject(kind.__name__.removesuffix("Object"), meta.get("name", ""), [complaint]) from None


def build_cluster(namespaces: Iterable[NamespaceObject], nodes: Iterable[NodeObject], pods: Iterable[Pod]) -> Cluster:
    """Return the cluster that objects make up.

    Completed pods and pods without an address do not count (SEMANTICS 26, 28). Of several pods with one name, and of
    several with one address, the one that was created last counts (SEMANTICS 29).
    """
    counting = sorted(filter(counts, pods), key=age)
    newest = {PodKey(pod.metadata.namespace, pod.metadata.name): pod for pod in counting}
    return Cluster(
        (namespace_of(each) for each in namespaces),
        (node_of(each) for each in nodes),
        # A name's newest pod stands where it was created, not where the name was first seen.
        (endpoint(pod) for pod in sorted(newest.values(), key=age)),
    )


def with_invented_addresses(pods: Sequence[Pod]) -> list[Pod]:
    """Return pods such that each that could run has an address of each family: for files, which seldom hold any.

    Made up from blocks that are nobody's (RFC 2544, RFC 3849), in the order of the pods' names.
    """
    lacking = [pod for pod in pods if pod.status.phase not in _FINISHED and not _pod_addresses(pod)]
    lacking.sort(key=lambda pod: (pod.metadata.namespace, pod.metadata.name))
    invented = {
        id(pod): [PodIP(str(block + number)) for block in _NOBODYS] for number, pod in enumerate(lacking, start=1)
    }
    return [
        Pod(pod.metadata, pod.spec, PodStatus(pod.status.phase, None, invented[id(pod)]))
        if id(pod) in invented
        else pod
        for pod in pods
    ]


Age: TypeAlias = tuple[str, str, str, str]


def counts(pod: Pod) -> bool:
    """Tell whether a pod counts: it has not completed, and has an address (SEMANTICS 26, 28)."""
    return not is_finished(pod) and bool(_pod_addresses(pod))


def is_finished(pod: Pod) -> bool:
    """Tell whether a pod has completed, or failed (SEMANTICS 26)."""
    return pod.status.phase in _FINISHED


def age(pod: Pod) -> Age:
    """Return what sorts pods by creation, the newest last."""
    # Timestamps are RFC 3339 in UTC with whole seconds, so they sort as text; the uid decides within a second.
    meta = pod.metadata
    return meta.creationTimestamp or "", meta.uid, meta.namespace, meta.name


def namespace_of(each: NamespaceObject) -> Namespace:
    """Return a namespace as policies see it."""
    name = each.metadata.name
    # "The control plane sets an immutable label kubernetes.io/metadata.name on all namespaces" (SEMANTICS 13).
    return Namespace(name, Labels({**(each.metadata.labels or {}), NAME_LABEL: name}))


def node_of(each: NodeObject) -> Node:
    """Return a node as policies see it."""
    texts = [entry.address for entry in each.status.addresses or ()]
    pod_cidrs = each.spec.podCIDRs or ([each.spec.podCIDR] if each.spec.podCIDR else [])
    return Node(
        each.metadata.name,
        Labels(each.metadata.labels),
        frozenset(address for text in texts if (address := _address(text)) is not None),
        tuple(network for text in pod_cidrs if (network := _network(text)) is not None),
    )


def endpoint(pod: Pod) -> Endpoint:
    """Return a pod as policies see it, with every address that it says it has."""
    meta = pod.metadata
    return Endpoint(
        PodKey(meta.namespace, meta.name),
        meta.uid,
        Labels(meta.labels),
        _pod_addresses(pod),
        pod.spec.nodeName or "",
        _ports(pod.spec),
        bool(pod.spec.hostNetwork),
    )


def _pod_addresses(pod: Pod) -> frozenset[Address]:
    """Read every entry of ``status.podIPs`` (SEMANTICS 18); ``podIP`` repeats the first."""
    texts = [pod.status.podIP, *(entry.ip for entry in pod.status.podIPs or ())]
    return frozenset(address for text in texts if text and (address := _address(text)) is not None)


def _ports(spec: PodSpec) -> tuple[ContainerPort, ...]:
    """Read the ports of containers and of sidecars: init containers that keep running (SEMANTICS 9)."""
    sidecars = [each for each in spec.initContainers or () if each.restartPolicy == "Always"]
    return tuple(
        ContainerPort(port.name or None, port.containerPort, protocol)
        for container in (*(spec.containers or ()), *sidecars)
        for port in container.ports or ()
        if (protocol := _PROTOCOLS.get(port.protocol or "TCP")) is not None and 0 < port.containerPort <= LAST_PORT
    )


@lru_cache(maxsize=1 << 16)
def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:  # a zone means nothing outside of one machine, and may hold any text
            return None
        return address.ipv4_mapped or address  # packets of ::ffff:10.0.0.5 are IPv4 packets of 10.0.0.5
    return address


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
