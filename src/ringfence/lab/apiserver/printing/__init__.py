# SPDX-License-Identifier: Apache-2.0
"""What ``kubectl get`` shows: the columns of every kind, and how an object fills a row.

Charter: pure functions of an object and a moment. The columns, their order and their words are those that people know
from kube-apiserver's printers; ``-o wide`` columns have priority 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.lab.apiserver.printing import core, events, others, pods, workloads
from ringfence.lab.apiserver.printing.layout import Layout
from ringfence.lab.apiserver.printing.others import ANY

__all__ = ["ANY", "BUILT_IN", "Layout"]

BUILT_IN: Mapping[str, Layout] = {
    "configmaps": core.CONFIG_MAPS,
    "deployments": workloads.DEPLOYMENTS,
    "endpoints": core.ENDPOINTS,
    "endpointslices": others.ENDPOINT_SLICES,
    "events": events.EVENTS,
    "leases": others.LEASES,
    "namespaces": core.NAMESPACES,
    "networkpolicies": others.NETWORK_POLICIES,
    "nodes": core.NODES,
    "pods": pods.PODS,
    "replicasets": workloads.REPLICA_SETS,
    "secrets": core.SECRETS,
    "serviceaccounts": core.SERVICE_ACCOUNTS,
    "services": core.SERVICES,
}
"""The layout of each stored kind; kinds without one show name and creation (``ANY``)."""
