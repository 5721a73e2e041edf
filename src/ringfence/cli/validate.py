# SPDX-License-Identifier: Apache-2.0
"""``ringfence validate``: what the API server would refuse of manifests, before it is asked.

Reads files and prints what ``apis.refusals`` says of their objects. Decides nothing about them.
"""

from __future__ import annotations

import click

OUTPUTS = ["text", "json", "sarif"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-f",
    "--filename",
    "filenames",
    multiple=True,
    required=True,
    metavar="FILE|DIR|-",
    help="Manifests to check. May be repeated.",
)
@click.option("-R", "--recursive", is_flag=True, help="Read directories below those of -f too.")
@click.option("-o", "--output", type=click.Choice(OUTPUTS), default="text", show_default=True, help="Format.")
def command(filenames: tuple[str, ...], recursive: bool, output: str) -> int:
    """Say everything that the API server would refuse of manifests, with file, line and column; no cluster is asked.

    NetworkPolicies are checked whole, in the words of kube-apiserver; unknown fields are errors, as with kubectl's
    strict validation. Of Namespaces, Nodes, Pods, Services and workloads beside them, what policies depend on is
    checked: names, labels, ports, types. Other kinds are only read.

    \b
    Exit code:
      0  valid
      1  something would be refused
      2  usage error, or a path that cannot be read

    \b
    Examples:
      ringfence validate -f policy.yaml
      ringfence validate -f manifests/ -R
      helm template . | ringfence validate -f -
      ringfence validate -f policies/ -o sarif > validate.sarif
    """
    from ringfence.apis.manifests import by_place
    from ringfence.apis.refusals import refusals
    from ringfence.cli import inputs, reporting
    from ringfence.semantics.lint.findings import is_network_policy, ref_of, refused
    from ringfence.semantics.lint.rules import RULES
    from ringfence.semantics.lint.summary import of

    loaded = inputs.manifests(filenames, recursive=recursive)
    reporting.readable(loaded)
    wrong = [(number, errors) for number, each in enumerate(loaded.manifests) if (errors := refusals(each.object))]
    problems = by_place((*loaded.problems, *(loaded.manifests[number].complaint(errors) for number, errors in wrong)))
    if output == "text":
        for problem in problems:
            click.echo(str(problem))
        count = sum(len(problem.errors) for problem in problems)
        checked = of(len(loaded.manifests), "object", "objects")
        click.echo(f"{of(count, 'error', 'errors')} in {checked}" if problems else f"{checked} valid")
        return 1 if problems else 0
    found = [f for number, errors in wrong for f in refused(ref_of(loaded.manifests[number].object), errors, number)]
    findings = [*reporting.of_files(loaded.problems), *reporting.placed(found, loaded.manifests)]
    reporting.show(
        reporting.in_order(findings),
        output,
        "ValidationReport",
        rules=[RULES["invalid"], RULES["unknown-field"]],
        policies=sum(is_network_policy(manifest.object) for manifest in loaded.manifests),
    )
    return 1 if problems else 0
