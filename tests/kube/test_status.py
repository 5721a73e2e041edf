# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from ringfence.kube.status import refusal, unreachable

URL = "https://h/api"


@pytest.mark.parametrize(
    ("code", "body", "message", "reason"),
    [
        pytest.param(
            409,
            json.dumps({"kind": "Status", "message": "pods is taken", "reason": "AlreadyExists", "code": 409}),
            "pods is taken",
            "AlreadyExists",
            id="status",
        ),
        pytest.param(403, json.dumps({"kind": "Status", "reason": "Forbidden"}), "Forbidden", "Forbidden", id="terse"),
        pytest.param(
            502,
            "<html>\n bad\n</html>",
            f"{URL} answered 502 Bad Gateway: <html> bad </html>",
            "Bad Gateway",
            id="proxy",
        ),
        pytest.param(404, "", f"{URL} answered 404 Not Found", "Not Found", id="empty"),
        pytest.param(299, "[]", f"{URL} answered 299 unknown status: []", "unknown status", id="odd"),
    ],
)
def test_refusals_are_one_sentence(code: int, body: str, message: str, reason: str) -> None:
    """The server's own words if it is a Status, else what was answered, on one line."""
    error = refusal(code, body.encode(), URL)

    assert (str(error), error.code, error.reason) == (message, code, reason)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        pytest.param(TimeoutError(), "no answer in time", id="timeout"),
        pytest.param(ConnectionRefusedError(111, "Connect call failed ('::1', 1)"), "Connection refused", id="errno"),
        pytest.param(OSError(-2, "Name or service not known"), "Name or service not known", id="name"),
        pytest.param(EOFError(), "EOFError", id="speechless"),
    ],
)
def test_unreachable_servers_are_one_sentence(cause: BaseException, words: str) -> None:
    """Which server, and the system's own word for why."""
    assert str(unreachable("https://h", cause)) == f"cannot reach the API server https://h: {words}"
