# SPDX-License-Identifier: Apache-2.0
"""Tiny programs for the kernel, compiled here, and the network namespaces that they run in."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from ringfence.host import netns, process
from ringfence.host.bpf import pins

HEADER = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct sk_buff { unsigned int len; } __attribute__((preserve_access_index));
struct nf_hook_state { __u8 hook; } __attribute__((preserve_access_index));
struct bpf_nf_ctx { const struct nf_hook_state *state; struct sk_buff *skb; } __attribute__((preserve_access_index));
char _license[] SEC("license") = "GPL";
"""

T = TypeVar("T")
Compile = Callable[[str], Path]


_SETRESUID = {"x86_64": 117, "aarch64": 147, "riscv64": 147}


def without_privileges(work: Callable[[], T]) -> T:
    """Run something as nobody, in a thread of its own that keeps to that."""

    def body() -> T:
        # The bare system call: the C library's function would change all threads.
        assert ctypes.CDLL(None).syscall(_SETRESUID[platform.machine()], 65534, 65534, 65534) == 0
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(body).result()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Return what makes an object file of a C source; each source is compiled once."""
    directory = tmp_path_factory.mktemp("bpf")
    done: dict[str, Path] = {}

    def compile_source(source: str) -> Path:
        if source not in done:
            target = directory / f"tiny{len(done)}.bpf.o"
            include = f"/usr/include/{platform.machine()}-linux-gnu"
            argv = ["clang", "-O2", "-g", "-target", "bpf", "-I", include, "-x", "c", "-", "-c", "-o", str(target)]
            process.run(argv, stdin=HEADER + source)
            done[source] = target
        return done[source]

    return compile_source


@pytest.fixture
def namespace() -> Iterator[str]:
    """Yield the name of an empty namespace whose loopback is up."""
    name = f"rfbpf-{os.getpid()}"
    netns.create(name)
    with netns.enter(name):
        process.run(["ip", "link", "set", "lo", "up"])
    yield name
    netns.delete(name)


@pytest.fixture
def pinned() -> Iterator[Path]:
    """Yield an empty directory for pins."""
    directory = pins.ROOT / f"rftest-{os.getpid()}"
    pins.make_directory(directory)
    yield directory
    pins.remove_directory(directory)
