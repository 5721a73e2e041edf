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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ringfence.compiler.program import EndpointEntry, Program, RulesetId
from ringfence.dataplanes.nftables.difference import DISPATCH, ISOLATED, SELF
from ringfence.dataplanes.nftables.elements import Element, Pair
from ringfence.dataplanes.nftables.layout import Hook, Names, Object, Rule, Table, TableBuilder
from ringfence.dataplanes.nftables.longlists import Parts, is_long, sort_long
from ringfence.dataplanes.nftables.peers import FAMILIES, Family, Made, PeerBook
from ringfence.dataplanes.nftables.rulesets import Written, write
from ringfence.errors import Unsupported
from ringfence.model.addresses import Address
from ringfence.model.cluster import PodKey
from ringfence.model.policy import Action, Direction
from ringfence.model.settings import Established, NodeProbes, OwnNodeEgress, Settings

FORWARD = Hook("forward")
INPUT = Hook("input")
OUTPUT = Hook("output")

# "IPv6 neighbour discovery and router messages between pod and node always pass" (SEMANTICS 33). A hop limit of 255
# proves that no router forwarded it (RFC 4861, 11.2).
_NEIGHBOURS = Rule(
    "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect }"
    " ip6 hoplimit 255 accept",
    "neighbour discovery",
)
_KEPT = Rule("ct state established,related accept", "established connections are kept")


@dataclass(slots=True)
class Memory:
    """What was rendered before, so that what did not change is not rendered again. Changes cost, never the result.

    ``names`` are those under which ``rulesets`` was written; a ruleset's id is a digest of all that it says. ``parts``
    are those of ``long``, the ids of long rulesets.
    """

    names: Names = field(default_factory=Names)
    rulesets: Mapping[tuple[RulesetId, int], Written] = field(default_factory=dict)
    members: Mapping[str, Made] = field(default_factory=dict)
    dispatch: _Dispatched | None = None
    long: tuple[RulesetId, ...] = ()
    parts: Mapping[RulesetId, Parts] = field(default_factory=dict)


def render(program: Program, names: Names | None = None, memory: Memory | None = None) -> Table:
    """Return the table that enforces a program. Raises ``Unsupported`` with every reason why it cannot.

    ``memory`` is read and brought up to date.
    """
    refusals = [
        f"{rule.origin}: a rule that passes to the next tier must be compiled away first"
        for ruleset in program.rulesets
        for rule in ruleset.rules
        if rule.action is Action.PASS
    ]
    if refusals:
        raise Unsupported("nftables", refusals)
    build = TableBuilder(names or Names())
    memory = memory or Memory()
    chains = _write_rulesets(program, build, memory)
    dispatch = _make_dispatch(program, build, chains, memory)
    build.base(FORWARD, _forward(dispatch, build, program.settings))
    build.base(INPUT, _own_node(INPUT, "saddr", dispatch, build, program.settings))
    build.base(OUTPUT, _own_node(OUTPUT, "daddr", dispatch, build, program.settings))
    return build.table()


def _write_rulesets(program: Program, build: TableBuilder, memory: Memory) -> dict[tuple[RulesetId, int], str]:
    """Make the chains of all rulesets, and the sets that they ask; returns the name of each one's first chain."""
    long = tuple(ruleset.id for ruleset in program.rulesets if is_long(ruleset))
    if long != memory.long:
        memory.long, memory.parts = long, sort_long(program.rulesets)
    known = memory.rulesets if memory.names == build.names else {}
    book = PeerBook(program.peer_sets, memory.members)
    written: dict[tuple[RulesetId, int], Written] = {}
    needed = {(r, e.address.version) for e in program.endpoints for r in (e.ingress, e.egress) if r is not None}
    for ruleset, family in itertools.product(program.rulesets, FAMILIES):
        key = ruleset.id, family.version
        if key not in needed:  # none of its pods has an address of this family
            continue
        parts = memory.parts.get(ruleset.id)
        found = known.get(key)
        if found is None or found.parts != parts:
            found = write(ruleset, family, names=build.names, book=book, parts=parts)
        written[key] = found
        build.include(found.objects)
        for wanted in found.wanted:
            book.make(wanted, build)
    memory.names, memory.rulesets, memory.members = build.names, written, book.made
    return {key: each.chain for key, each in written.items()}


@dataclass(frozen=True, slots=True)
class _Dispatch:
    """The names of what the hooks ask: who is isolated, which chain judges whom, and which addresses are one pod's."""

    isolated: Mapping[tuple[Direction, Family], str]
    verdicts: Mapping[tuple[Direction, Family], str]
    selves: Mapping[Family, str]


@dataclass(frozen=True, slots=True)
class _Dispatched:
    """A dispatch as it was made before, and of what."""

    endpoints: tuple[EndpointEntry, ...]
    chains: Mapping[tuple[RulesetId, int], str]
    names: Names
    objects: tuple[Object, ...]
    dispatch: _Dispatch


def _make_dispatch(
    program: Program, build: TableBuilder, chains: Mapping[tuple[RulesetId, int], str], memory: Memory
) -> _Dispatch:
    known = memory.dispatch
    if (
        known is None
        or known.endpoints is not program.endpoints
        or known.chains != chains
        or known.names != build.names
    ):
        apart = TableBuilder(build.names)
        dispatch = _write_dispatch(program, apart, chains)
        objects = tuple(apart.table().objects().values())
        known = memory.dispatch = _Dispatched(program.endpoints, chains, build.names, objects, dispatch)
    build.include(known.objects)
    return known.dispatch


