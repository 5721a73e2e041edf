# SPDX-License-Identifier: Apache-2.0
"""What all tests share: where labs of tests live, and which tests this machine can run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REQUIRED = os.environ.get("RINGFENCE_REQUIRE_KERNEL") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs privileges where there are none, unless this machine must have them."""
    if os.geteuid() == 0 or REQUIRED:
        return
    skip = pytest.mark.skip(reason="needs root: network namespaces and nftables")
    for item in items:
        if item.get_closest_marker("kernel"):
            item.add_marker(skip)


@pytest.fixture(autouse=True, scope="session")
def _labs_of_tests() -> Iterator[None]:
    """Keep the labs of tests away from the user's own; the path is short, as Unix sockets need it."""
    with tempfile.TemporaryDirectory(prefix="rft-", dir="/tmp", ignore_cleanup_errors=True) as home:
        before = os.environ.get("RINGFENCE_HOME")
        os.environ["RINGFENCE_HOME"] = str(Path(home))
        yield
        if before is None:
            del os.environ["RINGFENCE_HOME"]
        else:
            os.environ["RINGFENCE_HOME"] = before
