# SPDX-License-Identifier: Apache-2.0
"""Whether this machine can run the memory dataplane: every machine can."""

from __future__ import annotations

from ringfence.dataplanes.base import Answer, Probe


def probe() -> Probe:
    """Return the answer of every machine."""
    return Probe(Answer.YES, "needs nothing of the machine; decides flows and filters no packet")
