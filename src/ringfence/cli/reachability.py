# SPDX-License-Identifier: Apache-2.0
"""``ringfence reachability``: who reaches whom, in a live cluster or by files alone.

Names the parties (``semantics.parties``), lets ``semantics.reachability`` judge them, and prints a table, a list, or a
document. Decides no verdict.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ringfence.semantics.reachability import Reachability

_PROTOCOLS = ["TCP", "UDP", "SCTP", "ICMP"]
_OUTPUTS = ["table", "list", "wide", "json", "yaml", "dot", "html"]
_WIDEST = 160
_MOST_COLUMNS = 40


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-f",
    "--filename",
    "filenames",
    multiple=True,
    metavar="FILE|DIR|-",
    help="Judge the objects of these files, and no cluster. May be repeated.",
)
@click.option("-R", "--recursive", is_flag=True, help="Read directories below those of -f too.")
@click.option("-n", "--namespace", help="Only what begins or ends in this namespace.")
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces of the cluster; files always show all.")
@click.option("--from", "sources", multiple=True, metavar="NAME", help="Only from these; * stands for anything.")
@click.option("--to", "destinations", multiple=True, metavar="NAME", help="Only to these; * stands for anything.")
@click.option("--port", type=click.IntRange(1, 65535), help="Only this destination port.")
@click.option("--protocol", type=click.Choice(_PROTOCOLS, case_sensitive=False), help="Only this protocol.")
@click.option("--ungrouped", is_flag=True, help="Each pod for itself, not by workload.")
@click.option("--kubeconfig", metavar="FILE", help="Reach the cluster by this kubeconfig.")
@click.option("--context", "context_name", metavar="NAME", help="Use this context of the kubeconfig.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(_OUTPUTS),
    default="table",
    show_default=True,
    help="table: a matrix where it fits, else the list. wide: each pair, and the policies that decide.",
)
def command(
    filenames: tuple[str, ...],
    recursive: bool,
    namespace: str | None,
    all_namespaces: bool,
    sources: tuple[str, ...],
    destinations: tuple[str, ...],
    port: int | None,
    protocol: str | None,
    ungrouped: bool,
    kubeconfig: str | None,
    context_name: str | None,
    output: str,
) -> int:
    """Say who reaches whom, and with which traffic.

    Pods are grouped by their workload (Deployment, StatefulSet, ...), else by namespace and labels; so a cluster of a
    thousand pods can be read. Other ends are "nodes", the "own node" of each pod, and "outside": the world, in pieces
    where policies name blocks of it. "some pods" says that pods of one group differ; --ungrouped shows which.

    Without -f the cluster of the kubeconfig is asked, and the namespace of its context is shown: -n and -A choose. With
    -f no cluster is touched; workloads in the files stand for their pods.

    NAME is what the output calls an end (shop/web, nodes, outside*), or a pod; without a namespace, of that of -n.

    \b
    Exit code: 0, or 2 for a usage or runtime error.

    \b
    Examples:
      ringfence reachability -n shop
      ringfence reachability -f manifests/ -f policies/
      ringfence reachability -A --to shop/db --port 5432 -o wide
      ringfence reachability -A --from 'outside*' -o list
      ringfence reachability -f manifests/ -o html > who-reaches-whom.html
      ringfence reachability -f manifests/ -o dot | dot -Tsvg > who-reaches-whom.svg
    """
    from ringfence.apis.workloads import owners
    from ringfence.cli import inputs, parties
    from ringfence.cli.progress import Steps
    from ringfence.model.ports import PortRange, Protocol
    from ringfence.semantics import reachability
    from ringfence.semantics.allowed import Allowed
    from ringfence.semantics.parties import parties as everybody
    from ringfence.semantics.space import space
    from ringfence.semantics.wording import Wording

    given = (
        inputs.from_files(filenames, recursive=recursive)
        if filenames
        else inputs.from_cluster(kubeconfig, context_name)
    )
    spoken = Protocol(protocol) if protocol else Protocol.TCP if port is not None else None
    if port is not None and spoken is Protocol.ICMP:
        raise click.UsageError("ICMP has no ports: leave --port out")
    cuts = [] if port is None or spoken is None else [(spoken, PortRange(port, port))]
    with Steps("reachability") as steps:
        steps.show("sorting addresses into classes")
        found = space(given.offline.cluster, given.offline.policies, cuts=cuts)
        everyone = everybody(found, owners(given.objects), grouped=not ungrouped)
        shown = None if all_namespaces else namespace or (given.namespace if given.live else None)
        choice = parties.choose(everyone, namespace=shown, sources=sources, destinations=destinations)
        steps.show(f"judging {len(everyone)} ends")
        reached = reachability.reachability(
            Allowed(found, given.offline.policies),
            everyone,
            Wording(found.spans, protocol=spoken, port=port),
            chosen=choice,
            notes=parties.notes(given.objects, found),
        )
    click.echo(_rendered(reached, output))
    return 0


def _rendered(reached: Reachability, output: str) -> str:
    match output:
        case "json":
            import json

            from ringfence.semantics.reachability import document

            return json.dumps(document(reached), indent=2)
        case "yaml":
            import yaml

            from ringfence.semantics.reachability import document

            return str(yaml.safe_dump(document(reached), sort_keys=False, allow_unicode=True)).rstrip()
        case "dot":
            from ringfence.semantics.drawing import dot

            return dot(reached)
        case "html":
            from ringfence.semantics.page import page

            return page(reached)
        case _:
            return "\n".join(_text(reached, output))


def _text(reached: Reachability, output: str) -> list[str]:
    from ringfence.semantics.reachability import EVER_SELF
    from ringfence.semantics.tables import listing, matrix, pairs, width

    if not reached.exchanges:
        return ["nothing to show: no two ends of these have an address family in common, or there is no pod"]
    if output == "wide":
        lines = pairs(reached)
    else:
        narrow = output == "table" and len(reached.destinations) <= _MOST_COLUMNS
        table = matrix(reached) if narrow else []
        columns = shutil.get_terminal_size((_WIDEST, 24)).columns if sys.stdout.isatty() else _WIDEST
        lines = table if table and width(table) <= columns else listing(reached)
    return [*lines, "", *(f"note: {note}" for note in (EVER_SELF, *reached.notes))]
