# SPDX-License-Identifier: Apache-2.0
"""``ringfence explain``: why a connection is allowed or denied, in a live cluster or by files alone.

Resolves what the user typed (``semantics.ends``), judges every family and every pod behind a Service, and prints what
``semantics.report`` renders. Decides no verdict.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ringfence.cli.colour import colour

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ringfence.apis.manifests import Offline
    from ringfence.semantics.ends import Directory, Resolved, Target
    from ringfence.semantics.explain import Explanation

_LISTS = (
    ("/api/v1/namespaces", "v1", "Namespace"),
    ("/api/v1/nodes", "v1", "Node"),
    ("/api/v1/pods", "v1", "Pod"),
    ("/api/v1/services", "v1", "Service"),
    ("/apis/networking.k8s.io/v1/networkpolicies", "networking.k8s.io/v1", "NetworkPolicy"),
)
_PROTOCOLS = ["TCP", "UDP", "SCTP", "ICMP"]


_READ = frozenset({"Namespace", "Node", "Pod", "Service", "NetworkPolicy.networking.k8s.io"})


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--from", "source", required=True, metavar="END", help="Where the connection comes from.")
@click.option("--to", "destination", required=True, metavar="END", help="Where it goes to.")
@click.option("--port", metavar="PORT", help="Destination port: a number, or a name that pod or Service gives it.")
@click.option(
    "--protocol",
    type=click.Choice(_PROTOCOLS, case_sensitive=False),
    default="TCP",
    show_default=True,
    help="Protocol.",
)
@click.option(
    "-f",
    "--filename",
    "filenames",
    multiple=True,
    metavar="FILE|DIR|-",
    help="Judge the objects of these files, and no cluster. May be repeated.",
)
@click.option("-R", "--recursive", is_flag=True, help="Read directories below those of -f too.")
@click.option("-n", "--namespace", help="Namespace of ends that name none.")
@click.option("--kubeconfig", metavar="FILE", help="Reach the cluster by this kubeconfig.")
@click.option("--context", "context_name", metavar="NAME", help="Use this context of the kubeconfig.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json", "yaml"]), default="text", show_default=True, help="Format."
)
@click.option("-v", "--verbose", is_flag=True, help="Say what every policy of the namespace makes of it.")
def command(
    source: str,
    destination: str,
    port: str | None,
    protocol: str,
    filenames: tuple[str, ...],
    recursive: bool,
    namespace: str | None,
    kubeconfig: str | None,
    context_name: str | None,
    output: str,
    verbose: bool,
) -> int:
    """Say why a connection is allowed or denied: by which policy and rule, or which rule came nearest.

    An END is a pod (demo/client, or pod/client with -n), a Service (svc/demo/web; judged on the pods behind it), a
    node (node/NAME) or an address. Without -f the cluster of the kubeconfig is asked; with -f no cluster is touched.
    Exit code: 0 allowed, 1 denied, 2 error.

    \b
    Examples:
      ringfence explain --from demo/client --to demo/server --port 80
      ringfence explain --from demo/client --to svc/demo/web --port http
      ringfence explain --from demo/client --to 203.0.113.7 --port 443 -o json
      ringfence explain --from web --to db -n shop --port 5432 -f manifests/ -f policy.yaml
      ringfence explain --from demo/client --to 8.8.8.8 --port 53 --protocol UDP
    """
    from ringfence.model.ports import Protocol
    from ringfence.semantics import ends

    objects: list[Mapping[str, Any]]
    if filenames:
        objects, offline = _from_files(filenames, recursive=recursive)
        directory = ends.Directory(offline.cluster, namespace or "default", "in the files given")
    else:
        objects, offline, current = _from_cluster(kubeconfig, context_name)
        directory = ends.Directory(offline.cluster, namespace or current, "in the cluster")
    directory.add(objects)
    traffic = Protocol(protocol)
    start, goal = directory.source(source), directory.destination(destination, traffic, port)
    explanations = _judge(start, goal, offline, traffic)
    notes = (*start.notes, *goal.notes, *_made_up(directory, (*start.targets, *goal.targets), offline))
    _print(explanations, notes, output=output, verbose=verbose)
    return 0 if all(each.allowed for each in explanations) else 1


def _from_files(filenames: tuple[str, ...], *, recursive: bool) -> tuple[list[Mapping[str, Any]], Offline]:
    from ringfence.apis.manifests import cluster_from_manifests, kind_of, load_paths

    loaded = load_paths(filenames, recursive=recursive, stdin=sys.stdin.read)
    offline = cluster_from_manifests(loaded.manifests, fill_gaps=True)
    problems = (*loaded.problems, *offline.problems)
    for problem in problems:
        click.echo(str(problem), err=True)
    if problems:
        # One complaint a line, each beginning with its place, as editors and compilers have it.
        raise click.exceptions.Exit(2)
    for kind in sorted({kind_of(manifest.object) for manifest in loaded.manifests} - _READ):
        click.echo(f"note: {kind} is not read; only {', '.join(sorted(_READ))} decide", err=True)
    return [manifest.object for manifest in loaded.manifests], offline


def _from_cluster(kubeconfig: str | None, context: str | None) -> tuple[list[Mapping[str, Any]], Offline, str]:
    import msgspec

    from ringfence.apis.manifests import cluster_from_objects
    from ringfence.kube.config import load_access
    from ringfence.kube.oneshot import Connection

    access = load_access(kubeconfig, context)
    objects: list[Mapping[str, Any]] = []
    with Connection(access) as connection:
        for path, api_version, kind in _LISTS:
            # Items of a list do not repeat what they are.
            identity = {"apiVersion": api_version, "kind": kind}
            objects += ({**msgspec.json.decode(raw), **identity} for raw in connection.items(path))
    offline = cluster_from_objects(objects)
    for problem in offline.problems:
        click.echo(f"warning: stored, but invalid; what is broken of it matches nothing: {problem}", err=True)
    return objects, offline, access.default_namespace


def _made_up(directory: Directory, targets: tuple[Target, ...], offline: Offline) -> list[str]:
    """Say which pods of files have no address of their own, where rules on addresses make that matter."""
    from ringfence.model.policy import BlockPeer, Peers

    rules = (
        rule for policy in offline.policies.policies() for rule in (*(policy.ingress or ()), *(policy.egress or ()))
    )
    blocks = any(
        isinstance(peer, BlockPeer) for rule in rules if isinstance(rule.peers, Peers) for peer in rule.peers.members
    )
    return [
        f"{target.label} has no address in the files: {' and '.join(map(str, target.addresses.values()))} stand for "
        "it, and ipBlock rules are judged on them"
        for target in targets
        if blocks and not directory.has_address(target)
    ]


def _judge(start: Resolved, goal: Resolved, offline: Offline, protocol: Any) -> list[Explanation]:
    """Explain the connection in every family that both ends have, to every target; a denied target goes first."""
    from ringfence.errors import UsageError
    from ringfence.model.flow import Flow
    from ringfence.model.ports import Protocol
    from ringfence.semantics.explain import explain

    (source,) = start.targets
    explanations = []
    for target in goal.targets:
        for version in sorted(source.addresses.keys() & target.addresses.keys()):
            echo = Protocol.ICMPV6 if version == 6 else Protocol.ICMP
            spoken = protocol if protocol.has_ports else echo
            flow = Flow(source.addresses[version], target.addresses[version], spoken, target.port)
            explanations.append(explain(flow, offline.cluster, offline.policies))
    if not explanations:
        names = " and ".join(target.label for target in (source, *goal.targets))
        raise UsageError(f"{names} have no address family in common")
    return sorted(explanations, key=lambda each: each.allowed)


def _print(explanations: list[Explanation], notes: tuple[str, ...], *, output: str, verbose: bool) -> None:
    if output == "text":
        _print_text(explanations, notes, verbose=verbose)
        return
    import json

    from ringfence.semantics.report import API_VERSION, document

    whole = {
        "apiVersion": API_VERSION,
        "kind": "ExplanationList",
        "allowed": all(each.allowed for each in explanations),
        "notes": list(notes),
        "items": [document(each) for each in explanations],
    }
    if output == "json":
        click.echo(json.dumps(whole, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), nl=False)


def _print_text(explanations: list[Explanation], notes: tuple[str, ...], *, verbose: bool) -> None:
    """Print what differs once each: a denied pod or family is not hidden behind an allowed one."""
    from ringfence.semantics.report import text

    differ = len({each.allowed for each in explanations}) > 1
    shown = {each.allowed: each for each in reversed(explanations)}
    for allowed in sorted(shown):
        each = shown[allowed]
        first, _, rest = text(each, every_policy=verbose).partition("\n")
        family = f" (IPv{each.flow.destination.version})" if differ else ""
        click.secho(first + family, bold=True, fg="green" if allowed else "red", color=colour())
        click.echo(rest)
    if differ:
        few = ", ".join(f"{e.destination} IPv{e.flow.destination.version}" for e in explanations if not e.allowed)
        click.echo(f"  note: the verdict depends on where the connection ends; denied: {few}")
    for note in notes:
        click.echo(f"  note: {note}")
