# SPDX-License-Identifier: Apache-2.0
"""Tables of the core kinds beside pods: namespaces, nodes, services, endpoints, and what holds data."""

from __future__ import annotations

from ringfence.lab.apiserver.objects import Object, labels_of, name_of, spec_of, status_of
from ringfence.lab.apiserver.printing.durations import age
from ringfence.lab.apiserver.printing.layout import (
    AGE,
    NAME,
    NONE,
    UNKNOWN,
    Cells,
    Column,
    Layout,
    Now,
    listed,
    number,
    wide,
)
from ringfence.lab.apiserver.printing.selectors import labels

_ROLE = "node-role.kubernetes.io/"
_SHOWN_ENDPOINTS = 3


def _namespace(obj: Object, now: Now) -> Cells:
    return [name_of(obj), status_of(obj).get("phase") or "", age(obj, now)]


def _node(obj: Object, now: Now) -> Cells:
    status = status_of(obj)
    info = status.get("nodeInfo") or {}
    addresses = {a.get("type"): a.get("address") or NONE for a in reversed(status.get("addresses") or ())}
    return [
        name_of(obj),
        _node_status(obj),
        listed(_roles(labels_of(obj))),
        age(obj, now),
        info.get("kubeletVersion") or "",
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _node_status(obj: Object) -> str:
    ready = next((c for c in status_of(obj).get("conditions") or () if c.get("type") == "Ready"), None)
    word = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return f"{word},SchedulingDisabled" if spec_of(obj).get("unschedulable") else word


def _roles(found: dict[str, str]) -> list[str]:
    roles = {key.removeprefix(_ROLE) for key in found if key.startswith(_ROLE)}
    if found.get("kubernetes.io/role"):
        roles.add(found["kubernetes.io/role"])
    return sorted(roles - {""})


def _service(obj: Object, now: Now) -> Cells:
    spec = spec_of(obj)
    ports = [
        f"{p.get('port')}:{p['nodePort']}/{p.get('protocol', 'TCP')}"
        if p.get("nodePort")
        else f"{p.get('port')}/{p.get('protocol', 'TCP')}"
        for p in spec.get("ports") or ()
    ]
    return [
        name_of(obj),
        spec.get("type") or "ClusterIP",
        spec.get("clusterIP") or NONE,
        _external_address(obj),
        listed(ports),
        age(obj, now),
        labels(spec.get("selector")),
    ]


def _external_address(obj: Object) -> str:
    spec = spec_of(obj)
    given = spec.get("externalIPs") or []
    match spec.get("type"):
        case "ExternalName":
            return spec.get("externalName") or NONE
        case "LoadBalancer":
            entries = (status_of(obj).get("loadBalancer") or {}).get("ingress") or ()
            found = [entry.get("ip") or entry.get("hostname") for entry in entries]
            return ",".join([*filter(None, found), *given]) or "<pending>"
        case _:
            return listed(given)


def _endpoints(obj: Object, now: Now) -> Cells:
    found = [
        f"{address.get('ip')}:{port.get('port')}"
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or ()
        for address in subset.get("addresses") or ()
    ]
    return [name_of(obj), few(found), age(obj, now)]


def few(found: list[str], none: str = NONE) -> str:
    """Return the first three of many, and how many more there are."""
    more = len(found) - _SHOWN_ENDPOINTS
    text = ",".join(found[:_SHOWN_ENDPOINTS]) or none
    return f"{text} + {more} more..." if more > 0 else text


def _config_map(obj: Object, now: Now) -> Cells:
    return [name_of(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age(obj, now)]


def _secret(obj: Object, now: Now) -> Cells:
    return [name_of(obj), obj.get("type") or "", len(obj.get("data") or ()), age(obj, now)]


def _service_account(obj: Object, now: Now) -> Cells:
    return [name_of(obj), len(obj.get("secrets") or ()), age(obj, now)]


NAMESPACES = Layout((NAME, Column("Status"), AGE), _namespace)
NODES = Layout(
    (
        NAME,
        Column("Status"),
        Column("Roles"),
        AGE,
        Column("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ),
    _node,
)
SERVICES = Layout(
    (NAME, Column("Type"), Column("Cluster-IP"), Column("External-IP"), Column("Port(s)"), AGE, wide("Selector")),
    _service,
)
ENDPOINTS = Layout((NAME, Column("Endpoints"), AGE), _endpoints)
CONFIG_MAPS = Layout((NAME, number("Data"), AGE), _config_map)
SECRETS = Layout((NAME, Column("Type"), number("Data"), AGE), _secret)
SERVICE_ACCOUNTS = Layout((NAME, number("Secrets"), AGE), _service_account)
