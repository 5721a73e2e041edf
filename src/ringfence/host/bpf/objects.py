# SPDX-License-Identifier: Apache-2.0
"""Loads an ELF file with programs and maps into the kernel, by libbpf.

Between opening and loading one says what the file leaves open: how large a map is, which map that exists already is to
be used, of what type a program is whose section libbpf does not know, the values of constants. What was loaded then
belongs to the caller, map by map and program by program; libbpf keeps nothing. What libbpf says is in the error.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ringfence.errors import HostLacks, HostRefused, ProgramRefused, RingfenceError
from ringfence.host.bpf.libbpf import listening, load_library, why
from ringfence.host.bpf.maps import BpfMap
from ringfence.host.bpf.programs import AttachType, BpfProgram, ProgramType
from ringfence.host.bpf.syscall import Command, refusal

KERNEL_TYPES = Path("/sys/kernel/btf/vmlinux")

_NO_TYPES = "Error loading vmlinux BTF"
_LOG_BEGIN, _LOG_END = "-- BEGIN PROG LOAD LOG --\n", "-- END PROG LOAD LOG --"

# linux/btf.h: a type is its name, its kind with a count, and one more word; of a section follow its variables, each
# with type, offset and size.
_BTF_KIND_DATASEC = 15
_CONSTANTS = ".rodata"


@dataclass(frozen=True, slots=True)
class _Variable:
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an object file became, by the names in it. A section of variables is a map by the section's name."""

    maps: dict[str, BpfMap]
    programs: dict[str, BpfProgram]

    def close(self) -> None:
        """Give all of it back."""
        for handle in (*self.maps.values(), *self.programs.values()):
            handle.close()


