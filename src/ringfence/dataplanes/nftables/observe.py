# SPDX-License-Identifier: Apache-2.0
"""Reads the table back from the kernel, into the same values that ``render`` makes.

What somebody else put into the table, or bent, shows as something that no program renders to: an unknown expression
becomes a text that nft would not take, an object of a kind that we never make becomes a stranger. Decides nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ringfence.dataplanes.nftables import elements
from ringfence.dataplanes.nftables.elements import Element, Pair, Span
from ringfence.dataplanes.nftables.layout import FAMILY, TABLE, Chain, Hook, Rule, Set, Table, VerdictMap
from ringfence.errors import HostRefused
from ringfence.host.nft import Nft

# Kinds of objects that can stand in a table and that we never make, as nft names them.
_STRANGERS = frozenset(
    {"counter", "ct expectation", "ct helper", "ct timeout", "flowtable", "limit", "quota", "secmark", "synproxy"}
)


# What a set of ours has not: how many elements it can take, and what is done where one is found.
_LIMITS = ("size", "stmt")
_ADDRESS = ("ipv4_addr", "ipv6_addr")
_PAIRS = tuple(f"{key} . {key}" for key in _ADDRESS)


@dataclass(frozen=True, slots=True)
class Observed:
    """What the kernel holds. ``present``: there is such a table at all; ``dormant``: but somebody put it to sleep.

    ``strangers`` are objects of kinds that we never make, as nft's ``delete`` names them: ``quota inet ringfence q``.
    ``known``: it was not read, but is what we wrote ourselves.
    """

    present: bool = False
    dormant: bool = False
    table: Table = field(default_factory=Table)
    strangers: tuple[str, ...] = ()
    known: bool = field(default=False, compare=False)


def present() -> bool:
    """Tell whether there is a table of ours in the calling thread's namespace."""
    with Nft() as nft:
        return nft.has_table(FAMILY, TABLE)


def observe(nft: Nft) -> Observed:
    """Read the whole table, elements included. About 4 µs for each element."""
    try:
        objects = nft.objects(f"table {FAMILY} {TABLE}")
    except HostRefused as error:
        if "No such file or directory" in error.answered:
            return Observed()
        raise
    return decode(objects)


def decode(objects: Iterable[Mapping[str, Any]]) -> Observed:
    """Turn the objects of libnftables-json(5) into values."""
    sets: dict[str, Set] = {}
    maps: dict[str, VerdictMap] = {}
    hooks: dict[str, Hook | None] = {}
    rules: dict[str, list[Rule]] = {}
    strangers = []
    dormant = False
    for item in objects:
        ((kind, body),) = item.items()
        match kind:
            case "table":
                dormant = "flags" in body
            case "set":
                sets[body["name"]] = _set(body)
            case "map":
                maps[body["name"]] = _map(body)
            case "chain":
                hooks[body["name"]] = _hook(body)
            case "rule":
                rules.setdefault(body["chain"], []).append(_rule(body))
            case _:
                if kind in _STRANGERS:
                    strangers.append(f"{kind} {FAMILY} {TABLE} {body['name']}")
    chains = {name: Chain(name, tuple(rules.get(name, ())), hook) for name, hook in hooks.items()}
    return Observed(present=True, dormant=dormant, table=Table(sets, maps, chains), strangers=tuple(sorted(strangers)))


def _hook(body: Mapping[str, Any]) -> Hook | None:
    if "hook" not in body:
        return None
    ours = body["type"] == "filter" and body["policy"] == "accept"
    return Hook(body["hook"] if ours else f"{body['type']} {body['hook']} {body['policy']}", body["prio"])


def _set(body: Mapping[str, Any]) -> Set:
    kind = body["type"]
    interval = "interval" in body.get("flags", ())
    flags = [flag for flag in body.get("flags", ()) if flag != "interval"]
    flags += [limit for limit in _LIMITS if limit in body]
    key = " . ".join(kind) if isinstance(kind, list) else str(kind)
    found = frozenset(_element(key, interval, e) for e in body.get("elem", ()))
    return Set(body["name"], " ".join((key, *flags)), interval, found)


