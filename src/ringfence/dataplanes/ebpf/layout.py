# SPDX-License-Identifier: Apache-2.0
"""The bytes of the kernel's tables, to and from values: Python's side of ``bpf/maps.h``. Pure.

Numbers are in the machine's byte order, as C has them; addresses are in network order.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.compiler.flat import NO_ATOM, AtomId, Decision, ProfileId, RuleId
from ringfence.compiler.program import RulesetId
from ringfence.model.addresses import Address, Network
from ringfence.model.ports import LAST_PORT, PortRange
from ringfence.model.settings import Established, NodeProbes, OwnNodeEgress, Settings

TEXT_ROOM = 512
"""Bytes of a text in ``rf_rules`` and ``rf_pods``, the ending zero included."""

_KEEP_ESTABLISHED, _NODE_PROBES_DENY, _OWN_NODE_ALLOW, REPORT_ALLOWS = 1, 2, 4, 8
_OWN_NODE = 1
_PAIR_ALLOWS, _PAIR_TRAFFIC, _PAIR_RANGES, _PAIR_WHOLE = 1, 2, 4, 8
EVERY_PORT = PortRange(0, LAST_PORT)
_EVERY_PORT = LAST_PORT + 1  # no port's number: what the key of a whole protocol has in its place
_PROFILE_BITS, _PROTOCOL_BITS, _PORT_BITS = 64, 8, 16

_VIEW = struct.Struct("=5Q")
_PAIR_KEY = struct.Struct("=2Q")
_PAIR = struct.Struct("=3Q")
_TRAFFIC_KEY = struct.Struct("=QII")
_DECISION = struct.Struct("=2Q")
_RANGE_KEY = struct.Struct("=IQBBBB")
_ID = struct.Struct("=Q")
_LENGTH = struct.Struct("=I")

VIEW_SIZE = _VIEW.size
NOTHING = bytes(VIEW_SIZE)
"""The view of an address of which nothing is known."""


@dataclass(frozen=True, slots=True)
class ViewNumbers:
    """A view as the kernel has it: ids as numbers, 0 for none."""

    ingress: int
    egress: int
    atom: int
    pod: int
    own_node: bool

    def packed(self) -> bytes:
        """Return the bytes of ``struct view``."""
        return _VIEW.pack(self.ingress, self.egress, self.atom, self.pod, _OWN_NODE if self.own_node else 0)


def unpack_view(data: bytes) -> ViewNumbers:
    """Read ``struct view``."""
    ingress, egress, atom, pod, flags = _VIEW.unpack(data)
    return ViewNumbers(ingress, egress, atom, pod, bool(flags & _OWN_NODE))


def number(digest: str | None) -> int:
    """Return an id of 16 hexadecimal digits as the kernel's number; None is 0."""
    return 0 if digest is None else int(digest, 16)


def digits(value: int) -> str:
    """Return the kernel's number as the id that it is."""
    return f"{value:016x}"


def pack_address(address: Address) -> bytes:
    """Return the key of an address in ``rf_peers4`` or ``rf_peers6``."""
    return address.packed


def unpack_address(key: bytes) -> Address:
    """Read a key of ``rf_peers4`` or ``rf_peers6``."""
    return ipaddress.ip_address(key)


def pack_block(network: Network) -> bytes:
    """Return the key of a network in ``rf_blocks4`` or ``rf_blocks6``."""
    return _LENGTH.pack(network.prefixlen) + network.network_address.packed


def unpack_block(key: bytes) -> Network:
    """Read a key of ``rf_blocks4`` or ``rf_blocks6``."""
    return ipaddress.ip_network((key[_LENGTH.size :], _LENGTH.unpack_from(key)[0]))


def pack_pair_key(ruleset: RulesetId, atom: AtomId) -> bytes:
    """Return a key of ``rf_pairs``."""
    return _PAIR_KEY.pack(number(ruleset), number(atom))


def unpack_pair_key(key: bytes) -> tuple[RulesetId, AtomId]:
    """Read a key of ``rf_pairs``."""
    ruleset, atom = _PAIR_KEY.unpack(key)
    return RulesetId(digits(ruleset)), AtomId(digits(atom)) if atom else NO_ATOM


def pack_pair(profile: ProfileId, rest: Decision, ports: Iterable[PortRange] = ()) -> bytes:
    """Return ``struct pair``; ``ports`` are all those of the profile's entries: they say in which tables to look."""
    flags = int(rest.allowed and _PAIR_ALLOWS)
    for each in ports:
        flags |= _PAIR_TRAFFIC if each.first == each.last else _PAIR_WHOLE if each == EVERY_PORT else _PAIR_RANGES
    return _PAIR.pack(number(profile), number(rest.rule), flags)


