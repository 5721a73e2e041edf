# SPDX-License-Identifier: Apache-2.0
"""The lab that most tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.labs import Lab, brought_up


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Bring a routed lab with two nodes up, shared by a session's tests; each test uses a namespace of its own."""
    yield from brought_up("shared", "--network-policy", "nftables")
