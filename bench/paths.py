# SPDX-License-Identifier: Apache-2.0
"""A client, a node and a server in network namespaces of their own, with an engine at the node, and sockets between."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import worlds
from bench.shapes import CLIENT, PORT, SERVER
from ringfence.compiler.program import Program
from ringfence.dataplanes import registry
from ringfence.host import netns, process
from ringfence.host.nft import Nft

# Rules that no packet meets; that they are there switches the kernel's connection tracking on.
_TRACK = "table inet rfb-track {\n\tchain tracks {\n\t\tct state new\n\t}\n}\n"


@dataclass(frozen=True, slots=True)
class Variant:
    """What stands at the node: an engine with a program, or nothing but (perhaps) the connection tracker.

    ``sources``: addresses that the client may also have, and is let in with.
    """

    name: str
    engine: str = ""
    program: Program | None = None
    tracked: bool = True
    sources: tuple[str, ...] = (CLIENT,)
    ebpf_hook: str = registry.AUTO


@dataclass(slots=True)
class Path3:
    """A client, a node and a server, and open sockets between them.

    ``near`` and ``far``: the ends of a TCP connection; ``small`` those of one that sends a packet for each segment.
    ``talk``: UDP that is answered once before it is measured; ``shout``: UDP that never is.
    """

    name: str
    sources: tuple[str, ...]
    listener: socket.socket
    near: socket.socket
    far: socket.socket
    small: tuple[socket.socket, socket.socket]
    talk: tuple[socket.socket, socket.socket]
    shout: tuple[socket.socket, socket.socket]

    @property
    def client(self) -> str:
        """The client's namespace."""
        return f"{self.name}-c"

    @property
    def node(self) -> str:
        """The node's namespace."""
        return f"{self.name}-n"


@contextlib.contextmanager
def path(number: int, variant: Variant) -> Iterator[Path3]:
    """Make a path, and take it away."""
    name = f"rfb{os.getpid()}-{number}"
    with contextlib.ExitStack() as stack:
        _wire(name, stack)
        with netns.enter(f"{name}-n"):
            if variant.tracked:
                nft = Nft()
                nft.run(_TRACK)
                nft.close()
            if variant.program is not None:
                engine = registry.builder(registry.engine(variant.engine), ebpf_hook=variant.ebpf_hook)()
                stack.callback(engine.remove)  # what an engine holds of a namespace would outlive it
                engine.apply(variant.program)
        made = _connected(name, variant.sources, stack)
        if _passes(made, PORT + 1) != (variant.program is None or not variant.program.endpoints):
            raise SystemExit(f"{variant.name}: what is measured is not what is in force")
        yield made


def _passes(path: Path3, port: int) -> bool:
    """Tell whether the server is asked to open a connection where nobody listens."""
    with netns.enter(path.client), socket.socket() as near:
        near.settimeout(0.1)
        try:
            near.connect((SERVER, port))
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
    return True


def _wire(name: str, stack: contextlib.ExitStack) -> None:
    ends = {f"{name}-c": (CLIENT, 1), f"{name}-s": (SERVER, 2)}
    node = f"{name}-n"
    for each in (node, *ends):
        netns.create(each)
        stack.callback(netns.delete, each)
    with netns.enter(node):
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for end, (_, number) in ends.items():
            link = f"link add e{number} type veth peer name eth0 netns {end}\n"
            _ip(f"{link}addr add 10.9.{number}.1/24 dev e{number}\nlink set e{number} up\n")
    for end, (address, number) in ends.items():
        with netns.enter(end):
            up = f"link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"
            _ip(f"{up}route add default via 10.9.{number}.1\n")
    with netns.enter(node):
        _ip("".join(f"route add {block} via {CLIENT}\n" for block in worlds.ADDRESSES))
    with netns.enter(f"{name}-c"):  # all of these are its own
        _ip("".join(f"route add local {block} dev lo\n" for block in worlds.ADDRESSES))


def _ip(batch: str) -> None:
    process.run(["ip", "-batch", "-"], stdin=batch)


def _connected(name: str, sources: tuple[str, ...], stack: contextlib.ExitStack) -> Path3:
    with netns.enter(f"{name}-s"):
        listener = stack.enter_context(socket.create_server((SERVER, PORT), backlog=1024))
    with netns.enter(f"{name}-c"):
        near, far = _connection(listener, stack)
        _ip("link set eth0 gso_max_segs 1\n")  # a connection takes it over when it begins
        small = _connection(listener, stack)
        _ip("link set eth0 gso_max_segs 65535\n")
    talk, shout = (_datagrams(name, port, stack) for port in (9001, 9002))
    return Path3(name, sources, listener, near, far, small, talk, shout)


def _connection(listener: socket.socket, stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    near = stack.enter_context(socket.socket())
    near.settimeout(10)
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")  # sends when it may, not when a timer says so
    near.connect((SERVER, PORT))
    far = stack.enter_context(listener.accept()[0])
    for each in (near, far):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def _datagrams(name: str, port: int, stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ends = []
    for end, own, other in (("c", CLIENT, SERVER), ("s", SERVER, CLIENT)):
        with netns.enter(f"{name}-{end}"):
            made = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.bind((own, port))
        made.connect((other, port))
        made.settimeout(10)
        ends.append(made)
    return ends[0], ends[1]
