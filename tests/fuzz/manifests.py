# SPDX-License-Identifier: Apache-2.0
"""Random NetworkPolicies as they may lie in a store: every field there, missing, null or empty, and odd values in it.

Without ``broken`` each is one that some API server once accepted (host bits and leading zeros in a CIDR included).
With it, now and then a part is one that none accepts: SEMANTICS 37 says what is left of such a policy.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import strategies as st

Manifest = dict[str, Any]

NAMESPACES = ("shop", "bank", "late")
KEYS, VALUES = ("app", "tier"), ("a", "b", "")
# What is there more often meets more often.
NAMES = ("http", "http", "dns")
PORTS = (80, 81, 53, 1, 65535)
PROTOCOLS = ("TCP", "TCP", "TCP", "UDP", "SCTP")
ADDRESSES = (*(f"10.0.0.{n}" for n in range(2, 8)), *(f"fd00::{n}" for n in range(2, 8)))
_BLOCK_STARTS = (*ADDRESSES, "10.0.1.1", "fd00:1::1", "192.0.2.0", "2001:db8::")
NAME_LABEL = "kubernetes.io/metadata.name"


def sometimes(broken: bool, good: st.SearchStrategy[Any], *bad: Any) -> st.SearchStrategy[Any]:  # noqa: FBT001 - reads as a sentence
    """Draw something good or, one time in 25 and only if that is wanted, one of the bad values."""
    if not broken:
        return good
    return st.integers(0, 24).flatmap(lambda n: st.sampled_from(bad) if n == 24 else good)


def or_empty(filled: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw something filled or, now and then, one of the ways to write none."""
    return st.integers(0, 9).flatmap(lambda n: st.sampled_from([None, []]) if n == 9 else filled)


def record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw an object with some of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


def expressions(*, broken: bool) -> st.SearchStrategy[Any]:
    """Draw one requirement of a selector."""
    key = sometimes(broken, st.sampled_from(KEYS), "-bad-", "", 7)
    values = st.lists(sometimes(broken, st.sampled_from(VALUES), "?", 1), min_size=1, max_size=2)
    having = st.fixed_dictionaries(
        {"key": key, "operator": sometimes(broken, st.sampled_from(["In", "NotIn"]), "in", None), "values": values}
    )
    existing = st.fixed_dictionaries(
        {"key": key, "operator": st.sampled_from(["Exists", "DoesNotExist"])},
        optional={"values": sometimes(broken, st.sampled_from([[], None]), ["a"])},
    )
    return st.one_of(having, existing)


def selectors(*, broken: bool, names: bool = False) -> st.SearchStrategy[Any]:
    """Draw a label selector; with ``names`` it may ask for a namespace by its name."""
    pairs = st.dictionaries(st.sampled_from(KEYS), sometimes(broken, st.sampled_from(VALUES), "?", None), max_size=2)
    if names:
        pairs = st.one_of(pairs, st.sampled_from(NAMESPACES).map(lambda name: {NAME_LABEL: name}))
    pairs_or_none = st.one_of(pairs, pairs, pairs, st.none())
    terms = sometimes(broken, st.lists(expressions(broken=broken), max_size=2), "x", {})
    either = record(matchLabels=pairs_or_none, matchExpressions=or_empty(terms))
    return st.one_of(st.just({}), st.fixed_dictionaries({"matchLabels": pairs_or_none}), either)


@st.composite
def cidrs(draw: st.DrawFn) -> str:
    """Draw a CIDR around one of the addresses, now and then in a form that only old objects have."""
    address = ipaddress.ip_address(draw(st.sampled_from(_BLOCK_STARTS)))
    width = address.max_prefixlen
    length = draw(st.one_of(st.integers(0, 4).map(lambda n: width - n), st.sampled_from([0, 8, width - 8])))
    form = draw(st.integers(0, 9))
    if form == 9:
        return f"{address}/{length}"  # host bits may be set
    network = ipaddress.ip_network((address, length), strict=False)
    if form == 8 and network.version == 4:
        first, _, rest = str(network).partition(".")
        return f"{int(first):03}.{rest}"
    if form == 7 and network.version == 4:
        return f"::ffff:{network.network_address}/{length + 96}"
    return str(network)


@st.composite
def blocks(draw: st.DrawFn, *, broken: bool) -> dict[str, Any]:
    """Draw an ipBlock; its exceptions lie within it, may overlap, and may hold each other."""
    text = draw(sometimes(broken, cidrs(), "10.0.0.0/33", "10.0.0.0", "", None, "x/y", "10.0.0.0/-1"))
    found: dict[str, Any] = {"cidr": text}
    holes = draw(or_empty(st.lists(sometimes(broken, holes_of(text), *_BAD_HOLES), max_size=3)))
    if holes is not None or draw(st.booleans()):
        found["except"] = holes
    return found


