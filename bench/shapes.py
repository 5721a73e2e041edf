# SPDX-License-Identifier: Apache-2.0
"""Programs whose policies decide of one client and one server, and of how much else besides.

The rule that lets the client in is the last one of its ruleset, and its peer the last of its set: what a walk over
rules finds last, and a look-up as soon as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench import worlds
from ringfence.compiler.program import Program

CLIENT, SERVER, PORT = "10.9.1.2", "10.9.2.2", 80
_FIRST = 2  # of the other pods


@dataclass(frozen=True, slots=True)
class Series:
    """Programs of one shape. ``about`` has a place for the count; ``others``: whom each rule but the last lets in."""

    about: str
    of: Callable[[int], Program]
    counts: tuple[int, ...] = (1, 100, 1000, 10_000)
    others: Callable[[int], str] | None = None

    def named(self, count: int) -> str:
        """Return what is said of the program of one size."""
        return self.about.format(f"{count:,}")

    def sources(self, count: int) -> tuple[str, ...]:
        """Return the addresses that the server lets in, one for each rule."""
        return (*map(self.others, range(count - 1)), CLIENT) if self.others is not None else (CLIENT,)


def series(*, quick: bool) -> Iterator[Series]:
    """Yield what is measured."""
    if quick:
        yield Series("{} policies on the server, its own last", on_the_server, (1, 100), _other_pod)
        return
    yield Series("{} policies on the server, its own last", on_the_server, others=_other_pod)
    yield Series("{} policies on each end, its own last", on_both_ends, others=_other_pod)
    yield Series("{} policies on as many pods", on_as_many_pods)
    yield Series("{} CIDRs in one policy", blocks_of_one, (1, 10_000), worlds.block_address)
    yield Series("{} policies with a CIDR each", blocks_each, (1, 10_000), worlds.block_address)


def _other_pod(number: int) -> str:
    return worlds.pod_address(_FIRST + number)


def on_the_server(count: int) -> Program:
    """All policies select the server; each lets another pod in, the last one the client."""
    return _selecting(count, server=True, client=False)


def on_both_ends(count: int) -> Program:
    """As many policies on the server, and as many on the client, each of which lets it out to another pod."""
    return _selecting(count, server=True, client=True)


def on_as_many_pods(count: int) -> Program:
    """Each policy selects another pod of the node and lets another pod in; one the server, which lets the client in."""
    pods = [worlds.pod(0, worlds.NODE, address=SERVER, app="pod0")]
    pods += [worlds.pod(1, worlds.ELSEWHERE, address=CLIENT, app="client0")]
    pods += [worlds.pod(2 + n, worlds.NODE, app=f"pod{n}") for n in range(1, count)]
    pods += [worlds.pod(2 + count + n, worlds.ELSEWHERE, app=f"client{n}") for n in range(1, count)]
    policies = [
        worlds.policy(f"p{n:05}", {"app": f"pod{n}"}, [worlds.labelled(app=f"client{n}")]) for n in range(count)
    ]
    return worlds.program_of(pods, policies)


def blocks_of_one(count: int) -> Program:
    """One policy on the server lets so many blocks in, the last one the client's."""
    return worlds.program_of([_SERVER], [worlds.policy("p", {"app": "server"}, _blocks(count))])


def blocks_each(count: int) -> Program:
    """So many policies on the server let a block in each, the last one the client's."""
    policies = [worlds.policy(f"p{n:05}", {"app": "server"}, [block]) for n, block in enumerate(_blocks(count))]
    return worlds.program_of([_SERVER], policies)


_SERVER = worlds.pod(0, worlds.NODE, address=SERVER, app="server")


def _selecting(count: int, *, server: bool, client: bool) -> Program:
    last = f"peer{count - 1}"
    pods = [
        worlds.pod(0, worlds.NODE, address=SERVER, app="server", out=last),
        worlds.pod(1, worlds.NODE if client else worlds.ELSEWHERE, address=CLIENT, app="client", into=last),
    ]
    pods += [
        worlds.pod(_FIRST + n, worlds.ELSEWHERE, app="peer", into=f"peer{n}", out=f"peer{n}") for n in range(count - 1)
    ]
    peers = [f"peer{n}" for n in range(count)]
    policies = []
    if server:
        policies += [
            worlds.policy(f"in{n:05}", {"app": "server"}, [worlds.labelled(into=peer)]) for n, peer in enumerate(peers)
        ]
    if client:
        policies += [
            worlds.egress_policy(f"out{n:05}", {"app": "client"}, [worlds.labelled(out=peer)])
            for n, peer in enumerate(peers)
        ]
    return worlds.program_of(pods, policies)


def _blocks(count: int) -> list[worlds.Object]:
    return [*map(worlds.block, range(count - 1)), {"ipBlock": {"cidr": f"{CLIENT}/30"}}]
