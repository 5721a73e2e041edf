# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a body to an object of the kind that the path names: decoded, checked for shape, pruned.

kube-apiserver decodes into typed structs. So do we, in effect: a value of a wrong type is refused, an unknown or
repeated field is an error, a warning or nothing (``fieldValidation``), and what the kind does not have is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ringfence.lab.apiserver import protobuf
from ringfence.lab.apiserver.objects import Object, decode
from ringfence.lab.apiserver.requests import FieldValidation
from ringfence.lab.apiserver.resources import Resource
from ringfence.lab.apiserver.schema import duplicate_fields
from ringfence.lab.apiserver.status import bad_request, unsupported_media_type

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"


def read(raw: bytes, content_type: str) -> Any:
    """Decode a body of JSON, YAML or protobuf; an empty one is None. Raises ``Failure`` 400 or 415."""
    if not raw:
        return None
    match content_type:
        case "" | "application/json" | "application/octet-stream":
            return read_json(raw)
        case "application/yaml" | "application/apply-patch+yaml":
            return read_yaml(raw)
        case "application/vnd.kubernetes.protobuf":
            try:
                return protobuf.decode(raw)
            except protobuf.UnsupportedBody:
                raise unsupported_media_type((JSON, YAML)) from None
        case _:
            raise unsupported_media_type((JSON, YAML, PROTOBUF))


def read_json(raw: bytes) -> Any:
    """Decode JSON; raises ``Failure`` 400."""
    try:
        return decode(raw)
    except msgspec.DecodeError as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None


def read_yaml(raw: bytes) -> Any:
    """Decode YAML (or JSON, which is YAML); raises ``Failure`` 400."""
    if raw.lstrip()[:1] in (b"{", b"["):
        return read_json(raw)
    import yaml  # noqa: PLC0415 - kubectl sends JSON; start-up does not pay for the rare YAML

    try:
        return yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {error}") from None


def as_object(body: Any, *, api_version: str, kind: str) -> Object:
    """Return the body as an object of the kind that the path expects; raises ``Failure`` 400 if it is another.

    What the body does not say of apiVersion and kind, the path says.
    """
    if not isinstance(body, dict):
        raise bad_request("the request body is not an object")
    said_version, said_kind = body.get("apiVersion") or api_version, body.get("kind") or kind
    if said_kind != kind:
        version = str(said_version).rpartition("/")[2]
        raise bad_request(
            f'{said_kind} in version "{version}" cannot be handled as a {kind}: '
            f"converting ({said_version}.{said_kind}) to ({api_version}.{kind}): unknown conversion"
        )
    if said_version != api_version:
        raise bad_request(
            f"the API version in the data ({said_version}) does not match the expected API version ({api_version})"
        )
    return {**body, "apiVersion": api_version, "kind": kind}


def strictness_errors(resource: Resource, body: Object, raw: bytes | None) -> list[str]:
    """Return what a strict decoder says: repeated fields (where the JSON text is known), then unknown ones."""
    shape = resource.shape()
    repeated = duplicate_fields(raw) if raw else []
    return repeated + (shape.unknown_fields(body) if shape else [])


def conform(
    resource: Resource, body: Object, *, raw: bytes | None, validation: FieldValidation, warnings: list[str]
) -> Object:
    """Return the body as the kind has it; raises ``Failure`` 400. Adds to ``warnings`` if that is what is asked."""
    shape = resource.shape()
    if shape is None:
        return body
    if wrong := shape.type_errors(body):
        raise bad_request(f"{_cannot(resource)}: {wrong[0]}")
    if validation is not FieldValidation.IGNORE and (found := strictness_errors(resource, body, raw)):
        if validation is FieldValidation.STRICT:
            raise bad_request(f"{_cannot(resource)}: {strict(found)}")
        warnings += found
    return shape.prune(body)


def strict(errors: Sequence[str]) -> str:
    """Return complaints as one strict decoding error."""
    return f"strict decoding error: {', '.join(errors)}"


def _cannot(resource: Resource) -> str:
    return f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
