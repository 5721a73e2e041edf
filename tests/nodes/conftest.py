# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ringfence.host import netns
from ringfence.lab.nodes.runner_client import RunnerRuntime


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[RunnerRuntime]:
    """Yield a runtime with a runner of its own, which ends with the test."""
    runtime = RunnerRuntime(tmp_path)
    await runtime.ensure()
    yield runtime
    await runtime.shutdown()


@pytest.fixture
def network() -> Iterator[Path]:
    """Yield the file of an empty network namespace."""
    name = f"rfnodes-{os.getpid()}"
    netns.create(name)
    yield netns.path(name)
    netns.delete(name)
