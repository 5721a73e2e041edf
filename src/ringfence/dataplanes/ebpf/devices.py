# SPDX-License-Identifier: Apache-2.0
"""The programs at devices: which devices have theirs, and those that came since.

A device that needs a program and cannot get it is a refusal, never a hole. One that is gone leaves a link that leads
nowhere, and a number that another device may get: so each link is asked where it is before it counts. Where the kernel
has no links to devices (before 6.6) a program is a filter of traffic control, found again by the program's number.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ringfence.dataplanes.ebpf.hooks import Side, watched
from ringfence.errors import HostRefused
from ringfence.host import netns
from ringfence.host.bpf import pins, traffic_control
from ringfence.host.bpf.links import Among, BpfLink, TcxPlace, attach_tcx
from ringfence.host.bpf.programs import AttachType, BpfProgram
from ringfence.host.bpf.traffic_control import Direction, FilterPlace
from ringfence.host.devices import Device, Devices

DEVICE_LINK = "device_"

_TCX = {Side.EXIT: AttachType.TCX_EGRESS, Side.ENTRY: AttachType.TCX_INGRESS}
_FILTERS = {Side.EXIT: Direction.EGRESS, Side.ENTRY: Direction.INGRESS}
_PRIORITIES = range(1, 33)  # before the filters of others, if they leave room there

Spot = tuple[int, Side]  # a device's index, and which of its packets


class Site:
    """The network namespace of the constructing thread: where devices are, and hooks."""

    def __init__(self, *, links: bool = True) -> None:
        self.namespace = netns.open_own()
        self.links = links  # to devices: False also once the kernel turned out to have none
        self._devices = Devices()

    def news(self) -> bool:
        """Tell whether devices came, changed or went since the last time that this was asked."""
        return self._devices.touched()

    def listing(self) -> list[Device]:
        """Return all devices."""
        return self._devices.listing()

    def sweep(self, programs: Iterable[int]) -> None:
        """Take away the filters that are these programs, wherever they are."""
        numbers = set(programs)
        with netns.entered(self.namespace):
            for device in watched(self.listing()):
                for direction in Direction:
                    for found in traffic_control.listing(device.index, direction):
                        if found.program_id in numbers:
                            traffic_control.detach(found.place)

    def close(self) -> None:
        """Give back what this process holds."""
        self._devices.close()
        os.close(self.namespace)


class AtDevices:
    """The programs of one instance at the devices of its site."""

    def __init__(self, programs: Mapping[Side, BpfProgram], site: Site) -> None:
        self._programs = programs
        self._site = site
        self._links: dict[Spot, BpfLink] = {}
        self._filters: set[Spot] = set()
        self._folder: Path | None = None

    def open(self, folder: Path) -> None:
        """Take over the links that are pinned in a folder, and pin those of new devices there."""
        self._folder = folder
        for name in pins.listing(folder):
            if name.startswith(DEVICE_LINK):
                side, index = name.removeprefix(DEVICE_LINK).split("_")
                self._links[int(index), Side(side)] = BpfLink.from_pin(folder / name)

    def cover(self) -> bool:
        """Give every device its programs; tell whether one was found without that had had them.

        Raises ``HostRefused`` if a device cannot get a program, and is still there.
        """
        if not self._programs:
            return False
        there = {(device.index, side): device for device in watched(self._site.listing()) for side in self._programs}
        lost = False
        with netns.entered(self._site.namespace):
            for spot in [spot for spot, link in self._links.items() if not _leads_to(link, spot)]:
                lost = lost or spot in there
                self._drop(spot)
            for spot, device in there.items():
                if spot not in self._links and not self._has_filter(spot):
                    lost = lost or spot in self._filters
                    self._attach(spot, device)
        self._filters &= there.keys()
        return lost

    def detach(self) -> None:
        """Take all of it away."""
        for link in self._links.values():
            link.detach()
        for spot in list(self._links):
            self._drop(spot)
        if self._programs and not self._site.links:
            self._site.sweep(program.id for program in self._programs.values())
        self._filters.clear()

    def close(self) -> None:
        """Give back what this process holds of it."""
        for link in self._links.values():
            link.close()

    def _has_filter(self, spot: Spot) -> bool:
        index, side = spot
        found = not self._site.links and any(_filters(self._programs[side], index, side))
        if found:
            self._filters.add(spot)
        return found

    def _attach(self, spot: Spot, device: Device) -> None:
        index, side = spot
        program = self._programs[side]
        try:
            if self._site.links and self._attach_link(program, spot):
                return
            if not self._has_filter(spot):
                _attach_filter(program, index, side)
                self._filters.add(spot)
        except HostRefused as error:
            if error.answered == os.strerror(errno.ENODEV):  # it went meanwhile
                return
            raise HostRefused(
                f"the device {device.name} cannot be guarded, and pods may be behind it: {error}",
                asked=error.asked,
                answered="",
            ) from error

    def _attach_link(self, program: BpfProgram, spot: Spot) -> bool:
        """Attach by a link; False if this kernel has no such links."""
        index, side = spot
        try:
            link = attach_tcx(program, TcxPlace(index, _TCX[side]), Among.FIRST)
        except HostRefused as error:
            if self._links or error.answered != os.strerror(errno.EINVAL):
                raise
            self._site.links = False
            return False
        self._links[spot] = link
        if self._folder is not None:
            link.pin(self._folder / _pin(spot))
        return True

    def _drop(self, spot: Spot) -> None:
        if self._folder is not None:
            pins.unlink(self._folder / _pin(spot))
        self._links.pop(spot).close()


def _leads_to(link: BpfLink, spot: Spot) -> bool:
    index, side = spot
    return link.now().place == TcxPlace(index, _TCX[side])


def _pin(spot: Spot) -> str:
    index, side = spot
    return f"{DEVICE_LINK}{side.value}_{index}"


def _filters(program: BpfProgram, index: int, side: Side) -> Iterator[FilterPlace]:
    found = traffic_control.listing(index, _FILTERS[side])
    return (each.place for each in found if each.program_id == program.id)


def _attach_filter(program: BpfProgram, index: int, side: Side) -> None:
    taken = {each.place.priority for each in traffic_control.listing(index, _FILTERS[side])}
    priority = next((number for number in _PRIORITIES if number not in taken), None)
    if priority is None:
        raise HostRefused("no priority is free", asked=f"a filter at interface {index}", answered="")
    traffic_control.attach(program, FilterPlace(index, _FILTERS[side], priority))
