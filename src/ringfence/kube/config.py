# SPDX-License-Identifier: Apache-2.0
"""How to reach one cluster, as a value: address, trust and who is asking.

Decides what a kubeconfig (or a pod's service account) means. Leaves tokens that change and plugins that run to
``kube.credentials``, and connections to ``kube.client`` and ``kube.oneshot``.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.errors import UsageError
from ringfence.kube import kubeconfig as files
from ringfence.kube.kubeconfig import ClusterEntry, ContextEntry, Entry, ExecEntry, Merged, UserEntry

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
EXEC_EXTENSION = "client.authentication.k8s.io/exec"
_INTERACTIVE_MODES = ("Never", "IfAvailable", "Always")

Pem = bytes | Path
"""PEM text: given inline, or a file that may be rotated while we run."""


@dataclass(frozen=True, slots=True)
class ExecPlugin:
    """A credential plugin: a program that prints an ExecCredential of this ``api_version`` (one of EXEC_VERSIONS)."""

    api_version: str
    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    install_hint: str = ""
    provide_cluster_info: bool = False
    interactive_mode: str = "IfAvailable"
    config: Any = None


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """Where the API server is (``server``, a URL without a trailing slash), how to trust it, and who is asking.

    ``ca`` None means the machine's own trust store. ``headers`` go with every request (impersonation).
    ``default_namespace`` is meant where a command names none.
    """

    server: str
    ca: Pem | None = None
    insecure: bool = False
    tls_server_name: str | None = None
    proxy: str | None = None
    certificate: Pem | None = None
    key: Pem | None = None
    token: str | None = None
    token_file: Path | None = None
    username: str | None = None
    password: str | None = None
    plugin: ExecPlugin | None = None
    headers: tuple[tuple[str, str], ...] = ()
    default_namespace: str = "default"


def load_access(kubeconfig: str | None = None, context: str | None = None) -> ClusterAccess:
    """Find the cluster as kubectl does: the given kubeconfig, ``KUBECONFIG``, ``~/.kube/config``, then in-cluster.

    Raises ``UsageError`` in one sentence with the remedy.
    """
    found = files.find(kubeconfig, os.environ)
    if found:
        return access_from(files.merge(found), context)
    inside = in_cluster(os.environ) if context is None else None
    if inside is None:
        raise UsageError("no kubeconfig was found; set KUBECONFIG, pass --kubeconfig, or bring up a lab first")
    return inside


def in_cluster(environment: Mapping[str, str], directory: Path = SERVICE_ACCOUNT) -> ClusterAccess | None:
    """Return the access that a pod has by its service account, or None outside of a cluster."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (directory / "token").exists():
        return None
    namespace = directory / "namespace"
    return ClusterAccess(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        ca=directory / "ca.crt",
        token_file=directory / "token",
        default_namespace=(namespace.read_text().strip() if namespace.exists() else "") or "default",
    )


def access_from(merged: Merged, context_name: str | None) -> ClusterAccess:
    """Return what one context of merged kubeconfigs means; raises ``UsageError``."""
    where = " and ".join(map(str, merged.files))
    context, label = _context(merged, context_name, where)
    if context.cluster not in merged.clusters:
        raise UsageError(f'{label} names the cluster "{context.cluster}", which {where} does not have; add the cluster')
    cluster = merged.clusters[context.cluster]
    if not cluster.value.server.startswith(("https://", "http://")):
        raise UsageError(
            f'the cluster "{context.cluster}" in {where} has server "{cluster.value.server}"; '
            "it must be a URL such as https://127.0.0.1:6443"
        )
    user = Entry(UserEntry(), cluster.directory)
    if context.user:
        if context.user not in merged.users:
            raise UsageError(f'{label} names the user "{context.user}", which {where} does not have; add the user')
        user = merged.users[context.user]
    if user.value.auth_provider is not None:
        raise UsageError(
            f'the user "{context.user}" in {where} has an auth-provider, which Kubernetes removed in 1.26; '
            "replace it by an exec plugin (for AKS: kubelogin convert-kubeconfig)"
        )
    return _access(cluster, user, context)


