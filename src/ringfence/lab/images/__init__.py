# SPDX-License-Identifier: Apache-2.0
"""The images that the lab knows without a registry: what a container of each runs, and what it finds in its root.

There are no image files: a pod's root is the machine's own tools (``lab.nodes.rootfs``), so any command that the
machine has can run under any image name. An image decides only what runs when a pod names no command.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from py_compile import compile as compile_file

AGNHOST = "/agnhost"
HOME = "/.agnhost"
"""Where a container's root holds what ``build_agnhost`` wrote; ``/agnhost`` is a link into it."""
_BUILT_IN = "*/agnhost:*, */pause:*, */busybox:*"
_PACKAGE = Path(__file__).parent / "agnhost"


@dataclass(frozen=True, slots=True)
class Image:
    """What an image adds to a container: its entrypoint, and the arguments when the pod gives none."""

    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


class ImageMissing(Exception):
    """The image is not built in and the container names no command; ``str()`` says what to do."""


_IMAGES = {
    "agnhost": Image((AGNHOST,), ("pause",)),
    "pause": Image((AGNHOST, "pause")),
    "busybox": Image((), ("sh",)),
}


def short_name(image: str) -> str:
    """Return the last part of an image's name without tag and digest: ``k8s.io/e2e/agnhost:2.33`` is ``agnhost``."""
    return image.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0]


def command_line(image: str, command: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Return what a container runs; raises ``ImageMissing``.

    "If the args field is not set, the image's CMD is used; if command is not set, the ENTRYPOINT; if command is set and
    args is not, the image's CMD is ignored."
    """
    if command:
        return [*command, *arguments]
    known = _IMAGES.get(short_name(image))
    if known is None and not arguments:
        raise ImageMissing(
            f'the lab has no registry and no built-in image "{image}" (built in: {_BUILT_IN}); give the container a '
            "command: programs of this machine run as they are"
        )
    if known is None:
        return list(arguments)
    if known.entrypoint == (AGNHOST, "pause"):
        return list(known.entrypoint)
    line = [*known.entrypoint, *(arguments or known.arguments)]
    if short_name(image) == "busybox" and shutil.which(line[0]) is None and shutil.which("busybox") is not None:
        return ["busybox", *line]  # an applet that the machine has only inside its own busybox
    return line


def build_agnhost(directory: Path) -> None:
    """Write agnhost into a directory: the executable ``agnhost``, and its byte code, made for this interpreter.

    The directory must appear as ``HOME`` in a container. Byte code and no zip file, because every pod's start and every
    connection waits for it, and importing from a zip needs slow modules of its own.
    """
    package = directory / "agnhost.d" / "agnhost"
    package.mkdir(parents=True, exist_ok=True)
    for source in sorted(_PACKAGE.glob("*.py")):
        compile_file(
            str(source),
            cfile=str(package / f"{source.stem}.pyc"),
            dfile=f"{HOME}/{source.name}",
            doraise=True,
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )
    executable = directory / "agnhost"
    executable.write_text(
        f"#!{Path(sys.executable).resolve()} -SE\n"
        f"import sys\nsys.path.insert(0, '{HOME}/agnhost.d')\n"
        "from agnhost.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    executable.chmod(0o755)
