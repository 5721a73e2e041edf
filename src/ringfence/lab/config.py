# SPDX-License-Identifier: Apache-2.0
"""Where a lab lives on disk, and what it was asked to be. Every process of a lab starts from these two values."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from ringfence.errors import UsageError

NetworkPlugin = Literal["azure", "kubenet"]
NetworkPolicy = Literal["nftables", "ebpf", "memory", "none"]
PodStart = Literal["closed", "open"]

API_SERVER_PORT = 6443  # on the addresses inside the lab
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")


class LabConfig(msgspec.Struct, frozen=True):
    """What ``lab up`` was asked for, kept as ``lab.json``.

    ``port`` is where the API server listens on 127.0.0.1. ``network_policy`` ``memory`` makes a simulated lab: no
    namespaces, no packets, no privileges. ``nodes`` are the node names, in order. ``pod_start``: whether pods wait for
    their policy. ``agent_options`` are further words for every node's agent.
    """

    name: str
    port: int
    nodes: tuple[str, ...]
    network_plugin: NetworkPlugin = "azure"
    network_policy: NetworkPolicy = "nftables"
    pod_start: PodStart = "closed"
    agent_options: tuple[str, ...] = ()

    @property
    def simulated(self) -> bool:
        """Tell whether the lab has no namespaces and decides connections by asking the agents."""
        return self.network_policy == "memory"


@dataclass(frozen=True, slots=True)
class LabPaths:
    """The files of one lab, all under its directory."""

    directory: Path

    @property
    def config(self) -> Path:
        """``LabConfig`` as JSON."""
        return self.directory / "lab.json"

    @property
    def lock(self) -> Path:
        """Held by the lab's supervisor for as long as the lab is up; holds the supervisor's process id."""
        return self.directory / "lock"

    @property
    def database(self) -> Path:
        """The API server's SQLite file: the state of the cluster."""
        return self.directory / "state.db"

    @property
    def ca_certificate(self) -> Path:
        """The lab's own certificate authority (PEM)."""
        return self.directory / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        """The API server's certificate (PEM), for loopback, the fabric's and the Service's addresses and names."""
        return self.directory / "apiserver.crt"

    @property
    def server_key(self) -> Path:
        """The key of ``server_certificate`` (PEM)."""
        return self.directory / "apiserver.key"

    @property
    def token(self) -> Path:
        """The administrator's bearer token, one line."""
        return self.directory / "token"

    @property
    def kubeconfig(self) -> Path:
        """Reaches the API server from the machine, over loopback."""
        return self.directory / "kubeconfig"

    @property
    def node_kubeconfig(self) -> Path:
        """Reaches the API server from inside the node and pod namespaces, over the fabric."""
        return self.directory / "node.kubeconfig"

    @property
    def kubelet_socket(self) -> Path:
        """Unix socket on which the kubelets answer exec, attach and logs."""
        return self.directory / "kubelet.sock"

    def gate_socket(self, node: str) -> Path:
        """Return the Unix socket on which the agent of a node says whether a pod's policy is in force."""
        return self.directory / f"gate-{node}.sock"

    def log(self, process: str) -> Path:
        """Return the log file of one of the lab's processes (``apiserver``, ``nodes``, ``agent-NODE``, …)."""
        return self.directory / f"{process}.log"

    @property
    def pods(self) -> Path:
        """Where the kubelets keep container logs and what they need to find their pods again."""
        return self.directory / "pods"


def check_name(name: str) -> str:
    """Return a lab's name if it can be part of namespace and file names; raises ``UsageError``."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a lab: use 1 to 20 lower-case letters, digits and hyphens, starting with a letter"
        )
    return name


def labs_directory() -> Path:
    """Return where this user's labs live: ``$RINGFENCE_HOME``, or ``ringfence`` under the XDG state directory."""
    home = os.environ.get("RINGFENCE_HOME")
    if home:
        return Path(home)
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "ringfence"


def paths_of(name: str) -> LabPaths:
    """Return the paths of the lab of this name, whether or not it exists."""
    return LabPaths(labs_directory() / check_name(name))


def read_config(paths: LabPaths) -> LabConfig:
    """Read a lab's configuration; raises ``UsageError`` if there is no such lab."""
    try:
        return msgspec.json.decode(paths.config.read_bytes(), type=LabConfig)
    except FileNotFoundError:
        name = paths.directory.name
        raise UsageError(f'there is no lab "{name}"; bring it up with: ringfence lab up --name {name}') from None


def write_config(paths: LabPaths, config: LabConfig) -> None:
    """Write a lab's configuration, whole or not at all."""
    fresh = paths.config.with_suffix(".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    fresh.replace(paths.config)
