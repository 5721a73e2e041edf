# SPDX-License-Identifier: Apache-2.0
"""Where commands that judge get their objects from: files (``-f``), or the cluster of a kubeconfig; never both."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from ringfence.apis.manifests import Loaded, Offline
    from ringfence.errors import InvalidObject

_SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
_LISTS = (
    ("/api/v1/namespaces", "v1", "Namespace"),
    ("/api/v1/nodes", "v1", "Node"),
    ("/api/v1/pods", "v1", "Pod"),
    ("/api/v1/services", "v1", "Service"),
    (_SLICES, "discovery.k8s.io/v1", "EndpointSlice"),
    ("/apis/networking.k8s.io/v1/networkpolicies", "networking.k8s.io/v1", "NetworkPolicy"),
)
_WORKLOADS = (
    ("/apis/apps/v1/deployments", "apps/v1", "Deployment"),
    ("/apis/apps/v1/statefulsets", "apps/v1", "StatefulSet"),
    ("/apis/apps/v1/daemonsets", "apps/v1", "DaemonSet"),
    ("/apis/batch/v1/jobs", "batch/v1", "Job"),
    ("/apis/batch/v1/cronjobs", "batch/v1", "CronJob"),
)
_UNTOLD = {
    _SLICES: "Services without a selector lead nowhere known",
    **{path: f"{kind}s that have no pods now are not known" for path, _, kind in _WORKLOADS},
}
"""What may be refused without making the rest useless, and what it then costs."""
_DISPENSABLE = frozenset(path for path, _, _ in _WORKLOADS)
"""What a server that has no such kind cannot hold."""
_READ = ("Namespace", "Node", "Pod", "Service", "EndpointSlice.discovery.k8s.io", "NetworkPolicy.networking.k8s.io")


class Inputs(NamedTuple):
    """What there is to judge: the objects as they were given, and the cluster and policies that they make up."""

    objects: Sequence[Mapping[str, Any]]
    offline: Offline
    namespace: str
    live: bool


def from_files(filenames: Iterable[str], *, recursive: bool) -> Inputs:
    """Read files; prints everything that is wrong with them, a line each, and exits with 2 if anything is."""
    from ringfence.apis.manifests import by_place, cluster_from_manifests

    loaded = manifests(filenames, recursive=recursive)
    offline = cluster_from_manifests(loaded.manifests, fill_gaps=True)
    complain(by_place((*loaded.problems, *offline.problems)))
    objects = [manifest.object for manifest in loaded.manifests]
    note_unread(objects)
    return Inputs(objects, offline, "default", live=False)


def manifests(filenames: Iterable[str], *, recursive: bool) -> Loaded:
    """Read files, with the place of every object; what is wrong with them is returned too."""
    from ringfence.apis.manifests import load_paths

    return load_paths(filenames, recursive=recursive, stdin=sys.stdin.read)


def in_namespace(obj: Mapping[str, Any], namespace: str | None) -> Mapping[str, Any]:
    """Return an object in a namespace, where kubectl would put it if it names none."""
    meta = obj.get("metadata") or {}
    if namespace is None or obj.get("kind") in ("Namespace", "Node") or not isinstance(meta, dict):
        return obj
    return obj if meta.get("namespace") else {**obj, "metadata": {**meta, "namespace": namespace}}


def note_unread(objects: Iterable[Mapping[str, Any]]) -> None:
    """Tell of kinds that nothing is decided by."""
    from ringfence.apis.manifests import kind_of
    from ringfence.apis.workloads import is_workload

    unread = {kind_of(obj) for obj in objects if not is_workload(obj)} - set(_READ)
    for kind in sorted(unread):
        click.echo(f"note: {kind} is not read; only workloads and {', '.join(sorted(_READ))} decide", err=True)


def complain(problems: Sequence[InvalidObject]) -> None:
    """Print complaints, each beginning with its place as editors and compilers have it; exits with 2 if any."""
    for problem in problems:
        click.echo(str(problem), err=True)
    if problems:
        raise click.exceptions.Exit(2)


def from_cluster(kubeconfig: str | None, context: str | None) -> Inputs:
    """Ask a cluster; prints a warning for each object that is stored and invalid."""
    from ringfence.apis.manifests import cluster_from_objects

    objects, namespace = stored(kubeconfig, context)
    offline = cluster_from_objects(objects, fill_gaps=True)
    for problem in offline.problems:
        click.echo(f"warning: stored, but invalid; what is broken of it matches nothing: {problem}", err=True)
    return Inputs(objects, offline, namespace, live=True)


def stored(
    kubeconfig: str | None, context: str | None, *, workloads: bool = False
) -> tuple[list[Mapping[str, Any]], str]:
    """Return the objects of a cluster, and the namespace of the context; workloads only on demand."""
    import msgspec

    from ringfence.cli.progress import Steps
    from ringfence.errors import ClusterError
    from ringfence.kube.config import load_access
    from ringfence.kube.oneshot import Connection

    access = load_access(kubeconfig, context)
    objects: list[Mapping[str, Any]] = []
    with Steps(access.server) as steps, Connection(access) as connection:
        for path, api_version, kind in (*_LISTS, *(_WORKLOADS if workloads else ())):
            steps.show(f"reading {kind}s")
            # Items of a list do not repeat what they are.
            identity = {"apiVersion": api_version, "kind": kind}
            try:
                objects += ({**msgspec.json.decode(raw), **identity} for raw in connection.items(path))
            except ClusterError as error:
                if path not in _UNTOLD or error.code not in (403, 404):
                    raise
                if error.code != 404 or path not in _DISPENSABLE:
                    click.echo(f"note: {_UNTOLD[path]}: {error}", err=True)
    return objects, access.default_namespace
