# SPDX-License-Identifier: Apache-2.0
"""Bring a lab up, change it, take it down, and say how it is.

``up`` leaves nothing half made: whatever fails, what it made is taken away again. ``update`` changes the policy engine
of a lab that runs. ``down`` also finds what a killed lab left (``remains``).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ringfence.errors import HostLacks, HostRefused, RingfenceError, UsageError
from ringfence.kube.config import load_access
from ringfence.kube.oneshot import Connection
from ringfence.lab import supervisor
from ringfence.lab.config import (
    LabConfig,
    LabPaths,
    NetworkPlugin,
    NetworkPolicy,
    PodStart,
    labs_directory,
    paths_of,
    read_config,
    write_config,
)
from ringfence.lab.remains import clean

START_TIMEOUT = 30.0  # seconds for a lab to become ready
STOP_TIMEOUT = supervisor.GRACE + 7.0  # seconds for its supervisor to stop everything
_POLL = 0.05  # seconds between two looks
SERVICE_ADDRESS = ipaddress.IPv4Address("10.0.0.1")  # the Service "kubernetes": the first of the Service network

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node's name, and whether it is Ready."""

    name: str
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LabStatus:
    """How a lab is: ``running`` if its supervisor lives; nodes and pod count only if its API server answers."""

    config: LabConfig
    running: bool
    server: str
    nodes: tuple[NodeStatus, ...] = ()
    pods: int = 0
    problem: str = ""


def up(
    name: str,
    *,
    node_count: int,
    plugin: NetworkPlugin,
    policy: NetworkPolicy,
    port: int | None,
    pod_start: PodStart = "closed",
    agent_options: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> LabStatus:
    """Bring a lab up and wait until every node is Ready. Raises if there is one of this name, or the port is taken."""
    paths = paths_of(name)
    nodes = node_names(node_count)
    paths.directory.mkdir(parents=True, exist_ok=True)
    _refuse_running(paths)
    if paths.config.exists():
        progress("removing what a killed lab of this name left, its objects too")
    clean(name, paths)
    paths.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = LabConfig(name, _free_port(port), nodes, plugin, policy, pod_start, tuple(agent_options))
    try:
        progress("namespaces and links")
        fabric = _build_fabric(config)
        _write_credentials(config, paths, fabric)
        paths.pods.mkdir()
        write_config(paths, config)
        progress("API server, agents and kubelets")
        process = _start_supervisor(paths)
        return _wait_ready(config, paths, process)
    except BaseException:
        _stop_supervisor(paths)
        clean(name, paths)
        raise


def down(name: str, *, progress: Progress = lambda _: None) -> bool:
    """Take a lab down and leave nothing behind; tell whether there was anything."""
    paths = paths_of(name)
    existed = paths.directory.exists()
    progress("stopping pods and processes")
    if existed:
        _stop_supervisor(paths)
    progress("removing namespaces")
    left = clean(name, paths)
    return existed or left


def update(name: str, *, policy: NetworkPolicy, progress: Progress = lambda _: None) -> LabStatus:
    """Give a lab that runs another policy engine, node after node, and wait until that alone is in force everywhere.

    With ``none`` nothing is. Raises ``HostRefused`` if a node does not get there; the next ``update`` goes on.
    """
    paths = paths_of(name)
    config = read_config(paths)
    if config.simulated or policy == "memory":
        raise UsageError(
            f'lab "{name}" cannot change between simulated and real; '
            f"take it down, and bring it up with: ringfence lab up --name {name} --network-policy {policy}"
        )
    if not _running(paths):
        raise UsageError(
            f'lab "{name}" is not running; bring it up with: ringfence lab up --name {name} --network-policy {policy}'
        )
    config = msgspec.structs.replace(config, network_policy=policy)
    write_config(paths, config)
    os.kill(int(paths.lock.read_text()), signal.SIGHUP)
    with Connection(load_access(str(paths.kubeconfig))) as connection:
        return _wait_in_force(config, paths, connection, progress)


def status(name: str) -> LabStatus:
    """Say how a lab is; raises ``UsageError`` if there is none of this name."""
    paths = paths_of(name)
    config = read_config(paths)
    with Connection(load_access(str(paths.kubeconfig))) as connection:
        return _status(config, paths, connection)


def lab_names() -> tuple[str, ...]:
    """Return the names of this user's labs, running or left over, sorted."""
    directory = labs_directory()
    if not directory.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in directory.iterdir() if LabPaths(entry).config.exists()))


def node_names(count: int) -> tuple[str, ...]:
    """Return the names of a lab's nodes, as an AKS node pool names them."""
    if not 1 <= count <= 200:
        raise UsageError(f"a lab has 1 to 200 nodes, not {count}")
    return tuple(f"aks-nodepool1-{index:06d}" for index in range(count))


def _running(paths: LabPaths) -> bool:
    held = supervisor.lock(paths)
    if held is not None:
        os.close(held)
    return held is None


def _refuse_running(paths: LabPaths) -> None:
    if _running(paths):
        name = paths.directory.name
        raise UsageError(
            f'lab "{name}" is running already; take it down with "ringfence lab down --name {name}", '
            "or give the new one another --name"
        )


