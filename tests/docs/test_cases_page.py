# SPDX-License-Identifier: Apache-2.0
"""docs/cases.md: every example in it is a case that passes, and every field of a case is in it."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec
import pytest

from ringfence.cases import format as fields
from ringfence.cases.engines import NAMES
from ringfence.cli.main import run
from ringfence.cli.test import command

PAGE = Path(__file__).parents[2] / "docs" / "cases.md"
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
STRUCTS = [
    each
    for each in vars(fields).values()
    if isinstance(each, type) and issubclass(each, msgspec.Struct) and each is not msgspec.Struct
]


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Write every example to a file, and return their directory."""
    for number, text in enumerate(EXAMPLES):
        (tmp_path / f"example-{number}.yaml").write_text(text)
    return tmp_path


@pytest.mark.parametrize("dataplane", [*NAMES, pytest.param("nftables", marks=pytest.mark.kernel)])
def test_every_example_is_a_case_that_passes(
    dataplane: str, examples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the page shows can be copied and run, on any engine."""
    code = run(["test", str(examples), "--dataplane", dataplane])
    text = capsys.readouterr().out

    assert code == 0, text
    assert f"{len(list(examples.iterdir()))} passed" in text


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_field_of_a_case_is_on_the_page(struct: type[msgspec.Struct]) -> None:
    """A field that is not documented does not exist for users."""
    page = PAGE.read_text()

    assert [f.encode_name for f in msgspec.structs.fields(struct) if f"`{f.encode_name}`" not in page] == []


def test_every_option_of_the_command_is_on_the_page() -> None:
    """The page and the command say the same."""
    options = {name for each in command.params if isinstance(each, click.Option) for name in each.opts[:1]}

    assert {option for option in options if option not in PAGE.read_text()} == set()
