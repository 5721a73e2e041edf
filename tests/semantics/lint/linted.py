# SPDX-License-Identifier: Apache-2.0
"""What tests of lint share: objects as YAML, and what is found of them."""

from __future__ import annotations

from typing import Any

import yaml

from ringfence.semantics.lint.findings import Finding
from ringfence.semantics.lint.run import lint


def objects(text: str) -> list[dict[str, Any]]:
    """Return the objects of a text."""
    return [each for each in yaml.safe_load_all(text) if each]


def policy(spec: str, *, name: str = "p", namespace: str = "shop") -> dict[str, Any]:
    """Return a NetworkPolicy whose spec is written in YAML."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": yaml.safe_load(spec),
    }


def workload(where: str, labels: str, ports: str = "[]", **spec: Any) -> dict[str, Any]:
    """Return a Deployment; ``where`` is namespace and name."""
    namespace, _, name = where.partition("/")
    container = {"name": "main", "image": "i", "ports": yaml.safe_load(ports)}
    chosen = yaml.safe_load(labels)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": chosen},
            "template": {"metadata": {"labels": chosen}, "spec": {"containers": [container], **spec}},
        },
    }


def pod(
    where: str, labels: str = "{}", *, ip: str | None = None, phase: str = "Running", **spec: Any
) -> dict[str, Any]:
    """Return a Pod, with an address if one is given."""
    namespace, _, name = where.partition("/")
    status = {"phase": phase, **({"podIPs": [{"ip": ip}]} if ip else {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": yaml.safe_load(labels)},
        "spec": {"containers": [{"name": "main", "image": "i"}], **spec},
        "status": status,
    }


def namespace(name: str, labels: str = "{}") -> dict[str, Any]:
    """Return a Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": yaml.safe_load(labels)}}


def service(where: str, spec: str) -> dict[str, Any]:
    """Return a Service."""
    space, _, name = where.partition("/")
    meta = {"name": name, "namespace": space}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": yaml.safe_load(spec)}


def node(name: str, *, ip: str = "192.168.0.4", pods: str | None = None) -> dict[str, Any]:
    """Return a Node."""
    spec = {"podCIDRs": [pods]} if pods else {}
    status = {"addresses": [{"type": "InternalIP", "address": ip}]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec, "status": status}


def findings(*given: dict[str, Any], whole: bool = False, rule: str = "") -> list[Finding]:
    """Return what is found of objects, of one rule if it is named."""
    return [each for each in lint(given, whole=whole) if rule in ("", each.rule.name)]


def found(*given: dict[str, Any], whole: bool = False) -> list[tuple[str, str]]:
    """Return the rule and the field path of everything that is found."""
    return [(each.rule.name, each.path) for each in lint(given, whole=whole)]
