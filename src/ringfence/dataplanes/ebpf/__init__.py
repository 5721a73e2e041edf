# SPDX-License-Identifier: Apache-2.0
"""The eBPF engine: a program as look-up tables in the kernel, asked by a small program at the node's netfilter hooks.

``render`` says what the tables of a program hold, ``changes`` what must be done to those that are there, ``apply`` does
it, ``instance`` makes, finds and removes the kernel's side of it all. The programs themselves are in ``bpf/``, in C.
May not: walk over rules for a packet, or leave anything out that does not fit.
"""