def _context(merged: Merged, name: str | None, where: str) -> tuple[ContextEntry, str]:
    wanted = name or merged.current_context
    if not wanted:
        # kubectl, too, takes an unambiguous configuration without a current context only when it is told which
        names = ", ".join(sorted(merged.contexts)) or "none"
        raise UsageError(f"{where} has no current context; pass --context with one of its contexts: {names}")
    if wanted not in merged.contexts:
        names = ", ".join(sorted(merged.contexts)) or "none"
        raise UsageError(f'{where} has no context "{wanted}"; it has these contexts: {names}')
    return merged.contexts[wanted], f'the context "{wanted}"'


def _access(cluster: Entry[ClusterEntry], user: Entry[UserEntry], context: ContextEntry) -> ClusterAccess:
    place, who = cluster.value, user.value
    return ClusterAccess(
        server=place.server.rstrip("/"),
        ca=_pem(cluster, "certificate-authority", place.certificate_authority_data, place.certificate_authority),
        insecure=place.insecure_skip_tls_verify,
        tls_server_name=place.tls_server_name,
        proxy=place.proxy_url,
        certificate=_pem(user, "client-certificate", who.client_certificate_data, who.client_certificate),
        key=_pem(user, "client-key", who.client_key_data, who.client_key),
        token=who.token,
        token_file=user.path(who.token_file) if who.token_file else None,
        username=who.username,
        password=who.password,
        plugin=_plugin(who.exec, user, cluster.value) if who.exec else None,
        headers=_impersonation(who),
        default_namespace=context.namespace or "default",
    )


def _pem(entry: Entry[Any], field: str, data: str | None, path: str | None) -> Pem | None:
    """Inline data win over a file (client-go: "…Data … overrides …")."""
    if data:
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            raise UsageError(f"{field}-data in a kubeconfig of {entry.directory} is not base64; correct it") from None
    return entry.path(path) if path else None


def _plugin(entry: ExecEntry, user: Entry[UserEntry], cluster: ClusterEntry) -> ExecPlugin:
    if entry.api_version not in EXEC_VERSIONS:
        raise UsageError(
            f'the credential plugin "{entry.command}" asks for apiVersion "{entry.api_version}"; '
            f"set it to {EXEC_VERSIONS[0]} (and update the plugin if it is older)"
        )
    mode = entry.interactive_mode or "IfAvailable"
    if mode not in _INTERACTIVE_MODES:
        raise UsageError(
            f'the credential plugin "{entry.command}" has interactiveMode "{mode}"; '
            f"it must be one of {', '.join(_INTERACTIVE_MODES)}"
        )
    # "a relative path that is not a bare name is relative to the directory of the kubeconfig"
    relative = os.sep in entry.command and not Path(entry.command).is_absolute()
    extensions = {extension.name: extension.extension for extension in cluster.extensions or ()}
    return ExecPlugin(
        api_version=entry.api_version,
        command=str(user.directory / entry.command) if relative else entry.command,
        args=tuple(entry.args or ()),
        env=tuple((variable.name, variable.value) for variable in entry.env or ()),
        install_hint=entry.install_hint,
        provide_cluster_info=entry.provide_cluster_info,
        interactive_mode=mode,
        config=extensions.get(EXEC_EXTENSION),
    )


def _impersonation(user: UserEntry) -> tuple[tuple[str, str], ...]:
    headers: list[tuple[str, str]] = []
    if user.impersonate:
        headers.append(("Impersonate-User", user.impersonate))
    if user.impersonate_uid:
        headers.append(("Impersonate-Uid", user.impersonate_uid))
    headers += [("Impersonate-Group", group) for group in user.impersonate_groups or ()]
    for key, values in sorted((user.impersonate_extra or {}).items()):
        headers += [(f"Impersonate-Extra-{key}", value) for value in values]
    return tuple(headers)
