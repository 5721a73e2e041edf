# SPDX-License-Identifier: Apache-2.0
"""Tables of network policies, endpoint slices, leases, custom resource definitions, and of whatever has no table."""

from __future__ import annotations

from ringfence.lab.apiserver.objects import Object, metadata, name_of, spec_of
from ringfence.lab.apiserver.printing.core import few
from ringfence.lab.apiserver.printing.durations import age
from ringfence.lab.apiserver.printing.layout import AGE, NAME, Cells, Column, Layout, Now
from ringfence.lab.apiserver.printing.selectors import selector

_UNSET = "<unset>"


def _network_policy(obj: Object, now: Now) -> Cells:
    return [name_of(obj), selector(spec_of(obj).get("podSelector")), age(obj, now)]


def _endpoint_slice(obj: Object, now: Now) -> Cells:
    ports = [str(p["port"]) if p.get("port") else "*" for p in obj.get("ports") or ()]
    addresses = [a for endpoint in obj.get("endpoints") or () for a in endpoint.get("addresses") or ()]
    return [name_of(obj), obj.get("addressType") or "", few(ports, _UNSET), few(addresses, _UNSET), age(obj, now)]


def _lease(obj: Object, now: Now) -> Cells:
    return [name_of(obj), spec_of(obj).get("holderIdentity") or "", age(obj, now)]


def _created(obj: Object, _now: Now) -> Cells:
    return [name_of(obj), metadata(obj).get("creationTimestamp") or ""]


def _aged(obj: Object, now: Now) -> Cells:
    return [name_of(obj), age(obj, now)]


NETWORK_POLICIES = Layout((NAME, Column("Pod-Selector"), AGE), _network_policy)
ENDPOINT_SLICES = Layout((NAME, Column("AddressType"), Column("Ports"), Column("Endpoints"), AGE), _endpoint_slice)
LEASES = Layout((NAME, Column("Holder"), AGE), _lease)
ANY_CUSTOM = Layout((NAME, AGE), _aged)
ANY = Layout((NAME, Column("Created At", format="date-time")), _created)
