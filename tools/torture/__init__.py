# SPDX-License-Identifier: Apache-2.0
"""``make torture``: real agents under fire, and whether any packet ever got a verdict that it should not have.

::

    storm ── writes, kills, tampers ──> API server ──> agents ──> their kernels
      │                                                                 ^ packets
      └─ what was sent, what is proven in force ──> history             │
                                                       │              hammer (a process of its own)
                                        judge <────────┴── observations ┘
                                          └─> counts, evidence

``history`` and ``worlds`` are pure. The expected verdicts are the oracle's; the compiler is not used here.
"""
