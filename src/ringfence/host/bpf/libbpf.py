# SPDX-License-Identifier: Apache-2.0
"""libbpf, the C library: its functions that are used here with their signatures, and what it says.

It would write its complaints to the standard error output; here they go to whoever listens in the calling thread.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ringfence.errors import HostLacks

LIBRARY = "libbpf.so.1"
REMEDY = "install it: apt-get install libbpf1"

_DEBUG = 2  # bpf/libbpf.h, enum libbpf_print_level

_said = threading.local()


def load_library() -> ctypes.CDLL:
    """Return libbpf with its signatures declared; raises ``HostLacks`` if this machine has none."""
    return _library(LIBRARY)


@functools.cache
def _library(name: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(name, use_errno=True)
    except OSError:
        raise HostLacks(f"there is no {name} on this machine", remedy=REMEDY) from None
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[object, ...]] = {
        "bpf_object__open_file": (pointer, text, pointer),
        "bpf_object__load": (number, pointer),
        "bpf_object__close": (None, pointer),
        "bpf_object__next_map": (pointer, pointer, pointer),
        "bpf_object__next_program": (pointer, pointer, pointer),
        "bpf_map__name": (text, pointer),
        "bpf_map__fd": (number, pointer),
        "bpf_map__is_internal": (ctypes.c_bool, pointer),
        "bpf_map__initial_value": (pointer, pointer, ctypes.POINTER(ctypes.c_size_t)),
        "bpf_map__set_max_entries": (number, pointer, ctypes.c_uint32),
        "bpf_map__reuse_fd": (number, pointer, number),
        "bpf_program__name": (text, pointer),
        "bpf_program__fd": (number, pointer),
        "bpf_program__set_type": (number, pointer, number),
        "bpf_program__set_expected_attach_type": (number, pointer, number),
        "bpf_program__set_autoload": (number, pointer, ctypes.c_bool),
        "bpf_object__btf": (pointer, pointer),
        "btf__find_by_name_kind": (ctypes.c_int32, pointer, text, ctypes.c_uint32),
        "btf__type_by_id": (pointer, pointer, ctypes.c_uint32),
        "btf__name_by_offset": (text, pointer, ctypes.c_uint32),
        "libbpf_version_string": (text,),
        "libbpf_set_print": (pointer, pointer),
    }
    for function, (result, *arguments) in signatures.items():
        getattr(library, function).restype = result
        getattr(library, function).argtypes = arguments
    library.libbpf_set_print(ctypes.cast(_listen, pointer))
    return library


_libc = ctypes.CDLL(None)
_libc.vasprintf.argtypes = (ctypes.POINTER(ctypes.c_void_p), ctypes.c_char_p, ctypes.c_void_p)
_libc.free.argtypes = (ctypes.c_void_p,)


def _hear(level: int, form: bytes, arguments: int) -> int:
    """Keep what libbpf says for the thread that called it, in place of its way to the standard error output."""
    heard: list[str] | None = getattr(_said, "heard", None)
    line = ctypes.c_void_p()
    if level < _DEBUG and heard is not None and _libc.vasprintf(ctypes.byref(line), form, arguments) >= 0:
        heard.append(ctypes.string_at(line.value or 0).decode(errors="replace"))
        _libc.free(line)
    return 0


# A va_list is passed as a pointer on every architecture that is known here, and so it goes on to vasprintf.
_listen = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_hear)


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect what libbpf says to the calling thread inside."""
    heard: list[str] = []
    _said.heard = heard
    try:
        yield heard
    finally:
        _said.heard = None


def why(said: list[str], number: int) -> str:
    """Return what libbpf said, or what its error number means."""
    return "; ".join(line.strip().removeprefix("libbpf: ") for line in said) or os.strerror(number)
