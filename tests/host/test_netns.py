# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ringfence.errors import HostRefused
from ringfence.host import netns, process

pytestmark = pytest.mark.kernel

NAME = f"rfnetns-{os.getpid()}"


@pytest.fixture
def namespace() -> Iterator[str]:
    """Yield the name of an empty namespace."""
    netns.create(NAME)
    yield NAME
    netns.delete(NAME)


def own() -> Path:
    """Return what names the namespace that the calling thread is in."""
    return Path("/proc/thread-self/ns/net").readlink()


def test_a_created_namespace_is_one_that_ip_netns_exec_enters(namespace: str) -> None:
    """The file in /run/netns is what iproute2 expects, and the new namespace holds nothing but a loopback."""
    done = process.run(["ip", "netns", "exec", namespace, "ip", "-o", "link"])

    assert netns.exists(namespace)
    assert done.stdout.count("\n") == 1
    assert " lo: " in done.stdout


def test_entering_moves_this_thread_only_and_comes_back_after_an_error(namespace: str) -> None:
    """The calling thread returns to its own namespace even when the block raises; other threads never leave theirs."""
    before = own()

    def fail_inside() -> None:
        with ThreadPoolExecutor(1) as other:
            other.submit(own).result()
            with netns.enter(namespace):
                assert own() != before
                assert other.submit(own).result() == before
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()

    assert own() == before


def test_a_socket_stays_in_the_namespace_that_it_was_opened_in(namespace: str) -> None:
    """A port that is bound inside is still free outside."""
    with netns.enter(namespace):
        process.run(["ip", "link", "set", "lo", "up"])
        inside = socket.create_server(("127.0.0.1", 0))
        port = inside.getsockname()[1]
        with inside, socket.create_connection(("127.0.0.1", port), timeout=2):
            pass

    assert inside.fileno() == -1


def test_entering_nests(namespace: str) -> None:
    """A namespace may be entered from within another, by its name or by its path."""
    outer = own()

    with netns.enter(namespace):
        inner = own()
        with netns.enter(netns.path(namespace)):
            assert own() == inner
        with netns.enter(str(netns.path(namespace))):
            assert own() == inner
        assert own() == inner

    assert own() == outer


def test_a_name_can_be_taken_once(namespace: str) -> None:
    """Creating over an existing namespace is refused and leaves it alone."""
    with netns.enter(namespace):
        before = own()

    with pytest.raises(HostRefused, match="already"):
        netns.create(namespace)

    with netns.enter(namespace):
        assert own() == before


def test_an_empty_file_left_by_a_killed_create_is_no_namespace_and_no_obstacle() -> None:
    """A half-made namespace does not exist, is listed for cleaning, and can be completed."""
    netns.path(NAME).touch()
    try:
        assert not netns.exists(NAME)
        assert NAME in netns.listing("rfnetns-")
        netns.create(NAME)
        assert netns.exists(NAME)
    finally:
        netns.delete(NAME)


def test_deleting_is_idempotent_and_leaves_no_name(namespace: str) -> None:
    """Deleting what is not there is done already."""
    netns.delete(namespace)
    netns.delete(namespace)

    assert not netns.exists(namespace)
    assert namespace not in netns.listing()


def test_entering_nowhere_says_so() -> None:
    """A missing namespace is named in the error."""
    with pytest.raises(HostRefused, match="no network namespace rf-nowhere"), netns.enter("rf-nowhere"):
        pass


def test_a_fresh_namespace_ends_with_what_was_run_in_it() -> None:
    """The work runs elsewhere, its result or error comes back, and this thread never moved."""
    before = own()

    assert netns.in_fresh(own) != before
    with pytest.raises(ZeroDivisionError):
        netns.in_fresh(lambda: 1 // 0)
    assert own() == before
