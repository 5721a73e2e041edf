# SPDX-License-Identifier: Apache-2.0
"""Whether this machine can run the nftables engine: tried, not guessed from versions."""

from __future__ import annotations

import ipaddress

from ringfence.compiler.program import (
    CompiledRule,
    EndpointEntry,
    PeerSet,
    PeerSetId,
    PortSpan,
    Program,
    Ruleset,
    RulesetId,
)
from ringfence.dataplanes.base import Answer, Probe
from ringfence.dataplanes.nftables.apply import NftablesDataplane
from ringfence.errors import HostLacks, HostRefused
from ringfence.host import netns
from ringfence.host.nft import load_library
from ringfence.model.cluster import PodKey
from ringfence.model.policy import Action, Direction, ObjectRef, Origin
from ringfence.model.ports import PortRange, Protocol


def probe() -> Probe:
    """Put a program that uses everything in force in an empty namespace that is gone afterwards. A few ms."""
    try:
        load_library()  # first, since its lack shows without privileges too
        netns.in_fresh(_try)
    except HostLacks as error:
        return Probe(Answer.NO, error.what, error.remedy)
    except HostRefused as error:
        return Probe(
            Answer.NO,
            f"this kernel's nftables lacks something that the engine needs: {error.answered}",
            "use a kernel from 5.4 on, with nf_tables, nf_conntrack and nft_ct",
        )
    except OSError as error:
        return Probe(Answer.UNKNOWN, f"could not be tried: {error}")
    return Probe(Answer.YES, "libnftables and the kernel take the engine's rules")


def _try() -> None:
    dataplane = NftablesDataplane()
    try:
        dataplane.apply(_EVERYTHING)
        dataplane.remove()
    finally:
        dataplane.close()


_SERVER = PodKey("probe", "server")
_ORIGIN = Origin(ObjectRef("NetworkPolicy", "probe", "probe"), "spec")
_PEERS = PeerSet(
    PeerSetId("0" * 16),
    "a pod and a block",
    frozenset(map(ipaddress.ip_address, ("10.0.0.1", "fd00::1"))),
    tuple(map(ipaddress.ip_network, ("10.1.0.0/16", "fd01::/16"))),
)
_TRAFFIC = (PortSpan(Protocol.TCP, PortRange(80, 80)), PortSpan(Protocol.TCP, PortRange(8000, 8080)))
_EVERYTHING = Program(
    "probe",
    frozenset(),
    tuple(
        EndpointEntry(ipaddress.ip_address(address), _SERVER, "0", RulesetId("ingress"), RulesetId("egress"))
        for address in ("10.0.0.2", "fd00::2")
    ),
    tuple(
        Ruleset(
            RulesetId(direction.value),
            direction,
            (CompiledRule(Action.ALLOW, _PEERS.id, _TRAFFIC, _ORIGIN),),
            (_ORIGIN.object,),
        )
        for direction in Direction
    ),
    (_PEERS,),
)
