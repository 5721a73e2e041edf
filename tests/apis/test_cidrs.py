# SPDX-License-Identifier: Apache-2.0
"""Reading CIDRs."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.apis.cidrs import CidrForm, cidr_errors, parse_cidr


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("010.001.0.0/016", "10.1.0.0/16"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("0.0.0.0/00", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("2001:DB8::1/64", "2001:db8::/64"),
        ("2001:00000db8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.0/90", "::ffc0:0:0/90"),
        ("::ffff:010.0.0.0/104", "10.0.0.0/8"),
    ],
)
def test_every_form_that_was_ever_accepted_is_read(text: str, network: str) -> None:
    """SEMANTICS 17."""
    assert parse_cidr(text) == ipaddress.ip_network(network)


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8 ", "10.0.0/8"),
        *("10.0.0.0/255.0.0.0", "10.0.0.256/8", "::/129", "fe80::%eth0/64", "1::2::3/64", "::ffff:10.0.0.0/129"),
        *("x/8", "10.0.0.0/8\n", "10.0.0.0/\N{ARABIC-INDIC DIGIT EIGHT}", "10.0.0.0/" + "9" * 5000),
    ],
)
def test_what_no_api_server_took_is_none(text: str) -> None:
    """Neither netmasks nor zones, which Python would take."""
    assert parse_cidr(text) is None
    assert len(cidr_errors("p", text, CidrForm.LEGACY)) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
        ("10.00.0.0/8", "must not have leading 0s in IP or prefix length"),
        ("::ffff:10.0.0.0/104", "must not have an IPv4-mapped IPv6 address"),
        ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
        ("2001:db8::1/64", "must not have bits set beyond the prefix length"),
        ("10.0.0.0/" + "0" * 6000 + "8", "must not have leading 0s in IP or prefix length"),
    ],
)
def test_new_cidrs_must_be_written_plainly(text: str, complaint: str) -> None:
    """KEP-4858: StrictIPCIDRValidation."""
    assert [e.message.rpartition(": ")[2] for e in cidr_errors("p", text, CidrForm.STRICT)] == [complaint]
    assert cidr_errors("p", text, CidrForm.LEGACY) == []


@given(st.ip_addresses(), st.integers(0, 128))
def test_reading_agrees_with_python_on_plain_cidrs(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int
) -> None:
    """Where Python and the API server agree on what a CIDR is, the network is the same."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return
    length = min(length, address.max_prefixlen)
    network = ipaddress.ip_network((address, length), strict=False)

    assert parse_cidr(f"{address}/{length}") == network
    assert cidr_errors("p", str(network), CidrForm.STRICT) == []


@given(st.text(alphabet="0123456789abcdef:./%x-", max_size=30))
def test_any_text_can_be_read(text: str) -> None:
    """Nothing raises, and what is strictly fine is fine in every way."""
    if not cidr_errors("p", text, CidrForm.STRICT):
        assert parse_cidr(text) == ipaddress.ip_network(text)
