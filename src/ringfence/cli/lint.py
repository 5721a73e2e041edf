# SPDX-License-Identifier: Apache-2.0
"""``ringfence lint``: what is wrong with policies, and what is probably not meant; in files, or in a live cluster.

Gathers the objects, lets ``semantics.lint`` judge them, and prints what was found. Decides nothing about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ringfence.cli.validate import OUTPUTS

if TYPE_CHECKING:
    from ringfence.model.policy import ObjectRef
    from ringfence.semantics.lint.findings import Finding

_FAIL_ON = ["error", "warning", "info", "never"]


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
@click.option(
    "-n",
    "--namespace",
    help="Report on the policies of this namespace; with -f, the namespace of objects that name none.",
)
@click.option("-A", "--all-namespaces", is_flag=True, help="Report on the policies of every namespace.")
@click.option("--kubeconfig", metavar="FILE", help="Reach the cluster by this kubeconfig.")
@click.option("--context", "context_name", metavar="NAME", help="Use this context of the kubeconfig.")
@click.option("--disable", "disabled", multiple=True, metavar="RULE", help="Leave a rule out. May be repeated.")
@click.option(
    "--fail-on",
    type=click.Choice(_FAIL_ON),
    default="warning",
    show_default=True,
    help="Exit with 1 if something as grave as this was found.",
)
@click.option("--rules", "list_rules", is_flag=True, help="List all rules, each with its sentence, and exit.")
@click.option("-o", "--output", type=click.Choice(OUTPUTS), default="text", show_default=True, help="Format.")
def command(
    filenames: tuple[str, ...],
    recursive: bool,
    namespace: str | None,
    all_namespaces: bool,
    kubeconfig: str | None,
    context_name: str | None,
    disabled: tuple[str, ...],
    fail_on: str,
    list_rules: bool,
    output: str,
) -> int:
    """Find what is wrong with network policies, and what is probably not meant by them.

    Errors are what the API server refuses. Warnings are few and exact: each names the field, quotes the sentence that
    it rests on, and says what to do. Give the pods or workloads, Namespaces, Services and Nodes too: what a policy
    should select is judged only where they are known. Without -f the cluster of the kubeconfig is asked, and the
    policies of the context's namespace are reported on: -n and -A choose.

    The annotation lint.ringfence.io/ignore on a policy silences the rules that it names, separated by commas.

    \b
    Exit code:
      0  nothing found that --fail-on asks for
      1  something found
      2  usage or runtime error

    \b
    Examples:
      ringfence lint -f policies/ -f deployments/
      helm template . | ringfence lint -f -
      ringfence lint -A
      ringfence lint -n shop --fail-on error --disable no-dns-egress
      ringfence lint -f policies/ -o sarif > lint.sarif
      ringfence lint --rules
    """
    from ringfence.cli import reporting
    from ringfence.semantics.lint.rules import RULES, Severity

    if all_namespaces and namespace:
        raise click.UsageError("give -A or -n, not both")
    _check(disabled)
    if list_rules:
        _print_rules()
        return 0
    if filenames:
        report = _of_files(filenames, recursive=recursive, namespace=namespace, disabled=disabled)
    else:
        report = _of_cluster(
            kubeconfig, context_name, namespace=namespace, everywhere=all_namespaces, disabled=disabled
        )
    ordered = reporting.in_order(report.findings)
    if output == "text":
        reporting.show_text(ordered, report.subject)
    else:
        asked = [rule for rule in RULES.values() if rule.name not in disabled]
        reporting.show(ordered, output, "LintReport", rules=asked, policies=report.policies)
    grave = None if fail_on == "never" else Severity[fail_on.upper()]
    return 1 if grave is not None and any(finding.severity >= grave for finding in ordered) else 0


def _check(disabled: Sequence[str]) -> None:
    from ringfence.semantics.lint.rules import RULES, UNDENIABLE

    for name in disabled:
        if name not in RULES:
            raise click.UsageError(f"there is no rule {name}; ringfence lint --rules lists them")
        if name in UNDENIABLE:
            raise click.UsageError(f"{name} cannot be left out: the API server would refuse the object all the same")


def _print_rules() -> None:
    from ringfence.semantics.lint.rules import RULES
    from ringfence.semantics.lint.summary import described

    for rule in RULES.values():
        for line in described(rule):
            click.echo(line)


class _Report(NamedTuple):
    """What was found, of how many policies, and what to call those."""

    findings: Sequence[Finding]
    policies: int
    subject: str


def _of_files(filenames: Sequence[str], *, recursive: bool, namespace: str | None, disabled: Sequence[str]) -> _Report:
    """Judge files; the namespace is that of objects that name none."""
    from ringfence.cli import inputs, reporting
    from ringfence.semantics.lint.run import lint
    from ringfence.semantics.lint.summary import of

    loaded = inputs.manifests(filenames, recursive=recursive)
    reporting.readable(loaded)
    objects = [inputs.in_namespace(manifest.object, namespace) for manifest in loaded.manifests]
    # Of all that a chart holds beside, only policies of other kinds are missed.
    inputs.note_unread(obj for obj in objects if "NetworkPolicy" in str(obj.get("kind")))
    findings = reporting.placed(lint(objects, whole=False, disabled=disabled), loaded.manifests)
    count = len(_policies(objects))
    subject = of(count, "NetworkPolicy", "NetworkPolicies")
    return _Report([*reporting.of_files(loaded.problems), *findings], count, subject)


def _of_cluster(
    kubeconfig: str | None, context: str | None, *, namespace: str | None, everywhere: bool, disabled: Sequence[str]
) -> _Report:
    """Judge a live cluster; told is of one namespace, or of every one."""
    from ringfence.cli import inputs
    from ringfence.semantics.lint.run import lint
    from ringfence.semantics.lint.summary import of

    objects, default = inputs.stored(kubeconfig, context, workloads=True)
    findings = lint(objects, whole=True, disabled=disabled)
    policies = _policies(objects)
    if everywhere:
        return _Report(findings, len(policies), of(len(policies), "NetworkPolicy", "NetworkPolicies"))
    chosen = namespace or default
    count = sum(ref.namespace == chosen for ref in policies)
    others = f" (-A reports on all {len(policies)})" if not count and policies else ""
    subject = f"{of(count, 'NetworkPolicy', 'NetworkPolicies')} of namespace {chosen}{others}"
    return _Report([each for each in findings if each.object.namespace in ("", chosen)], count, subject)


def _policies(objects: Sequence[Mapping[str, Any]]) -> list[ObjectRef]:
    from ringfence.semantics.lint.findings import is_network_policy, ref_of

    return [ref_of(obj) for obj in objects if is_network_policy(obj)]