def _write_dispatch(program: Program, build: TableBuilder, chains: Mapping[tuple[RulesetId, int], str]) -> _Dispatch:
    isolated, verdicts = {}, {}
    for direction, family in itertools.product(Direction, FAMILIES):
        jumps: dict[Element, str] = {
            entry.address: f"jump {chains[ruleset, family.version]}"
            for entry in program.endpoints
            if entry.address.version == family.version and (ruleset := entry.ruleset(direction)) is not None
        }
        place = f"{direction.value}{family.version}"
        isolated[direction, family] = build.set_by_meaning(ISOLATED + place, family.key, frozenset(jumps))
        verdicts[direction, family] = build.map_by_meaning(DISPATCH + place, family.key, jumps)
    selves = {
        family: build.set_by_meaning(
            f"{SELF}{family.version}", f"{family.key} . {family.key}", _selves(program, family)
        )
        for family in FAMILIES
    }
    return _Dispatch(isolated, verdicts, selves)


def _selves(program: Program, family: Family) -> frozenset[Element]:
    """Return the pairs of addresses of each pod: "A pod reaches itself always" (SEMANTICS 22).

    Pods that nobody isolates are among them: these sets also tell which pods the program knows.
    """
    pods: dict[tuple[PodKey, str], list[Address]] = {}
    for entry in program.endpoints:
        if entry.address.version == family.version:
            pods.setdefault((entry.pod, entry.uid), []).append(entry.address)
    return frozenset(
        Pair(one, other) for addresses in pods.values() for one, other in itertools.product(addresses, repeat=2)
    )


def _forward(dispatch: _Dispatch, build: TableBuilder, settings: Settings) -> list[Rule]:
    """Return the rules for packets that the node forwards: egress is asked before ingress, both may drop."""
    both = tuple(itertools.product(Direction, ("saddr", "daddr")))
    # A pickup is judged as opened by its sender. Where the other way round would have to be judged too (the sender is
    # a server with ingress rules, or the receiver a client with egress rules), it is dropped: the connection is picked
    # up when the other end speaks, or not at all.
    other_way = ((Direction.INGRESS, "saddr"), (Direction.EGRESS, "daddr"))
    return [
        *_unjudgeable("forward", both, other_way, dispatch, build, settings),
        *(
            Rule(f"{family.client} . {family.server} @{dispatch.selves[family]} accept", "a pod reaches itself")
            for family in FAMILIES
        ),
        *_judge(dispatch, Direction),
    ]


def _own_node(hook: Hook, pod: str, dispatch: _Dispatch, build: TableBuilder, settings: Settings) -> list[Rule]:
    """Return the rules for packets between the node itself and its pods: ``pod`` is the pod's end of them.

    A pod's own connections to its node are its egress (SEMANTICS 24), unless a setting lets them pass. Connections that
    the node opened are none of policy's business (23), unless a setting says so. Both halves of either pass here.
    """
    judged = []
    if settings.own_node_egress is OwnNodeEgress.POLICY:
        judged.append(Direction.EGRESS)
    if settings.node_probes is NodeProbes.DENY:
        judged.append(Direction.INGRESS)
    if not judged:
        return []
    # Which way round a pickup may not be judged: as the answer of a pod whose ingress matters, or as one to a pod whose
    # egress matters.
    answering = Direction.INGRESS if hook is INPUT else Direction.EGRESS
    other_way = [(answering, pod)] if answering in judged else []
    strays = [(direction, pod) for direction in judged]
    return [*_unjudgeable(hook.name, strays, other_way, dispatch, build, settings), *_judge(dispatch, judged)]


def _judge(dispatch: _Dispatch, directions: Iterable[Direction]) -> list[Rule]:
    wanted = [direction for direction in (Direction.EGRESS, Direction.INGRESS) if direction in directions]
    return [
        Rule(f"{end} vmap @{dispatch.verdicts[direction, family]}")
        for family in FAMILIES
        for direction in wanted
        for end in ((family.client if direction is Direction.EGRESS else family.server),)
    ]


_Ends = Iterable[tuple[Direction, str]]


def _unjudgeable(
    hook: str, strays: _Ends, other_way: _Ends, dispatch: _Dispatch, build: TableBuilder, settings: Settings
) -> list[Rule]:
    """Return the rules for what needs no judging, and for what no connection says how to judge."""
    rules = [_NEIGHBOURS]
    if settings.established is Established.KEEP:
        rules.append(_KEPT)
    stray = build.chain(f"stray-{hook}", _drop(strays, "belongs to no connection", dispatch))
    rules.append(Rule(f"ct state invalid,untracked goto {stray}", "no connection to judge by"))
    drops = _drop(other_way, "opened by the other end?", dispatch)
    if drops:
        pickup = build.chain(f"pickup-{hook}", drops)
        # The tracker knows nothing of the beginning: TCP that is not SYN, SCTP whose first chunk (the first byte after
        # the common header of 12) is not INIT.
        rules += [
            Rule(f"ct state new tcp flags & (fin|syn|rst|ack) != syn jump {pickup}", "in mid-connection"),
            Rule(f"meta l4proto 132 ct state new @th,96,8 != 1 jump {pickup}", "in mid-connection"),
        ]
    return rules


def _drop(ends: _Ends, why: str, dispatch: _Dispatch) -> list[Rule]:
    return [
        Rule(f"{family.word} {end} @{dispatch.isolated[direction, family]} counter drop", why)
        for family, (direction, end) in itertools.product(FAMILIES, tuple(ends))
    ]
