# SPDX-License-Identifier: Apache-2.0
"""The object file of the C program: the one that came with the package, or compiled at first use from the source tree.

Its name carries the *version*: a digest of the sources and of how they are compiled. Same version, same tables and
same meaning. The build of a wheel runs this very file, so it imports nothing of ringfence until it must.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "bpf"
MAIN = "ringfence.bpf.c"
FLAGS = (
    *("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"),
    # No path of the machine that compiles gets into the file.
    *("-fdebug-compilation-dir", ".", "-fno-ident"),
)
REMEDY = "apt-get install clang libbpf-dev"


class CannotCompile(Exception):
    """There is no compiler here, or it refuses; the message is one sentence and what the compiler said."""


@functools.cache
def object_version() -> str:
    """Return 16 hexadecimal digits that stand for the sources and the way they are compiled."""
    digest = hashlib.blake2b(repr(FLAGS).encode(), digest_size=8)
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in {".c", ".h"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def file_name() -> str:
    """Return the name of the object file of this version."""
    return f"ringfence-{object_version()}.bpf.o"


def object_path() -> Path:
    """Return the object file of this version; compiles it if it did not come with the package.

    Raises ``HostLacks`` if that is not possible here.
    """
    from ringfence.errors import HostLacks  # noqa: PLC0415 - see the module's docstring

    shipped = SOURCES.parent / file_name()
    if shipped.exists():
        return shipped
    problem = ""
    for folder in _caches():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid != os.geteuid():
                continue  # whoever it belongs to could have put anything there
            return folder / file_name() if (folder / file_name()).exists() else compile_into(folder)
        except OSError as error:
            problem = str(error)
        except CannotCompile as error:
            raise HostLacks(f"the eBPF program is not compiled: {error}", remedy=REMEDY) from None
    raise HostLacks(f"the eBPF program is not compiled: {problem}", remedy="set XDG_CACHE_HOME to a folder of yours")


def compile_into(folder: Path) -> Path:
    """Compile into a folder, whole or not at all; raises ``CannotCompile``."""
    compiler = shutil.which("clang")
    if compiler is None:
        raise CannotCompile("there is no clang here")
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".compiling-", suffix=".o")
    os.close(descriptor)
    try:
        ran = subprocess.run(
            [compiler, *FLAGS, *_includes(), "-c", MAIN, "-o", name],
            cwd=SOURCES,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode != 0:
            raise CannotCompile(f"clang refused it: {ran.stderr.strip()[-2000:]}")
        os.chmod(name, 0o644)  # noqa: PTH101 - a name, as mkstemp gives it
        return Path(name).replace(folder / file_name())
    finally:
        Path(name).unlink(missing_ok=True)


def _includes() -> list[str]:
    # Where Debian keeps the headers (asm/types.h) that depend on the machine; clang knows it only for its own target.
    return [f"-I/usr/include/{platform.machine()}-linux-gnu"]


def _caches() -> list[Path]:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - "~" may stay as it is
    return [Path(home) / "ringfence", Path(tempfile.gettempdir()) / f"ringfence-{os.getuid()}"]
