# SPDX-License-Identifier: Apache-2.0
"""What must hold of a Service: the rules of its spec, and which addresses and node ports are still free."""

from __future__ import annotations

from ringfence.apis import fields
from ringfence.apis.services import HEADLESS, spec_errors
from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds import clusteraddresses as addresses
from ringfence.lab.apiserver.kinds.gowords import strings
from ringfence.lab.apiserver.objects import Object, metadata, spec_of


def errors(api: Api, new: Object, old: Object | None) -> list[FieldError]:
    """Return what is wrong with a Service; ``old`` is None on creation."""
    spec = spec_of(new)
    found = spec_errors(spec)
    found += _taken_port_errors(api, new)
    if spec.get("type") != "ExternalName":
        found += _address_errors(api, new, spec_of(old) if old else None)
    return found


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
        if address == HEADLESS:
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
