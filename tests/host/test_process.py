# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

import pytest

from ringfence.errors import HostLacks, HostRefused
from ringfence.host import process


def test_outputs_and_exit_code_are_kept_apart() -> None:
    """A tool that ends as accepted returns its code and both outputs."""
    script = "import sys; print(sys.stdin.read()); print('no', file=sys.stderr); sys.exit(3)"

    done = process.run([sys.executable, "-c", script], stdin="fed", accept=(0, 3))

    assert (done.code, done.stdout, done.stderr) == (3, "fed\n", "no\n")


def test_a_refusal_keeps_what_was_asked_and_answered() -> None:
    """A bad exit code carries the command, what it was fed, and its stderr."""
    with pytest.raises(HostRefused) as caught:
        process.run([sys.executable, "-c", "import sys; sys.exit('because')"], stdin="fed")

    assert caught.value.answered == "because"
    assert caught.value.asked.endswith("\nfed")
    assert "exit code 1" in str(caught.value)


def test_a_missing_tool_names_the_package() -> None:
    """A tool that is not there is the machine's lack, with its remedy."""
    with pytest.raises(HostLacks, match="apt-get install rf-no-such-tool"):
        process.run(["rf-no-such-tool"])


def test_a_tool_that_takes_too_long_is_ended() -> None:
    """The time limit is kept and said."""
    with pytest.raises(HostRefused, match=r"longer than 0\.2 s"):
        process.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)


def test_a_file_that_cannot_be_run_is_refused() -> None:
    """What is there but not executable is not a missing tool."""
    with pytest.raises(HostRefused, match="could not be started"):
        process.run(["/etc/hostname"])
