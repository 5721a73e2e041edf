# SPDX-License-Identifier: Apache-2.0
"""The object file of the C program: the one that came with the package, or compiled at first use from its sources.

Its name carries the *version*: a digest of the sources and of how they are compiled. Same version, same tables and
same meaning, so an object file of this version is up to date wherever it lies and whenever it was made. What is
compiled here goes to a folder that nobody else can write to: it is loaded into the kernel. The build of a wheel runs
this very file (``hatch_build.py``), so it imports nothing of ringfence until it must.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "bpf"
MAIN = "ringfence.bpf.c"
FLAGS = (
    *("-O2", "-g", "-mcpu=v3"),
    # In the kernel's byte order: a machine of the other one has another version, and does not take ours for its own.
    *("-target", "bpfel" if sys.byteorder == "little" else "bpfeb"),
    # No path of the machine that compiles gets into the file.
    *("-fdebug-compilation-dir", ".", "-fno-ident"),
)
# Not where users compile: a newer compiler may warn of more.
STRICT = ("-Wall", "-Wextra", "-Werror")
REMEDY = "apt-get install clang libbpf-dev"


class CannotCompile(Exception):
    """There is no compiler here, or it refuses: in one line, and in all its words in ``log``."""

    def __init__(self, reason: str, log: str = "") -> None:
        self.log = log
        super().__init__(reason)


def object_version() -> str:
    """Return 16 hexadecimal digits that stand for the sources and the way they are compiled."""
    digest = hashlib.blake2b(repr(FLAGS).encode(), digest_size=8)
    for name, content in _sources().items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def file_name() -> str:
    """Return the name of the object file of this version."""
    return f"ringfence-{object_version()}.bpf.o"


def object_path() -> Path:
    """Return the object file of this version; compiles it if there is none yet.

    Raises ``HostLacks`` if that is not possible here.
    """
    from ringfence.errors import HostLacks  # noqa: PLC0415 - see the module's docstring

    folders = _caches()
    for folder in (SOURCES.parent, *filter(_only_ours, folders)):
        if (folder / file_name()).is_file():
            return folder / file_name()
    problem = "there is no folder to keep it in"
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _only_ours(folder):
                return compile_into(folder)
            problem = f"others may write to {folder}"
        except OSError as error:
            problem = str(error)
        except CannotCompile as error:
            raise HostLacks(f"the eBPF program is not compiled: {error}", remedy=REMEDY) from None
    raise HostLacks(f"the eBPF program is not compiled: {problem}", remedy="set XDG_CACHE_HOME to a folder of your own")


def compile_into(folder: Path, *more_flags: str) -> Path:
    """Compile into a folder, whole or not at all; raises ``CannotCompile``."""
    compiler = shutil.which("clang")
    if compiler is None:
        raise CannotCompile("there is no clang on this machine")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".compiling-") as work:
        for name, content in _sources().items():
            (Path(work) / name).write_bytes(content)
        made = Path(work) / file_name()
        ran = subprocess.run(
            [compiler, *FLAGS, *more_flags, "-isystem", _headers(), "-c", MAIN, "-o", made.name],
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode != 0:
            lines = ran.stderr.splitlines() or [f"exit code {ran.returncode}"]
            first = next((line for line in lines if "error:" in line), lines[0])
            raise CannotCompile(f"clang refuses it: {first}", ran.stderr)
        made.chmod(0o644)
        with made.open("rb") as written:
            os.fsync(written.fileno())  # a name that outlives a power cut without its content would be taken for good
        return made.replace(folder / made.name)


@functools.cache
def _sources() -> Mapping[str, bytes]:
    # Read once: a process compiles what it has told the version of, whoever edits the files meanwhile.
    return {path.name: path.read_bytes() for path in sorted(SOURCES.iterdir()) if path.suffix in {".c", ".h"}}


def _headers() -> str:
    # Where Debian keeps the headers that depend on the machine (asm/types.h); clang looks there only when it compiles
    # for this machine itself. Elsewhere there is no such folder, and clang does not mind.
    return f"/usr/include/{sysconfig.get_config_var('MULTIARCH') or platform.machine() + '-linux-gnu'}"


def _caches() -> list[Path]:
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not Path(home).is_absolute():  # the XDG specification: a relative path is to be ignored
        home = os.path.expanduser("~/.cache")  # noqa: PTH111 - pathlib raises where there is no home
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - the folder in it is looked at before it is used
    places = (Path(home) / "ringfence", temporary / f"ringfence-{os.geteuid()}")
    return [place for place in places if place.is_absolute()]


def _only_ours(folder: Path) -> bool:
    """Tell whether this is a folder, no link to one, that is this user's and that nobody else may write to."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
