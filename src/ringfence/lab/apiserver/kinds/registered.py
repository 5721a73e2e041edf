# SPDX-License-Identifier: Apache-2.0
"""Which strategy each kind has."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.lab.apiserver.kinds.namespaces import Namespaces
from ringfence.lab.apiserver.kinds.networkpolicies import NetworkPolicies
from ringfence.lab.apiserver.kinds.pods import Pods
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.resources import Resource

_PLAIN = Strategy()
_STRATEGIES: Mapping[str, Strategy] = {
    "namespaces": Namespaces(),
    "networkpolicies": NetworkPolicies(),
    "pods": Pods(),
}


def strategy_of(resource: Resource) -> Strategy:
    """Return what a kind decides about its objects."""
    return _STRATEGIES.get(resource.storage, _PLAIN)
