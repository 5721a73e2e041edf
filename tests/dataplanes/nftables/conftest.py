# SPDX-License-Identifier: Apache-2.0
"""The router of this folder is run by nftables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dataplanes.conftest import standing
from tests.dataplanes.router import Router


@pytest.fixture(scope="module")
def _router() -> Iterator[Router]:
    yield from standing("nftables")