class BpfObject:
    """An object file that is open, and not yet loaded. To be used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._library = load_library()
        self._path = path
        with listening() as said:
            pointer = self._library.bpf_object__open_file(bytes(path), None)
            number = ctypes.get_errno()
        if not pointer:
            raise HostRefused(
                f"the BPF object {path} cannot be opened", asked="bpf_object__open_file", answered=why(said, number)
            )
        self._pointer = pointer
        self._release = weakref.finalize(self, self._library.bpf_object__close, pointer)
        self._maps = dict(self._each("map"))
        self._programs = dict(self._each("program"))

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of its maps."""
        return tuple(self._maps)

    @property
    def programs(self) -> tuple[str, ...]:
        """The names of its programs."""
        return tuple(self._programs)

    def set_max_entries(self, name: str, count: int) -> None:
        """Say how many entries a map has room for."""
        self._set("bpf_map__set_max_entries", self._maps[name], count, about=name)

    def reuse(self, name: str, existing: BpfMap) -> None:
        """Use a map that exists already, in place of a new one. It must be of the same shape."""
        self._set("bpf_map__reuse_fd", self._maps[name], existing.fd, about=name)

    def set_type(self, name: str, kind: ProgramType, attach: AttachType = AttachType.NONE) -> None:
        """Say of what type a program is, and to what it will be attached, in place of its section's name."""
        self._set("bpf_program__set_type", self._programs[name], kind, about=name)
        self._set("bpf_program__set_expected_attach_type", self._programs[name], attach, about=name)

    def set_constant(self, name: str, value: bytes) -> None:
        """Give a constant (``const volatile`` in C) its value; the verifier then knows it, and drops dead branches."""
        self._check_open()
        place = self._constants()[name]
        if len(value) != place.size:
            raise ValueError(f"{self._path.name}: {name} has {place.size} bytes, not {len(value)}")
        size = ctypes.c_size_t()
        begin = self._library.bpf_map__initial_value(self._maps[_CONSTANTS], ctypes.byref(size))
        assert place.offset + place.size <= size.value
        ctypes.memmove(begin + place.offset, value, place.size)

    def leave_out(self, name: str) -> None:
        """Do not load a program."""
        self._set("bpf_program__set_autoload", self._programs[name], 0, about=name)

    def load(self) -> Loaded:
        """Load all of it into the kernel, and close the file.

        Raises ``ProgramRefused`` with the whole log if the verifier refuses a program, ``HostLacks`` without the
        privilege, ``HostRefused`` for all else. Nothing is left in the kernel then.
        """
        self._check_open()
        with listening() as said:
            result = self._library.bpf_object__load(self._pointer)
        if result != 0:
            self.close()
            raise self._refused(said, -result)
        loaded = Loaded({}, {})
        for name, pointer in self._maps.items():
            loaded.maps[name] = BpfMap(_own(self._library.bpf_map__fd(pointer)))
        for name, pointer in self._programs.items():
            descriptor = self._library.bpf_program__fd(pointer)
            if descriptor >= 0:  # else it was left out
                loaded.programs[name] = BpfProgram(_own(descriptor))
        self.close()
        return loaded

    def close(self) -> None:
        """Give back what libbpf holds; the object cannot be used afterwards."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._release.alive:
            raise ValueError(f"the BPF object {self._path} is closed")

    def _each(self, kind: str) -> Iterator[tuple[str, int]]:
        following = getattr(self._library, f"bpf_object__next_{kind}")
        name_of = getattr(self._library, f"bpf_{kind}__name")
        pointer = following(self._pointer, None)
        while pointer:
            name: str = name_of(pointer).decode()
            if kind == "map" and self._library.bpf_map__is_internal(pointer):
                name = name[name.index(".") :]  # before the dot stands a part of the file's name
            yield name, pointer
            pointer = following(self._pointer, pointer)

    def _constants(self) -> dict[str, _Variable]:
        """Return where each constant is, from the BTF that clang wrote into the file."""
        types = self._library.bpf_object__btf(self._pointer)
        section = self._library.btf__find_by_name_kind(types, _CONSTANTS.encode(), _BTF_KIND_DATASEC) if types else -1
        if section < 0:
            return {}
        begin = self._library.btf__type_by_id(types, section)
        count = struct.unpack_from("=I", ctypes.string_at(begin, 12), 4)[0] & 0xFFFF
        found = {}
        for kind, offset, size in struct.iter_unpack("=III", ctypes.string_at(begin + 12, 12 * count)):
            name_at = struct.unpack("=I", ctypes.string_at(self._library.btf__type_by_id(types, kind), 4))[0]
            found[self._library.btf__name_by_offset(types, name_at).decode()] = _Variable(offset, size)
        return found

    def _set(self, function: str, pointer: int, value: int, *, about: str) -> None:
        self._check_open()
        with listening() as said:
            result = getattr(self._library, function)(pointer, value)
        if result != 0:
            raise HostRefused(f"{self._path.name}: {about}", asked=function, answered=why(said, -result))

    def _refused(self, said: list[str], number: int) -> RingfenceError:
        text = "".join(said)
        if _LOG_BEGIN in text:
            before, _, rest = text.partition(_LOG_BEGIN)
            log = rest.partition(_LOG_END)[0].removesuffix("libbpf: ")
            program = before.rpartition("prog '")[2].partition("'")[0]
            return ProgramRefused(program, file=str(self._path), answered=_complaint(log), log=log)
        if _NO_TYPES in text:
            return HostLacks(
                f"this kernel does not tell how its own types look (BTF; there is no {KERNEL_TYPES})",
                remedy="use a kernel with CONFIG_DEBUG_INFO_BTF",
            )
        if number == errno.EPERM:
            return refusal(Command.PROG_LOAD, number, f"the BPF object {self._path} cannot be loaded")
        return HostRefused(
            f"the BPF object {self._path} cannot be loaded", asked="bpf_object__load", answered=why(said, number)
        )


def _own(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def _complaint(log: str) -> str:
    """Return what the verifier complains about: the last line of its log that is not about the work it had."""
    lines = [line for line in log.splitlines() if line and not line.startswith(("processed ", "verification time"))]
    return lines[-1] if lines else "it gives no reason"