def _free_port(wanted: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise UsageError(f"port {wanted} on 127.0.0.1 is in use; name another with --port, or none") from error
        port: int = probe.getsockname()[1]
        return port


def _build_fabric(config: LabConfig) -> Sequence[Any]:
    if config.simulated:
        return ()
    from ringfence.lab import fabric, topology  # noqa: PLC0415 - a simulated lab has no namespaces

    plan = topology.plan_topology(config.name, config.network_plugin, config.nodes)
    fabric.build(plan)
    return plan.apiserver_addresses


def _write_credentials(config: LabConfig, paths: LabPaths, fabric: Sequence[Any]) -> None:
    from ringfence.lab.credentials import write_credentials  # noqa: PLC0415 - slow to import, needed only here

    write_credentials(paths, name=config.name, port=config.port, fabric=fabric, service=SERVICE_ADDRESS)


def _start_supervisor(paths: LabPaths) -> subprocess.Popen[bytes]:
    argv = (sys.executable, "-m", "ringfence.lab.supervisor", str(paths.directory))
    with paths.log("supervisor").open("ab") as log:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _wait_ready(config: LabConfig, paths: LabPaths, process: subprocess.Popen[bytes]) -> LabStatus:
    deadline = time.monotonic() + START_TIMEOUT
    with Connection(load_access(str(paths.kubeconfig))) as connection:
        while True:
            now = _status(config, paths, connection)
            if len(now.nodes) == len(config.nodes) and all(node.ready for node in now.nodes):
                return now
            if process.poll() is not None or time.monotonic() > deadline:
                raise HostRefused(
                    f'lab "{config.name}" did not become ready ({_missing(now)})',
                    asked=str(paths.directory),
                    answered=_last_words(paths),
                )
            time.sleep(_POLL)


def _wait_in_force(config: LabConfig, paths: LabPaths, connection: Connection, progress: Progress) -> LabStatus:
    from ringfence.lab import engines, topology  # noqa: PLC0415 - a simulated lab has no namespaces

    plan = topology.plan_topology(config.name, config.network_plugin, config.nodes)
    wanted = set() if config.network_policy == "none" else {config.network_policy}
    for number, node in enumerate(plan.nodes, start=1):
        progress(f"{config.network_policy} on node {number} of {len(plan.nodes)}")
        deadline = time.monotonic() + supervisor.SETTLE + supervisor.GRACE
        while engines.in_force(node.netns) != wanted:
            if time.monotonic() > deadline:
                raise HostRefused(
                    f"node {node.name} does not get {config.network_policy} alone into force; "
                    "what it had is still in force",
                    asked=str(paths.directory),
                    answered=_last_words(paths),
                )
            time.sleep(_POLL)
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        now = _status(config, paths, connection)
        if all(node.ready for node in now.nodes):
            return now
        if time.monotonic() > deadline:
            raise HostRefused(f"not all nodes are ready ({_missing(now)})", asked="", answered=_last_words(paths))
        time.sleep(_POLL)


def _missing(now: LabStatus) -> str:
    waiting = [f"node {node.name}: {node.reason or 'not ready'}" for node in now.nodes if not node.ready]
    return "; ".join(waiting) or now.problem or "its nodes did not register"


def _last_words(paths: LabPaths) -> str:
    words = []
    for log in sorted(paths.directory.glob("*.log")):
        lines = log.read_text(errors="replace").strip().splitlines()
        if lines:
            words.append(f"{log.stem}: {lines[-1]}")
    return "\n".join(words) or "its processes said nothing"


def _status(config: LabConfig, paths: LabPaths, connection: Connection) -> LabStatus:
    server = f"https://127.0.0.1:{config.port}"
    running = _running(paths)
    try:
        nodes = msgspec.json.decode(connection.get("/api/v1/nodes"))["items"]
        pods = msgspec.json.decode(connection.get("/api/v1/pods", {"limit": "1"}))
    except RingfenceError as error:
        return LabStatus(config, running, server, problem=str(error))
    count = len(pods["items"]) + int(pods["metadata"].get("remainingItemCount", 0))
    return LabStatus(config, running, server, tuple(_node_status(node) for node in nodes), count)


def _node_status(node: dict[str, Any]) -> NodeStatus:
    for condition in node.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            ready = condition["status"] == "True"
            return NodeStatus(node["metadata"]["name"], ready, "" if ready else condition.get("message", ""))
    return NodeStatus(node["metadata"]["name"], ready=False)


def _stop_supervisor(paths: LabPaths) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT
    while (held := supervisor.lock(paths)) is None:
        with contextlib.suppress(ValueError, ProcessLookupError):  # it has not written its id yet, or is just gone
            number = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
            os.kill(int(paths.lock.read_text()), number)
        time.sleep(0.05)
    os.close(held)


def require_namespaces() -> None:
    """Raise ``HostLacks`` unless this process may make network namespaces."""
    if os.geteuid() != 0:
        raise HostLacks(
            "network namespaces need root",
            remedy="run it with sudo, or use --network-policy memory for a simulated lab",
        )
