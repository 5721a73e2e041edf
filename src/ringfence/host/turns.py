# SPDX-License-Identifier: Apache-2.0
"""One process at a time, within a network namespace: for what two must not do there at once.

A turn is a name in the namespace's own space of abstract socket names (unix(7)). It ends with its holder, however that
ends, and needs no directory that both would have to see.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from ringfence.errors import HostRefused


@contextlib.contextmanager
def turn(name: str) -> Iterator[None]:
    """Have the turn of this name, in the calling thread's namespace. Raises ``HostRefused`` if somebody else has it."""
    with socket.socket(socket.AF_UNIX) as held:
        try:
            held.bind(f"\0{name}")
        except OSError as error:
            raise HostRefused(
                f"another process holds {name} in this network namespace",
                asked=f"bind @{name}",
                answered=error.strerror or "",
            ) from None
        yield
