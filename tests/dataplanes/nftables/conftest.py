# SPDX-License-Identifier: Apache-2.0
"""The router that the packets of this folder's tests pass."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.dataplanes.nftables.nft_router import Router


@pytest.fixture(scope="module")
def _router() -> Iterator[Router]:
    made = Router(f"nft{os.getpid()}")
    yield made
    made.destroy()


@pytest.fixture
def router(_router: Router) -> Iterator[Router]:
    """Yield a router that enforces nothing yet."""
    yield _router
    _router.dataplane.remove()
