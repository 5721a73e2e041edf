# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ringfence.lab.images.agnhost import connect, serve_hostname
from ringfence.lab.images.agnhost.flags import Flag, WrongUsage, parse, parse_duration
from tests.images.agnhosts import Agnhost


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3s", 3.0), ("1m30s", 90.0), ("500ms", 0.5), ("0", 0.0), ("1.5h", 5400.0), (".5s", 0.5), ("-1s", -1.0)],
)
def test_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    """Units add up, fractions and signs work, and only a zero needs no unit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("3", 'time: missing unit in duration "3"'),
        ("", 'time: invalid duration ""'),
        ("s", 'time: invalid duration "s"'),
        ("3x", 'time: unknown unit "x" in duration "3x"'),
        ("1.2.3s", 'time: invalid duration "1.2.3s"'),
    ],
)
def test_what_is_no_duration_is_refused_in_gos_words(text: str, complaint: str) -> None:
    """Somebody who knows agnhost recognises the message."""
    with pytest.raises(ValueError, match=complaint.replace(".", r"\.")):
        parse_duration(text)


def test_flags_take_their_value_after_an_equals_sign_or_from_the_next_word() -> None:
    """Both spellings of the document work: ``--port "80"`` and ``--timeout=3s``."""
    values, arguments = parse(["10.0.0.1:80", "--timeout=3s", "--protocol", "udp"], connect.FLAGS)

    assert arguments == ["10.0.0.1:80"]
    assert (values["timeout"], values["protocol"], values["udp-data"]) == (3.0, "udp", "hostname")


def test_a_boolean_flag_takes_a_value_only_after_an_equals_sign() -> None:
    """``--tcp --http=false --port 80``: the word after ``--tcp`` is not its value."""
    values, arguments = parse(["--tcp", "--http=false", "--port", "80"], serve_hostname.FLAGS)

    assert arguments == []
    assert (values["tcp"], values["http"], values["udp"], values["port"]) == (True, False, False, 80)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--nope"], "unknown flag: --nope"),
        (["-x"], "unknown shorthand flag: -x"),
        (["--port"], "flag needs an argument: --port"),
        (["--port=eighty"], 'invalid argument "eighty" for "--port" flag: strconv.ParseInt: parsing "eighty"'),
        (["--tcp=maybe"], 'invalid argument "maybe" for "--tcp" flag: strconv.ParseBool: parsing "maybe"'),
    ],
)
def test_wrong_flags_are_named(words: list[str], complaint: str) -> None:
    """What is wrong, and with which flag."""
    with pytest.raises(WrongUsage) as raised:
        parse(words, serve_hostname.FLAGS)

    assert str(raised.value).startswith(complaint)


def test_logging_flags_are_accepted_and_change_nothing() -> None:
    """Suites pass ``--v=4`` and the like to every command."""
    values, arguments = parse(["--v=4", "--logtostderr", "-v", "2", "here", "--", "--tcp"], [Flag("tcp", False, "")])

    assert arguments == ["here", "--tcp"]
    assert values == {"tcp": False}


def test_help_names_every_command_and_a_commands_help_every_flag(agnhost: Agnhost) -> None:
    """``--help`` goes to stdout and succeeds; an unknown command says what there is."""
    whole, one, wrong = agnhost.run("--help"), agnhost.run("connect", "--help"), agnhost.run("dance")

    assert all(name in whole.out for name in ("connect", "netexec", "pause", "porter", "serve-hostname"))
    assert all(f"--{flag.name}" in one.out for flag in connect.FLAGS)
    assert (whole.code, one.code, wrong.code) == (0, 0, 1)
    assert 'unknown command "dance"' in wrong.err
