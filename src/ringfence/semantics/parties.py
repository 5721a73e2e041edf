# SPDX-License-Identifier: Apache-2.0
"""Who talks, as people see it: workloads (or single pods), nodes, and the world outside.

A party is a name for some addresses of a space. Pods of one workload are one party, whatever the number of its
replicas; pods that nothing owns are grouped by namespace and labels. Nodes appear twice: as themselves, and as the
*own node* of the pod at the other end, which policy does not stop. Outside, each atom is a party.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from ringfence.apis.workloads import Owner
from ringfence.model.addresses import Address, Network, address_order
from ringfence.model.cluster import Endpoint, PodKey
from ringfence.semantics.atoms import networks
from ringfence.semantics.relations import Members
from ringfence.semantics.space import AddressClass, Holder, Space

_WHOLE = {4: "0.0.0.0/0", 6: "::/0"}
_FEW = 3


class Kind(enum.Enum):
    """What a party is; the value is how JSON spells it."""

    WORKLOAD = "workload"
    POD = "pod"
    NODES = "nodes"
    OWN_NODE = "ownNode"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True, eq=False)
class Party:
    """One end of connections. ``parts`` are its addresses, those of each class apart.

    ``name`` is unique among the parties of a space. ``networks`` is where an outside party's addresses lie.
    """

    name: str
    kind: Kind
    parts: tuple[tuple[AddressClass, Members], ...]
    namespace: str | None = None
    workload: Owner | None = None
    pods: tuple[PodKey, ...] = ()
    networks: tuple[Network, ...] = ()

    @property
    def is_pods(self) -> bool:
        """Tell whether policies apply to it."""
        return self.kind in (Kind.WORKLOAD, Kind.POD)


def parties(space: Space, owners: Mapping[PodKey, Owner], *, grouped: bool = True) -> tuple[Party, ...]:
    """Return everybody in a space: pods by workload (or each for itself), then nodes, then the outside."""
    groups: dict[tuple[str, object], list[Endpoint]] = defaultdict(list)
    for key in sorted(space.cluster.endpoints):
        endpoint = space.cluster.endpoints[key]
        if not endpoint.host_network and space.cluster.addresses_of(endpoint):
            group = owners.get(key) or endpoint.labels if grouped else key
            groups[key.namespace, group].append(endpoint)
    pods = [_pods(space, _title(*group, members), members, owners) for group, members in groups.items()]
    return _distinct((*sorted(pods, key=lambda party: party.name), *_nodes(space), *_outside(space)))


def _pods(space: Space, name: str, members: list[Endpoint], owners: Mapping[PodKey, Owner]) -> Party:
    addresses = (address for endpoint in members for address in space.cluster.addresses_of(endpoint))
    first = members[0].key
    single = len(members) == 1 and name == str(first)
    return Party(
        name,
        Kind.POD if single and first not in owners else Kind.WORKLOAD,
        _parts(space, addresses),
        first.namespace,
        owners.get(first),
        tuple(endpoint.key for endpoint in members),
    )


def _title(namespace: str, group: object, members: list[Endpoint]) -> str:
    if isinstance(group, Owner):
        return f"{namespace}/{group.name}"
    if len(members) == 1:
        return str(members[0].key)
    return f"{namespace}/{{{members[0].labels}}}"


def _distinct(found: tuple[Party, ...]) -> tuple[Party, ...]:
    """Return parties with names that are all different: by the kind of the workload, else by number."""
    names: dict[str, int] = defaultdict(int)
    made: list[Party] = []
    shared = {name for name, count in Counter(party.name for party in found).items() if count > 1}
    for party in found:
        kind = party.workload.kind if party.workload else "Pod" if party.is_pods else ""
        name = f"{party.name} ({kind})" if party.name in shared and kind else party.name
        names[name] += 1
        made.append(replace(party, name=name if names[name] == 1 else f"{name} #{names[name]}"))
    return tuple(made)


def _parts(space: Space, addresses: Iterable[Address]) -> tuple[tuple[AddressClass, Members], ...]:
    by_class: dict[int, list[Address]] = defaultdict(list)
    for address in sorted(addresses, key=address_order):
        by_class[space.class_of(address).number].append(address)
    return tuple((space.classes[number], space.relations.members(found)) for number, found in sorted(by_class.items()))


def _nodes(space: Space) -> list[Party]:
    parts = tuple((each, each.members) for each in space.classes if each.holder is Holder.NODE)
    return [Party("nodes", Kind.NODES, parts), Party("own node", Kind.OWN_NODE, parts)] if parts else []


def _outside(space: Space) -> list[Party]:
    """Return each atom that blocks cut out of the world, by its networks, and the rest of the world."""
    spoken = {each.version for each in space.classes if each.holder is not Holder.NOBODY}
    atoms = [each for each in space.classes if each.holder is Holder.NOBODY and each.version in spoken]
    rest = [max((each for each in atoms if each.version == version), key=_size) for version in sorted(spoken)]
    cut = [each for each in atoms if each not in rest]
    elsewhere = "elsewhere" if cut else ", ".join(_WHOLE[each.version] for each in rest)
    return [
        *(
            Party(f"outside ({_where(each)})", Kind.OUTSIDE, ((each, each.members),), networks=_networks(each))
            for each in cut
        ),
        Party(
            f"outside ({elsewhere})",
            Kind.OUTSIDE,
            tuple((each, each.members) for each in rest),
            networks=tuple(network for each in rest for network in _networks(each)),
        ),
    ]


def _size(atom: AddressClass) -> int:
    return sum(last - first + 1 for first, last in atom.ranges)


def _networks(atom: AddressClass) -> tuple[Network, ...]:
    return networks(atom.version, atom.ranges)


def _where(atom: AddressClass) -> str:
    """Name the addresses of an atom: by its networks, by one network with exceptions, or by the first of many."""
    inside = _networks(atom)
    if len(inside) <= _FEW:
        return ", ".join(map(str, inside))
    around = inside[0]
    while int(around.broadcast_address) < atom.ranges[-1][1]:
        around = around.supernet()
    gaps = ((a[1] + 1, b[0] - 1) for a, b in pairwise([(0, int(around.network_address) - 1), *atom.ranges]))
    after = atom.ranges[-1][1] + 1, int(around.broadcast_address)
    holes = networks(atom.version, (each for each in (*gaps, after) if each[0] <= each[1]))
    if len(holes) <= _FEW:
        return f"{around} except {', '.join(map(str, holes))}"
    return f"{', '.join(map(str, inside[:_FEW]))} and {len(inside) - _FEW} more"
