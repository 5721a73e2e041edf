# SPDX-License-Identifier: Apache-2.0
"""The agent's log: one line per event on stderr, as text for people or JSON for collectors, times in RFC 3339 UTC."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal, Protocol

import msgspec

LogFormat = Literal["text", "json"]


class Log(Protocol):
    """What the agent asks of a logger: an event in words, and facts by name."""

    def debug(self, event: str, **facts: Any) -> Any:
        """Say what only somebody who looks closer wants to know."""
        ...

    def info(self, event: str, **facts: Any) -> Any:
        """Say what was done."""
        ...

    def warning(self, event: str, **facts: Any) -> Any:
        """Say what a person should look at, though everything is enforced."""
        ...

    def error(self, event: str, **facts: Any) -> Any:
        """Say what is not enforced as it should be."""
        ...

    def exception(self, event: str, **facts: Any) -> Any:
        """Say what went wrong in a way that nobody foresaw, with the traceback."""
        ...


def open_log(shape: LogFormat, *, verbose: bool = False) -> Log:
    """Return the process's log, and lead the standard library's loggers into it."""
    import structlog  # noqa: PLC0415 - 70 ms: neither --help nor the other commands pay for it

    renderer: Any = (
        structlog.processors.JSONRenderer(serializer=_json)
        if shape == "json"
        else structlog.processors.LogfmtRenderer(key_order=["time", "level", "msg"], bool_as_flag=False)
    )
    log: Log = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("msg"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
    )
    logging.basicConfig(handlers=[_Bridge(log)], level=logging.DEBUG if verbose else logging.WARNING, force=True)
    return log


def _json(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


class _Bridge(logging.Handler):
    """Hands records of libraries on, under the name of their logger."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as a line of ours."""
        say = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        if record.levelno < logging.WARNING:
            say = self._log.debug
        say(record.getMessage(), logger=record.name, **({"exc_info": record.exc_info} if record.exc_info else {}))
