# SPDX-License-Identifier: Apache-2.0
"""Under fire: every packet gets a verdict of the old or the new program, in the midst of a change too."""

from __future__ import annotations

import pytest

from tests.dataplanes.hammer import ALLOWED, DENIED, PAIRS, Hammer
from tests.dataplanes.router import Router

pytestmark = pytest.mark.kernel

FLIPS = 60


@pytest.mark.parametrize("pair", PAIRS)
def test_no_packet_is_misjudged_while_programs_change(router: Router, pair: str) -> None:
    """Two programs that agree on two flows, for different reasons, flip many times; the flows never notice."""
    programs = PAIRS[pair]
    router.dataplane.apply(programs[0])

    with Hammer(router) as hammer:
        for flip in range(1, FLIPS + 1):
            assert router.dataplane.apply(programs[flip % 2]).transactions > 0

    assert hammer.sent > FLIPS
    assert hammer.heard == {ALLOWED: hammer.sent, DENIED: 0}
