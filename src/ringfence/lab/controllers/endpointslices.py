# SPDX-License-Identifier: Apache-2.0
"""EndpointSlices: for every Service with a selector, the addresses and ports of the pods behind it.

One or more slices per family and set of ports (a named target port may have another number on each pod), at most a
hundred endpoints each. An endpoint stays in the slice that it is in, so that a change of one pod rewrites one slice.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ringfence.lab.controllers.actions import Action, Create, Delete, Patch
from ringfence.lab.controllers.loop import Outcome
from ringfence.lab.controllers.pods import is_finished, is_ready, is_terminating
from ringfence.lab.controllers.replicasets import owner_reference
from ringfence.lab.controllers.resources import ENDPOINT_SLICES, PODS, SERVICES, Object, Resource
from ringfence.lab.controllers.world import World, key_of

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
LARGEST = 100

Group = tuple[str, str]  # address family, ports as JSON


class EndpointSlices:
    """One key per Service."""

    name = "endpointslices"
    manager = "kube-controller-manager"

    def affected(
        self, world: World, resource: Resource, key: str, old: Object | None, new: Object | None
    ) -> Iterable[str]:
        """Return the Service itself, a slice's Service, and every Service that selects a pod or did."""
        if resource == SERVICES:
            return [key]
        if resource == ENDPOINT_SLICES:
            return {
                f"{obj['metadata']['namespace']}/{(obj['metadata'].get('labels') or {}).get(SERVICE_LABEL)}"
                for obj in (old, new)
                if obj is not None and _is_ours(obj)
            }
        if resource != PODS or (old is not None and new is not None and _view(old) == _view(new)):
            return ()
        return {
            service_key
            for pod in (old, new)
            if pod is not None
            for service_key, service in world.in_namespace(SERVICES, pod["metadata"]["namespace"])
            if _selects(service, pod)
        }

    def reconcile(self, world: World, key: str, now: datetime.datetime) -> Outcome:  # noqa: ARG002 - as declared
        """Make the slices say what the pods are."""
        namespace, _, name = key.rpartition("/")
        service = world.get(SERVICES, key)
        slices = [
            obj
            for _, obj in world.in_namespace(ENDPOINT_SLICES, namespace)
            if _is_ours(obj) and (obj["metadata"].get("labels") or {}).get(SERVICE_LABEL) == name
        ]
        if service is None or is_terminating(service) or not service["spec"].get("selector"):
            return Outcome([_deletion(obj) for obj in slices if not is_terminating(obj)])
        pods = [pod for _, pod in world.in_namespace(PODS, namespace) if _selects(service, pod)]
        actions = plan(service, pods, slices)
        if world.is_ending(namespace):  # what is there may still be changed, but nothing new made
            actions = [action for action in actions if not isinstance(action, Create)]
        return Outcome(actions)


def _is_ours(obj: Object) -> bool:
    return (obj["metadata"].get("labels") or {}).get(MANAGED_BY) == CONTROLLER


def _selects(service: Object, pod: Object) -> bool:
    selector = service["spec"].get("selector")
    return bool(selector) and selector.items() <= (pod["metadata"].get("labels") or {}).items()


def _view(pod: Object) -> object:
    """Return what of a pod endpoints are made of."""
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    return (
        meta.get("labels"),
        bool(meta.get("deletionTimestamp")),
        spec.get("nodeName"),
        spec.get("hostname"),
        status.get("phase"),
        status.get("podIPs"),
        is_ready(pod),
    )


def plan(service: Object, pods: Sequence[Object], slices: Sequence[Object]) -> list[Action]:
    """Return what turns the slices that are there into those that should be."""
    wanted = _endpoints(service, pods)
    staying = [obj for obj in slices if not is_terminating(obj)]
    places = []  # every endpoint that has a place keeps it, before the others are given theirs
    for obj in staying:
        left = wanted.get(_group_of(obj), {})
        places.append([left.pop(_identity(e)) for e in obj.get("endpoints") or () if _identity(e) in left])
    actions: list[Action] = []
    for obj, kept in zip(staying, places, strict=True):
        left = wanted.get(_group_of(obj), {})
        while left and len(kept) < LARGEST:
            kept.append(left.pop(next(iter(left))))
        if not kept:
            actions.append(_deletion(obj))
        elif kept != (obj.get("endpoints") or []):
            actions.append(Patch(ENDPOINT_SLICES, key_of(obj), {"endpoints": kept}))
    for group, left in wanted.items():
        endpoints = list(left.values())
        parts = [endpoints[start : start + LARGEST] for start in range(0, len(endpoints), LARGEST)]
        actions += [Create(ENDPOINT_SLICES, _slice(service, group, part)) for part in parts]
    return actions


