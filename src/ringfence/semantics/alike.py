# SPDX-License-Identifier: Apache-2.0
"""Pods that no policy of a set tells apart, so that one of them speaks for all: replicas, mostly.

A workload of fifty pods that asks a Service of fifty is one question, not 2,500.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from ringfence.model.addresses import Block
from ringfence.model.policy import BlockPeer, Direction, Peers, PolicySet
from ringfence.semantics.ends import Directory, Target


def representatives(targets: Iterable[Target], directory: Directory, policies: PolicySet) -> tuple[Target, ...]:
    """Return targets without those that are like two others before them: a pod reaches itself, and maybe its like."""
    blocks = tuple(dict.fromkeys(_blocks(policies)))
    seen: dict[Hashable, int] = {}
    kept = []
    for target in targets:
        likeness = _likeness(target, directory, blocks)
        seen[likeness] = seen.get(likeness, 0) + 1
        if seen[likeness] <= 2:
            kept.append(target)
    return tuple(kept)


def _likeness(target: Target, directory: Directory, blocks: tuple[Block, ...]) -> Hashable:
    """Return all that a verdict may hang on; equal for pods that differ in name and address alone."""
    endpoint = directory.cluster.endpoints.get(target.pod) if target.pod is not None else None
    if endpoint is None:
        return target.label
    own = [address for address in target.addresses.values() if address not in directory.known.stand_ins]
    within = tuple((address.version, *(block.contains(address) for block in blocks)) for address in own)
    told = (endpoint.key.namespace, endpoint.labels, endpoint.ports, endpoint.host_network)
    return (
        *told,
        frozenset(target.addresses),
        within,
        target.node,
        target.port,
        target.through,
        target.local_only,
        target.guessed,
    )


def _blocks(policies: PolicySet) -> Iterator[Block]:
    for policy in policies.policies():
        for direction in Direction:
            for rule in policy.rules(direction) or ():
                if isinstance(rule.peers, Peers):
                    yield from (peer.block for peer in rule.peers.members if isinstance(peer, BlockPeer))
