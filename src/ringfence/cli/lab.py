# SPDX-License-Identifier: Apache-2.0
"""``ringfence lab``: bring a lab up, look at it, change its engine, use it, take it down."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from ringfence.cli.settings import settings_options
from ringfence.errors import UsageError

if TYPE_CHECKING:
    from ringfence.lab.config import NetworkPlugin, NetworkPolicy, PodStart
    from ringfence.lab.lifecycle import LabStatus

_name = click.option("--name", "-n", default="lab", show_default=True, help="The lab's name; labs run side by side.")


@click.group()
def command() -> None:
    """A cluster on this machine: its pods are network namespaces, and real kubectl works against it.

    \b
    Examples:
      ringfence lab up                                 two nodes, the best engine this machine can run
      ringfence lab get-credentials                    make it kubectl's current cluster
      kubectl get nodes
      ringfence lab exec --node aks-nodepool1-000000 -- nft list ruleset
      ringfence lab update --network-policy ebpf       another engine, while pods talk
      ringfence lab down
    """


@command.command()
@_name
@click.option("--node-count", "-c", default=2, show_default=True, help="How many nodes.")
@click.option(
    "--network-plugin",
    type=click.Choice(["azure", "kubenet"]),
    default="azure",
    show_default=True,
    help="How pods are wired: routed host interfaces (azure), or a bridge on each node (kubenet).",
)
@click.option(
    "--network-policy",
    type=click.Choice(["nftables", "ebpf", "memory", "none"]),
    help="The engine. Default: the best that this machine can run. memory: simulated, no packets, no root. "
    "none: policies are stored and not enforced.",
)
@settings_options
@click.option("--port", type=click.IntRange(1, 65535), help="The API server's port on 127.0.0.1. Default: a free one.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
def up(
    name: str,
    node_count: int,
    network_plugin: str,
    network_policy: str | None,
    port: int | None,
    output: str,
    pod_start: str,
    **meaning: str,
) -> None:
    """Bring a lab up, and wait until its nodes are ready."""
    from ringfence.cli.progress import Steps
    from ringfence.lab import lifecycle

    engine = choose_engine(cast("NetworkPolicy | None", network_policy))
    with Steps(f'lab "{name}"') as steps:
        now = lifecycle.up(
            name,
            node_count=node_count,
            plugin=cast("NetworkPlugin", network_plugin),
            policy=engine,
            port=port,
            pod_start=cast("PodStart", pod_start),
            agent_options=[f"--{option.replace('_', '-')}={choice}" for option, choice in sorted(meaning.items())],
            progress=steps.show,
        )
    if output == "json":
        click.echo(json.dumps(_as_json(now)))
        return
    simulated = " (simulated: no packets)" if now.config.simulated else ""
    click.echo(f'lab "{name}" is up: {node_count} nodes, {network_plugin}, {engine}{simulated}')
    option = "" if name == "lab" else f" --name {name}"
    click.echo(f"next: ringfence lab get-credentials{option} && kubectl get nodes")


def choose_engine(wanted: NetworkPolicy | None) -> NetworkPolicy:
    """Return the engine asked for, or the best that this machine can run; says so where that is a simulation."""
    from ringfence.dataplanes.registry import choose, require
    from ringfence.lab import lifecycle

    if wanted not in (None, "memory"):
        lifecycle.require_namespaces()
    if wanted is not None:
        if wanted != "none":
            require(wanted)
        return wanted
    choice = choose("auto")
    if choice.name == "memory":
        click.echo(f"this lab is simulated, it moves no packets: {choice.reason}", err=True)
    elif choice.passed_over:
        click.echo(f"this lab's engine is {choice.name}: {choice.reason}", err=True)
    return cast("NetworkPolicy", choice.name)


@command.command()
@_name
@click.option(
    "--network-policy",
    type=click.Choice(["nftables", "ebpf", "none"]),
    required=True,
    help="The engine from now on. none: policies are stored and not enforced.",
)
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
def update(name: str, network_policy: str, output: str) -> None:
    """Give a lab that runs another policy engine, while its pods go on.

    Node after node gets an agent of the new engine. It takes over before the rules of the old one go, so that no
    connection is denied or let through that policies say otherwise of, and open ones live on. New pods of a node wait
    meanwhile. With none the agents end and their rules are taken away; policies stay stored, and the next update to an
    engine enforces them again.

    If an engine does not get into force on a node, that node and those after it keep what they had.

    \b
    Examples:
      ringfence lab update --network-policy ebpf
      ringfence lab update --network-policy none        what would pods reach without policies?
      ringfence lab update --name demo --network-policy nftables
    """
    from ringfence.cli.progress import Steps
    from ringfence.lab import lifecycle

    engine = choose_engine(cast("NetworkPolicy", network_policy))
    with Steps(f'lab "{name}"') as steps:
        now = lifecycle.update(name, policy=engine, progress=steps.show)
    if output == "json":
        click.echo(json.dumps(_as_json(now)))
        return
    enforced = "no policy is enforced" if engine == "none" else f"{engine} enforces policies"
    click.echo(f'lab "{name}": {enforced} on {len(now.nodes)} nodes')


@command.command()
@_name
def down(name: str) -> None:
    """Take a lab down: pods, processes, namespaces and files, and what a killed lab left."""
    from ringfence.cli.progress import Steps
    from ringfence.lab import lifecycle
    from ringfence.lab.config import paths_of
    from ringfence.lab.credentials import remove_from_kubeconfig

    forgotten = remove_from_kubeconfig(_user_kubeconfig(), paths_of(name).kubeconfig)
    with Steps(f'lab "{name}"') as steps:
        existed = lifecycle.down(name, progress=steps.show)
    if not existed:
        raise UsageError(f'there is no lab "{name}"')
    note = f"; its context is gone from {_user_kubeconfig()}" if forgotten else ""
    click.echo(f'lab "{name}" is down{note}')


@command.command()
@_name
@click.option("--all", "-A", "every", is_flag=True, help="All labs of this user, a line each.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(name: str, every: bool, output: str) -> int:
    """Say how a lab is. Exit code 0 if it runs and all its nodes are ready, 1 if not."""
    from ringfence.lab import lifecycle

    found = [lifecycle.status(lab) for lab in (lifecycle.lab_names() if every else (name,))]
    if output == "json":
        click.echo(json.dumps([_as_json(lab) for lab in found] if every else _as_json(found[0])))
    elif not found:
        click.echo("no labs; bring one up with: ringfence lab up", err=True)
    else:
        for lab in found:
            _print_status(lab)
    return 0 if all(_well(lab) for lab in found) else 1


def _well(lab: LabStatus) -> bool:
    return lab.running and bool(lab.nodes) and all(node.ready for node in lab.nodes)


def _print_status(lab: LabStatus) -> None:
    state = "running" if lab.running else "not running"
    click.echo(f"{lab.config.name}: {state}, {lab.config.network_plugin}, {lab.config.network_policy}, {lab.server}")
    for node in lab.nodes:
        click.echo(f"  {node.name}  {'Ready' if node.ready else 'NotReady ' + node.reason}")
    if lab.nodes:
        click.echo(f"  {lab.pods} pods")
    if lab.problem:
        click.echo(f"  {lab.problem}")


def _as_json(lab: LabStatus) -> dict[str, Any]:
    return {
        "name": lab.config.name,
        "running": lab.running,
        "server": lab.server,
        "networkPlugin": lab.config.network_plugin,
        "networkPolicy": lab.config.network_policy,
        "nodes": [{"name": node.name, "ready": node.ready, "reason": node.reason} for node in lab.nodes],
        "pods": lab.pods,
        "problem": lab.problem,
    }


@command.command("get-credentials")
@_name
@click.option("--file", "-f", "file", help="Write here; - is standard output. Default: the file that kubectl reads.")
@click.option("--overwrite-existing", is_flag=True, help="Replace entries of the same name that differ.")
def get_credentials(name: str, file: str | None, overwrite_existing: bool) -> None:
    """Merge a lab's credentials into your kubeconfig, and make it kubectl's current context."""
    from ringfence.lab.config import paths_of, read_config
    from ringfence.lab.credentials import merge_kubeconfig

    paths = paths_of(name)
    read_config(paths)  # says so if there is no such lab
    if file == "-":
        click.echo(paths.kubeconfig.read_text(), nl=False)
        return
    target = Path(file) if file else _user_kubeconfig()
    merge_kubeconfig(target, paths.kubeconfig, overwrite=overwrite_existing)
    click.echo(f'Merged "{name}" as current context in {target}')


def _user_kubeconfig() -> Path:
    """Return the file that kubectl writes to: the first of KUBECONFIG, or ~/.kube/config."""
    first = next(filter(None, os.environ.get("KUBECONFIG", "").split(os.pathsep)), None)
    return Path(first) if first else Path.home() / ".kube" / "config"


@command.command("exec", context_settings={"ignore_unknown_options": True})
@_name
@click.option("--node", help="Run in this node's network namespace, instead of in a pod.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, node: str | None, words: tuple[str, ...]) -> int:
    """Run a command in a pod (NAMESPACE/POD), or in a node's network namespace.

    The exit code is the command's. As kubectl exec does, stderr tells "command terminated with exit code N" where that
    is not 0; an error of ringfence's own begins with "Error:" and has exit code 2.

    \b
    Examples:
      ringfence lab exec demo/client -- /agnhost connect 10.224.0.5:80 --timeout=3s
      ringfence lab exec --node aks-nodepool1-000000 -- nft list table inet ringfence
    """
    from ringfence.lab.config import paths_of, read_config

    paths = paths_of(name)
    config = read_config(paths)
    if node is not None:
        return _exec_on_node(config, node, words)
    pod, argv = words[0], words[1:]
    if pod.count("/") != 1 or not argv:
        raise UsageError("say in which pod and what to run: ringfence lab exec NAMESPACE/POD -- COMMAND")
    from ringfence.lab.execute import run_in_pod

    namespace, _, pod_name = pod.partition("/")
    return _told(run_in_pod(paths, namespace, pod_name, argv))


def _told(code: int) -> int:
    """Say that an exit code is the command's own, as kubectl exec does: ringfence's errors look alike otherwise."""
    if code != 0:
        click.echo(f"command terminated with exit code {code}", err=True)
    return code


def _exec_on_node(config: Any, node: str, argv: tuple[str, ...]) -> int:
    if node not in config.nodes:
        raise UsageError(f"lab {config.name} has no node {node}; it has {', '.join(config.nodes)}")
    if config.simulated:
        raise UsageError(f"lab {config.name} is simulated: its nodes have no network namespace")
    from ringfence.host.netns import enter
    from ringfence.lab.topology import plan_topology

    if shutil.which(argv[0]) is None:
        raise UsageError(f"this machine has no command {argv[0]!r}")
    topology = plan_topology(config.name, config.network_plugin, config.nodes)
    with enter(topology.node(node).netns):
        code = os.spawnvp(os.P_WAIT, argv[0], argv)
    # Below zero it is a signal, which shells count from 128 on.
    return _told(code if code >= 0 else 128 - code)
