# SPDX-License-Identifier: Apache-2.0
"""The kubeconfig file: its shape, how several are merged, and where they are looked for.

Decides which context, cluster and user entry count. Leaves what they mean for a connection to ``kube.config``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from ringfence.errors import UsageError

T = TypeVar("T")


class Extension(msgspec.Struct, frozen=True):
    """An entry of ``extensions``: the exec plugins' own configuration is one."""

    name: str
    extension: Any = None


class ClusterEntry(msgspec.Struct, frozen=True, rename="kebab"):
    """``clusters[].cluster``: where the API server is, and how to know that it is the right one."""

    server: str = ""
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None
    extensions: list[Extension] | None = None


class EnvironmentVariable(msgspec.Struct, frozen=True):
    """An entry of ``exec.env``."""

    name: str
    value: str = ""


class ExecEntry(msgspec.Struct, frozen=True, rename="camel"):
    """``users[].user.exec``: a program that prints an ExecCredential."""

    command: str
    api_version: str
    args: list[str] | None = None
    env: list[EnvironmentVariable] | None = None
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str | None = None


class UserEntry(msgspec.Struct, frozen=True, rename="kebab"):
    """``users[].user``: how to say who is asking."""

    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    username: str | None = None
    password: str | None = None
    impersonate: str | None = msgspec.field(default=None, name="as")
    impersonate_uid: str | None = msgspec.field(default=None, name="as-uid")
    impersonate_groups: list[str] | None = msgspec.field(default=None, name="as-groups")
    impersonate_extra: dict[str, list[str]] | None = msgspec.field(default=None, name="as-user-extra")
    auth_provider: Any = None
    exec: ExecEntry | None = None


class ContextEntry(msgspec.Struct, frozen=True):
    """``contexts[].context``: a cluster, a user, and the namespace that is meant when none is named."""

    cluster: str = ""
    user: str = ""
    namespace: str | None = None


class _NamedCluster(msgspec.Struct, frozen=True):
    name: str
    cluster: ClusterEntry | None = None


class _NamedUser(msgspec.Struct, frozen=True):
    name: str
    user: UserEntry | None = None


class _NamedContext(msgspec.Struct, frozen=True):
    name: str
    context: ContextEntry | None = None


class _File(msgspec.Struct, frozen=True, rename="kebab"):
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None
    current_context: str | None = None


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A value and the directory of the file that it came from: relative paths start there."""

    value: T
    directory: Path

    def path(self, name: str) -> Path:
        """Return a path that the entry names."""
        return self.directory / Path(name).expanduser()


@dataclass(frozen=True, slots=True)
class Merged:
    """All files as one: entries by name, the context in use, and the files read."""

    files: tuple[Path, ...]
    clusters: Mapping[str, Entry[ClusterEntry]]
    users: Mapping[str, Entry[UserEntry]]
    contexts: Mapping[str, ContextEntry]
    current_context: str


def find(kubeconfig: str | None, environment: Mapping[str, str]) -> list[Path]:
    """Return the files to merge: the given one, else the list in ``KUBECONFIG``, else ``~/.kube/config``.

    Of a list, files that do not exist are passed over (as kubectl does); the given one must exist.
    """
    if kubeconfig is not None:
        path = Path(kubeconfig).expanduser()
        if not path.is_file():
            raise UsageError(f"there is no kubeconfig file {path}; pass --kubeconfig with one that exists")
        return [path]
    listed = environment.get("KUBECONFIG", "")
    if listed:
        candidates = [Path(entry).expanduser() for entry in dict.fromkeys(listed.split(os.pathsep)) if entry]
    else:
        candidates = [Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config"]
    return [path for path in candidates if path.is_file()]


def merge(files: Sequence[Path]) -> Merged:
    """Read and merge kubeconfig files; raises ``UsageError``.

    "The first file to set a particular value or map key wins"; entries of one name are never mixed
    (kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig).
    """
    clusters: dict[str, Entry[ClusterEntry]] = {}
    users: dict[str, Entry[UserEntry]] = {}
    contexts: dict[str, ContextEntry] = {}
    current = ""
    for path in files:
        parsed = _read(path)
        directory = path.absolute().parent
        for name, cluster in _unique((c.name, c.cluster) for c in parsed.clusters or ()):
            clusters.setdefault(name, Entry(cluster or ClusterEntry(), directory))
        for name, user in _unique((u.name, u.user) for u in parsed.users or ()):
            users.setdefault(name, Entry(user or UserEntry(), directory))
        for name, context in _unique((c.name, c.context) for c in parsed.contexts or ()):
            contexts.setdefault(name, context or ContextEntry())
        current = current or parsed.current_context or ""
    return Merged(tuple(files), clusters, users, contexts, current)


def _unique(entries: Iterable[tuple[str, T]]) -> Iterable[tuple[str, T]]:
    # within one file the last entry of a name counts, between files the first: what client-go's decoder and merge do
    return dict(entries).items()


def _read(path: Path) -> _File:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the kubeconfig {path} ({error.strerror}); check its permissions") from None
    try:
        return msgspec.convert(_parse(raw) or {}, type=_File)
    except ValueError as error:
        raise UsageError(
            f"{path} is not a kubeconfig ({error}); correct it or pass another with --kubeconfig"
        ) from None


def _parse(raw: bytes) -> Any:
    if raw.lstrip().startswith(b"{"):
        return msgspec.json.decode(raw)
    import yaml  # noqa: PLC0415 - JSON kubeconfigs, in-cluster agents and --help do not need it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(raw, Loader=loader)  # noqa: S506 - either of them is a safe loader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
