# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a NetworkPolicy: every complaint that kube-apiserver has, in its words, paths and order.

Types come first (an API server refuses those while decoding), then metadata, then the spec: podSelector, ingress
rules (ports, then peers), egress rules, policyTypes. Unknown fields are not judged here (``shapes.unknown_fields``
with ``SHAPE``): servers drop them or refuse them by request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.apis.cidrs import CidrForm, cidr_errors, parse_cidr
from ringfence.apis.fields import forbidden, invalid, invalids, not_supported, required, within
from ringfence.apis.meta import LABEL_SELECTOR, OBJECT_META, object_meta_errors, selector_errors
from ringfence.apis.names import is_port_name, is_port_number
from ringfence.apis.shapes import ListOf, Record, Scalar, conform
from ringfence.errors import FieldError
from ringfence.model.addresses import contains

KIND = "NetworkPolicy.networking.k8s.io"
PROTOCOLS = ("TCP", "UDP", "SCTP")
POLICY_TYPES = ("Ingress", "Egress")

_PORTS = ListOf(
    Record({"protocol": Scalar.STRING, "port": Scalar.INTEGER_OR_STRING, "endPort": Scalar.INTEGER}),
)
_PEERS = ListOf(
    Record(
        {
            "podSelector": LABEL_SELECTOR,
            "namespaceSelector": LABEL_SELECTOR,
            "ipBlock": Record({"cidr": Scalar.STRING, "except": ListOf(Scalar.STRING)}),
        }
    )
)
_SPEC = Record(
    {
        "podSelector": LABEL_SELECTOR,
        "ingress": ListOf(Record({"ports": _PORTS, "from": _PEERS})),
        "egress": ListOf(Record({"ports": _PORTS, "to": _PEERS})),
        "policyTypes": ListOf(Scalar.STRING),
    }
)
SHAPE = Record(
    {
        "apiVersion": Scalar.STRING,
        "kind": Scalar.STRING,
        "metadata": OBJECT_META,
        "spec": _SPEC,
        "status": Scalar.ANYTHING,  # NetworkPolicy once had one; stored objects may still
    }
)


@dataclass(frozen=True, slots=True)
class Leniency:
    """What is not complained about, because an older API server accepted it and may have stored it."""

    cidrs: CidrForm = CidrForm.STRICT
    known_cidrs: frozenset[str] = frozenset()
    invalid_label_values: bool = False


@dataclass(frozen=True, slots=True)
class Examined:
    """A NetworkPolicy as far as it can be read (``shapes.conform`` to ``SHAPE``), and all that is wrong with it."""

    readable: Mapping[str, Any]
    errors: tuple[FieldError, ...]


def validate(policy: object, *, old: object = None, cidrs: CidrForm = CidrForm.STRICT) -> list[FieldError]:
    """Return every complaint that kube-apiserver has about a NetworkPolicy; never raises, whatever the object is.

    ``old`` is the stored object in an update: CIDRs that it has may stay in an old form, and label values in
    selectors are not checked if its podSelector has bad ones. A missing namespace is no error: the API server takes
    it from the request, kubectl from the context.
    """
    leniency = Leniency(cidrs)
    if old is not None:
        stored, _ = conform(old, SHAPE, "")
        selector = stored.get("spec", {}).get("podSelector", {})
        leniency = Leniency(cidrs, _cidrs_of(stored), bool(selector_errors(selector, "")))
    return list(examine(policy, leniency).errors)


def examine(policy: object, leniency: Leniency) -> Examined:
    """Read and check a NetworkPolicy."""
    readable, type_errors = conform(policy, SHAPE, "")
    metadata = {"namespace": "default", **readable.get("metadata", {})}
    found = [*object_meta_errors(metadata, namespaced=True), *_spec_errors(readable.get("spec", {}), leniency)]
    # What an ill-typed part would have made good or bad is unknown: complain of the type alone.
    follow_ups = [e for e in found if any(within(t.path, e.path) for t in type_errors)]
    return Examined(readable, (*type_errors, *(e for e in found if e not in follow_ups)))


