# SPDX-License-Identifier: Apache-2.0
"""The syntax of names, labels and ports in the Kubernetes API, and the API server's words for each way to miss it.

Every function takes a string and returns what is wrong with it, one sentence for each complaint, nothing if it is
well-formed. Where in an object the string stands is the caller's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable

SyntaxRule = Callable[[str], list[str]]

DNS1123_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS1123_SUBDOMAIN = rf"{DNS1123_LABEL}(\.{DNS1123_LABEL})*"
DNS1035_LABEL = "[a-z]([-a-z0-9]*[a-z0-9])?"
LABEL_KEY_NAME = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
LABEL_VALUE = f"({LABEL_KEY_NAME})?"

_dns1123_label = re.compile(DNS1123_LABEL)
_dns1123_subdomain = re.compile(DNS1123_SUBDOMAIN)
_dns1035_label = re.compile(DNS1035_LABEL)
_label_key_name = re.compile(LABEL_KEY_NAME)
_label_value = re.compile(LABEL_VALUE)
_port_name_characters = re.compile("[-a-z0-9]+")
_one_letter = re.compile("[a-z]")


def size(value: str) -> int:
    """Return the length of a string in bytes, as the API server counts it."""
    return len(value.encode("utf-8", "surrogatepass"))


def is_dns1123_label(value: str) -> list[str]:
    """Check a DNS label (RFC 1123): names of namespaces."""
    problems = _longer_than(63, value)
    if not _dns1123_label.fullmatch(value):
        if _dns1123_subdomain.fullmatch(value):
            problems.append("must not contain dots")
        else:
            problems.append(
                _mismatch(
                    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must"
                    " start and end with an alphanumeric character",
                    DNS1123_LABEL,
                    "my-name",
                    "123-abc",
                )
            )
    return problems


def is_dns1123_subdomain(value: str) -> list[str]:
    """Check a DNS subdomain (RFC 1123): names of most objects."""
    problems = _longer_than(253, value)
    if not _dns1123_subdomain.fullmatch(value):
        problems.append(
            _mismatch(
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and"
                " must start and end with an alphanumeric character",
                DNS1123_SUBDOMAIN,
                "example.com",
            )
        )
    return problems


def is_dns1035_label(value: str) -> list[str]:
    """Check a DNS label (RFC 1035): names of Services."""
    problems = _longer_than(63, value)
    if not _dns1035_label.fullmatch(value):
        problems.append(
            _mismatch(
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic"
                " character, and end with an alphanumeric character",
                DNS1035_LABEL,
                "my-name",
                "abc-123",
            )
        )
    return problems


def is_label_key(value: str) -> list[str]:
    """Check a label key ("qualified name"): an optional DNS subdomain and a slash, then a name."""
    parts = value.split("/")
    if len(parts) > 2:
        example = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [f"a valid label key {_LABEL_KEY_MISMATCH} {example}"]
    problems: list[str] = []
    if len(parts) == 2:
        details = is_dns1123_subdomain(parts[0]) if parts[0] else ["must be non-empty"]
        problems += [f"prefix part {detail}" for detail in details]
    name = parts[-1]
    if not name:
        problems.append("name part must be non-empty")
    problems += [f"name part {detail}" for detail in _longer_than(63, name)]
    if not _label_key_name.fullmatch(name):
        problems.append(f"name part {_LABEL_KEY_MISMATCH}")
    return problems


def is_label_value(value: str) -> list[str]:
    """Check a label value: empty, or up to 63 bytes of letters, digits, ``-``, ``_`` and ``.``."""
    problems = _longer_than(63, value)
    if not _label_value.fullmatch(value):
        problems.append(
            _mismatch(
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and"
                " must start and end with an alphanumeric character",
                LABEL_VALUE,
                "MyValue",
                "my_value",
                "12345",
            )
        )
    return problems


def is_port_name(value: str) -> list[str]:
    """Check an IANA service name (RFC 6335, lower case only): names of container ports."""
    problems = _longer_than(15, value)
    if not _port_name_characters.fullmatch(value):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not _one_letter.search(value):
        problems.append("must contain at least one letter (a-z)")
    if "--" in value:
        problems.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        problems.append("must not begin or end with a hyphen")
    return problems


def is_port_number(value: int) -> list[str]:
    """Check a port number: 1 to 65535."""
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


def _longer_than(limit: int, value: str) -> list[str]:
    return [f"must be no more than {limit} bytes"] if size(value) > limit else []


def _mismatch(message: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{pattern}')"


_LABEL_KEY_MISMATCH = _mismatch(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    LABEL_KEY_NAME,
    "MyName",
    "my.name",
    "123-abc",
)
