# SPDX-License-Identifier: Apache-2.0
"""A hammer: packets of an allowed and of a denied flow without a pause, and pairs of programs that agree on both."""

from __future__ import annotations

import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Self

from ringfence.model.policy import Action
from tests.dataplanes.router import SOON, Allow, Router, address, egress, ingress, make_program

ALLOWED, DENIED = 53, 54


@dataclass
class Hammer:
    """Sends datagrams to an allowed and a denied port, without a pause, and counts those that arrive.

    One thread sends and receives: in the kernel a packet crosses the router before the call that sends it returns,
    so that queues stay short and a missing packet is a dropped one.
    """

    router: Router
    sent: int = 0
    heard: dict[int, int] = field(default_factory=lambda: {ALLOWED: 0, DENIED: 0})
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._near = self.router.opened("client", 4, socket.SOCK_RAW, 17)
        self._far = self.router.opened("server", 4, socket.SOCK_RAW, 17)
        self._near.connect((address("server", 4), 0))
        self._far.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        self._far.setblocking(False)
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._far.settimeout(SOON / 10)
        self._receive()
        self._near.close()
        self._far.close()

    def _work(self) -> None:
        while not self._stop.is_set():
            for number in range(1024, 1088):
                # each pair from ports of its own: connections that are new, and such that are not
                source = 1024 + (self.sent + number) % 20_000
                for port in (ALLOWED, DENIED):
                    self._near.send(struct.pack("!HHHH", source, port, 8, 0))
            self.sent += 64
            self._receive()

    def _receive(self) -> None:
        try:
            while True:
                port = struct.unpack_from("!H", self._far.recv(64), 22)[0]
                self.heard[port] += 1
        except (BlockingIOError, TimeoutError):
            pass


def members(*peers: str, port: int | str = "1-65535", expression: str = "app=client") -> Allow:
    """Allow whoever an expression covers at the moment."""
    return Allow(peers, (f"UDP/{port}",), expression=expression)


def blocks(*networks: str) -> Allow:
    """Allow the blocks of a rule that is edited."""
    return Allow(networks, (f"UDP/{ALLOWED}",))


MANY = tuple(f"10.77.{i}.1" for i in range(200))
CROWD = tuple(f"10.{80 + i // 256}.{i % 256}.{8 * (i % 32)}/29" for i in range(1100))
WIDE, SPLIT = ("10.9.0.0/16",), ("10.9.1.0/24", "10.9.0.0/28", "10.9.3.0/25")

PAIRS = {
    "other rules everywhere": (
        make_program(
            ingress("server", Allow(("client", *MANY), (f"UDP/{ALLOWED}",))),
            egress("client", Allow(("10.9.2.0/24", *(f"10.78.{i}.0/30" for i in range(200))))),
        ),
        make_program(
            egress("client", Allow(("server",), (f"UDP/{ALLOWED}", "TCP/1-7", "TCP/9"))),
            ingress("server", Allow(("10.9.0.0/16", *(f"10.79.{i}.0/29" for i in range(200))), (f"UDP/{ALLOWED}",))),
            ingress("client"),
        ),
    ),
    "a label moves the client from one set to another": (
        make_program(
            ingress(
                "server",
                members("client", *MANY, port=ALLOWED, expression="a"),
                members("other", port=ALLOWED, expression="b"),
            )
        ),
        make_program(
            ingress(
                "server",
                members(*MANY, port=ALLOWED, expression="a"),
                members("client", "other", port=ALLOWED, expression="b"),
            )
        ),
    ),
    "blocks are merged and split": (
        make_program(ingress("server", blocks(*WIDE)), egress("client", blocks("0.0.0.0/1"))),
        make_program(ingress("server", blocks(*SPLIT)), egress("client", blocks("10.9.2.0/31", "10.9.2.2/32"))),
    ),
    "very many blocks, of other lengths": (
        make_program(ingress("server", blocks(*CROWD, "10.9.1.0/24")), egress("client", blocks(*CROWD, "10.9.2.2/32"))),
        make_program(
            ingress("server", blocks(*CROWD[:-1], "10.9.1.0/25")), egress("client", blocks(*CROWD[1:], "10.9.0.0/16"))
        ),
    ),
    "one half opens while the other closes, by rules": (
        make_program(
            egress("client", Allow(("server",), (f"UDP/{ALLOWED}",))),
            ingress("server", Allow(("client",))),
        ),
        make_program(
            egress("client", Allow(("server",))),
            ingress("server", Allow(("client",), (f"UDP/{ALLOWED}",))),
        ),
    ),
    "one half opens while the other closes, by members": (
        make_program(
            egress("client", members("other", expression="to"), Allow(("server",), (f"UDP/{ALLOWED}",))),
            ingress("server", members("client", expression="from"), Allow(("client",), (f"UDP/{ALLOWED}",))),
        ),
        make_program(
            egress("client", members("server", expression="to"), Allow(("server",), (f"UDP/{ALLOWED}",))),
            ingress("server", members("other", expression="from"), Allow(("client",), (f"UDP/{ALLOWED}",))),
        ),
    ),
    "rules of one half and members of the other": (
        make_program(
            egress("client", Allow(("server",), (f"UDP/{ALLOWED}",))),
            ingress("server", members("client", expression="from"), Allow(("client",), (f"UDP/{ALLOWED}",))),
        ),
        make_program(
            egress("client", Allow(("server",))),
            ingress("server", members("other", expression="from"), Allow(("client",), (f"UDP/{ALLOWED}",))),
        ),
    ),
    "rules and the members that they ask for": (
        make_program(ingress("server", members("client", expression="from", port=ALLOWED))),
        make_program(ingress("server", members("other", expression="from"), Allow(("client",), (f"UDP/{ALLOWED}",)))),
    ),
    "a long ruleset and a short one": (
        make_program(ingress("server", *(Allow((f"10.66.{i}.1",)) for i in range(40)), blocks("10.9.1.0/24"))),
        make_program(ingress("server", Allow(("client",), (f"UDP/{ALLOWED}",)))),
    ),
    "a rule that denies": (
        make_program(ingress("server", Allow(("client",), (f"UDP/{DENIED}",), Action.DENY), Allow(("client",)))),
        make_program(ingress("server", members("client", port=ALLOWED))),
    ),
}
