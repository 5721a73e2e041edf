# SPDX-License-Identifier: Apache-2.0
"""The table of rules: sentences are quoted to the letter, and names are what people can type."""

from __future__ import annotations

import gzip
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from ringfence.semantics.lint.rules import RULES, UNDENIABLE, LintRule, Severity

SEMANTICS = (Path(__file__).parents[3] / "docs" / "semantics.md").read_text(encoding="utf-8")
SECTIONS = {
    int(number): " ".join(text.split())
    for number, text in re.findall(r"^### (\d+)\. .*?\n(.*?)(?=^##|\Z)", SEMANTICS, flags=re.MULTILINE | re.DOTALL)
}


def api_description(field: str) -> str:
    """Return what the API says of a field, as its own documents have it."""
    data = files("ringfence.lab.apiserver").joinpath("data/definitions.json.gz").read_bytes()
    kind, _, name = field.partition(".")
    return str(json.loads(gzip.decompress(data))[f"io.k8s.api.networking.v1.{kind}"]["properties"][name]["description"])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_each_sentence_stands_where_it_is_said_to_stand(rule: LintRule) -> None:
    """In the API's own description, in our statement of that number, or elsewhere by name."""
    found = re.match(r"docs/semantics\.md (\d+)", rule.stands_in)
    if found:
        assert rule.sentence in SECTIONS[int(found[1])]
    elif rule.stands_in.startswith("Kubernetes API"):
        assert rule.sentence in " ".join(api_description(rule.stands_in.rpartition(", ")[2]).split())
    else:
        assert rule.stands_in.startswith(("https://kubernetes.io/docs/", "RFC ", "policy.networking.k8s.io/"))


def test_names_are_unique_and_can_be_typed() -> None:
    """As options and annotations have them."""
    assert [name for name, rule in RULES.items() if rule.name != name] == []
    assert [name for name in RULES if not re.fullmatch(r"[a-z]+(-[a-z]+)*", name)] == []
    assert set(RULES) >= UNDENIABLE


def test_each_rule_says_what_to_do() -> None:
    """In plain words, without a full stop that would stand twice."""
    assert [name for name, rule in RULES.items() if not rule.remedy or rule.remedy.endswith(".")] == []
    assert [name for name, rule in RULES.items() if rule.title.endswith(".")] == []
    assert Severity.ERROR > Severity.WARNING > Severity.INFO
