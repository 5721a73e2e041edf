# SPDX-License-Identifier: Apache-2.0
"""The door for other test suites: a script as JSON, and its answer as JSON.

::

    {"id": "...", "steps": [{"events": [{"type": "apply" | "delete", "object": {...}}],
                             "probes": [{"from": {"pod": "x/a", "ip": "10.244.1.11"}, "to": {"ip": "8.8.8.8"},
                                         "protocol": "TCP", "port": 80}]}]}
    {"verdicts": [["allow", "deny", ...], ...]}

Fields that a suite adds (a step's whole ``objects``, resolved names) are not read: engines follow the events.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from ringfence.cases.script import Event, EventType, Probe, Script, ScriptStep, Spot, complaint_about
from ringfence.cases.tables import Traffic, parse_traffic
from ringfence.errors import UsageError


class _Event(msgspec.Struct, frozen=True):
    type: Literal["apply", "delete"]
    object: dict[str, Any]


class _Spot(msgspec.Struct, frozen=True):
    ip: str
    pod: str | None = None


class _Probe(msgspec.Struct, frozen=True, rename={"source": "from"}):
    source: _Spot
    to: _Spot
    protocol: str
    port: int | None = None


class _Step(msgspec.Struct, frozen=True):
    probes: tuple[_Probe, ...]
    events: tuple[_Event, ...] = ()


class _Document(msgspec.Struct, frozen=True):
    id: str
    steps: tuple[_Step, ...]


def decode_script(raw: bytes, *, file: str) -> Script:
    """Return the script that JSON text holds; raises ``UsageError`` naming the file and the field."""
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except msgspec.DecodeError as error:
        raise UsageError(f"{file}: {error}") from None
    steps = []
    for index, step in enumerate(document.steps):
        where = f"{file}: $.steps[{index}]"
        events = []
        for number, event in enumerate(step.events):
            complaint = complaint_about(event.object)
            if complaint is not None:
                raise UsageError(f"{where}.events[{number}].object: {complaint}")
            events.append(Event(EventType(event.type), event.object))
        probes = [_probe(probe, f"{where}.probes[{number}]") for number, probe in enumerate(step.probes)]
        steps.append(ScriptStep(tuple(events), tuple(probes)))
    return Script(document.id, tuple(steps))


def _probe(probe: _Probe, where: str) -> Probe:
    try:
        source, to = ipaddress.ip_address(probe.source.ip), ipaddress.ip_address(probe.to.ip)
        traffic = _traffic(probe).in_family(to.version)
        built = Probe(Spot(source, probe.source.pod), Spot(to, probe.to.pod), traffic.protocol, traffic.port)
        # Built once here, so that an impossible flow is refused with its place.
        assert built.flow.source == source
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None
    return built


def _traffic(probe: _Probe) -> Traffic:
    if probe.port is None or probe.protocol.upper().startswith("ICMP"):
        return parse_traffic(probe.protocol)
    return parse_traffic(f"{probe.protocol}/{probe.port}")


def encode_verdicts(verdicts: Sequence[Sequence[bool]]) -> bytes:
    """Return the answer as one line of JSON."""
    words = [["allow" if allowed else "deny" for allowed in step] for step in verdicts]
    return msgspec.json.encode({"verdicts": words})
