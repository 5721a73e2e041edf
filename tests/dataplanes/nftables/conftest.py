# SPDX-License-Identifier: Apache-2.0
"""The router that the packets of this folder's tests pass."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.dataplanes.nftables.nft_router import PODS, VERSIONS, Router


@pytest.fixture(scope="module")
def _router() -> Iterator[Router]:
    made = Router(f"nft{os.getpid()}")
    # A link's other end counts as up a moment later; till then nobody answers neighbour solicitations.
    assert all(any(made.pings("router", who, version) for _ in range(50)) for who in PODS for version in VERSIONS)
    yield made
    made.destroy()


@pytest.fixture
def router(_router: Router) -> Iterator[Router]:
    """Yield a router that enforces nothing yet."""
    yield _router
    _router.dataplane.remove()
