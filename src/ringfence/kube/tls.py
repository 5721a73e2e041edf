# SPDX-License-Identifier: Apache-2.0
"""The TLS side of a connection: whom we trust, and the certificate that we show. The same for both clients."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

from ringfence.errors import UsageError
from ringfence.kube.config import ClusterAccess
from ringfence.kube.credentials import Credential, read_pem


def tls_context(access: ClusterAccess, credential: Credential) -> ssl.SSLContext | None:
    """Return the TLS context for a cluster and a credential, None for plain HTTP; raises ``UsageError``."""
    if not access.server.startswith("https://"):
        return None
    # not ssl.create_default_context(): from Python 3.13 it refuses CAs without key identifiers, which clusters have
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _trust(context, access)
    if credential.certificate is not None and credential.key is not None:
        _show(context, credential.certificate, credential.key)
    return context


def _trust(context: ssl.SSLContext, access: ClusterAccess) -> None:
    ca = read_pem(access.ca, "certificate authority")
    if ca is None:
        context.load_default_certs()
        return
    try:
        context.load_verify_locations(cadata=ca.decode())
    except (ssl.SSLError, UnicodeDecodeError):
        raise UsageError(
            f"the certificate authority for {access.server} is not PEM; correct it in the kubeconfig"
        ) from None


def _show(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # OpenSSL takes a client certificate from a file only; ours lives (0600) for the length of the call
    handle, path = tempfile.mkstemp(prefix="ringfence-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(certificate.rstrip() + b"\n" + key)
        context.load_cert_chain(path)
    except ssl.SSLError:
        raise UsageError(
            "the client certificate and its key do not fit or are not PEM; correct the kubeconfig"
        ) from None
    finally:
        Path(path).unlink()
