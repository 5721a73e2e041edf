# SPDX-License-Identifier: Apache-2.0
"""The mirror of the tables, in examples."""

from __future__ import annotations

from ringfence.compiler.flatten import flatten
from ringfence.dataplanes.ebpf.layout import VIEW_SIZE
from ringfence.dataplanes.ebpf.render import Image, render
from ringfence.dataplanes.ebpf.store import Store, sizes_for, slot_number, table_of_address
from tests.dataplanes.router import Allow, egress, ingress, make_program

BEFORE = render(flatten(make_program(ingress("server", Allow(("client",)))), "ebpf"))
AFTER = render(flatten(make_program(ingress("server", Allow(("other",)))), "ebpf"))
LATER = render(flatten(make_program(ingress("server", Allow(("other",))), egress("client")), "ebpf"))


def test_what_lags_behind_is_not_forgotten_when_there_is_nothing_to_write() -> None:
    """A program that is in force already, put in force again, leaves seats behind that the next commit catches up."""
    store = Store(sizes_for(BEFORE), 100)
    seats = bytearray(200 * VIEW_SIZE)
    for image in (BEFORE, AFTER):
        write(store, image, seats)
    assert write(store, AFTER, seats) is True

    write(store, LATER, seats)

    assert {key: seat(store, seats, key) for key in LATER.peers} == LATER.peers


def write(store: Store, image: Image, seats: bytearray) -> bool:
    """Commit a program to seats; tell whether there was nothing to write."""
    commit = store.plan(store.difference(image))
    for index, view in commit.seats.items() if not commit.empty else ():
        seats[index * VIEW_SIZE : (index + 1) * VIEW_SIZE] = view
    return commit.empty


def seat(store: Store, seats: bytearray, key: bytes) -> bytes:
    """Return what a packet is told of an address that is known."""
    index = slot_number(store.entries[table_of_address(key)][key]) * 2 + (store.word >> 8 & 1)
    return bytes(seats[index * VIEW_SIZE : (index + 1) * VIEW_SIZE])
