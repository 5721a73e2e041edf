# SPDX-License-Identifier: Apache-2.0
"""What rules judge by: the policies, the pods that there are, and how far what was given can be trusted to be all.

A live cluster is whole: what is not there does not exist. Files seldom are: of a namespace in which they hold no pod
and no workload nothing is known, and an object of a kind that we do not know may stand for pods that its operator
makes. Completed pods count here: a policy for a Job's pods is no mistake when the Job is done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, assert_never

import msgspec

from ringfence.apis.core import NAME_LABEL
from ringfence.apis.manifests import cluster_from_objects
from ringfence.apis.networkpolicy import lower, policy_set
from ringfence.apis.services import SHAPE as SERVICE
from ringfence.apis.shapes import conform
from ringfence.apis.workloads import TWIN, is_workload
from ringfence.model.addresses import Address, address_order
from ringfence.model.cluster import Cluster, Endpoint, PodKey
from ringfence.model.labels import Operator
from ringfence.model.policy import InNamespace, NamespaceScope, NamespacesMatching, PodPeer, PolicySet, in_scope
from ringfence.model.ports import Protocol
from ringfence.semantics.gaps import gaps
from ringfence.semantics.knowledge import Knowledge
from ringfence.semantics.lint.findings import ref_of
from ringfence.semantics.lint.parts import Written
from ringfence.semantics.lint.ranges import Ranges, ranges
from ringfence.semantics.services import Service, Services

_FEW = 3
_DNS = 53
_NODE_LOCAL_DNS = ("k8s-app", "node-local-dns")
_FINISHED = frozenset({"Succeeded", "Failed"})
_BUILT_IN_GROUPS = frozenset({"", "apps", "batch", "autoscaling", "policy", "extensions"})
# Kinds of others that are often among manifests and make no pods.
_PODLESS = frozenset(
    {
        "Certificate",
        "ClusterIssuer",
        "ExternalSecret",
        "Gateway",
        "GRPCRoute",
        "HTTPRoute",
        "Issuer",
        "Kustomization",
        "PodMonitor",
        "PrometheusRule",
        "ScaledObject",
        "SealedSecret",
        "ServiceMonitor",
        "VerticalPodAutoscaler",
    }
)


class Matched(NamedTuple):
    """Pods that a selection finds by their labels; those on the host network are not subject to it."""

    pods: tuple[Endpoint, ...]
    on_host: tuple[Endpoint, ...]


@dataclass
class World:
    """What there is. ``whole`` says that nothing else exists."""

    cluster: Cluster
    written: Sequence[Written]
    policies: PolicySet
    services: Services
    known: Knowledge
    whole: bool
    unsure: frozenset[str] = frozenset()
    _found: dict[PodPeer, Matched] = field(default_factory=dict)

    def pods(self, peer: PodPeer) -> Matched:
        """Return whom a selection finds."""
        found = self._found.get(peer)
        if found is None:
            endpoints = [
                endpoint
                for name in self.namespaces(peer.scope)
                for endpoint in self._by_namespace.get(name, ())
                if peer.pods.matches(endpoint.labels)
            ]
            pods = tuple(e for e in endpoints if not e.host_network)
            found = self._found[peer] = Matched(pods, tuple(e for e in endpoints if e.host_network))
        return found

    def namespaces(self, scope: NamespaceScope) -> list[str]:
        """Return the names of the namespaces in a scope."""
        if isinstance(scope, InNamespace):
            return [scope.name]
        return sorted(name for name in self.cluster.namespaces if in_scope(scope, name, self.cluster))

    def pods_known(self, namespace: str) -> bool:
        """Tell whether the pods of a namespace are known: all of them, in files as far as can be told."""
        return self.whole or (namespace not in self.unsure and bool(self._by_namespace.get(namespace)))

    def scope_known(self, scope: NamespaceScope) -> bool:
        """Tell whether all pods of a scope are known."""
        if self.whole:
            return True
        match scope:
            case InNamespace(name):
                return self.pods_known(name)
            case NamespacesMatching(selector):
                # Other namespaces than those of the files may have any labels, but not these names.
                names = self.namespaces(scope)
                pinned = any(r.key == NAME_LABEL and r.operator is Operator.IN for r in selector.requirements)
                return pinned and bool(names) and all(map(self.pods_known, names))
            case _:
                assert_never(scope)

    def service_list(self) -> list[Service]:
        """Return the Services, sorted."""
        return [self.services.by_key[key] for key in sorted(self.services.by_key)]

    def targets(self, pod: PodKey, protocol: Protocol, number: int) -> Mapping[int, str]:
        """Return what the Services in front of a pod make of a port: the pod's ports, each with a Service."""
        return self._targets.get((pod, protocol, number), {})

    @cached_property
    def dns_ports(self) -> frozenset[int]:
        """The ports that pods behind Services of port 53 listen on."""
        return frozenset(n for (_, _, asked), behind in self._targets.items() if asked == _DNS for n in behind)

    @cached_property
    def caches_dns(self) -> bool:
        """Tell whether there is a DNS cache on each node, which answers at an address of its own."""
        key, value = _NODE_LOCAL_DNS
        return any(endpoint.labels.get(key) == value for endpoint in self.cluster.endpoints.values())

    @cached_property
    def ranges(self) -> Ranges:
        """The addresses that pods, nodes and Services really have, none that were made up."""
        return ranges(self.cluster, self.service_list(), made_up=self.known.stand_ins.keys())

    def called(self, endpoints: Iterable[Endpoint]) -> str:
        """Name pods, by their workload where they have one."""
        names: dict[str, None] = {}
        for endpoint in sorted(endpoints, key=lambda e: e.key):
            owner = self.known.owners.get(endpoint.key)
            name = f"{owner.kind} {owner.namespace}/{owner.name}" if owner else f"pod {endpoint.key}".removesuffix(TWIN)
            names[name] = None
        few = list(names)[:_FEW]
        more = len(names) - len(few)
        return ", ".join(few) + (f" and {more} more" if more else "")

    @cached_property
    def _targets(self) -> Mapping[tuple[PodKey, Protocol, int], dict[int, str]]:
        found: dict[tuple[PodKey, Protocol, int], dict[int, str]] = defaultdict(dict)
        for service in self.service_list():
            for port in service.spec.ports or () if service.spec.selector else ():
                protocol = Protocol(port.protocol)
                for backend in self.services.behind(service, port, protocol):
                    if isinstance(backend.holder, Endpoint):
                        found[backend.holder.key, protocol, port.port][backend.port] = str(service)
        return found

    @cached_property
    def _by_namespace(self) -> Mapping[str, list[Endpoint]]:
        found: dict[str, list[Endpoint]] = defaultdict(list)
        for key in sorted(self.cluster.endpoints):
            found[key.namespace].append(self.cluster.endpoints[key])
        return found


