# SPDX-License-Identifier: Apache-2.0
"""What a container sees as its files: the machine's programs read-only, and everything else its own and in memory.

The runner lives in a *template* of that tree, made once; a container's root is a new tmpfs with the template's parts
bound into it, so a pod costs a dozen mounts and no copying. Nothing a container writes reaches the machine's files, and
the tree is gone when its last process is: it is mounted in the container's own mount namespace only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ringfence.lab.images import AGNHOST, HOME
from ringfence.lab.nodes.kernel import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    pivot_root,
)

PODS = "/.pods"
"""Where the runner sees the lab's directory of pods: their logs and volumes."""
DEVPTS = "/dev/pts"
_NEW = "/.new"

# Top-level directories of the machine that a container does not get, or gets made anew.
_OWN = frozenset({"dev", "etc", "proc", "root", "run", "sys", "tmp", "var"})
_HIDDEN = frozenset({"boot", "cdrom", "lost+found", "media", "mnt", "old_root"})
_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_PER_POD = ("hosts", "hostname", "resolv.conf")
_MASKED = ("/proc/kcore", "/proc/keys", "/proc/timer_list")
_READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus")


class Volume(NamedTuple):
    """A directory or file of a pod's, below ``PODS``, and where the container sees it."""

    source: str
    target: str
    read_only: bool


class Template(NamedTuple):
    """The parts of the runner's root that containers get: links (those of ``/etc`` too), and paths bound read-only."""

    links: Mapping[str, str]
    shared: Sequence[str]


def _bind(source: str, target: str) -> None:
    mount(source, target, flags=MS_BIND | MS_REC)


def _bind_new(source: str, target: str) -> None:
    Path(target).mkdir()
    _bind(source, target)


def _read_only(target: str) -> None:
    mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID * (target.startswith("/proc")))


def _mounts_below(root: str) -> list[str]:
    """Return the mount points at and below ``root`` in this mount namespace."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split(" ")[4].replace("\\040", " ") for line in lines]
    return [point for point in points if point == root or point.startswith(f"{root}/")]


def become_template(home: Path, pods: Path) -> Template:
    """Move the calling process into a private mount namespace (already unshared) whose root is the template.

    ``home`` holds ``agnhost`` (``images.build_agnhost``) and an empty directory ``root`` to mount on; ``pods`` appears
    as ``PODS``. Afterwards the process sees nothing else of the machine's files. Raises ``OSError``.
    """
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    root = str(home / "root")
    mount("ringfence", root, "tmpfs", MS_NOSUID, "mode=755")
    links, shared = _host_directories(root)
    shared += _interpreter(root)
    for path in shared:
        for point in _mounts_below(root + path):
            _read_only(point)
    _hide(root, pods.parent)
    _bind_new("/etc", f"{root}/.etc")
    _read_only(f"{root}/.etc")
    _make_dev(f"{root}/dev")
    for source, target in ((str(pods), PODS), (str(home / "agnhost"), HOME), ("/proc", "/proc")):
        _bind_new(source, root + target)
    _read_only(root + HOME)
    _bind(f"{root}/dev", f"{root}/dev")
    Path(root + _NEW).mkdir()
    links |= _etc_links()
    pivot_root(root)
    return Template(links, [*shared, "/.etc", "/dev", HOME])


def _host_directories(root: str) -> tuple[dict[str, str], list[str]]:
    links: dict[str, str] = {}
    shared: list[str] = []
    for entry in sorted(os.scandir("/"), key=lambda entry: entry.name):
        if entry.name in _OWN or entry.name in _HIDDEN or entry.name.startswith("."):
            continue
        if entry.is_symlink():
            links[f"/{entry.name}"] = str(Path(entry.path).readlink())
            Path(root, entry.name).symlink_to(links[f"/{entry.name}"])
        elif entry.is_dir():
            shared.append(f"/{entry.name}")
            _bind_new(f"/{entry.name}", f"{root}/{entry.name}")
    if Path("/var/lib").is_dir():
        Path(root, "var").mkdir()
        _bind_new("/var/lib", f"{root}/var/lib")
        shared.append("/var/lib")
    return links, shared


def _interpreter(root: str) -> list[str]:
    """Bind the Python that runs us, for agnhost, where it stands in a directory that containers have as their own."""
    wanted = {os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)}
    missing = sorted(path for path in wanted if not Path(root + path).is_dir())
    for path in missing:
        Path(root + path).mkdir(parents=True)
        _bind(path, root + path)
    return missing


def _hide(root: str, directory: Path) -> None:
    """Cover the lab's own directory, which holds its keys, if it stands in a directory that containers see."""
    path = Path(f"{root}{directory.resolve()}")
    if path.is_dir():
        mount("ringfence", str(path), "tmpfs", MS_RDONLY, "mode=700")


