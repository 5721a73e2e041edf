# SPDX-License-Identifier: Apache-2.0
"""Nothing in a file is passed over without a word."""

from __future__ import annotations

import subprocess
import sys

OBJECTS = """\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: d}, spec: {containers: [{name: m, image: m}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: b, namespace: d}, spec: {containers: [{name: m, image: m}]}}
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicyy, metadata: {name: p, namespace: d}, spec: {podSelector: {}}}
"""


def test_a_kind_that_decides_nothing_is_named() -> None:
    """A policy whose kind is misspelt does not look as if it allowed."""
    argv = [sys.executable, "-m", "ringfence", "explain", "-f", "-", "--from", "d/a", "--to", "d/b", "--port", "80"]
    done = subprocess.run(argv, input=OBJECTS, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "note: NetworkPolicyy.networking.k8s.io is not read" in done.stderr
