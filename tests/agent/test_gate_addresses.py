# SPDX-License-Identifier: Apache-2.0
"""What the gate and the model make of addresses that are not what they seem."""

from __future__ import annotations

import json

import pytest

from ringfence.agent.reconcile import why_not_in_force
from ringfence.apis.core import build_cluster, decode_pod


def _pod(address: str) -> bytes:
    return json.dumps(
        {
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]},
        }
    ).encode()


@pytest.mark.parametrize(
    ("given", "held"), [("::ffff:10.0.0.5", {"10.0.0.5"}), ("fd00::5%x", set()), ("fd00::5", {"fd00::5"})]
)
def test_an_address_is_what_packets_carry(given: str, held: set[str]) -> None:
    """A mapped address is an IPv4 one; one with a zone is none."""
    cluster = build_cluster([], [], [decode_pod(_pod(given))])

    assert {str(a) for endpoint in cluster.endpoints.values() for a in endpoint.addresses} == held


def test_nothing_is_in_force_before_a_commit() -> None:
    """Whatever addresses are asked for."""
    assert why_not_in_force(None, "d", "p", "u", ["10.0.0.5"]) == "the agent has committed nothing yet"
