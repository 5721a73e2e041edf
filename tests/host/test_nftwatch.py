# SPDX-License-Identifier: Apache-2.0
"""What others commit to a table is heard of at once; what they do elsewhere is not."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from ringfence.host import netns
from ringfence.host.nft import Nft
from ringfence.host.nftwatch import TableWatch

pytestmark = pytest.mark.kernel


class Place:
    """A namespace, a handle on its nftables, and a watch on the table ``inet ours``."""

    def __init__(self, name: str) -> None:
        with netns.enter(name):
            self.nft = Nft()
            self.nft.run("add table inet ours; add set inet ours s { type ipv4_addr; }; add table inet others")
            self.watch = TableWatch("inet", "ours")

    def hears(self, command: str) -> bool:
        """Commit something, and tell whether the watch was readable at once and said that it was ours."""
        self.nft.run(command)
        readable, _, _ = select.select([self.watch], [], [], 1.0)
        assert readable, "the kernel tells of every commit"
        return self.watch.touched()


@pytest.fixture
def place() -> Iterator[Place]:
    """Make a namespace of the test's own."""
    name = f"rfwatch-{os.getpid()}"
    netns.create(name)
    made = Place(name)
    yield made
    made.watch.close()
    made.nft.close()
    netns.delete(name)


@pytest.mark.parametrize(
    "command",
    [
        "add element inet ours s { 10.0.0.1 }",
        "add chain inet ours c",
        "add chain inet ours c; add rule inet ours c accept",
        "delete set inet ours s",
        "add quota inet ours q { over 1 mbytes }",
        "delete table inet ours",
        "add table inet ours { flags dormant; }",
        "flush ruleset",
    ],
)
def test_every_kind_of_change_to_the_table_is_heard_of(place: Place, command: str) -> None:
    """Elements, chains, rules, sets, other objects, the table itself."""
    assert place.hears(command)
    assert not place.watch.touched()


@pytest.mark.parametrize("command", ["add chain inet others c", "add table ip ours", "add table inet ours2"])
def test_what_is_not_about_the_table_is_not_ours(place: Place, command: str) -> None:
    """Another table, another family, another name that begins alike."""
    assert not place.hears(command)


def test_more_than_can_be_kept_counts_as_a_change(place: Place) -> None:
    """What the socket could not hold may have been about our table."""
    elements = ", ".join(f"10.{number >> 8}.{number & 255}.1" for number in range(60_000))
    place.nft.run("add set inet others many { type ipv4_addr; }")
    place.watch.touched()

    assert place.hears(f"add element inet others many {{ {elements} }}; add chain inet others end")
