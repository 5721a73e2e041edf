# SPDX-License-Identifier: Apache-2.0
"""YAML and JSON text, read as kubectl reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.apis import yamltext
from ringfence.apis.yamltext import Document, PurePythonLoader, Unreadable, documents


@pytest.fixture(params=["libyaml", "pure Python"], autouse=True)
def _each_loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pure Python":
        monkeypatch.setattr(yamltext, "Loader", PurePythonLoader)


def values(text: str) -> list[Any]:
    """Return the values of all documents of a text."""
    return [document.value for document in documents(text)]


def one(text: str) -> Document:
    """Return the only document of a text."""
    (document,) = documents(text)
    return document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", True),
        ("Yes", True),
        ("on", True),
        ("N", False),
        ("off", False),
        ("'y'", "y"),
        ('"on"', "on"),
        ("!!str y", "y"),
        ("!!bool y", True),
        ("!custom y", "y"),
        ("12", 12),
        ("-0x1F", -31),
        ("010", 8),
        ("0o10", 8),
        ("0b11", 3),
        ("08", 8),
        ("1_000", 1000),
        ("80.0", 80),
        ("80.5", 80.5),
        (".5", 0.5),
        ("1e3", 1000),
        ("'80'", "80"),
        ("!!int '80'", 80),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("0x_", "0x_"),
        ("a: ~", {"a": None}),
        ("a: null", {"a": None}),
        ("a: ''", {"a": ""}),
        ("1: a\ntrue: b\nnull: c\n", {"1": "a", "true": "b", "null": "c"}),
        ("no: a", {"false": "a"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        ("b: {<<: [{p: 1}, {p: 2, q: 2}]}", {"b": {"p": 1, "q": 2}}),
        ("b: {'<<': 1}", {"b": {"<<": 1}}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        ('{"a": "\\ud83d \\\\ud83d\\ude00"}', {"a": "\ufffd \\ud83d\ufffd"}),
        ('{"a": "\u2028\x7f"}', {"a": "\u2028\x7f"}),
    ],
)
def test_a_value_is_what_kubectl_would_send(text: str, value: Any) -> None:
    """YAML 1.1 with Go's habits, then JSON."""
    assert values(text) == [value]


def test_a_text_may_hold_several_documents_and_empty_ones_are_left_out() -> None:
    """As in kubectl."""
    assert values("---\n---\na: 1\n---\n# nothing\n---\nb: 2\n...\n") == [{"a": 1}, {"b": 2}]
    assert values("") == []


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", (2, 1)),
        ("a", (2, 1)),
        ("a.b[1]", (5, 5)),
        ("a.b[1].c", (5, 5)),
        ("a.b[1].d.e", (6, 5)),
        ("a.b[7]", (3, 3)),
        ("a.b[x]", (3, 3)),
        ("a.nothing.here", (2, 1)),
        ("a.example.com/f", (7, 3)),
        ("a.example.com/f.more", (7, 3)),
    ],
)
def test_every_field_has_its_place(path: str, place: tuple[int, int]) -> None:
    """Line and column from 1; what is not there has the place of its nearest ancestor."""
    text = "# comment\na:\n  b:\n  - 1\n  - c: 2\n    d: {}\n  example.com/f: 3\n"

    assert one(text).place(path) == place


def test_repeated_keys_are_reported_with_their_place_and_the_last_one_counts() -> None:
    """Kubectl's reader takes the last one silently."""
    document = one("a:\n  b: 1\n  b: 2\nc: 1\n")

    assert document.value == {"a": {"b": 2}, "c": 1}
    assert [(str(e), e.line, e.column) for e in document.repeated] == [('a.b: key "b" already set in map', 3, 3)]
    assert document.place("a.b") == (3, 3)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [", 1),
        ("a: 1\n b: 2", 2),
        ("a: 'x", 1),
        ("a: *nothing", 1),
        ("a: &x [*x]", 1),
        ("[1]: a", 1),
        ("a: {<<: 5}", 1),
        ("a: \x01", 1),
        ("[" * 20_000, 1),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: str, line: int) -> None:
    """Never a crash, never a value."""
    with pytest.raises(Unreadable) as caught:
        values(text)
    assert caught.value.line in (line, line + 1)
    assert caught.value.problem


def test_documents_before_the_unreadable_are_read() -> None:
    """The rest of a file is still worth its errors."""
    found = documents("a: 1\n---\nb: [")

    assert next(found).value == {"a": 1}
    with pytest.raises(Unreadable):
        next(found)


def test_aliases_cannot_blow_a_document_up() -> None:
    """Each level of this doubles what it holds ten times over."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    with pytest.raises(Unreadable, match="too large"):
        values("\n".join(levels))


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


# YAML has a limit of 1024 bytes for keys, longer than any that the API takes.
@given(st.dictionaries(TEXT, json_values, min_size=1, max_size=3))
def test_json_is_read_as_json(value: dict[str, Any]) -> None:
    """JSON is YAML, down to its escapes."""
    keys = [key for key in value if key]
    if len(keys) != len(value):
        return
    assert values(json.dumps(value)) == [value]
