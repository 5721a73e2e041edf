# SPDX-License-Identifier: Apache-2.0
"""``ringfence diff``: which connections a change of policies gains and loses.

Gathers the two sets of policies and the one cluster that both are judged in (``semantics.differences``), and prints
what ``semantics.changelist`` renders. Decides no verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ringfence.cli.colour import colour

if TYPE_CHECKING:
    from ringfence.model.cluster import Cluster
    from ringfence.semantics.differences import Differences
    from ringfence.semantics.parties import Party

_Objects = Sequence[Mapping[str, Any]]


class _Sides(NamedTuple):
    """Objects with the policies before and after, and those that make up the cluster in which both are judged."""

    before: _Objects
    after: _Objects
    cluster: _Objects
    notes: tuple[str, ...] = ()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("paths", nargs=-1, metavar="[OLD NEW]")
@click.option(
    "-f",
    "--filename",
    "filenames",
    multiple=True,
    metavar="FILE|DIR|-",
    help="What would applying these change in the cluster? May be repeated.",
)
@click.option("--delete", is_flag=True, help="With -f: what would deleting them change?")
@click.option("-R", "--recursive", is_flag=True, help="Read directories below those given too.")
@click.option("--cluster", "clusters", multiple=True, metavar="FILE|DIR", help="Pods or workloads to compare for.")
@click.option("--ungrouped", is_flag=True, help="Each pod for itself, not by workload.")
@click.option("--kubeconfig", metavar="FILE", help="Reach the cluster by this kubeconfig.")
@click.option("--context", "context_name", metavar="NAME", help="Use this context of the kubeconfig.")
@click.option("-n", "--namespace", help="Namespace of objects of -f that name none.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    help="Format; markdown is a comment for a pull request.",
)
def command(
    paths: tuple[str, ...],
    filenames: tuple[str, ...],
    delete: bool,
    recursive: bool,
    clusters: tuple[str, ...],
    ungrouped: bool,
    kubeconfig: str | None,
    context_name: str | None,
    namespace: str | None,
    output: str,
) -> int:
    """Say exactly which connections a change of policies gains (+) and loses (-), and which rules are responsible.

    Policies are compared by what they mean, not by how they are written. OLD and NEW are files or directories: a policy
    that is only in OLD is deleted. Pods and workloads are taken from both (NEW counts where they differ) and from
    --cluster; no cluster is asked. Without any, they are compared for every kind of pod that selectors can tell apart.
    With -f, the policies of the cluster are compared with what they would be after kubectl apply, or with --delete
    after kubectl delete; other policies stay.

    \b
    Exit code, as kubectl diff:
      0  no connection differs
      1  some do
      2  usage or runtime error

    \b
    Examples:
      ringfence diff policies-main/ policies-branch/ --cluster manifests/
      ringfence diff old.yaml new.yaml --cluster manifests/ -o markdown
      ringfence diff -f policy.yaml
      ringfence diff -f policy.yaml --delete
    """
    from ringfence.apis.manifests import cluster_from_objects
    from ringfence.apis.workloads import owners
    from ringfence.cli import parties
    from ringfence.cli.progress import Steps
    from ringfence.errors import UsageError
    from ringfence.semantics.allowed import Allowed
    from ringfence.semantics.differences import differences
    from ringfence.semantics.imagined import imagined
    from ringfence.semantics.parties import parties as everybody
    from ringfence.semantics.space import space
    from ringfence.semantics.wording import Wording

    if filenames and not paths:
        sides = _against_cluster(
            filenames, recursive=recursive, delete=delete, namespace=namespace, access=(kubeconfig, context_name)
        )
    elif len(paths) == 2 and not filenames and not delete:
        sides = _two_sides(*paths, clusters, recursive=recursive)
    else:
        raise click.UsageError("give OLD and NEW, or -f FILE to compare with the cluster")
    before, after = (cluster_from_objects(each, fill_gaps=True).policies for each in (sides.before, sides.after))
    cluster = cluster_from_objects((*sides.cluster, *_implying(sides)), fill_gaps=True).cluster
    if not cluster.endpoints:
        if filenames:
            raise UsageError("there is no pod in the cluster to compare for: compare files, as in OLD NEW")
        cluster = imagined(cluster.namespaces.values(), (before, after))
        sides = sides._replace(notes=(*sides.notes, *_imagined_notes(cluster)))
    with Steps("diff") as steps:
        steps.show("sorting addresses into classes")
        found = space(cluster, before, after)
        everyone = everybody(found, owners(sides.cluster), grouped=not ungrouped)
        steps.show(f"comparing {len(everyone)} ends")
        different = differences(
            Allowed(found, before),
            Allowed(found, after),
            everyone,
            Wording(found.spans),
            notes=(*sides.notes, *(parties.notes(sides.cluster, found) if sides.cluster else ())),
        )
    _print(different, everyone, output)
    return 1 if different.changes else 0


def _imagined_notes(cluster: Cluster) -> Iterator[str]:
    yield ("no pods are given: compared for every kind of pod that the selectors of the policies can tell apart")
    ports = sorted(
        {(port.name or "", port.protocol.value, port.number) for e in cluster.endpoints.values() for port in e.ports}
    )
    if ports:
        yield "port names stand for numbers: " + ", ".join(
            f"{name} for {proto}/{number}" for name, proto, number in ports
        )


def _implying(sides: _Sides) -> Iterable[Mapping[str, Any]]:
    """Yield the policies of both sides: their namespaces are there, though no object says so."""
    return (each for each in (*sides.before, *sides.after) if str(each.get("kind")).endswith("NetworkPolicy"))


def _two_sides(old: str, new: str, clusters: Sequence[str], *, recursive: bool) -> _Sides:
    from ringfence.cli.inputs import from_files

    before, after = (from_files([each], recursive=recursive).objects for each in (old, new))
    given = from_files(clusters, recursive=recursive).objects if clusters else ()
    merged: dict[tuple[str, ...], Mapping[str, Any]] = {}
    changed: list[str] = []
    for source in (given, before, after):
        for obj in source:
            key = _identity(obj)
            if key[0].endswith("NetworkPolicy"):
                continue
            if source is after and key in merged and merged[key] != obj:
                changed.append("/".join(key))
            merged[key] = obj
    notes = [f"only policies are compared: {', '.join(changed)} differ, and count as in NEW"] if changed else []
    return _Sides(before, after, list(merged.values()), tuple(notes))


def _against_cluster(
    filenames: Sequence[str],
    *,
    recursive: bool,
    delete: bool,
    namespace: str | None,
    access: tuple[str | None, str | None],
) -> _Sides:
    from ringfence.cli.inputs import from_cluster, from_files, in_namespace

    given = from_files(filenames, recursive=recursive).objects
    live = from_cluster(*access)
    named = [in_namespace(obj, namespace or live.namespace) for obj in given if "NetworkPolicy" in str(obj.get("kind"))]
    if not named:
        raise click.UsageError(f"no NetworkPolicy in {', '.join(filenames)}")
    meant = {_identity(obj) for obj in named}
    others = [obj for obj in live.objects if _identity(obj) not in meant]
    missing = meant - {_identity(obj) for obj in live.objects} if delete else set()
    notes = tuple(f"{'/'.join(key)} is not in the cluster" for key in sorted(missing))
    if len(named) < len(given):
        notes += ("only policies are compared: other objects of the files are left out",)
    return _Sides(live.objects, others if delete else [*others, *named], live.objects, notes)


def _identity(obj: Mapping[str, Any]) -> tuple[str, ...]:
    meta = obj.get("metadata") or {}
    kind = str(obj.get("kind"))
    namespace = () if kind in ("Namespace", "Node") else (str(meta.get("namespace") or "default"),)
    return kind, *namespace, str(meta.get("name"))


def _print(found: Differences, everyone: Sequence[Party], output: str) -> None:
    from ringfence.semantics import changelist

    if output == "json":
        import json

        from ringfence.semantics.differences import document

        click.echo(json.dumps(document(found), indent=2))
        return
    if output == "markdown":
        click.echo(changelist.markdown(found, everyone))
        return
    for line in changelist.lines(found, everyone):
        click.secho(str(line), fg="green" if line.gained else "red", color=colour())
        for reason in line.because:
            click.echo(f"    {reason}")
    click.echo(changelist.summary(found))
    for note in found.notes:
        click.echo(f"note: {note}")
