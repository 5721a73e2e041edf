# SPDX-License-Identifier: Apache-2.0
"""ConfigMaps and Secrets: keys that can be file names, and data that can be frozen."""

from __future__ import annotations

import base64
import binascii
import re

from ringfence.apis import fields
from ringfence.errors import FieldError
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.kinds.strategy import Strategy
from ringfence.lab.apiserver.objects import Object

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_FROZEN = "field is immutable when `immutable` is set"
_LARGEST = 1024 * 1024


class ConfigMaps(Strategy):
    """Data for containers."""

    parts: tuple[str, ...] = ("data", "binaryData")

    def errors(self, api: Api, new: Object, old: Object | None) -> list[FieldError]:  # noqa: ARG002 - as declared
        """Return what is wrong with the keys and sizes, and with changes of what is frozen."""
        found = []
        size = 0
        for field in self.parts:
            for key, value in (new.get(field) or {}).items():
                size += len(value)
                if not _KEY.fullmatch(key):
                    found.append(fields.invalid(f"{field}[{key}]", key, _KEY_RULE))
        if size > _LARGEST:
            found.append(FieldError("", f"Too long: may not be more than {_LARGEST} bytes", fields.TOO_LONG))
        if old is not None and old.get("immutable"):
            if not new.get("immutable"):
                found.append(fields.forbidden("immutable", _FROZEN))
            found += [fields.forbidden(f, _FROZEN) for f in self.parts if new.get(f) != old.get(f)]
        return found


class Secrets(ConfigMaps):
    """Data for containers, in base64; ``stringData`` is for writing only."""

    parts = ("data",)

    def before_create(self, api: Api, new: Object) -> None:  # noqa: ARG002 - as declared
        """Move plain strings into the data."""
        _absorb(new)

    def before_update(self, api: Api, new: Object, old: Object) -> None:  # noqa: ARG002 - as declared
        """Move plain strings into the data."""
        _absorb(new)

    def errors(self, api: Api, new: Object, old: Object | None) -> list[FieldError]:
        """Return what is wrong with the data; the type never changes."""
        found = super().errors(api, new, old)
        for key, value in (new.get("data") or {}).items():
            try:
                base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                found.append(fields.invalid(f"data[{key}]", "<secret contents redacted>", "must be base64"))
        if old is not None and new.get("type") != old.get("type"):
            found.append(fields.invalid("type", new.get("type"), "field is immutable"))
        return found


def _absorb(secret: Object) -> None:
    plain = secret.pop("stringData", None) or {}
    if plain:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        secret["data"] = {**(secret.get("data") or {}), **encoded}
