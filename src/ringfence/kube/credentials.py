# SPDX-License-Identifier: Apache-2.0
"""Who is asking, at this moment: tokens that are rotated, certificates that are renewed, plugins that are run.

``CredentialSource.current()`` blocks (files, a plugin's process): an event loop calls it in a thread when
``fresh()`` is false. Leaves what kubeconfig fields mean to ``kube.config``, and when to ask again after a 401 to the
clients, which call ``reject()``.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ringfence.errors import HostLacks, HostRefused, UsageError
from ringfence.kube.config import ClusterAccess, ExecPlugin, Pem

REREAD_SECONDS = 60.0
"""Files are read again this often (client-go reads service account tokens once a minute)."""

EXPIRY_SKEW_SECONDS = 30.0
"""A plugin's credential is renewed this long before it expires, so that no request carries one that just did."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request carries now: header lines, and the PEM of a client certificate with its key (or None)."""

    headers: tuple[tuple[str, str], ...]
    certificate: bytes | None = None
    key: bytes | None = None


class _ExecStatus(msgspec.Struct, frozen=True, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class _ExecCredential(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    status: _ExecStatus | None = None


class CredentialSource:
    """The current credential of one ``ClusterAccess``; safe to use from several threads."""

    def __init__(self, access: ClusterAccess) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._held: Credential | None = None
        self._until = 0.0  # of time.monotonic()

    def fresh(self) -> Credential | None:
        """Return the held credential if it may still be used, without reading or running anything."""
        return self._held if time.monotonic() < self._until else None

    def current(self) -> Credential:
        """Return the credential to use now; reads files and runs the plugin when what is held is too old."""
        with self._lock:
            held = self.fresh()
            if held is None:
                held, self._until = self._obtain()
                self._held = held
            return held

    def reject(self, refused: Credential) -> None:
        """Forget a credential that the server refused (401), unless another one has taken its place meanwhile."""
        with self._lock:
            if self._held is refused:
                self._until = 0.0

    def changeable(self) -> bool:
        """Tell whether asking again after a 401 can give another credential."""
        access = self._access
        return (
            access.token_file is not None
            or access.plugin is not None
            or isinstance(access.certificate, Path)
            or isinstance(access.key, Path)
        )

    def _obtain(self) -> tuple[Credential, float]:
        now = time.monotonic()
        access = self._access
        certificate = read_pem(access.certificate, "client certificate")
        key = read_pem(access.key, "client key")
        authorization = self._authorization()
        until = now + (REREAD_SECONDS if self.changeable() else float("inf"))
        if access.plugin is not None and authorization is None and certificate is None:
            status = run_plugin(access.plugin, access)
            authorization = f"Bearer {status.token}" if status.token else None
            if status.client_certificate_data and status.client_key_data:
                certificate = status.client_certificate_data.encode()
                key = status.client_key_data.encode()
            until = float("inf")  # "if omitted, cached until the process exits or the server answers 401"
            if status.expiration_timestamp is not None:
                left = status.expiration_timestamp.timestamp() - time.time()
                until = now + left - EXPIRY_SKEW_SECONDS
        headers = access.headers
        if authorization is not None:
            headers = (("Authorization", authorization), *headers)
        return Credential(headers, certificate, key), until

    def _authorization(self) -> str | None:
        access = self._access
        if access.token_file is not None:
            # "the last successfully read content takes precedence over Token"
            try:
                return f"Bearer {access.token_file.read_text().strip()}"
            except OSError as error:
                if self._held is not None:
                    held = dict(self._held.headers).get("Authorization")
                    if held is not None:
                        return held
                if access.token is None:
                    raise UsageError(
                        f"cannot read the token file {access.token_file} ({error.strerror}); "
                        "check the path and its permissions"
                    ) from None
        if access.token:
            return f"Bearer {access.token}"
        if access.username:
            pair = f"{access.username}:{access.password or ''}".encode()
            return f"Basic {base64.b64encode(pair).decode()}"
        return None


def read_pem(pem: Pem | None, what: str) -> bytes | None:
    """Return PEM text, read now if it is in a file; raises ``UsageError``."""
    if not isinstance(pem, Path):
        return pem
    try:
        return pem.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the {what} {pem} ({error.strerror}); check the path in the kubeconfig") from None


def run_plugin(plugin: ExecPlugin, access: ClusterAccess) -> _ExecStatus:
    """Run a credential plugin and return its status; raises ``HostLacks`` or ``HostRefused``.

    KUBERNETES_EXEC_INFO is always set: plugins choose the version of their answer by it, and some break without.
    """
    interactive = _interactive(plugin)
    environment = dict(os.environ) | dict(plugin.env)
    environment["KUBERNETES_EXEC_INFO"] = msgspec.json.encode(
        _exec_info(plugin, access, interactive=interactive)
    ).decode()
    argv = [plugin.command, *plugin.args]
    try:
        done = subprocess.run(
            argv,
            env=environment,
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if interactive else subprocess.PIPE,  # a person must see what the plugin asks for
            check=False,
        )
    except OSError as error:
        raise HostLacks(
            f'the credential plugin "{plugin.command}" cannot be run ({error.strerror})',
            remedy=" ".join(plugin.install_hint.split()) or "install it or correct the path in the kubeconfig",
        ) from None
    answered = (done.stderr or b"").decode(errors="replace").strip()
    if done.returncode != 0:
        raise HostRefused(
            f'the credential plugin "{plugin.command}" failed with exit code {done.returncode}; log in again with it',
            asked=" ".join(argv),
            answered=answered,
        )
    return _checked(plugin, argv, done.stdout)


def _checked(plugin: ExecPlugin, argv: list[str], output: bytes) -> _ExecStatus:
    try:
        credential = msgspec.json.decode(output, type=_ExecCredential)
    except msgspec.MsgspecError as error:
        raise HostRefused(
            f'the credential plugin "{plugin.command}" printed no ExecCredential',
            asked=" ".join(argv),
            answered=str(error),
        ) from None
    status = credential.status
    complaint = None
    if credential.kind != "ExecCredential" or credential.api_version != plugin.api_version:
        complaint = f"it answered {credential.kind} {credential.api_version}, not ExecCredential {plugin.api_version}"
    elif status is None or not (status.token or status.client_certificate_data):
        complaint = "its answer has neither a token nor a client certificate"
    elif bool(status.client_certificate_data) != bool(status.client_key_data):
        complaint = "its answer has a client certificate without its key, or a key without its certificate"
    if complaint is not None or status is None:
        raise HostRefused(
            f'the credential plugin "{plugin.command}" cannot be used', asked=" ".join(argv), answered=complaint or ""
        )
    return status


def _interactive(plugin: ExecPlugin) -> bool:
    terminal = sys.stdin is not None and sys.stdin.isatty()
    match plugin.interactive_mode:
        case "Never":
            return False
        case "Always" if not terminal:
            raise HostLacks(
                f'the credential plugin "{plugin.command}" needs a terminal (interactiveMode: Always)',
                remedy="run the command in a terminal, or use a plugin that needs none",
            )
        case _:
            return terminal


def _exec_info(plugin: ExecPlugin, access: ClusterAccess, *, interactive: bool) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.provide_cluster_info:
        cluster: dict[str, Any] = {"server": access.server}
        if access.tls_server_name:
            cluster["tls-server-name"] = access.tls_server_name
        if access.insecure:
            cluster["insecure-skip-tls-verify"] = True
        ca = read_pem(access.ca, "certificate authority")
        if ca is not None:
            cluster["certificate-authority-data"] = base64.b64encode(ca).decode()
        if access.proxy:
            cluster["proxy-url"] = access.proxy
        if plugin.config is not None:
            cluster["config"] = plugin.config
        spec["cluster"] = cluster
    return {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
