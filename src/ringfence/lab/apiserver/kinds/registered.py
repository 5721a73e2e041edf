# SPDX-License-Identifier: Apache-2.0
"""Which strategy each kind has."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.lab.apiserver.kinds.data import ConfigMaps, Secrets
from ringfence.lab.apiserver.kinds.definitions import CustomObjects, Definitions
from ringfence.lab.apiserver.kinds.events import Events
from ringfence.lab.apiserver.kinds.namespaces import Namespaces
from ringfence.lab.apiserver.kinds.networkpolicies import NetworkPolicies
from ringfence.lab.apiserver.kinds.nodes import Nodes
from ringfence.lab.apiserver.kinds.pods import Pods
from ringfence.lab.apiserver.kinds.services import Services
from ringfence.lab.apiserver.kinds.slices import EndpointSlices
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.kinds.workloads import Workloads
from ringfence.lab.apiserver.resources import Resource

_PLAIN = Strategy()
_CUSTOM = CustomObjects()
_STRATEGIES: Mapping[str, Strategy] = {
    "configmaps": ConfigMaps(),
    "customresourcedefinitions": Definitions(),
    "deployments": Workloads(),
    "endpointslices": EndpointSlices(),
    "events": Events(),
    "namespaces": Namespaces(),
    "networkpolicies": NetworkPolicies(),
    "nodes": Nodes(),
    "pods": Pods(),
    "replicasets": Workloads(),
    "secrets": Secrets(),
    "services": Services(),
}


def strategy_of(resource: Resource) -> Strategy:
    """Return what a kind decides about its objects."""
    return _CUSTOM if resource.custom else _STRATEGIES.get(resource.storage, _PLAIN)
