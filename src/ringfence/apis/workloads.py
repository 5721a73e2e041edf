# SPDX-License-Identifier: Apache-2.0
"""Workloads: whom a pod belongs to, and the pods that a workload of a file would make.

Files hold Deployments more often than pods. Each such workload stands for pods made from its template: two where it may
run several, since a replica may or may not reach another, one where it runs one. They have names that no real pod can
have (``deploy/web``), no address and no node. A workload whose own pods are among the objects makes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.model.cluster import PodKey

TWIN = "~2"
"""What ends the name of the second pod of a workload."""

_SHORT = {
    ("apps", "Deployment"): "deploy",
    ("apps", "StatefulSet"): "sts",
    ("apps", "DaemonSet"): "ds",
    ("apps", "ReplicaSet"): "rs",
    ("", "ReplicationController"): "rc",
    ("batch", "Job"): "job",
    ("batch", "CronJob"): "cronjob",
}
WORDS = {
    word: kind
    for kind, words in {
        "Deployment": ("deploy", "deployment", "deployments"),
        "StatefulSet": ("sts", "statefulset", "statefulsets"),
        "DaemonSet": ("ds", "daemonset", "daemonsets"),
        "ReplicaSet": ("rs", "replicaset", "replicasets"),
        "ReplicationController": ("rc", "replicationcontroller", "replicationcontrollers"),
        "Job": ("job", "jobs"),
        "CronJob": ("cj", "cronjob", "cronjobs"),
    }.items()
    for word in words
}
"""What kubectl users call each kind of workload."""


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """The workload that a pod is made by."""

    kind: str
    namespace: str
    name: str


def is_workload(obj: Mapping[str, Any]) -> bool:
    """Tell whether an object makes pods from a template."""
    return (_group(obj), obj.get("kind")) in _SHORT


def owner_of(pod: Mapping[str, Any]) -> Owner | None:
    """Return the workload that a pod belongs to: of a ReplicaSet that a Deployment made, the Deployment."""
    meta = _mapping(pod.get("metadata"))
    for reference in meta.get("ownerReferences") or ():
        match reference:
            case {"controller": True, "kind": str(kind), "name": str(name)} if kind in WORDS.values():
                # The Deployment controller names its ReplicaSets after itself and this label's value.
                suffix = f"-{_mapping(meta.get('labels')).get('pod-template-hash', '')}"
                if kind == "ReplicaSet" and len(suffix) > 1 and name.endswith(suffix):
                    kind, name = "Deployment", name.removesuffix(suffix)
                return Owner(kind, meta.get("namespace") or "default", name)
            case _:
                continue
    return None


def template_pods(workloads: Iterable[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the Pods that workloads would make, except those that pods already come from."""
    owners = {owner for pod in pods if (owner := owner_of(pod)) is not None}
    return [pod for workload in workloads for pod in _pods_of(workload, owners)]


def owners(objects: Iterable[Mapping[str, Any]]) -> dict[PodKey, Owner]:
    """Return the workload of each pod among objects that has one, pods that workloads would make included."""
    given = list(objects)
    pods = [obj for obj in given if obj.get("kind") == "Pod"]
    made = template_pods((obj for obj in given if is_workload(obj)), pods)
    found: dict[PodKey, Owner] = {}
    for pod in (*pods, *made):
        owner, meta = owner_of(pod), _mapping(pod.get("metadata"))
        if owner is not None and isinstance(meta.get("name"), str):
            found[PodKey(owner.namespace, meta["name"])] = owner
    return found


def twin_of(key: PodKey) -> PodKey | None:
    """Return the first pod of the workload whose second one this is."""
    return PodKey(key.namespace, key.name.removesuffix(TWIN)) if key.name.endswith(TWIN) else None


def _pods_of(workload: Mapping[str, Any], owners: set[Owner]) -> Iterator[dict[str, Any]]:
    meta, spec, kind = _mapping(workload.get("metadata")), _mapping(workload.get("spec")), str(workload.get("kind"))
    if not isinstance(meta.get("name"), str):
        return
    owner = Owner(kind, meta.get("namespace") or "default", meta["name"])
    # A ReplicaSet or Job that another workload made is that one's.
    made = any(_mapping(each).get("controller") is True for each in meta.get("ownerReferences") or ())
    if made or owner in owners:
        return
    if kind == "CronJob":
        spec = _mapping(_mapping(spec.get("jobTemplate")).get("spec"))
    template = _mapping(spec.get("template"))
    name = f"{_SHORT[_group(workload), kind]}/{owner.name}"
    single = spec.get("replicas", spec.get("parallelism", 1)) in (0, 1) and kind != "DaemonSet"
    for each in (name,) if single else (name, name + TWIN):
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": each,
                "namespace": owner.namespace,
                "labels": _mapping(template.get("metadata")).get("labels"),
                "ownerReferences": [{"kind": kind, "name": owner.name, "controller": True}],
            },
            "spec": _mapping(template.get("spec")),
        }


def _group(obj: Mapping[str, Any]) -> str:
    version = obj.get("apiVersion")
    return version.rpartition("/")[0] if isinstance(version, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
