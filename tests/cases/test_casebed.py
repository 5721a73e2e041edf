# SPDX-License-Identifier: Apache-2.0
"""What trying a case leaves behind in the process that tried it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence.cases.build import load
from ringfence.cases.run import run
from ringfence.lab.casebed import ENGINES, Packets

pytestmark = pytest.mark.kernel

CASE = Path(__file__).parent / "np-23-nodes-that-change-addresses.yaml"


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_nothing_stays_open(name: str) -> None:
    """No descriptor: a corpus is many cases, and a library that waits with select(2) aborts beyond 1,024."""
    case = load(CASE)
    run(case, Packets(name, settings=case.script.settings))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - they are only counted

    run(case, Packets(name, settings=case.script.settings))

    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
