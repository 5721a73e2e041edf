# SPDX-License-Identifier: Apache-2.0
"""What must hold of a Service."""

from __future__ import annotations

from typing import Any

from ringfence.apis import fields, meta, names
from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds import clusteraddresses as addresses
from ringfence.lab.apiserver.kinds.gowords import strings
from ringfence.lab.apiserver.objects import Object, metadata, spec_of

_CHOICES = {
    "type": ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"),
    "sessionAffinity": ("ClientIP", "None"),
    "ipFamilyPolicy": ("PreferDualStack", "RequireDualStack", "SingleStack"),
    "internalTrafficPolicy": ("Cluster", "Local"),
    "externalTrafficPolicy": ("Cluster", "Local"),
}
_PROTOCOLS = ("SCTP", "TCP", "UDP")


def errors(api: Api, new: Object, old: Object | None) -> list[FieldError]:
    """Return what is wrong with a Service; ``old`` is None on creation."""
    spec = spec_of(new)
    found = [
        fields.not_supported(f"spec.{field}", spec[field], allowed)
        for field, allowed in _CHOICES.items()
        if spec.get(field) and spec[field] not in allowed
    ]
    found += meta.validate_labels(spec.get("selector") or {}, "spec.selector")
    external = spec.get("type") == "ExternalName"
    if external:
        name = (spec.get("externalName") or "").rstrip(".")
        if name:
            found += fields.invalids("spec.externalName", spec["externalName"], names.is_dns1123_subdomain(name))
        else:
            found.append(fields.required("spec.externalName"))
    elif not spec.get("ports") and spec.get("clusterIP") != addresses.HEADLESS:
        found.append(fields.required("spec.ports"))
    found += _port_errors(spec.get("ports") or [])
    found += _taken_port_errors(api, new)
    if not external:
        found += _address_errors(api, new, spec_of(old) if old else None)
    return found


def _port_errors(ports: list[Object]) -> list[FieldError]:
    found: list[FieldError] = []
    seen_names: set[str] = set()
    seen: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        path, name = f"spec.ports[{index}]", port.get("name") or ""
        number, protocol = port.get("port", 0), port.get("protocol") or "TCP"
        if name:
            bad = names.is_dns1123_label(name)
            found += fields.invalids(f"{path}.name", name, bad)
            if not bad and name in seen_names:
                found.append(fields.duplicate(f"{path}.name", name))
            seen_names.add(name)
        elif len(ports) > 1:
            found.append(fields.required(f"{path}.name"))
        found += fields.invalids(f"{path}.port", number, names.is_port_number(number))
        if protocol not in _PROTOCOLS:
            found.append(fields.not_supported(f"{path}.protocol", protocol, _PROTOCOLS))
        found += _target_errors(port.get("targetPort"), f"{path}.targetPort")
        if (protocol, number) in seen:
            found.append(fields.duplicate(path, {"protocol": protocol, "port": number}))
        seen.add((protocol, number))
    return found


def _target_errors(target: Any, path: str) -> list[FieldError]:
    match target:
        case int():
            return fields.invalids(path, target, names.is_port_number(target))
        case str():
            return fields.invalids(path, target, names.is_port_name(target))
        case _:
            return []


def _taken_port_errors(api: Api, service: Object) -> list[FieldError]:
    asked = spec_of(service).get("ports") or ()
    if not any(port.get("nodePort") for port in asked):
        return []
    taken = set(addresses.taken_ports(api, but=metadata(service).get("uid", "")))
    found = []
    for index, port in enumerate(asked):
        number = port.get("nodePort")
        if not number:
            continue
        path, pair = f"spec.ports[{index}].nodePort", (port.get("protocol", "TCP"), number)
        if number not in addresses.NODE_PORTS:
            why = "provided port is not in the valid range. The range of valid ports is 30000-32767"
            found.append(fields.invalid(path, number, why))
        elif pair in taken:
            found.append(fields.invalid(path, number, "provided port is already allocated"))
        taken.add(pair)
    return found


def _address_errors(api: Api, service: Object, before: Object | None) -> list[FieldError]:
    spec = spec_of(service)
    given = spec.get("clusterIPs") or []
    if (
        before is not None
        and before.get("type") != "ExternalName"
        and given[:1] != (before.get("clusterIPs") or [])[:1]
    ):
        return [_said("spec.clusterIPs[0]", given, "may not change once set")]
    if spec.get("clusterIP") != (given or [None])[0]:
        return [_said("spec.clusterIPs", given, "first value must match `clusterIP`")]
    taken = addresses.taken_addresses(api, but=metadata(service).get("uid", ""))
    found = []
    for address in given:
        if address == addresses.HEADLESS:
            continue
        network = addresses.network_of(api, addresses.family_of(address))
        if network is None or not addresses.is_inside(network, address):
            why = f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {network}"
            found.append(_said("spec.clusterIPs", given, f"failed to allocate IP {address}: {why}"))
        elif address in taken:
            why = f"failed to allocate IP {address}: provided IP is already allocated"
            found.append(_said("spec.clusterIPs", given, why))
    return found


def _said(path: str, given: list[str], why: str) -> FieldError:
    return FieldError(path, f"Invalid value: {strings(given)}: {why}", fields.INVALID)
