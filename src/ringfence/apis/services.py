# SPDX-License-Identifier: Apache-2.0
"""What must hold of a Service (core/v1), in the API server's words, whatever else is stored.

Which addresses and node ports are still free is the business of the server that gives them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from ringfence.apis.fields import duplicate, invalids, not_supported, required
from ringfence.apis.meta import OBJECT_META, validate_labels
from ringfence.apis.names import is_dns1123_label, is_dns1123_subdomain, is_port_name, is_port_number
from ringfence.apis.shapes import ListOf, MapOf, Record, Scalar
from ringfence.errors import FieldError

HEADLESS = "None"
PROTOCOLS = ("SCTP", "TCP", "UDP")
_CHOICES = {
    "type": ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
    "sessionAffinity": ("ClientIP", "None"),
    "ipFamilyPolicy": ("PreferDualStack", "RequireDualStack", "SingleStack"),
    "internalTrafficPolicy": ("Cluster", "Local"),
    "externalTrafficPolicy": ("Cluster", "Local"),
}
_PORT = Record(
    {
        "name": Scalar.STRING,
        "protocol": Scalar.STRING,
        "appProtocol": Scalar.STRING,
        "port": Scalar.INTEGER,
        "targetPort": Scalar.INTEGER_OR_STRING,
        "nodePort": Scalar.INTEGER,
    }
)
_STRINGS = (
    "clusterIP",
    "externalName",
    "externalTrafficPolicy",
    "internalTrafficPolicy",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "sessionAffinity",
    "trafficDistribution",
    "type",
)
SHAPE = Record(
    {
        "apiVersion": Scalar.STRING,
        "kind": Scalar.STRING,
        "metadata": OBJECT_META,
        "spec": Record(
            {
                **dict.fromkeys(_STRINGS, Scalar.STRING),
                **dict.fromkeys(
                    ("clusterIPs", "externalIPs", "ipFamilies", "loadBalancerSourceRanges"), ListOf(Scalar.STRING)
                ),
                **dict.fromkeys(("allocateLoadBalancerNodePorts", "publishNotReadyAddresses"), Scalar.BOOLEAN),
                "healthCheckNodePort": Scalar.INTEGER,
                "ports": ListOf(_PORT),
                "selector": MapOf(Scalar.STRING),
                "sessionAffinityConfig": Scalar.ANYTHING,
            }
        ),
        "status": Scalar.ANYTHING,
    }
)


def spec_errors(spec: Mapping[str, Any]) -> list[FieldError]:
    """Check the spec of a Service whose values have the right types."""
    found = [
        not_supported(f"spec.{field}", spec[field], allowed)
        for field, allowed in _CHOICES.items()
        if spec.get(field) and spec[field] not in allowed
    ]
    found += validate_labels(spec.get("selector") or {}, "spec.selector")
    if spec.get("type") == "ExternalName":
        name = (spec.get("externalName") or "").rstrip(".")
        if name:
            found += invalids("spec.externalName", spec["externalName"], is_dns1123_subdomain(name))
        else:
            found.append(required("spec.externalName"))
    elif not spec.get("ports") and spec.get("clusterIP") != HEADLESS:
        found.append(required("spec.ports"))
    return found + _port_errors(spec.get("ports") or [])


def _port_errors(ports: Sequence[Mapping[str, Any] | None]) -> list[FieldError]:
    found: list[FieldError] = []
    seen_names: set[str] = set()
    seen: set[tuple[str, int]] = set()
    for index, entry in enumerate(ports):
        port = entry or {}
        path, name = f"spec.ports[{index}]", port.get("name") or ""
        number, protocol = port.get("port", 0), port.get("protocol") or "TCP"
        if name:
            bad = is_dns1123_label(name)
            found += invalids(f"{path}.name", name, bad)
            if not bad and name in seen_names:
                found.append(duplicate(f"{path}.name", name))
            seen_names.add(name)
        elif len(ports) > 1:
            found.append(required(f"{path}.name"))
        found += invalids(f"{path}.port", number, is_port_number(number))
        if protocol not in PROTOCOLS:
            found.append(not_supported(f"{path}.protocol", protocol, PROTOCOLS))
        found += _target_errors(port.get("targetPort"), f"{path}.targetPort")
        if (protocol, number) in seen:
            found.append(duplicate(path, {"protocol": protocol, "port": number}))
        seen.add((protocol, number))
    return found


def _target_errors(target: int | str | None, path: str) -> list[FieldError]:
    match target:
        case int():
            return invalids(path, target, is_port_number(target))
        case str():
            return invalids(path, target, is_port_name(target))
        case None:
            return []
        case _:
            assert_never(target)
