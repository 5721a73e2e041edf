# SPDX-License-Identifier: Apache-2.0
"""The syntax of names."""

from __future__ import annotations

import pytest

from ringfence.apis import names
from ringfence.apis.names import SyntaxRule


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (names.is_dns1123_label, ["a", "0", "a-b", "a" * 63], ["", "-a", "a-", "A", "a.b", "a_b", "a" * 64, "a\n"]),
        (names.is_dns1123_subdomain, ["a", "a.b", "0-a.b", "a" * 253], ["", ".a", "a..b", "A", "a" * 254, "a\n"]),
        (names.is_dns1035_label, ["a", "a-0", "a" * 63], ["", "0a", "a-", "a.b", "a" * 64]),
        (
            names.is_label_key,
            ["a", "A_b.c-d", "example.com/a", "a" * 63],
            ["", "/a", "a/", "a/b/c", "-a", "Ex.com/a", "a" * 64, "é"],
        ),
        (names.is_label_value, ["", "a", "A_b.c-d", "a" * 63], ["-a", "a-", "a b", "a" * 64, "a\n", "ä"]),
        (names.is_port_name, ["a", "http", "a-1", "0a"], ["", "80", "a--b", "-a", "a-", "A", "a_b", "a" * 16]),
    ],
)
def test_a_rule_passes_the_good_and_complains_of_the_bad(rule: SyntaxRule, good: list[str], bad: list[str]) -> None:
    """Each rule draws the line where the API server does."""
    assert [value for value in good if rule(value)] == []
    assert [value for value in bad if not rule(value)] == []


def test_length_counts_bytes() -> None:
    """The API server measures strings in UTF-8."""
    assert "must be no more than 63 bytes" in names.is_label_value("ä" * 32)
    assert names.size("\ud800") == 3


def test_every_way_to_miss_a_rule_has_its_own_complaint() -> None:
    """A value that is wrong twice is told so twice."""
    assert names.is_dns1123_label("a.b") == ["must not contain dots"]
    assert names.is_port_name("-A--") == [
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        "must contain at least one letter (a-z)",
        "must not contain consecutive hyphens",
        "must not begin or end with a hyphen",
    ]
    assert [text[:30] for text in names.is_label_key("/")] == [
        "prefix part must be non-empty",
        "name part must be non-empty",
        "name part must consist of alph",
    ]
    assert names.is_label_key("a/b/c")[0].startswith("a valid label key must consist of")
    assert names.is_label_key("A/b")[0].startswith("prefix part a lowercase RFC 1123 subdomain")


@pytest.mark.parametrize(("number", "fine"), [(0, False), (1, True), (65535, True), (65536, False), (-1, False)])
def test_port_numbers_are_1_to_65535(number: int, fine: bool) -> None:  # noqa: FBT001 - a table
    """Port 0 is none."""
    assert (names.is_port_number(number) == []) == fine