def world(objects: Sequence[Mapping[str, Any]], *, whole: bool, ill: Collection[int] = ()) -> World:
    """Return what objects make up.

    ``ill`` are the numbers of those that are broken: policies count as far as they can be read; of others nothing
    counts, and nothing is certain any more about the namespaces that they are in.
    """
    sound = [_without_end(obj) for number, obj in enumerate(objects) if number not in ill]
    policies = [(number, obj) for number, obj in enumerate(objects) if _is_policy(obj)]
    beside = [obj for obj in sound if not _is_policy(obj)]
    offline = cluster_from_objects((*beside, *(obj for _, obj in policies)), fill_gaps=True)
    services = Services(offline.cluster)
    for obj in beside:
        if (obj.get("apiVersion"), obj.get("kind")) == ("v1", "Service"):
            services.add(conform(obj, SERVICE, "")[0])  # without nulls, which mean what is missing means
        elif obj.get("kind") == "EndpointSlice":
            with suppress(msgspec.ValidationError):  # nothing is known of where it leads
                services.add(obj)
    written = [Written(number, obj, lower(obj).policy) for number, obj in policies]
    last = {each.policy.ref: each.policy for each in written}
    broken = (obj for number, obj in enumerate(objects) if number in ill and not _is_policy(obj))
    unsure = (ref_of(obj).namespace for obj in (*broken, *filter(_may_make_pods, beside)))
    return World(
        offline.cluster,
        written,
        policy_set(last.values()),
        services,
        gaps(beside, offline.cluster),
        whole,
        frozenset() if whole else frozenset(unsure),
    )


def sorted_texts(addresses: Iterable[Address]) -> list[str]:
    """Return addresses as text, in order."""
    return [str(address) for address in sorted(addresses, key=address_order)]


def _without_end(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a completed pod as if it were still to come; other objects as they are."""
    match obj:
        case {"apiVersion": "v1", "kind": "Pod", "status": {"phase": phase}} if phase in _FINISHED:
            return {**obj, "status": {}}
        case _:
            return obj


def _is_policy(obj: Mapping[str, Any]) -> bool:
    return (obj.get("apiVersion"), obj.get("kind")) == ("networking.k8s.io/v1", "NetworkPolicy")


def _may_make_pods(obj: Mapping[str, Any]) -> bool:
    """Tell whether an object may stand for pods that we do not see: a custom resource, mostly."""
    group = str(obj.get("apiVersion", "")).rpartition("/")[0]
    if is_workload(obj) or group in _BUILT_IN_GROUPS or group.endswith(".k8s.io"):
        return False
    return obj.get("kind") not in _PODLESS
