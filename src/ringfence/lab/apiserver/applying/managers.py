# SPDX-License-Identifier: Apache-2.0
"""``metadata.managedFields``: who owns which fields, by which operation, through which version and subresource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ringfence.lab.apiserver.applying.paths import FieldSet, decode, encode

Operation = Literal["Apply", "Update"]


@dataclass(frozen=True, slots=True)
class Manager:
    """Who: an applier is the same whatever version it uses (``api_version`` empty), an updater is not."""

    name: str
    operation: Operation
    api_version: str
    subresource: str = ""

    @classmethod
    def applier(cls, name: str, subresource: str) -> Manager:
        """Return the manager that server-side apply knows by this name."""
        return cls(name, "Apply", "", subresource)

    def __str__(self) -> str:
        """Return the manager as conflicts show it."""
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


@dataclass(frozen=True, slots=True)
class Owned:
    """What a manager owns, since when, and the version that the paths are written in."""

    fields: FieldSet
    api_version: str
    time: str = ""

    def less(self, fields: FieldSet) -> Owned:
        """Return it without some fields."""
        return replace(self, fields=self.fields - fields) if fields else self


Managers = Mapping[Manager, Owned]


def read(obj: Mapping[str, Any] | None) -> dict[Manager, Owned]:
    """Return the managers that an object names; none if it has no managedFields or they cannot be read."""
    entries = ((obj or {}).get("metadata") or {}).get("managedFields") or ()
    try:
        return dict(_entry(entry) for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _entry(entry: Mapping[str, Any]) -> tuple[Manager, Owned]:
    operation, version = entry["operation"], entry["apiVersion"]
    if operation not in ("Apply", "Update") or entry.get("fieldsType", "FieldsV1") != "FieldsV1":
        raise ValueError(f"managedFields has an entry that is neither Apply nor Update of FieldsV1: {entry}")
    name = Manager(
        name=entry.get("manager") or "",
        operation=operation,
        api_version="" if operation == "Apply" else version,
        subresource=entry.get("subresource") or "",
    )
    return name, Owned(decode(entry.get("fieldsV1") or {}), version, entry.get("time") or "")


def is_reset(obj: Mapping[str, Any]) -> bool:
    """Tell whether an object asks to forget all managers: a single empty entry."""
    entries = (obj.get("metadata") or {}).get("managedFields")
    return entries == [{}]


def only_times_differ(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Tell whether a write changes nothing but when managers last wrote: it is none then.

    Applying what the server fills in differently (a port without its protocol) changes nothing in the end, but that
    is known only after defaulting.
    """
    return _timeless(old) == _timeless(new)


def _timeless(obj: Mapping[str, Any]) -> dict[str, Any]:
    metadata = obj.get("metadata") or {}
    entries = [{**entry, "time": ""} for entry in metadata.get("managedFields") or ()]
    entries.sort(key=str)  # their order depends on their times
    return {**obj, "metadata": {**metadata, "managedFields": entries}}


def written(obj: Mapping[str, Any], managers: Managers) -> dict[str, Any]:
    """Return the object with these managers, sorted as the API server sorts; who owns nothing is left out."""
    metadata = {key: value for key, value in (obj.get("metadata") or {}).items() if key != "managedFields"}
    entries = sorted(
        (item for item in managers.items() if item[1].fields),
        key=lambda item: (
            item[0].operation,
            item[1].time,
            item[0].name,
            item[1].api_version,
            item[0].subresource,
        ),
    )
    if entries:
        metadata["managedFields"] = [_written(manager, owned) for manager, owned in entries]
    return {**obj, "metadata": metadata}


def _written(manager: Manager, owned: Owned) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": owned.api_version,
        "time": owned.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": encode(owned.fields),
        "subresource": manager.subresource,
    }
    return {key: value for key, value in entry.items() if value != ""}
