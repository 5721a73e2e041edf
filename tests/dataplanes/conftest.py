# SPDX-License-Identifier: Apache-2.0
"""The router that the packets of this folder's tests pass: each test runs on every engine that filters."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.dataplanes.router import PODS, VERSIONS, Router


def standing(engine: str) -> Iterator[Router]:
    """Yield a router, and take it away."""
    made = Router(f"{engine[:3]}{len(engine)}-{os.getpid()}", engine)
    # A link's other end counts as up a moment later; till then nobody answers neighbour solicitations.
    assert all(any(made.pings("router", who, version) for _ in range(50)) for who in PODS for version in VERSIONS)
    yield made
    made.destroy()


ENGINES = ("nftables", "ebpf")
STANDING_ELSEWHERE = ("ebpf at devices", "ebpf on a bridge")


@pytest.fixture(scope="module", params=[*ENGINES, *STANDING_ELSEWHERE])
def _router(request: pytest.FixtureRequest) -> Iterator[Router]:
    yield from standing(request.param)


@pytest.fixture
def router(_router: Router) -> Iterator[Router]:
    """Yield a router that enforces nothing yet."""
    yield _router
    _router.dataplane.remove()
