# SPDX-License-Identifier: Apache-2.0
"""Services: their addresses and node ports are chosen here, and stay."""

from __future__ import annotations

from ringfence.apis.services import HEADLESS
from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds import clusteraddresses as addresses
from ringfence.lab.apiserver.kinds import servicerules
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.objects import Object, spec_of
from ringfence.lab.apiserver.status import internal

_ADDRESS_FIELDS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
_EXPOSING = ("NodePort", "LoadBalancer")
_DUAL = ("PreferDualStack", "RequireDualStack")
_EXPOSED_ONLY = ("externalTrafficPolicy", "healthCheckNodePort")
_BALANCED_ONLY = ("allocateLoadBalancerNodePorts", "loadBalancerClass")


class Services(Strategy):
    """What makes packets to a ClusterIP reach pods is the proxy of each node."""

    returns_deleted = True

    def before_create(self, api: Api, new: Object) -> None:
        """Choose the addresses and ports that the Service does not ask for itself."""
        _drop_foreign_fields(new["spec"])
        _set_addresses(api, new)
        _set_ports(api, new)
        new["status"] = {"loadBalancer": {}}

    def before_update(self, api: Api, new: Object, old: Object) -> None:
        """Keep addresses and ports that an update does not mention; choose those that it newly needs."""
        spec, before = new["spec"], spec_of(old)
        _drop_foreign_fields(spec)
        if spec.get("type") != "ExternalName" and before.get("type") != "ExternalName":
            _keep_addresses(spec, before)
        if spec.get("type") in _EXPOSING:
            _keep_ports(spec, before)
        _set_addresses(api, new)
        _set_ports(api, new)

    def errors(self, api: Api, new: Object, old: Object | None) -> list[FieldError]:
        """Return what is wrong with ports, type and addresses; the first address never changes."""
        return servicerules.errors(api, new, old)


def _drop_foreign_fields(spec: Object) -> None:
    """Drop what belongs to another type, as a change of type would else leave behind."""
    kind = spec.get("type")
    if kind not in _EXPOSING:
        for field in _EXPOSED_ONLY:
            spec.pop(field, None)
    if kind != "LoadBalancer":
        for field in _BALANCED_ONLY:
            spec.pop(field, None)
    if kind == "ExternalName":
        for field in (*_ADDRESS_FIELDS, "internalTrafficPolicy"):
            spec.pop(field, None)
    if kind in ("ClusterIP", "ExternalName"):
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)


def _keep_addresses(spec: Object, before: Object) -> None:
    kept = before.get("clusterIPs") or []
    if not spec.get("clusterIPs") and spec.get("clusterIP") in (None, "", before.get("clusterIP")):
        spec["clusterIPs"] = list(kept)
    for field in ("ipFamilyPolicy", "ipFamilies"):
        if not spec.get(field) and before.get(field):
            spec[field] = before[field]
    if spec.get("ipFamilyPolicy") == "SingleStack" and before.get("ipFamilyPolicy") in _DUAL:
        # "the secondary address is released"
        spec["clusterIPs"], spec["ipFamilies"] = spec["clusterIPs"][:1], spec["ipFamilies"][:1]


def _keep_ports(spec: Object, before: Object) -> None:
    known = {(p.get("protocol"), p.get("port")): p.get("nodePort") for p in before.get("ports") or ()}
    used = {p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}
    for port in spec.get("ports") or ():
        kept = known.get((port.get("protocol"), port.get("port")))
        if not port.get("nodePort") and kept and kept not in used:
            port["nodePort"] = kept


def _set_addresses(api: Api, service: Object) -> None:
    """Fill in clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy.

    "If this field is specified manually, is valid, and is not in use, it will be allocated to the service … clusterIP
    and clusterIPs[0] have the same value."
    """
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return
    given = list(spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else []))
    headless = given[:1] == [HEADLESS]
    families = _families(spec, [] if headless else given, headless=headless)
    if not headless:
        taken = set(addresses.taken_addresses(api, but=service["metadata"].get("uid", "")))
        for family in families[len(given) :]:
            network = addresses.network_of(api, family)
            chosen = addresses.choose_address(network, taken) if network else None
            if chosen is None:
                raise internal(f"failed to allocate a serviceIP: range is full ({family})")
            given.append(chosen)
    spec["clusterIPs"] = given
    spec["clusterIP"] = spec.get("clusterIP") or given[0]
    spec["ipFamilies"] = families
    spec["ipFamilyPolicy"] = spec.get("ipFamilyPolicy") or ("RequireDualStack" if len(families) > 1 else "SingleStack")


def _families(spec: Object, given: list[str], *, headless: bool) -> list[str]:
    """Return the families of the addresses, first and second."""
    families = [addresses.family_of(address) for address in given] or list(spec.get("ipFamilies") or ())
    for family in spec.get("ipFamilies") or ():
        if family not in families:
            families.append(family)
    if not families:
        families = ["IPv4"]
    # a headless Service without selector may have endpoints of both families
    everything = headless and not spec.get("selector") and not spec.get("ipFamilyPolicy")
    if (spec.get("ipFamilyPolicy") in _DUAL or everything) and len(families) == 1:
        families.append("IPv4" if families[0] == "IPv6" else "IPv6")
    return families


def _set_ports(api: Api, service: Object) -> None:
    """Choose node ports for the types that have them."""
    spec = service["spec"]
    if spec.get("type") not in _EXPOSING or spec.get("allocateLoadBalancerNodePorts") is False:
        return
    taken = set(addresses.taken_ports(api, but=service["metadata"].get("uid", "")))
    taken |= set(addresses.node_ports(service))
    for port in spec.get("ports") or ():
        if port.get("nodePort"):
            continue
        chosen = addresses.choose_port(port.get("protocol", "TCP"), taken)
        if chosen is None:
            raise internal("failed to allocate a nodePort: range is full")
        port["nodePort"] = chosen
        taken.add((port.get("protocol", "TCP"), chosen))
