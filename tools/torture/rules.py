# SPDX-License-Identifier: Apache-2.0
"""What is in force on a node, seen and spoiled from outside: the way somebody else may do it, past the agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pprint import pformat
from random import Random
from typing import Protocol

from ringfence.dataplanes.ebpf.decode import decode
from ringfence.dataplanes.ebpf.folders import TRACKING
from ringfence.dataplanes.ebpf.instance import NOW, Instance
from ringfence.dataplanes.ebpf.place import Place
from ringfence.dataplanes.ebpf.render import PAIRS
from ringfence.dataplanes.ebpf.store import PEERS4
from ringfence.errors import RingfenceError
from ringfence.host import netns
from ringfence.host.bpf import pins
from ringfence.host.nft import Nft

_TABLE = "inet ringfence"
_RELOADS = 10
_GAP = 0.02
_ANOTHER_GENERATION = 2 << 8  # of the same parity

Mischief = tuple[str, Callable[[], object]]
"""What it is, and what does it."""


class Rules(Protocol):
    """One engine's rules on one node."""

    def text(self) -> str:
        """Return them for people; empty if there are none."""
        ...

    def generation(self) -> object:
        """Return what is another value after every change."""
        ...

    def mischief(self, random: Random) -> Mischief | None:
        """Return something that changes what they mean, None if there is nothing to change."""
        ...

    def flush(self) -> None:
        """Take all of them away."""
        ...

    async def reload(self) -> None:
        """Put the same rules in force the careless way: what was there is deleted, then everything is written anew."""
        ...

    def close(self) -> None:
        """Give back what is held open; nothing stays in force."""
        ...


class NftablesRules:
    """The table of the nftables engine."""

    def __init__(self, namespace: str) -> None:
        with netns.enter(namespace):
            self._nft = Nft()

    def text(self) -> str:
        """Return the table as nft lists it."""
        try:
            return self._nft.listing(f"table {_TABLE}")
        except RingfenceError:
            return ""

    def generation(self) -> object:
        """Return nftables' own generation."""
        return self._nft.generation()

    def mischief(self, random: Random) -> Mischief | None:
        """Return commands for nft."""
        objects = [next(iter(each.items())) for each in self._nft.objects(f"table {_TABLE}")]
        chains = sorted({body["chain"] for kind, body in objects if kind == "rule"})
        sets = [(kind, body) for kind, body in objects if kind in ("set", "map") and body.get("elem")]
        if not chains:
            return None
        match random.randrange(5):
            case 0:
                commands = f"delete table {_TABLE}"
            case 1:
                commands = f"flush table {_TABLE}"
            case 2:
                commands = f"flush chain {_TABLE} {random.choice(chains)}"
            case 3 if sets:
                kind, body = random.choice(sets)
                commands = f"flush {kind} {_TABLE} {body['name']}"
            case _:
                verdict = random.choice(("accept", "drop"))
                hook = random.choice([b["name"] for kind, b in objects if kind == "chain" and "hook" in b])
                commands = f"insert rule {_TABLE} {hook} ip saddr 0.0.0.0/1 {verdict}"
        return commands, lambda: self._nft.run(commands)

    def flush(self) -> None:
        """Delete the table."""
        self._nft.run(f"add table {_TABLE}\ndelete table {_TABLE}")

    async def reload(self) -> None:
        """Delete the table and load it again, some times."""
        for _ in range(_RELOADS):
            text = self.text()
            self.flush()
            self._nft.run(text)
            await asyncio.sleep(_GAP)

    def close(self) -> None:
        """Close the library; the table goes with its namespace."""
        self._nft.close()


class EbpfRules:
    """The programs and tables of the eBPF engine."""

    def __init__(self, namespace: str) -> None:
        with netns.enter(namespace):
            self._place, self._nft = Place(), Nft()

    def text(self) -> str:
        """Return the program that the tables hold."""
        with self._opened() as found:
            return "" if found is None else pformat(decode(found.read()), width=160)

    def generation(self) -> object:
        """Return what is pinned, and the number of the program in force."""
        with self._opened() as found:
            return None if found is None else (found.folder, found.maps[NOW].lookup(bytes(4)))

    def mischief(self, random: Random) -> Mischief | None:
        """Return a change of a table, of a program's place, or of what it needs."""
        kinds = (self._detach, self._detach_all, self._unpin, self._forget, self._blank, self._turn, self._untrack)
        chosen, seed = random.choice(kinds), random.getrandbits(32)
        with self._opened() as found:
            if found is None:
                return None
        return chosen.__name__.strip("_"), lambda: self._do(chosen, Random(seed))

    def flush(self) -> None:
        """Take every program away."""
        self._place.clear()

    async def reload(self) -> None:
        """Blank all that is known of addresses and write it again, some times."""
        for _ in range(_RELOADS):
            with self._opened() as found:
                if found is not None:
                    there = found.seats[:]
                    for content in (bytes(len(there)), there):
                        found.seats[:] = content
                        _renumber(found)
                        await asyncio.sleep(_GAP)

    def close(self) -> None:
        """Take all of it away, since pins outlive the namespace."""
        self._place.clear()
        self._place.close()
        self._nft.close()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Instance | None]:
        found = self._place.adopt()
        try:
            yield found
        finally:
            if found is not None:
                found.close()

    def _do(self, chosen: Callable[[Instance, Random], None], random: Random) -> None:
        with self._opened() as found:
            if found is not None:
                chosen(found, random)

    def _detach(self, found: Instance, random: Random) -> None:
        random.choice(list(found.links.values())).detach()

    def _detach_all(self, found: Instance, _: Random) -> None:
        for link in found.links.values():
            link.detach()

    def _unpin(self, found: Instance, random: Random) -> None:
        assert found.folder is not None
        os.unlink(found.folder / random.choice(pins.listing(found.folder)))  # noqa: PTH108 - of the BPF file system

    def _forget(self, found: Instance, random: Random) -> None:
        keys = [key for key, _ in found.maps[PEERS4].items()]
        if keys:
            found.maps[PEERS4].delete(random.choice(keys))
            _renumber(found)

    def _blank(self, found: Instance, _: Random) -> None:
        found.seats[:] = bytes(len(found.seats))
        _renumber(found)

    def _turn(self, found: Instance, _: Random) -> None:
        """Let every pair allow what it denied, and the other way round."""
        for key, pair in list(found.maps[PAIRS].items()):
            found.maps[PAIRS].update(key, pair[:16] + bytes((pair[16] ^ 1,)) + pair[17:])
        _renumber(found)

    def _untrack(self, _: Instance, __: Random) -> None:
        self._nft.run(f"delete table inet {TRACKING}")


def _renumber(found: Instance) -> None:
    """Make void what the program remembers of verdicts: what was changed is to be seen at once."""
    word = int.from_bytes(found.maps[NOW].lookup(bytes(4)) or b"", sys.byteorder)
    found.maps[NOW].update(bytes(4), (word + _ANOTHER_GENERATION).to_bytes(8, sys.byteorder))


ENGINES: dict[str, Callable[[str], Rules]] = {"nftables": NftablesRules, "ebpf": EbpfRules}
