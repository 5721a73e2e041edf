# SPDX-License-Identifier: Apache-2.0
"""Pods."""

from __future__ import annotations

from ringfence.lab.apiserver.kinds.strategy import Strategy


class Pods(Strategy):
    """Pods."""
