# SPDX-License-Identifier: Apache-2.0
"""The Node object of one node of a lab, as AKS fills it in. Values in, values out, but for the machine's size."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from ringfence.lab.topology import NodePlan

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}
MOST_PODS = 250


def architecture() -> str:
    """Return the machine's processor as Go and Kubernetes name it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def agent_pool(name: str) -> str:
    """Return the pool that a node's name says it is of: ``aks-nodepool1-000000`` is of ``nodepool1``."""
    parts = name.split("-")
    return parts[1] if len(parts) > 2 and parts[0] == "aks" else "nodepool1"


def node(plan: NodePlan, version: str) -> dict[str, Any]:
    """Return what a node is registered as; it is not Ready yet."""
    networks = [str(network) for network in plan.pod_networks]
    labels = {
        "agentpool": agent_pool(plan.name),
        "beta.kubernetes.io/arch": architecture(),
        "beta.kubernetes.io/os": "linux",
        "kubernetes.azure.com/agentpool": agent_pool(plan.name),
        "kubernetes.azure.com/mode": "system",
        "kubernetes.io/arch": architecture(),
        "kubernetes.io/hostname": plan.name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "lab",
    }
    spec: dict[str, Any] = {"providerID": f"ringfence://{plan.netns}"}
    if networks:
        spec |= {"podCIDR": networks[0], "podCIDRs": networks}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": plan.name, "labels": labels},
        "spec": spec,
        "status": {"addresses": addresses(plan), **resources(), "nodeInfo": info(version)},
    }


def addresses(plan: NodePlan) -> list[dict[str, str]]:
    """Return the node's addresses, IPv4 first, and its name."""
    found = [{"type": "InternalIP", "address": str(address)} for address in plan.addresses]
    return [*found, {"type": "Hostname", "address": plan.name}]


def resources() -> dict[str, Any]:
    """Return capacity and allocatable: the machine's own, for every node of it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    amount = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory}Ki", "pods": str(MOST_PODS)}
    return {"capacity": amount, "allocatable": dict(amount)}


def info(version: str) -> dict[str, str]:
    """Return ``nodeInfo``."""
    names = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "architecture": architecture(),
        "bootID": "",
        "containerRuntimeVersion": "ringfence://1",
        "kernelVersion": platform.release(),
        "kubeProxyVersion": version,
        "kubeletVersion": version,
        "machineID": "",
        "operatingSystem": "linux",
        "osImage": names.get("PRETTY_NAME", "Linux"),
        "systemUUID": "",
    }


def status(plan: NodePlan, version: str, problem: str, *, now: str, since: str) -> dict[str, Any]:
    """Return the node's whole status; ``problem`` says why its agent is not ready, if it is not."""
    healthy = [
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ]
    conditions = [(kind, "False", reason, message) for kind, reason, message in healthy]
    if problem:
        conditions.append(
            ("Ready", "False", "NetworkPolicyNotReady", f"the node's policy agent is not ready: {problem}")
        )
    else:
        conditions.append(("Ready", "True", "KubeletReady", "kubelet is posting ready status"))
    return {
        "addresses": addresses(plan),
        **resources(),
        "nodeInfo": info(version),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "conditions": [
            {
                "type": kind,
                "status": value,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": since,
            }
            for kind, value, reason, message in conditions
        ],
    }
