# SPDX-License-Identifier: Apache-2.0
"""Label and field selectors of lists and watches."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.lab.apiserver.selectors import parse
from ringfence.lab.apiserver.status import Failure


def labelled(**labels: str) -> dict[str, Any]:
    """Make an object with labels."""
    return {"metadata": {"name": "x", "labels": labels}}


@pytest.mark.parametrize(
    ("selector", "matching", "other"),
    [
        ("app=web", {"app": "web"}, {"app": "db"}),
        ("app==web", {"app": "web"}, {}),
        ("app!=web", {}, {"app": "web"}),
        ("app in (web, db)", {"app": "db"}, {"app": "x"}),
        ("app notin (web)", {}, {"app": "web"}),
        ("app", {"app": ""}, {}),
        ("!app", {}, {"app": "web"}),
        ("app=", {"app": ""}, {"app": "web"}),
        ("n>3", {"n": "4"}, {"n": "3"}),
        ("n<3", {"n": "2"}, {"n": "x"}),
        ("app=web,!tier,env in (a)", {"app": "web", "env": "a"}, {"app": "web", "env": "a", "tier": "x"}),
        ("example.com/app = web", {"example.com/app": "web"}, {"app": "web"}),
    ],
)
def test_label_selectors_match(selector: str, matching: dict[str, str], other: dict[str, str]) -> None:
    """Equality and set based requirements, all of them at once."""
    selection = parse(selector, "")
    assert selection.matches(labelled(**matching))
    assert not selection.matches(labelled(**other))


@pytest.mark.parametrize("selector", ["app=web=", "app in web", "=x", "a,,b", "a=b,", "-x=y", "app=-x", "app in (a b)"])
def test_unreadable_label_selectors_are_refused(selector: str) -> None:
    """A selector that cannot be read never matches by accident: 400."""
    with pytest.raises(Failure, match="unable to parse requirement") as refused:
        parse(selector, "")
    assert refused.value.code == 400


def test_field_selectors_compare_text_and_missing_is_empty() -> None:
    """Several are joined by and; != is the opposite of =."""
    pod = {"metadata": {"name": "a"}, "spec": {"nodeName": "n1", "hostNetwork": True}}
    known = ("spec.nodeName", "status.phase", "spec.hostNetwork")
    assert parse("", "metadata.name=a,spec.nodeName==n1", selectable=known).matches(pod)
    assert parse("", "status.phase=", selectable=known).matches(pod)
    assert parse("", "status.phase!=Failed", selectable=known).matches(pod)
    assert parse("", "spec.hostNetwork=true", selectable=known).matches(pod)
    assert not parse("", "spec.nodeName!=n1", selectable=known).matches(pod)


def test_unknown_fields_cannot_be_selected_on() -> None:
    """Each kind has its own selectable fields beside name and namespace."""
    with pytest.raises(Failure, match=r'field label not supported: "spec\.foo"'):
        parse("", "spec.foo=x", selectable=("spec.nodeName",))
    with pytest.raises(Failure, match="invalid field selector"):
        parse("", "spec.nodeName", selectable=("spec.nodeName",))


def test_no_selector_selects_everything() -> None:
    """Empty selectors are recognised, so that lists can skip the matching."""
    assert parse("", "").everything
    assert not parse("a", "").everything