def _deletion(obj: Object) -> Delete:
    return Delete(ENDPOINT_SLICES, key_of(obj), obj["metadata"]["uid"])


def _endpoints(service: Object, pods: Sequence[Object]) -> dict[Group, dict[str, Object]]:
    """Return the endpoints by group and identity; pods in the order of their names."""
    found: dict[Group, dict[str, Object]] = {}
    families = service["spec"].get("ipFamilies") or ["IPv4"]
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        if is_finished(pod):
            continue
        ports = json.dumps(_ports(service, pod), sort_keys=True)
        for family in families:
            address = _address(pod, family)
            if address:
                endpoint = _endpoint(service, pod, address)
                found.setdefault((family, ports), {})[_identity(endpoint)] = endpoint
    return found


def _address(pod: Object, family: str) -> str:
    version = 6 if family == "IPv6" else 4
    entries = (pod.get("status") or {}).get("podIPs") or ()
    return next((e["ip"] for e in entries if ipaddress.ip_address(e["ip"]).version == version), "")


def _endpoint(service: Object, pod: Object, address: str) -> Object:
    """Return one endpoint. "ready … should never be true for terminating endpoints, except when the normal readiness
    behavior is being explicitly overridden, for example when the associated Service has set publishNotReadyAddresses".
    """
    meta = pod["metadata"]
    serving, ending = is_ready(pod), is_terminating(pod)
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint: Object = {
        "addresses": [address],
        "conditions": {"ready": publish or (serving and not ending), "serving": serving, "terminating": ending},
        "targetRef": {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
    }
    if pod["spec"].get("nodeName"):
        endpoint["nodeName"] = pod["spec"]["nodeName"]
    if pod["spec"].get("hostname") and pod["spec"].get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = pod["spec"]["hostname"]
    return endpoint


def _identity(endpoint: Mapping[str, Any]) -> str:
    return f"{(endpoint.get('targetRef') or {}).get('uid')} {(endpoint.get('addresses') or [''])[0]}"


def _ports(service: Object, pod: Object) -> list[Object]:
    """Return the Service's ports as this pod has them: names looked up; a port that the pod lacks is left out."""
    found = []
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol", "TCP")
        target = port.get("targetPort") or port["port"]
        number = target if isinstance(target, int) else _named(pod, target, protocol)
        if number is not None:
            made = {"name": port.get("name") or "", "port": number, "protocol": protocol}
            if port.get("appProtocol"):
                made["appProtocol"] = port["appProtocol"]
            found.append(made)
    return found


def _named(pod: Object, name: str, protocol: str) -> int | None:
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("name") == name and port.get("protocol", "TCP") == protocol:
                number: int = port["containerPort"]
                return number
    return None


def _group_of(obj: Object) -> Group:
    return obj["addressType"], json.dumps(obj.get("ports") or [], sort_keys=True)


def _slice(service: Object, group: Group, endpoints: Sequence[Object]) -> Object:
    meta = service["metadata"]
    family, ports = group
    # named by what is in it: making it twice makes it once
    content = json.dumps([meta["uid"], family, ports, [_identity(e) for e in endpoints]])
    suffix = hashlib.sha256(content.encode()).hexdigest()[:8]
    own = {key: value for key, value in (meta.get("labels") or {}).items() if key != MANAGED_BY}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{meta['name']}-{suffix}",
            "namespace": meta["namespace"],
            "labels": {**own, SERVICE_LABEL: meta["name"], MANAGED_BY: CONTROLLER},
            "ownerReferences": [owner_reference(SERVICES, service)],
        },
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": json.loads(ports),
    }