def _map(body: Mapping[str, Any]) -> VerdictMap:
    ours = body["map"] == "verdict" and not body.keys() & {"flags", *_LIMITS}
    key = body["type"] if ours else f"{body['type']} : {body['map']}"
    found = {_element(body["type"], False, where): _verdict(value) for where, value in body.get("elem", ())}
    return VerdictMap(body["name"], key, found)


def _verdict(value: Any) -> str:
    match value:
        case {"jump": {"target": str(target)}} | {"goto": {"target": str(target)}}:
            return f"{next(iter(value))} {target}"
        case _:
            return _unknown(value)


def _element(key: Any, interval: bool, value: Any) -> Element:  # noqa: FBT001 - as the set says it
    match value:
        case str() if key in _ADDRESS and not interval:
            return ipaddress.ip_address(value)
        case int() if key == elements.PORT and not interval:
            return value
        case {"concat": [str(one), str(other)]} if key in _PAIRS:
            return Pair(ipaddress.ip_address(one), ipaddress.ip_address(other))
        case _ if key in (*_ADDRESS, elements.PORT) and interval:
            return _span(value)
        case _:
            return _unknown(value)


def _span(value: Any) -> Element:
    match value:
        case int(number):
            return Span(number, number)
        case str(text):
            number = int(ipaddress.ip_address(text))
            return Span(number, number)
        case {"range": [int(first), int(last)]}:
            return Span(first, last)
        case {"range": [str(first), str(last)]}:
            return Span(int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last)))
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            network = ipaddress.ip_network(f"{address}/{length}")
            return Span(int(network.network_address), int(network.broadcast_address))
        case _:
            return _unknown(value)


def _rule(body: Mapping[str, Any]) -> Rule:
    return Rule(" ".join(map(_statement, body["expr"])), body.get("comment", ""))


def _statement(statement: Any) -> str:
    match statement:
        case {"match": {"op": "==" | "in", "left": left, "right": right}}:
            return f"{_expression(left)} {_expression(right)}"
        case {"match": {"op": "!=", "left": left, "right": right}}:
            return f"{_expression(left)} != {_expression(right)}"
        case {"vmap": {"key": key, "data": data}}:
            return f"{_expression(key)} vmap {_expression(data)}"
        case {"counter": {"packets": int(), "bytes": int()}}:
            return "counter"
        case {"jump": {"target": str(target)}}:
            return f"jump {target}"
        case {"goto": {"target": str(target)}}:
            return f"goto {target}"
        case {"accept": None} | {"drop": None} | {"return": None}:
            return str(next(iter(statement)))
        case _:
            return _unknown(statement)


def _expression(value: Any) -> str:
    match value:
        case str() | int():
            return str(value)
        case [*names]:
            return ",".join(map(str, names))
        case {"&": [left, [*flags] | {"|": [*flags]}]}:
            return f"{_expression(left)} & ({'|'.join(map(str, flags))})"
        case {"&": [left, str(mask)]}:
            return f"{_expression(left)} & {mask}"
        case {"concat": [*parts]}:
            return " . ".join(map(_expression, parts))
        case {"range": [first, last]}:
            return f"{first}-{last}"
        case {"set": [*members]}:
            return f"{{ {', '.join(map(str, members))} }}"
        case _:
            return _field(value)


def _field(value: Any) -> str:
    match value:
        case {"ct": {"key": str(key), "dir": str(way)}}:
            return f"ct {way} {key}"
        case {"ct": {"key": str(key)}} | {"meta": {"key": str(key)}}:
            return f"{next(iter(value))} {key}"
        case {"payload": {"protocol": str(protocol), "field": str(name)}}:
            return f"{protocol} {name}"
        case {"payload": {"base": str(base), "offset": int(offset), "len": int(length)}}:
            return f"@{base},{offset},{length}"
        case _:
            return _unknown(value)


def _unknown(value: Any) -> str:
    return f"[not ours: {msgspec.json.encode(value).decode()}]"
