# SPDX-License-Identifier: Apache-2.0
"""``ringfence agent``: the agent of one node, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence.cli.settings import ebpf_hook_option, settings_options

_EPILOG = """\b
Examples:
  ringfence agent --node-name "$NODE_NAME"                    in a DaemonSet pod, with its service account
  ringfence agent --kubeconfig ./kubeconfig --node-name n1 --dataplane memory

The rules stay in the kernel when the agent stops or dies; the next one takes them over."""


@click.command(epilog=_EPILOG)
@click.option("--kubeconfig", metavar="FILE", help="How to reach the API server. Default: as kubectl, then in-cluster.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig. Default: its current one.")
@click.option("--node-name", metavar="NODE", envvar="NODE_NAME", required=True, help="The node whose pods to protect.")
@click.option(
    "--dataplane",
    metavar="auto|nftables|ebpf|memory",
    default="auto",
    show_default=True,
    help="What enforces; auto is the best that this machine can run and that filters packets.",
)
@ebpf_hook_option
@click.option(
    "--gate-socket",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Unix socket that says whether a pod's policy is in force; also health and metrics.",
)
@click.option("--metrics-bind-address", metavar="HOST:PORT", help="Serve /metrics, /readyz and /livez here as well.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-allows",
    is_flag=True,
    help="Log allowed connections too, not only what is denied; needs an engine that tells.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@settings_options
@click.option(
    "--drift-interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=5.0,
    show_default=True,
    help="How often to look whether somebody else changed our rules, though the kernel should tell at once.",
)
def command(
    *,
    kubeconfig: str | None,
    context: str | None,
    node_name: str,
    dataplane: str,
    ebpf_hook: str,
    gate_socket: Path | None,
    metrics_bind_address: str | None,
    log_format: str,
    log_allows: bool,
    verbose: bool,
    node_probes: str,
    own_node_egress: str,
    established_connections: str,
    pod_start: str,
    drift_interval: float,
) -> None:
    """Enforce network policies on this node.

    Follows pods, namespaces, nodes and network policies of the cluster, compiles what this node needs, and keeps it
    in the kernel. Ends on SIGTERM; exit code 2 if it cannot start.
    """
    import asyncio
    import gc

    gc.disable()  # importing makes no garbage, only much for the collector to walk over (20 ms)

    from ringfence.agent.logs import open_log
    from ringfence.agent.podgate import PodStart
    from ringfence.agent.start import Options, serve
    from ringfence.kube.config import load_access
    from ringfence.model.settings import Established, NodeProbes, OwnNodeEgress, Settings

    options = Options(
        node=node_name,
        dataplane=dataplane,
        ebpf_hook=ebpf_hook,
        gate_socket=gate_socket,
        metrics_address=metrics_bind_address,
        meaning=Settings(NodeProbes(node_probes), OwnNodeEgress(own_node_egress), Established(established_connections)),
        pod_start=PodStart(pod_start),
        drift_seconds=drift_interval,
        log_allows=log_allows,
    )
    gc.freeze()
    gc.enable()
    log = open_log("json" if log_format == "json" else "text", verbose=verbose)
    asyncio.run(serve(load_access(kubeconfig, context), options, log))
