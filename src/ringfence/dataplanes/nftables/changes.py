# SPDX-License-Identifier: Apache-2.0
"""Transactions, as values that can be printed, compared and run: what a plan consists of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.dataplanes.nftables.elements import Element, text
from ringfence.dataplanes.nftables.layout import FAMILY, TABLE


@dataclass(frozen=True, slots=True)
class Change:
    """Elements that a set or map gets or loses: each with its verdict, which is empty for sets and for losses."""

    adds: bool
    name: str
    key: str
    elements: tuple[tuple[Element, str], ...]

    def __str__(self) -> str:
        words = sorted(
            f"{text(self.key, element)} : {verdict}" if verdict else text(self.key, element)
            for element, verdict in self.elements
        )
        return f"{'add' if self.adds else 'delete'} element {FAMILY} {TABLE} {self.name} {{ {', '.join(words)} }}"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One commit: its purpose in a word, and nft commands or else changes of elements.

    ``moves``: packets meet what it changes, or are perhaps still in the midst of what it deletes. It is run when no
    packet is under way any more that began before the last such one.
    """

    purpose: str
    commands: str = ""
    changes: tuple[Change, ...] = ()
    moves: bool = False

    @property
    def text(self) -> str:
        """The transaction as nft commands."""
        return self.commands or lines(map(str, self.changes))

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to do."""
        return not self.commands and not self.changes


@dataclass(frozen=True, slots=True)
class Plan:
    """Transactions in order, and how many objects they add and delete; no transaction where nothing is to do."""

    transactions: tuple[Transaction, ...] = ()
    added: int = 0
    deleted: int = 0

    def __str__(self) -> str:
        return "\n".join(f"# {i}. {t.purpose}\n{t.text}" for i, t in enumerate(self.transactions, 1))


def lines(commands: Iterable[str]) -> str:
    """Return nft commands, one on a line."""
    return "".join(f"{command}\n" for command in commands)
