# SPDX-License-Identifier: Apache-2.0
"""The lab's controllers: what makes Deployments pods, pods scheduled, Services endpoints, and namespaces go away.

Charter: clients of the API server like any other (``ringfence.kube``). Every controller is a pure
``reconcile(world, key, now) -> Outcome`` beside a loop that all share; what it wants done is a value
(``actions``). They keep no state that matters: killed at any point, they go on from what the API server has.
"""

from __future__ import annotations

from ringfence.lab.controllers.manager import run_controllers

__all__ = ["run_controllers"]
