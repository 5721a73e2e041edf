# SPDX-License-Identifier: Apache-2.0
"""What apimachinery 0.32.3 made of random patches, applies and updates (``tools/apimachinery``), and what we make."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ringfence.lab.apiserver.applying import ApplyConflict, ApplyInvalid, apply, track_update
from ringfence.lab.apiserver.patches import strategic_merge
from ringfence.lab.apiserver.schema import KindSchema, of_kind

Object = dict[str, Any]
NOW = "2026-01-01T00:00:00Z"


def recorded() -> list[Object]:
    """Return the recorded questions and answers."""
    path = Path(__file__).parent / "recorded" / "apimachinery-0.32.3.json.gz"
    cases: list[Object] = json.loads(gzip.decompress(path.read_bytes()))
    return cases


CASES = recorded()
MERGES = [case for case in CASES if case["op"] == "merge"]
STEPS = [case for case in CASES if case["op"] != "merge"]


def pods() -> KindSchema:
    """Return the schema of pods."""
    schema = of_kind("v1", "Pod")
    assert schema is not None
    return schema


def content(obj: Object) -> Object:
    """Return an object without who owns it and without structs that Go writes although nothing is in them."""
    shown: Object = json.loads(json.dumps(obj))
    shown["metadata"].pop("managedFields", None)
    shown["metadata"].pop("uid", None)
    for name in ("spec", "status"):
        if not shown.get(name):
            shown.pop(name, None)
    for container in shown.get("spec", {}).get("containers", ()):
        container.setdefault("resources", {})
    return shown


def owners(obj: Object) -> dict[tuple[str, str], Object]:
    """Return who owns which fields."""
    entries = obj["metadata"].get("managedFields", ())
    return {(entry["manager"], entry["operation"]): entry["fieldsV1"] for entry in entries}


def ours(case: Object) -> Object:
    """Return what we make of a step."""
    said, live, who = case["patch"], case["live"], case["manager"]
    try:
        if case["op"] == "update":
            return {"result": track_update(live, said, manager=who, now=NOW, schema=pods())}
        return {"result": apply(live, said, manager=who, force=case["force"], schema=pods(), now=NOW)}
    except (ApplyConflict, ApplyInvalid) as error:
        return {"error": str(error)}


@pytest.mark.parametrize("start", range(0, len(MERGES), 50))
def test_strategic_merges_agree_with_apimachinery(start: int) -> None:
    """A strategic merge patch gives the object that apimachinery gives, lists in the same order."""
    for case in MERGES[start : start + 50]:
        merged = strategic_merge(case["live"], case["patch"], pods())

        assert merged == case["result"], case


@pytest.mark.parametrize("start", range(0, len(STEPS), 50))
def test_ownership_agrees_with_apimachinery(start: int) -> None:
    """Applies and updates give the same objects, the same owners of the same fields, and the same conflicts."""
    for case in STEPS[start : start + 50]:
        made = ours(case)

        assert made.get("error") == case.get("error"), case
        if "result" in made:
            assert owners(made["result"]) == owners(case["result"]), case
            assert content(made["result"]) == content(case["result"]), case


def test_the_record_has_conflicts_and_removals() -> None:
    """The recorded steps are worth comparing: many conflict, and many take fields away."""
    conflicts = [case for case in STEPS if "conflict" in case.get("error", "")]
    shrinking = [
        c
        for c in STEPS
        if "result" in c and c["live"] and len(str(c["result"].get("spec"))) < len(str(c["live"].get("spec")))
    ]

    assert len(conflicts) > 20
    assert len(shrinking) > 20
