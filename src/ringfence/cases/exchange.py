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
from dataclasses import replace
from typing import Any, Literal, TypeVar

import msgspec

from ringfence.apis.yamltext import Unreadable, documents
from ringfence.cases.script import Event, EventType, Probe, Script, ScriptStep, Spot, complaint_about
from ringfence.cases.tables import Traffic, parse_traffic
from ringfence.errors import FieldError, InvalidObject


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
    probes: tuple[msgspec.Raw, ...]
    events: tuple[msgspec.Raw, ...] = ()


class _Document(msgspec.Struct, frozen=True):
    id: str
    steps: tuple[msgspec.Raw, ...]


_Shape = TypeVar("_Shape")


def decode_script(raw: bytes, *, file: str) -> Script:
    """Return the script that JSON text holds; raises ``InvalidObject`` with every mistake, its line and its field.

    One mistake of a probe, or of an event, does not hide those of the others.
    """
    reader = _Reader(raw, file)
    document = reader.read(raw, _Document, "")
    steps = [] if document is None else [reader.step(step, f"steps[{n}]") for n, step in enumerate(document.steps)]
    reader.refuse()
    assert document is not None  # what could not be read has been refused
    return Script(document.id, tuple(steps))


class _Reader:
    """Reads the parts of a script one by one, and remembers what was wrong with each."""

    def __init__(self, raw: bytes, file: str) -> None:
        self._raw = raw
        self._file = file
        self._errors: list[FieldError] = []

    def read(self, raw: bytes | msgspec.Raw, shape: type[_Shape], path: str) -> _Shape | None:
        """Decode one part; None if it is not of the shape."""
        try:
            return msgspec.json.decode(raw, type=shape)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at `$")
            self._complain(path + place.rstrip("`"), message)
        except msgspec.DecodeError as error:
            self._complain(path, str(error))
        return None

    def step(self, raw: msgspec.Raw, path: str) -> ScriptStep:
        """Read a step as far as it can be."""
        step = self.read(raw, _Step, path) or _Step(())
        events = [self._event(each, f"{path}.events[{n}]") for n, each in enumerate(step.events)]
        probes = [self._probe(each, f"{path}.probes[{n}]") for n, each in enumerate(step.probes)]
        return ScriptStep(tuple(filter(None, events)), tuple(filter(None, probes)))

    def _event(self, raw: msgspec.Raw, path: str) -> Event | None:
        event = self.read(raw, _Event, path)
        if event is None:
            return None
        complaint = complaint_about(event.object)
        if complaint is not None:
            self._complain(f"{path}.object", complaint)
            return None
        return Event(EventType(event.type), event.object)

    def _probe(self, raw: msgspec.Raw, path: str) -> Probe | None:
        probe = self.read(raw, _Probe, path)
        if probe is None:
            return None
        try:
            source, to = ipaddress.ip_address(probe.source.ip), ipaddress.ip_address(probe.to.ip)
            traffic = _traffic(probe).in_family(to.version)
            built = Probe(Spot(source, probe.source.pod), Spot(to, probe.to.pod), traffic.protocol, traffic.port)
            # Built once here, so that an impossible flow is refused with its place.
            assert built.flow.source == source
        except ValueError as error:
            self._complain(path, str(error))
            return None
        return built

    def _complain(self, path: str, message: str) -> None:
        self._errors.append(FieldError(path.lstrip("."), message, "FieldValueInvalid"))

    def refuse(self) -> None:
        """Raise everything that was wrong, by line."""
        if not self._errors:
            return
        try:
            # Slow, but only done to say where.
            whole = next(documents(self._raw.decode("utf-8", "replace")), None)
        except Unreadable as stop:
            whole, first = None, self._errors[0]
            self._errors = [replace(first, line=stop.line, column=stop.column)]
        if whole is not None:
            places = [(whole.place(error.path), error) for error in self._errors]
            located = [replace(error, line=line, column=column) for (line, column), error in places]
            self._errors = sorted(located, key=lambda error: (error.line or 0, error.column or 0))
        raise InvalidObject("Script", self._file.rpartition("/")[2], self._errors, file=self._file)


def _traffic(probe: _Probe) -> Traffic:
    if probe.port is None or probe.protocol.upper().startswith("ICMP"):
        return parse_traffic(probe.protocol)
    return parse_traffic(f"{probe.protocol}/{probe.port}")


def encode_verdicts(verdicts: Sequence[Sequence[bool]]) -> bytes:
    """Return the answer as one line of JSON."""
    words = [["allow" if allowed else "deny" for allowed in step] for step in verdicts]
    return msgspec.json.encode({"verdicts": words})