def _etc_links() -> dict[str, str]:
    """Return what a container's ``/etc`` consists of: links to the machine's, but for what differs from pod to pod."""
    return {
        f"/etc/{entry.name}": str(Path(entry.path).readlink()) if entry.is_symlink() else f"/.etc/{entry.name}"
        for entry in os.scandir("/etc")
        if entry.name not in _PER_POD
    }


def _make_dev(dev: str) -> None:
    Path(dev).mkdir()
    for name in _DEVICES:
        Path(dev, name).touch()
        _bind(f"/dev/{name}", f"{dev}/{name}")
    links = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
    for name, target in links.items():
        Path(dev, name).symlink_to(target)
    for name in ("pts", "shm"):
        Path(dev, name).mkdir()
    mount("devpts", f"{dev}/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")


def enter_root(template: Template, files: Mapping[str, str], volumes: Sequence[Volume], *, privileged: bool) -> None:
    """Make a container's root and move the calling process into it; its namespaces are unshared already.

    ``files`` (absolute path to text) are written into the root. Raises ``OSError``.
    """
    mount("ringfence", _NEW, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for directory, mode in _DIRECTORIES.items():
        Path(_NEW + directory).mkdir(parents=True, exist_ok=True)
        Path(_NEW + directory).chmod(mode)
    for path, target in template.links.items():
        Path(_NEW + path).symlink_to(target)
    for path in template.shared:
        Path(_NEW + path).mkdir(parents=True, exist_ok=True)
        _bind(path, _NEW + path)
    _bind(f"{_NEW}/run/shm", f"{_NEW}/dev/shm")  # noqa: S108 - the container's own
    Path(f"{_NEW}/var/run").symlink_to("/run")
    Path(_NEW + AGNHOST).symlink_to(f"{HOME}/agnhost")
    _kernel_files(privileged=privileged)
    for path, text in files.items():
        Path(_NEW + path).parent.mkdir(parents=True, exist_ok=True)
        Path(_NEW + path).write_text(text)
    for volume in volumes:
        _bind_volume(volume)
    pivot_root(_NEW)


_DIRECTORIES = {
    "/tmp": 0o1777,  # noqa: S108 - here and below, the container's own
    "/run/shm": 0o1777,
    "/run/lock": 0o1777,
    "/etc": 0o755,
    "/root": 0o700,
    "/var/tmp": 0o1777,  # noqa: S108
    "/var/log": 0o755,
    "/var/cache": 0o755,
    "/var/spool": 0o755,
    "/proc": 0o555,
    "/sys": 0o555,
}


def _kernel_files(*, privileged: bool) -> None:
    safe = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", f"{_NEW}/proc", "proc", safe)
    mount("sysfs", f"{_NEW}/sys", "sysfs", safe | (0 if privileged else MS_RDONLY))
    if privileged:
        return
    # As container runtimes do: root in a pod must not reach the machine through the kernel's own files.
    for path in _READ_ONLY:
        if Path(_NEW + path).exists():
            _bind(_NEW + path, _NEW + path)
            mount("none", _NEW + path, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | safe)
    for path in _MASKED:
        if Path(_NEW + path).exists():
            _bind("/dev/null", _NEW + path)


def _bind_volume(volume: Volume) -> None:
    source, target = f"{PODS}/{volume.source}", Path(_NEW + volume.target)
    target.mkdir(parents=True, exist_ok=True)
    _bind(source, str(target))
    if volume.read_only:
        mount("none", str(target), flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
