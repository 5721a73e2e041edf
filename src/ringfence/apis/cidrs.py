# SPDX-License-Identifier: Apache-2.0
"""Reading CIDRs as the API server reads them, which is not how Python's ``ipaddress`` does.

``ipaddress`` takes netmasks, hostmasks, zones and prefix lengths with leading zeros, which no API server takes; and
it refuses leading zeros in octets and set host bits, which old API servers took and may still store. Stored CIDRs
keep their meaning here (SEMANTICS 17): zeros are decimal, host bits are masked.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from functools import lru_cache

from ringfence.apis.fields import invalid
from ringfence.errors import FieldError
from ringfence.model.addresses import Address, Network

_SHAPE = re.compile(r"(?P<address>[0-9a-fA-F:.]{2,64})/0*(?P<length>[0-9]{1,3})")
_LEADING_ZEROS = re.compile(r"\b0+(?=[0-9a-fA-F])")
_MAPPED_BITS = 96

REMEMBERED = 1 << 16
"""CIDRs of which the network is remembered: an edited policy has nearly all of its blocks from before."""


class CidrForm(enum.Enum):
    """How a CIDR may be written: as every new one must be (Kubernetes 1.36 on), or as old ones were accepted."""

    STRICT = "strict"
    LEGACY = "legacy"


@lru_cache(maxsize=REMEMBERED)
def parse_cidr(text: str) -> Network | None:
    """Return the network of a CIDR in any form that an API server ever accepted, masked; None if it is none.

    IPv4-mapped IPv6 (``::ffff:10.0.0.0/104``) is the IPv4 network, as Go's ``net.IPNet`` has it: an exception written
    so must carve its IPv4 block.
    """
    found = _SHAPE.fullmatch(text)
    if found is None:
        return None
    try:
        address = ipaddress.ip_address(_LEADING_ZEROS.sub("", found["address"]))
        length = int(found["length"])
        mapped = _mapped(address)
        if mapped is not None and _MAPPED_BITS <= length <= address.max_prefixlen:
            return ipaddress.ip_network((mapped, length - _MAPPED_BITS), strict=False)
        return ipaddress.ip_network((address, length), strict=False)
    except ValueError:
        return None


def cidr_errors(path: str, text: str, form: CidrForm) -> list[FieldError]:
    """Complain of a CIDR as the API server does; nothing if it is well-formed."""
    if parse_cidr(text) is None:
        return [invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]
    if form is CidrForm.LEGACY:
        return []
    address_text, _, length = text.partition("/")
    try:
        address = ipaddress.ip_address(address_text)
    except ValueError:
        return [invalid(path, text, "must not have leading 0s in IP or prefix length")]
    if length.startswith("0") and length != "0":
        return [invalid(path, text, "must not have leading 0s in IP or prefix length")]
    if _mapped(address) is not None:
        return [invalid(path, text, "must not have an IPv4-mapped IPv6 address")]
    if ipaddress.ip_network((address, int(length)), strict=False).network_address != address:
        return [invalid(path, text, "must not have bits set beyond the prefix length")]
    return []


def _mapped(address: Address) -> ipaddress.IPv4Address | None:
    return address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