def _spec_errors(spec: Mapping[str, Any], leniency: Leniency) -> list[FieldError]:
    errors = selector_errors(
        spec.get("podSelector", {}), "spec.podSelector", allow_invalid_values=leniency.invalid_label_values
    )
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction, [])):
            if rule is not None:
                errors += _rule_errors(rule, side, f"spec.{direction}[{index}]", leniency)
    policy_types = spec.get("policyTypes", [])
    if len(policy_types) > len(POLICY_TYPES):
        errors.append(invalid("spec.policyTypes", policy_types, "may not specify more than two policyTypes"))
        return errors
    for index, policy_type in enumerate(policy_types):
        if policy_type is not None and policy_type not in POLICY_TYPES:
            errors.append(not_supported(f"spec.policyTypes[{index}]", policy_type, POLICY_TYPES))
    return errors


def _rule_errors(rule: Mapping[str, Any], side: str, path: str, leniency: Leniency) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, port in enumerate(rule.get("ports", [])):
        if port is not None:
            errors += _port_errors(port, f"{path}.ports[{index}]")
    for index, peer in enumerate(rule.get(side, [])):
        if peer is not None and not _is_plain_block(peer, leniency):
            errors += _peer_errors(peer, f"{path}.{side}[{index}]", leniency)
    return errors


def _port_errors(entry: Mapping[str, Any], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if "protocol" in entry and entry["protocol"] not in PROTOCOLS:
        errors.append(not_supported(f"{path}.protocol", entry["protocol"], PROTOCOLS))
    port, last = entry.get("port"), entry.get("endPort")
    match port:
        case None:
            if last is not None:
                errors.append(invalid(f"{path}.endPort", last, "may not be specified when `port` is not specified"))
        case int():
            errors += invalids(f"{path}.port", port, is_port_number(port))
            if last is not None:
                if last < port:
                    errors.append(invalid(f"{path}.endPort", last, "must be greater than or equal to `port`"))
                errors += invalids(f"{path}.endPort", last, is_port_number(last))
        case _:
            if last is not None:
                errors.append(invalid(f"{path}.endPort", last, "may not be specified when `port` is non-numeric"))
            errors += invalids(f"{path}.port", port, is_port_name(port))
    return errors


def _is_plain_block(peer: Mapping[str, Any], leniency: Leniency) -> bool:
    """Tell whether a peer is a block without exceptions and nothing is wrong with it: lists may have thousands."""
    if leniency.cidrs is not CidrForm.LEGACY or len(peer) != 1 or "ipBlock" not in peer:
        return False
    block = peer["ipBlock"]
    return len(block) == 1 and "cidr" in block and parse_cidr(block["cidr"]) is not None


def _peer_errors(peer: Mapping[str, Any], path: str, leniency: Leniency) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("podSelector", "namespaceSelector"):
        if field in peer:
            errors += selector_errors(
                peer[field], f"{path}.{field}", allow_invalid_values=leniency.invalid_label_values
            )
    if "ipBlock" in peer:
        errors += _block_errors(peer["ipBlock"], f"{path}.ipBlock", leniency)
    if not peer:
        errors.append(required(path, "must specify a peer"))
    elif "ipBlock" in peer and len(peer) > 1:
        errors.append(forbidden(path, "may not specify both ipBlock and another peer"))
    return errors


def _block_errors(block: Mapping[str, Any], path: str, leniency: Leniency) -> list[FieldError]:
    cidr = block.get("cidr", "")
    if not cidr:
        return [required(f"{path}.cidr")]
    errors = _cidr_errors(f"{path}.cidr", cidr, leniency)
    network = parse_cidr(cidr)
    if network is None:
        return errors
    for index, text in enumerate(block.get("except", [])):
        if text is None:
            continue
        at = f"{path}.except[{index}]"
        errors += _cidr_errors(at, text, leniency)
        hole = parse_cidr(text)
        if hole is None:
            continue
        if not contains(network, hole.network_address) or network.prefixlen >= hole.prefixlen:
            errors.append(invalid(at, text, "must be a strict subset of `cidr`"))
    return errors


def _cidr_errors(path: str, text: str, leniency: Leniency) -> list[FieldError]:
    form = CidrForm.LEGACY if text in leniency.known_cidrs else leniency.cidrs
    return cidr_errors(path, text, form)


def _cidrs_of(policy: Mapping[str, Any]) -> frozenset[str]:
    spec = policy.get("spec", {})
    cidrs: set[str] = set()
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction, []):
            for peer in (rule or {}).get(side, []):
                block = (peer or {}).get("ipBlock", {})
                cidrs.update(text for text in (block.get("cidr"), *block.get("except", [])) if text is not None)
    return frozenset(cidrs)
