# SPDX-License-Identifier: Apache-2.0
"""Program in, table out. Pure: what is in the kernel, and how to get from there to here, is not known here.

The one idea: a packet is judged by its *connection*, not by its own addresses. The connection tracker keeps two
tuples for each connection, and from them, for every packet of it in both directions, replies and ICMP errors
included:

    client  ct original saddr     who opened it
    server  ct reply saddr        who answers: the pod behind a Service (after DNAT)
    port    ct reply proto-src    the port that the pod answers on

So a packet passes exactly if the connection's first packet would be allowed *now*: replies need no rule of their
own, a revoked connection is cut in both directions at its next packet, and nothing has to be deleted from the
connection tracker (SEMANTICS 20, 21, 31).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from ringfence.compiler.program import Program
from ringfence.dataplanes.nftables.layout import Hook, Rule, Table, TableBuilder
from ringfence.dataplanes.nftables.rulesets import FAMILIES, Family, RulesetWriter
from ringfence.errors import Unsupported
from ringfence.model.cluster import PodKey
from ringfence.model.policy import Action, Direction

FORWARD = Hook("forward")
INPUT = Hook("input")

# "IPv6 neighbour discovery and router messages between pod and node always pass" (SEMANTICS 33). A hop limit of 255
# proves that no router forwarded it (RFC 4861, 11.2).
_NEIGHBOURS = Rule(
    "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect }"
    " ip6 hoplimit 255 accept",
    "neighbour discovery",
)


def render(program: Program, *, salt: int = 0) -> Table:
    """Return the table that enforces a program. Raises ``Unsupported`` with every reason why it cannot.

    ``salt`` changes every name: see ``layout.TableBuilder``.
    """
    refusals = [
        f"{rule.origin}: a rule that passes to the next tier must be compiled away first"
        for ruleset in program.rulesets
        for rule in ruleset.rules
        if rule.action is Action.PASS
    ]
    if refusals:
        raise Unsupported("nftables", refusals)
    build = TableBuilder(salt)
    dispatch = _make_dispatch(program, build)
    build.base(FORWARD, _forward(dispatch, build))
    build.base(INPUT, _input(dispatch, build))
    return build.table()


@dataclass(frozen=True, slots=True)
class _Dispatch:
    """The names of what the hooks ask: who is isolated, which chain judges whom, and which addresses are one pod's."""

    isolated: Mapping[tuple[Direction, Family], str]
    verdicts: Mapping[tuple[Direction, Family], str]
    selves: Mapping[Family, str]


def _make_dispatch(program: Program, build: TableBuilder) -> _Dispatch:
    writer = RulesetWriter(program, build)
    isolated, verdicts = {}, {}
    for direction, family in itertools.product(Direction, FAMILIES):
        chains = {r.id: writer.chain(r, family) for r in program.rulesets if r.direction is direction}
        jumps = {
            str(entry.address): chains[ruleset]
            for entry in program.endpoints
            if entry.address.version == family.version and (ruleset := entry.ruleset(direction)) is not None
        }
        place = f"{direction.value}{family.version}"
        isolated[direction, family] = build.set(f"isolated-{place}", family.key, jumps)
        verdicts[direction, family] = build.map(f"dispatch-{place}", family.key, jumps.items())
    selves = {
        family: build.set(f"self{family.version}", f"{family.key} . {family.key}", _selves(program, family))
        for family in FAMILIES
    }
    return _Dispatch(isolated, verdicts, selves)


def _selves(program: Program, family: Family) -> list[str]:
    """Return the pairs of addresses of each isolated pod: "A pod reaches itself always" (SEMANTICS 22)."""
    pods: dict[tuple[PodKey, str], list[str]] = {}
    for entry in program.endpoints:
        if entry.address.version == family.version and (entry.ingress is not None or entry.egress is not None):
            pods.setdefault((entry.pod, entry.uid), []).append(str(entry.address))
    return [f"{a} . {b}" for addresses in pods.values() for a, b in itertools.product(addresses, repeat=2)]


def _forward(dispatch: _Dispatch, build: TableBuilder) -> list[Rule]:
    """Return the rules for packets that the node forwards: egress is asked before ingress, both may drop."""
    stray = build.chain("stray-forward", _stray(dispatch, tuple(Direction), ("saddr", "daddr")))
    pickup = build.chain("pickup", _pickup(dispatch))
    rules = [
        _NEIGHBOURS,
        Rule(f"ct state invalid,untracked goto {stray}", "no connection to judge by"),
        # The tracker knows nothing of the beginning: TCP that is not SYN, SCTP whose first chunk (the first byte
        # after the common header of 12) is not INIT.
        Rule(f"ct state new tcp flags & (fin|syn|rst|ack) != syn jump {pickup}", "in mid-connection"),
        Rule(f"meta l4proto 132 ct state new @th,96,8 != 1 jump {pickup}", "in mid-connection"),
    ]
    rules += [
        Rule(f"{family.client} . {family.server} @{dispatch.selves[family]} accept", "a pod reaches itself")
        for family in FAMILIES
    ]
    for family in FAMILIES:
        rules.append(Rule(f"{family.client} vmap @{dispatch.verdicts[Direction.EGRESS, family]}"))
        rules.append(Rule(f"{family.server} vmap @{dispatch.verdicts[Direction.INGRESS, family]}"))
    return rules


def _input(dispatch: _Dispatch, build: TableBuilder) -> list[Rule]:
    """Return the rules for packets to the node itself.

    A pod's own connections to its node are its egress (SEMANTICS 24). Connections that the node opened are none of
    policy's business (SEMANTICS 23): the pods' answers to them arrive here too, with the node as the client.
    """
    stray = build.chain("stray-input", _stray(dispatch, (Direction.EGRESS,), ("saddr",)))
    return [
        _NEIGHBOURS,
        Rule(f"ct state invalid,untracked goto {stray}", "no connection to judge by"),
        *(Rule(f"{family.client} vmap @{dispatch.verdicts[Direction.EGRESS, family]}") for family in FAMILIES),
    ]


def _stray(dispatch: _Dispatch, directions: tuple[Direction, ...], ends: tuple[str, ...]) -> list[Rule]:
    """Return the rules for packets that belong to no connection: none from or to an isolated pod passes."""
    return [
        Rule(f"{family.word} {end} @{dispatch.isolated[direction, family]} counter drop", "belongs to no connection")
        for family, direction, end in itertools.product(FAMILIES, directions, ends)
    ]


def _pickup(dispatch: _Dispatch) -> list[Rule]:
    """Return the rules for a connection that the tracker picks up in its middle: either end may have opened it.

    The dispatch judges it as opened by the sender of this packet. Where the other way round would have to be judged
    too (the sender is a server with ingress rules, or the receiver a client with egress rules), the packet is
    dropped: the connection is then picked up when the other end speaks, or not at all.
    """
    return [
        Rule(f"{family.word} {end} @{dispatch.isolated[direction, family]} counter drop", "opened by the other end?")
        for family in FAMILIES
        for direction, end in ((Direction.INGRESS, "saddr"), (Direction.EGRESS, "daddr"))
    ]
