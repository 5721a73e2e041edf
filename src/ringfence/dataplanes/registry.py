# SPDX-License-Identifier: Apache-2.0
"""The engines by name: what they are, whether this machine can run them, and which to take when nobody says.

An engine's code is imported when it is asked for, so that listing names costs nothing and a machine without an
engine's library can still run the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ringfence.dataplanes.base import Answer, Dataplane, Probe
from ringfence.errors import HostLacks, UsageError

AUTO = "auto"


class Watch(Protocol):
    """Tells at once that somebody committed something where an engine keeps what is its own."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        ...

    def touched(self) -> bool:
        """Read what there is to read, and tell whether it was about what is the engine's."""
        ...

    def close(self) -> None:
        """Stop watching."""
        ...


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine: its name on the command line, a line about it, and whether it filters packets or only answers.

    Its rules outlive the process that wrote them, so they can be asked after and taken away without building it:
    ``present`` tells, in about a millisecond, whether some are in the calling thread's network namespace, and
    ``remove`` takes them away. ``forget`` takes away what would keep a namespace alive, given by its file, that is
    about to be deleted. ``touched`` opens a watch on what others do to its rules, where a kernel can tell; None where
    it cannot.
    """

    name: str
    summary: str
    filters: bool
    probe: Callable[[], Probe]
    build: Callable[[], Dataplane]
    touched: Callable[[], Watch] | None = None
    present: Callable[[], bool] = lambda: False
    remove: Callable[[], None] = lambda: None
    forget: Callable[[Path], None] = lambda _namespace: None


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine that was chosen, and why. ``passed_over``: why better ones were not; ``rest``: those that come next if
    it turns out not to work.
    """

    engine: Engine
    reason: str
    passed_over: tuple[str, ...] = ()
    rest: tuple[Engine, ...] = ()

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.engine.name


def _probe_nftables() -> Probe:
    from ringfence.dataplanes.nftables.probe import probe  # noqa: PLC0415 - imported when asked for

    return probe()


def _build_nftables() -> Dataplane:
    from ringfence.dataplanes.nftables.apply import NftablesDataplane  # noqa: PLC0415 - imported when asked for

    return NftablesDataplane()


def _watch_nftables() -> Watch:
    from ringfence.dataplanes.nftables.layout import FAMILY, TABLE  # noqa: PLC0415 - imported when asked for
    from ringfence.host.nftwatch import TableWatch  # noqa: PLC0415 - imported when asked for

    return TableWatch(FAMILY, TABLE)


def _present_nftables() -> bool:
    from ringfence.dataplanes.nftables.observe import present  # noqa: PLC0415 - imported when asked for

    return present()


def _remove_nftables() -> None:
    from ringfence.dataplanes.nftables.apply import NftablesDataplane  # noqa: PLC0415 - imported when asked for

    dataplane = NftablesDataplane()
    try:
        dataplane.remove()
    finally:
        dataplane.close()


def _probe_ebpf(hooks: str = AUTO) -> Probe:
    from ringfence.dataplanes.ebpf.probe import probe  # noqa: PLC0415 - imported when asked for

    return probe(hooks)


def _build_ebpf(hooks: str = AUTO) -> Dataplane:
    from ringfence.dataplanes.ebpf.apply import EbpfDataplane  # noqa: PLC0415 - imported when asked for

    return EbpfDataplane(hooks=hooks)


def _watch_ebpf() -> Watch:
    from ringfence.host.devices import Devices  # noqa: PLC0415 - imported when asked for

    return Devices()


def _present_ebpf() -> bool:
    from ringfence.dataplanes.ebpf.folders import present  # noqa: PLC0415 - imported when asked for

    return present()


def _remove_ebpf() -> None:
    from ringfence.dataplanes.ebpf.place import Place  # noqa: PLC0415 - imported when asked for

    place = Place()
    try:
        place.clear()
    finally:
        place.close()


def _forget_ebpf(namespace: Path) -> None:
    from ringfence.dataplanes.ebpf.folders import forget, sweep  # noqa: PLC0415 - imported when asked for

    forget(namespace)
    sweep()


def _probe_memory() -> Probe:
    from ringfence.dataplanes.memory.observe import probe  # noqa: PLC0415 - imported when asked for

    return probe()


def _build_memory() -> Dataplane:
    from ringfence.dataplanes.memory.apply import MemoryDataplane  # noqa: PLC0415 - imported when asked for

    return MemoryDataplane()


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            "ebpf",
            "one look-up in the kernel whatever the number of policies",
            True,
            _probe_ebpf,
            _build_ebpf,
            _watch_ebpf,
            present=_present_ebpf,
            remove=_remove_ebpf,
            forget=_forget_ebpf,
        ),
        Engine(
            "nftables",
            "filters in the kernel, on any Linux >= 5.4",
            True,
            _probe_nftables,
            _build_nftables,
            _watch_nftables,
            _present_nftables,
            _remove_nftables,
        ),
        Engine("memory", "decides flows in this process; filters no packet", False, _probe_memory, _build_memory),
    )
}
"""All engines, the best first."""


def engine(name: str) -> Engine:
    """Return an engine by its name; raises ``UsageError`` if there is none."""
    try:
        return ENGINES[name]
    except KeyError:
        raise UsageError(f'there is no dataplane "{name}"; choose one of {", ".join(ENGINES)}') from None


def require(name: str, *, ebpf_hook: str = AUTO) -> Probe:
    """Try an engine, and raise ``HostLacks`` if this machine cannot run it; ``UsageError`` if there is none."""
    found = _probe_ebpf(ebpf_hook) if name == "ebpf" and ebpf_hook != AUTO else engine(name).probe()
    if found.answer is Answer.NO:
        raise HostLacks(f"{name} cannot run here: {found.reason}", remedy=found.remedy or "see: ringfence doctor")
    return found


def builder(chosen: Engine, *, ebpf_hook: str = AUTO) -> Callable[[], Dataplane]:
    """Return what makes a dataplane of an engine; ``ebpf_hook`` says where that engine's programs stand."""
    if chosen.name == "ebpf" and ebpf_hook != AUTO:
        return functools.partial(_build_ebpf, ebpf_hook)
    return chosen.build


def choose(wanted: str = AUTO, engines: Mapping[str, Engine] = ENGINES, passed_over: Sequence[str] = ()) -> Choice:
    """Return the engine of a name, or for ``auto`` the best that this machine can run.

    A named engine is not probed: that is for ``require``. ``passed_over`` says why others were not taken.
    Raises ``UsageError`` if nothing can run.
    """
    if wanted != AUTO:
        return Choice(engine(wanted), "asked for by name")
    told = list(passed_over)
    candidates = tuple(engines.values())
    for number, candidate in enumerate(candidates, start=1):
        found = candidate.probe()
        if found.answer is Answer.YES:
            reason = "; ".join([*told, f"{candidate.name}: {found.reason}"])
            return Choice(candidate, reason, tuple(told), candidates[number:])
        remedy = f" ({found.remedy})" if found.remedy else ""
        told.append(f"not {candidate.name}: {found.reason}{remedy}")
    raise UsageError(f"no dataplane can run here: {'; '.join(told)}")
