# SPDX-License-Identifier: Apache-2.0
"""The nftables engine: one table, ``inet ringfence``, in the network namespace of its agent.

====================  ==============================================================================
``layout.py``         the nouns: what can stand in the table, as values; how each is written in nft's language
``render.py``         Program -> Table; pure
``observe.py``        the kernel -> Table, and what is there that we never write
``plan.py``           (what is there, what should be) -> transactions, in an order without a window; pure
``apply.py``          commits a plan; notices drift; removes
``probe.py``          whether this machine can run it
====================  ==============================================================================

docs/dataplanes/nftables.md walks through a real dump; docs/decisions/0003-nftables-layout.md says why it is so.
"""
