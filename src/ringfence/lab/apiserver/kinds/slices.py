# SPDX-License-Identifier: Apache-2.0
"""EndpointSlices: addresses of one type."""

from __future__ import annotations

import ipaddress

from ringfence.apis import fields
from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.objects import Object

_TYPES = ("FQDN", "IPv4", "IPv6")
_MOST_ADDRESSES = 100


class EndpointSlices(Strategy):
    """Controllers write them; people seldom do."""

    def errors(self, api: Api, new: Object, old: Object | None) -> list[FieldError]:  # noqa: ARG002 - as declared
        """Return what is wrong with the addresses; their type never changes."""
        found: list[FieldError] = []
        kind = new.get("addressType")
        if not kind:
            found.append(fields.required("addressType"))
        elif kind not in _TYPES:
            found.append(fields.not_supported("addressType", kind, _TYPES))
        if old is not None and kind != old.get("addressType"):
            found.append(fields.invalid("addressType", kind, "field is immutable"))
        for index, endpoint in enumerate(new.get("endpoints") or ()):
            found += _address_errors(endpoint.get("addresses") or [], kind, f"endpoints[{index}].addresses")
        return found


def _address_errors(addresses: list[str], kind: str | None, path: str) -> list[FieldError]:
    if not addresses:
        return [fields.required(path, "must contain at least 1 address")]
    found: list[FieldError] = []
    if len(addresses) > _MOST_ADDRESSES:
        found.append(FieldError(path, f"Too many: {len(addresses)}: must have at most 100 items", "FieldValueTooMany"))
    for index, address in enumerate(addresses):
        wanted = {"IPv4": ipaddress.IPv4Address, "IPv6": ipaddress.IPv6Address}.get(kind or "")
        if wanted is None:
            continue
        try:
            wanted(address)
        except ValueError:
            why = f"must be a valid {kind} address"
            found.append(fields.invalid(f"{path}[{index}]", address, why))
    return found
