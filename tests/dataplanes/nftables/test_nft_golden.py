# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence.compiler.program import Program, empty_program
from ringfence.dataplanes.nftables import layout
from ringfence.dataplanes.nftables.layout import Names
from ringfence.dataplanes.nftables.observe import Observed, observe
from ringfence.dataplanes.nftables.render import render
from ringfence.host import netns
from ringfence.host.nft import Nft
from ringfence.model.policy import Action
from tests.dataplanes.router import Allow, egress, ingress, make_program

GOLDEN = Path(__file__).with_name("golden")

LONG = "NetworkPolicy " + "n" * 63 + "/" + "policy-" * 20 + "end"

PROGRAMS: dict[str, Program] = {
    "empty": empty_program("node"),
    "demo": make_program(ingress("server", Allow(("client",), ("TCP/80",), origin="NetworkPolicy demo/demo-policy"))),
    "closed": make_program(ingress("server"), egress("server"), pods=("server",)),
    "blocks": make_program(
        egress(
            "client",
            Allow(("10.0.0.0/9", "10.128.0.0/9", "192.0.2.7/32", "fd00::/8", "::ffff:192.0.2.1/128"), ("TCP/443",)),
            Allow(("0.0.0.0/0",), ("UDP/53",)),
            Allow((), ("TCP/1",)),
        )
    ),
    "ports": make_program(
        ingress(
            "server",
            Allow(None, ("TCP/80", "TCP/81", "TCP/8000-8080", "UDP", "SCTP/9")),
            Allow(("client", "10.9.3.0/24")),
            Allow(("other",), ("TCP/22", "TCP/443")),
        )
    ),
    "deny": make_program(
        ingress("server", Allow(("client",), ("TCP/80",), Action.DENY), Allow(None, ("TCP/1-100",), origin=LONG))
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_renders_to_its_golden_file(name: str) -> None:
    """The whole text is as it was reviewed; ``RINGFENCE_GOLDEN=write`` writes it anew."""
    file = GOLDEN / f"{name}.nft"
    text = layout.text(render(PROGRAMS[name]))
    if os.environ.get("RINGFENCE_GOLDEN") == "write":
        file.write_text(text)

    assert text == file.read_text()


def test_every_golden_file_has_its_program() -> None:
    """No golden file outlives the program that it shows."""
    assert {file.stem for file in GOLDEN.iterdir()} == PROGRAMS.keys()


@pytest.mark.kernel
@pytest.mark.parametrize("salt", [0, 1])
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_kernel_takes_a_golden_file_and_gives_the_same_back(name: str, salt: int) -> None:
    """What is loaded and then observed equals what was rendered: nothing is lost or bent on the way."""
    table = render(PROGRAMS[name], Names(salt=salt))

    def load() -> Observed:
        with Nft() as nft:
            nft.run(layout.text(table))
            return observe(nft)

    assert netns.in_fresh(load) == Observed(present=True, table=table)
