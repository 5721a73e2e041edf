# SPDX-License-Identifier: Apache-2.0
"""Does the hammer of ``test_atomicity`` see what a careless change of a table does?"""

from __future__ import annotations

import pytest

from ringfence.dataplanes.nftables import layout
from ringfence.dataplanes.nftables.render import render
from tests.dataplanes.hammer import DENIED, PAIRS, Hammer
from tests.dataplanes.router import Router

pytestmark = pytest.mark.kernel


def test_the_hammer_notices_a_window(router: Router) -> None:
    """The same hammer against a table that is deleted and loaded again: it does see what a careless change does."""
    programs = PAIRS["other rules everywhere"]
    router.dataplane.apply(programs[0])
    texts = [layout.text(render(program)) for program in programs]

    with Hammer(router) as hammer:
        for flip in range(1, 21):
            router.nft.run("delete table inet ringfence")
            router.nft.run(texts[flip % 2])

    assert hammer.heard[DENIED] > 0
