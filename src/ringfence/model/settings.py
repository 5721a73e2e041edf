# SPDX-License-Identifier: Apache-2.0
"""What an operator may choose about the meaning of policies. Everything else about it is fixed."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class NodeProbes(enum.Enum):
    """Whether the node's own addresses always reach the pods that run on it (SEMANTICS 23), or policy decides."""

    ALLOW = "allow"
    DENY = "deny"


class OwnNodeEgress(enum.Enum):
    """Whether policy decides if a pod reaches its own node (SEMANTICS 24), or it always does."""

    POLICY = "policy"
    ALLOW = "allow"


class Established(enum.Enum):
    """What becomes of an open connection that policy would no longer allow (SEMANTICS 21)."""

    CUT = "cut"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Settings:
    """One choice of each; the defaults are the choices of SEMANTICS."""

    node_probes: NodeProbes = NodeProbes.ALLOW
    own_node_egress: OwnNodeEgress = OwnNodeEgress.POLICY
    established: Established = Established.CUT


DEFAULTS = Settings()