_BAD_HOLES = ("0.0.0.0/0", "::/0", "10.0.0.0/40", "", None, 5, "172.16.0.0/12")


def holes_of(text: object) -> st.SearchStrategy[str]:
    """Draw a strict part of a block; anything if the block cannot be read."""
    try:
        network = ipaddress.ip_network(str(text), strict=False)
    except ValueError:
        return cidrs()
    width = network.max_prefixlen
    if network.prefixlen == width:
        return st.just(f"{network.network_address}/{width}")  # its own exception: invalid, and only closes

    def part(start: str, length: int) -> str:
        inside = ipaddress.ip_address(start)
        base = inside if inside.version == network.version and inside in network else network.network_address
        return str(ipaddress.ip_network((base, max(length, network.prefixlen + 1)), strict=False))

    return st.builds(part, st.sampled_from(_BLOCK_STARTS), st.integers(width - 3, width))


def peers(*, broken: bool) -> st.SearchStrategy[Any]:
    """Draw one item of ``from`` or ``to``."""
    pods, namespaces = selectors(broken=broken), selectors(broken=broken, names=True)
    by_label = st.one_of(
        st.fixed_dictionaries({"podSelector": pods}),
        st.fixed_dictionaries({"namespaceSelector": namespaces}),
        st.fixed_dictionaries({"podSelector": pods, "namespaceSelector": namespaces}),
    )
    by_address = st.fixed_dictionaries({"ipBlock": blocks(broken=broken)})
    both = {"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}
    return sometimes(broken, st.one_of(by_label, by_address, by_address), {}, None, both, [], "x")


def port_entries(*, broken: bool) -> st.SearchStrategy[Any]:
    """Draw one item of ``ports``."""
    protocol = sometimes(broken, st.sampled_from([*PROTOCOLS, None]), "ICMP", "tcp", 6)
    port = sometimes(broken, st.sampled_from(PORTS), 0, 70000, -1, 8.5, True, None)
    spans = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(sorted)
    ranges = spans.map(lambda span: {"port": span[0], "endPort": span[1]})
    if broken:
        ranges = st.one_of(ranges, ranges, ranges, st.sampled_from([{"port": 80, "endPort": 1}, {"endPort": 80}]))
    named = sometimes(broken, st.sampled_from(NAMES), "NOT-ok!", "", "a--b")
    numbered = st.one_of(
        st.fixed_dictionaries({"port": port}),
        ranges,
        ranges,
        st.fixed_dictionaries({"port": named}),
        st.fixed_dictionaries({"port": named}),
        st.sampled_from([{}, {"port": None}]),
    )
    with_protocol = st.tuples(numbered, record(protocol=protocol)).map(lambda parts: {**parts[0], **parts[1]})
    return sometimes(broken, with_protocol, None, [], {"port": "http", "endPort": 90})


def rules(side: str, *, broken: bool) -> st.SearchStrategy[Any]:
    """Draw one rule of a direction."""
    some_peers = st.lists(peers(broken=broken), min_size=1, max_size=2)
    some_ports = st.lists(port_entries(broken=broken), min_size=1, max_size=2)
    # Rules are a union: one that says too little hides what the others say.
    whole = st.fixed_dictionaries({side: some_peers, "ports": some_ports})
    either = record(**{side: or_empty(some_peers), "ports": or_empty(some_ports)})
    drawn = st.one_of(whole, whole, st.fixed_dictionaries({side: some_peers}), either)
    return sometimes(broken, drawn, None, "x", {side: "x"}, {"ports": {}})


def specs(*, broken: bool) -> st.SearchStrategy[Any]:
    """Draw a spec."""
    types = st.one_of(st.permutations(["Ingress", "Egress"]), st.sampled_from([["Ingress"], ["Egress"], [], None]))
    drawn = record(
        podSelector=st.one_of(st.just({}), st.just({}), selectors(broken=broken)),
        policyTypes=sometimes(broken, types, ["ingress"], "Ingress", [None], ["Egress"] * 3),
    )
    ingress = or_empty(st.lists(rules("from", broken=broken), min_size=1, max_size=2))
    egress = or_empty(st.lists(rules("to", broken=broken), min_size=1, max_size=2))
    sides = st.one_of(
        record(ingress=ingress, egress=egress), st.fixed_dictionaries({"ingress": ingress, "egress": egress})
    )
    whole = st.tuples(drawn, sides).map(lambda parts: {**parts[0], **parts[1]})
    return sometimes(broken, whole, None, [], "x")


@st.composite
def manifests(draw: st.DrawFn, name: str, *, broken: bool = True) -> Manifest:
    """Draw a NetworkPolicy of a name."""
    spec = draw(specs(broken=broken))
    meta = {"name": name, "namespace": draw(st.sampled_from(("shop", "shop", *NAMESPACES))), "uid": f"uid-{name}"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