def unpack_pair(data: bytes) -> tuple[ProfileId, Decision]:
    """Read ``struct pair``."""
    profile, rule, flags = _PAIR.unpack(data)
    return ProfileId(digits(profile)), _decision(rule, flags & _PAIR_ALLOWS)


def pack_decision(decision: Decision) -> bytes:
    """Return ``struct decision``."""
    return _DECISION.pack(number(decision.rule), decision.allowed)


def unpack_decision(data: bytes) -> Decision:
    """Read ``struct decision``."""
    return _decision(*_DECISION.unpack(data))


def _decision(rule: int, allowed: int) -> Decision:
    return Decision(RuleId(digits(rule)) if rule else None, allowed=bool(allowed))


def is_found_exactly(ports: PortRange) -> bool:
    """Tell whether ports have one entry in ``rf_traffic``: a single one, and all of a protocol."""
    return ports.first == ports.last or ports == EVERY_PORT


def pack_traffic_key(profile: ProfileId, protocol: int, ports: PortRange) -> bytes:
    """Return a key of ``rf_traffic``."""
    return _TRAFFIC_KEY.pack(number(profile), protocol, _EVERY_PORT if ports == EVERY_PORT else ports.first)


def unpack_traffic_key(key: bytes) -> tuple[ProfileId, int, PortRange]:
    """Read a key of ``rf_traffic``: profile, protocol, ports."""
    profile, protocol, port = _TRAFFIC_KEY.unpack(key)
    return ProfileId(digits(profile)), protocol, EVERY_PORT if port == _EVERY_PORT else PortRange(port, port)


def pack_range_keys(profile: ProfileId, protocol: int, ports: PortRange) -> list[bytes]:
    """Return the keys of ``rf_ranges`` that cover a range of ports: as few prefixes as possible."""
    keys = []
    first = ports.first
    while first <= ports.last:
        size = first & -first or LAST_PORT + 1
        while first + size - 1 > ports.last:
            size //= 2
        length = _PROFILE_BITS + _PROTOCOL_BITS + _PORT_BITS - (size.bit_length() - 1)
        keys.append(_RANGE_KEY.pack(length, number(profile), protocol, first >> 8, first & 255, 0))
        first += size
    return keys


def unpack_range_key(key: bytes) -> tuple[ProfileId, int, PortRange]:
    """Read a key of ``rf_ranges``: profile, protocol, and the ports of this prefix."""
    length, profile, protocol, high, low, _ = _RANGE_KEY.unpack(key)
    first = high << 8 | low
    size = 1 << (_PROFILE_BITS + _PROTOCOL_BITS + _PORT_BITS - length)
    return ProfileId(digits(profile)), protocol, PortRange(first, first + size - 1)


def pack_id(digest: str) -> bytes:
    """Return a key of ``rf_rules`` or ``rf_pods``."""
    return _ID.pack(number(digest))


def unpack_id(key: bytes) -> str:
    """Read a key of ``rf_rules`` or ``rf_pods``."""
    return digits(*_ID.unpack(key))


def pack_text(text: str) -> bytes:
    """Return a text as ``struct text``; raises ``ValueError`` if there is no room for it."""
    data = text.encode()
    if len(data) >= TEXT_ROOM:
        raise ValueError(f"longer than {TEXT_ROOM - 1} bytes: {text}")
    return data.ljust(TEXT_ROOM, b"\0")


def unpack_text(data: bytes) -> str:
    """Read ``struct text``."""
    return data.rstrip(b"\0").decode(errors="replace")


def settings_bits(settings: Settings) -> int:
    """Return the settings of ``rf_now``."""
    return (
        (settings.established is Established.KEEP and _KEEP_ESTABLISHED)
        | (settings.node_probes is NodeProbes.DENY and _NODE_PROBES_DENY)
        | (settings.own_node_egress is OwnNodeEgress.ALLOW and _OWN_NODE_ALLOW)
    )


def settings_of(bits: int) -> Settings:
    """Read the settings of ``rf_now``."""
    return Settings(
        NodeProbes.DENY if bits & _NODE_PROBES_DENY else NodeProbes.ALLOW,
        OwnNodeEgress.ALLOW if bits & _OWN_NODE_ALLOW else OwnNodeEgress.POLICY,
        Established.KEEP if bits & _KEEP_ESTABLISHED else Established.CUT,
    )
