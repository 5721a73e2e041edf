# SPDX-License-Identifier: Apache-2.0
"""What the API server's refusals say: a Status object (or whatever a proxy sent instead) as one ``ClusterError``."""

from __future__ import annotations

import http
import os
import ssl

import msgspec

from ringfence.errors import ClusterError

_SHOWN = 300  # characters of a body that is no Status


class Status(msgspec.Struct, frozen=True):
    """The parts of a ``v1.Status`` that we use."""

    kind: str = ""
    message: str = ""
    reason: str = ""
    code: int = 0


def refusal(code: int, body: bytes, url: str) -> ClusterError:
    """Return the error for an HTTP answer of 400 or more."""
    try:
        status = msgspec.json.decode(body, type=Status)
    except msgspec.MsgspecError:
        status = Status()
    if status.kind == "Status" and (status.message or status.reason):
        return ClusterError(status.message or status.reason, code=code, reason=status.reason)
    try:
        phrase = http.HTTPStatus(code).phrase
    except ValueError:
        phrase = "unknown status"
    text = " ".join(body.decode(errors="replace").split())[:_SHOWN]
    return ClusterError(f"{url} answered {code} {phrase}" + (f": {text}" if text else ""), code=code, reason=phrase)


def unreachable(server: str, cause: BaseException) -> ClusterError:
    """Return the error for a server that did not answer."""
    return ClusterError(f"cannot reach the API server {server}: {_words(cause)}", reason="Unreachable")


def _words(cause: BaseException) -> str:
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    inner = getattr(cause, "os_error", cause)  # aiohttp wraps what the system said
    inner = getattr(inner, "certificate_error", inner)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({inner.verify_message}); check the kubeconfig's CA and server name"
    if isinstance(inner, ssl.SSLError):
        return str(inner)
    if isinstance(inner, OSError) and inner.errno is not None:
        return os.strerror(inner.errno) if inner.errno > 0 else inner.strerror or str(inner)
    return str(cause) or type(cause).__name__
