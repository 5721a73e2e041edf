# SPDX-License-Identifier: Apache-2.0
"""``ringfence explain``: why a connection is allowed or denied, in a live cluster or by files alone.

Resolves what the user typed (``semantics.ends``), lets ``semantics.connections`` judge every connection that it means,
and prints what ``semantics.report`` renders. Decides no verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ringfence.cli.colour import colour
from ringfence.cli.settings import meaning_options

if TYPE_CHECKING:
    from ringfence.semantics.connections import Answer

_PROTOCOLS = ["TCP", "UDP", "SCTP", "ICMP"]
_EXIT = {"Allowed": 0, "Denied": 1, "Undecidable": 3}
_COLOURS = {"Allowed": "green", "Denied": "red", "Undecidable": "yellow"}
_CUT = (
    "connections that were open before a policy denied them are cut, unless the agents run with "
    "--established-connections keep"
)


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
@meaning_options
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "wide", "json", "yaml"]),
    default="text",
    show_default=True,
    help="Format.",
)
@click.option(
    "-v", "--verbose", is_flag=True, help="Say what every policy of the namespace makes of it: the same as -o wide."
)
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
    node_probes: str,
    own_node_egress: str,
    output: str,
    verbose: bool,
) -> int:
    """Say why a connection is allowed or denied: by which policy and rule, or which rule came nearest.

    An END is a pod (demo/client, or pod/client with -n), a workload (deploy/web, sts/db), a Service (svc/demo/web, or
    its address; judged on the pods behind it), a node (node/NAME; with the number of a node port, the Service behind
    it), an address, or outside/ADDRESS for one that is certainly no pod's. Without -f the cluster of the kubeconfig is
    asked; with -f no cluster is touched, and what the files do not tell is not guessed.

    \b
    Exit code:
      0  allowed
      1  denied
      2  usage or runtime error
      3  undecidable: the answer says what would have to be known

    \b
    Examples:
      ringfence explain --from demo/client --to demo/server --port 80
      ringfence explain --from demo/client --to svc/demo/web --port http
      ringfence explain --from deploy/web --to sts/db -n shop --port 5432 -f manifests/ -f policy.yaml
      ringfence explain --from demo/client --to 203.0.113.7 --port 443 -o json
      ringfence explain --from 203.0.113.7 --to node/aks-nodepool1-000000 --port 30080
      ringfence explain --from demo/client --to 8.8.8.8 --port 53 --protocol UDP -o wide
    """
    from ringfence.cli import inputs
    from ringfence.model.ports import Protocol
    from ringfence.model.settings import NodeProbes, OwnNodeEgress, Settings
    from ringfence.semantics import connections
    from ringfence.semantics.ends import Directory
    from ringfence.semantics.gaps import gaps

    given = (
        inputs.from_files(filenames, recursive=recursive)
        if filenames
        else inputs.from_cluster(kubeconfig, context_name)
    )
    cluster, policies, problems = given.offline
    where = "in the cluster" if given.live else "in the files given"
    known = gaps(given.objects, cluster, problems)
    directory = Directory(cluster, namespace or given.namespace, where, known, whole=given.live)
    directory.add(given.objects)
    traffic = Protocol(protocol)
    start, goal = directory.source(source), directory.destination(destination, traffic, port)
    settings = Settings(NodeProbes(node_probes), OwnNodeEgress(own_node_egress))
    answer = connections.answer(directory, start, goal, traffic, policies, settings=settings)
    _print(answer, output="wide" if verbose and output == "text" else output)
    return _EXIT[answer.outcome.value]


def _print(answer: Answer, *, output: str) -> None:
    if output in ("text", "wide"):
        _print_text(answer, wide=output == "wide")
        return
    whole = _document(answer)
    if output == "json":
        import json

        click.echo(json.dumps(whole, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), nl=False)


def _document(answer: Answer) -> dict[str, Any]:
    from ringfence.semantics.report import API_VERSION, document, unknown_document

    return {
        "apiVersion": API_VERSION,
        "kind": "ExplanationList",
        "verdict": answer.outcome.value,
        "allowed": answer.allowed,
        "unknowns": [unknown_document(unknown) for unknown in answer.unknowns],
        "notes": [*answer.notes, *([_CUT] if answer.allowed is False else [])],
        "items": [document(each) for each in answer.explanations],
    }


def _print_text(answer: Answer, *, wide: bool) -> None:
    """Print what differs once each: a denied pod or family is not hidden behind an allowed one."""
    from ringfence.semantics.report import text, unknown_lines

    shown = {each.outcome: each for each in reversed(answer.explanations)}
    firsts = [each for each in answer.explanations if shown[each.outcome] is each]
    differ = len(firsts) > 1
    if differ or answer.outcome not in shown:
        _headline(f"{answer.question}: {answer.outcome.value.upper()}", answer.outcome.value)
    for line in unknown_lines(answer.unknowns):
        click.echo(f"  {line}")
    for each in firsts:
        first, _, rest = text(each, every_policy=wide).partition("\n")
        family = f" (IPv{each.flow.destination.version})" if differ else ""
        _headline(first + family, each.outcome.value)
        click.echo(rest)
    if differ:
        others = [each for each in answer.explanations if each.outcome is not firsts[-1].outcome]
        few = dict.fromkeys(
            f"{e.source} -> {e.destination} IPv{e.flow.destination.version} {e.outcome.value.lower()}" for e in others
        )
        click.echo(f"  note: the verdict depends on where the connection ends: {', '.join(few)}")
    for note in (*answer.notes, *([_CUT] if wide and answer.allowed is False else [])):
        click.echo(f"  note: {note}")


def _headline(line: str, outcome: str) -> None:
    click.secho(line, bold=True, fg=_COLOURS[outcome], color=colour())
