# SPDX-License-Identifier: Apache-2.0
"""What every cluster has from its first moment: four namespaces, and the Service and endpoints of the API itself."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.lab.apiserver import writing
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.customresources import register
from ringfence.lab.apiserver.objects import Object
from ringfence.lab.apiserver.requests import Target, WriteOptions
from ringfence.lab.apiserver.writing import Write
from ringfence.model.addresses import Address

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_OPTIONS = WriteOptions(manager="kube-apiserver")


def bootstrap(api: Api, *, endpoints: Sequence[Address], port: int) -> None:
    """Create what is not there yet. ``endpoints`` are the server's own addresses, as pods reach them."""
    for name in NAMESPACES:
        _ensure(api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    addresses = [str(network[1]) for network in api.service_networks]
    _ensure(api, _service(addresses, port))
    for family, version in (("IPv4", 4), ("IPv6", 6)):
        own = [str(address) for address in endpoints if address.version == version]
        if own:
            _ensure(api, _slice(family, own, port))


def restore(api: Api) -> None:
    """Serve the custom kinds whose definitions were stored before a restart."""
    for record in api.all("customresourcedefinitions"):
        register(api.registry, record.object)


def _service(addresses: list[str], port: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": addresses[0],
            "clusterIPs": addresses,
            "ipFamilies": ["IPv6" if ":" in address else "IPv4" for address in addresses],
            "ipFamilyPolicy": "RequireDualStack" if len(addresses) > 1 else "SingleStack",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    }


def _slice(family: str, addresses: list[str], port: int) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes" if family == "IPv4" else f"kubernetes-{family.lower()}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": family,
        "endpoints": [{"addresses": addresses, "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }


def _ensure(api: Api, obj: Object) -> None:
    resource = api.registry.of_kind(obj["apiVersion"], obj["kind"])
    assert resource is not None
    target = Target(resource, obj["metadata"].get("namespace", ""))
    # asked before it is created: what is there already holds its addresses, and would be refused for them
    if api.get(resource.storage, target.namespace, obj["metadata"]["name"]) is None:
        writing.create(Write(api, target, _OPTIONS), obj)
