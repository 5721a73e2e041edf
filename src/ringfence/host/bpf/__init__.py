# SPDX-License-Identifier: Apache-2.0
"""The only door to the kernel's bpf(2): maps, programs, links, pins and ring buffers, in this process.

Each of them is a ``Handle``: a file descriptor that is given back at ``close`` or with its last reference. What a
program does, what a map's bytes mean, and what is attached where and when, others decide. Only reading an ELF file and
fitting it to this kernel's types is left to libbpf; all else is a system call made here, so an old libbpf is enough.
"""
