# SPDX-License-Identifier: Apache-2.0
"""HTTP: who asks, what for, and the answer. Every decision about objects is made elsewhere (``Api`` and its verbs)."""

from __future__ import annotations

import asyncio
import hmac
import logging
from contextlib import aclosing
from typing import Any

from aiohttp import web

from ringfence.lab.apiserver import bodies, deleting, discovery, reading, status, subresources, watches, writing
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.documents import Documents
from ringfence.lab.apiserver.objects import Object, encode
from ringfence.lab.apiserver.rendering import View
from ringfence.lab.apiserver.requests import (
    Target,
    list_options,
    negotiate,
    parse_path,
    write_options,
)
from ringfence.lab.apiserver.resources import REVIEWS
from ringfence.lab.apiserver.reviews import review
from ringfence.lab.apiserver.status import Failure
from ringfence.lab.apiserver.streaming import KubeletProxy
from ringfence.lab.apiserver.writing import Write, Written

log = logging.getLogger(__name__)

_OPEN_TO_ALL = ("/healthz", "/livez", "/readyz", "/version")
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_STREAMS = ("attach", "exec", "log", "portforward")

Answer = web.StreamResponse


class Server:
    """Answers requests. ``token`` is the administrator's; ``kubelet`` is where pods' streams come from."""

    def __init__(self, api: Api, *, token: str, kubelet: KubeletProxy, address: str = "") -> None:
        self._api = api
        self._token = token.encode()
        self._kubelet = kubelet
        self._address = address
        self._documents = Documents(api.registry)

    async def handle(self, request: web.BaseRequest) -> Answer:
        """Answer one request; whatever goes wrong becomes a Status."""
        try:
            return await self._answer(request)
        except Failure as failure:
            return _json(failure.status, code=failure.code)
        except web.HTTPRequestEntityTooLarge:
            message = "Request entity too large: limit is 3145728"
            return _json(Failure(413, "RequestEntityTooLarge", message).status, code=413)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            internal = status.internal(f"{type(error).__name__}: {error}")
            return _json(internal.status, code=internal.code)

    async def _answer(self, request: web.BaseRequest) -> Answer:
        path = request.path.rstrip("/") or "/"
        if path.startswith(_OPEN_TO_ALL):
            return _open(path)
        if not self._is_admin(request):
            raise status.unauthorized()
        target = parse_path(path, self._api.registry)
        if target is None:
            return self._fixed(request, path)
        return await self._resource(request, target)

    def _is_admin(self, request: web.BaseRequest) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token)

    def _fixed(self, request: web.BaseRequest, path: str) -> Answer:
        """Answer what is no object: discovery and OpenAPI."""
        registry = self._api.registry
        aggregated = discovery.wants_aggregated(request.headers.get("Accept", ""))
        found: Object | None = None
        match path.strip("/").split("/"):
            case ["api" | "apis" as root] if aggregated:
                return _json(discovery.aggregated(registry, core=root == "api"), media=discovery.AGGREGATED)
            case ["api"]:
                found = discovery.api_versions(self._address)
            case ["api", version]:
                found = discovery.resource_list(registry, "", version)
            case ["apis"]:
                found = discovery.group_list(registry)
            case ["apis", group]:
                found = discovery.group(registry, group)
            case ["apis", group, version]:
                found = discovery.resource_list(registry, group, version)
            case ["openapi", "v3", *rest] if (document := self._documents.find("/".join(rest))) is not None:
                return _body(document)
            case [""]:
                found = {"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}
            case _:
                pass
        if found is None or request.method not in ("GET", "HEAD"):
            return web.Response(status=404, text="404 page not found\n")
        return _json(found)

    async def _resource(self, request: web.BaseRequest, target: Target) -> Answer:
        verb = _verb(request, target)
        _allow(target, verb)
        if target.subresource in _STREAMS:
            return await self._kubelet.stream(request, self._api, target)
        match verb:
            case "get":
                return self._get(request, target)
            case "list":
                return self._list(request, target)
            case "watch":
                return await self._watch(request, target)
            case "delete" | "deletecollection":
                return await self._delete(request, target)
            case _:
                return await self._write(request, target, verb)

    def _view(self, request: web.BaseRequest, target: Target) -> View:
        return View(
            target.resource, negotiate(request.headers.get("Accept", "")), request.query.get("includeObject", "")
        )

    def _get(self, request: web.BaseRequest, target: Target) -> Answer:
        if target.subresource == "scale":
            return _json(subresources.read_scale(self._api, target))
        record = writing.existing(self._api, target)
        return _body(self._view(request, target).record(record, self._api.clock()))

    def _list(self, request: web.BaseRequest, target: Target) -> Answer:
        page = reading.list_page(self._api, target, list_options(request.query))
        return _body(self._view(request, target).list(page.records, page.metadata, self._api.clock()))

    async def _watch(self, request: web.BaseRequest, target: Target) -> Answer:
        lines = await watches.lines(self._api, target, list_options(request.query), self._view(request, target))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async with aclosing(lines):  # type: ignore[type-var]
                async for chunk in lines:
                    await response.write(chunk)
            await response.write_eof()
        except ConnectionError:
            log.debug("a watcher of %s left", target.resource.plural)
        return response

    async def _delete(self, request: web.BaseRequest, target: Target) -> Answer:
        body = bodies.read(await request.read(), _media(request))
        options = deleting.delete_options(body, request.query)
        if target.name:
            return _json(deleting.delete(self._api, target, options))
        asked = list_options(request.query)
        page = reading.list_page(self._api, target, asked)
        answer = View(target.resource).list(page.records, page.metadata, self._api.clock())
        deleting.delete_all(self._api, target, page.records, options)
        return _body(answer)

    async def _write(self, request: web.BaseRequest, target: Target, verb: str) -> Answer:
        media = _media(request)
        raw = await request.read()
        applying = media == writing.APPLY_PATCH
        options = write_options(request.query, request.headers.get("User-Agent", ""), applying=applying)
        write = Write(self._api, target, options)
        text = None if media == bodies.PROTOBUF else raw
        body = _decoded(raw, media, verb)
        written = self._written(write, verb, body, text, media)
        shown = self._view(request, target).object(written.object, self._api.clock())
        return _body(shown, code=201 if written.created else 200, warnings=write.warnings)

    def _written(self, write: Write, verb: str, body: Any, text: bytes | None, media: str) -> Written:
        target = write.target
        if target.resource.plural in REVIEWS:
            return Written(
                review(
                    self._api,
                    target,
                    bodies.as_object(body, api_version=target.resource.api_version, kind=target.resource.kind),
                ),
                created=True,
            )
        if target.subresource not in ("", "status"):
            return subresources.write(write, verb, body, media)
        match verb:
            case "create":
                return writing.create(write, body, text)
            case "update":
                return writing.update(write, body, text)
            case _:
                return writing.patch(write, body, media, text)


def _decoded(raw: bytes, media: str, verb: str) -> Any:
    if verb != "patch":
        return bodies.read(raw, media)
    if media not in (writing.JSON_PATCH, writing.MERGE_PATCH, writing.STRATEGIC_PATCH, writing.APPLY_PATCH):
        known = (writing.JSON_PATCH, writing.MERGE_PATCH, writing.STRATEGIC_PATCH, writing.APPLY_PATCH)
        raise status.unsupported_media_type(known)
    return bodies.read_yaml(raw) if media == writing.APPLY_PATCH else bodies.read_json(raw)


def _verb(request: web.BaseRequest, target: Target) -> str:
    match request.method:
        case "GET" | "HEAD" if request.query.get("watch", "") in ("1", "true") and not target.subresource:
            return "watch"
        case "GET" | "HEAD":
            return "get" if target.name else "list"
        case "DELETE":
            return "delete" if target.name else "deletecollection"
        case method:
            return _VERBS.get(method, method.lower())


def _allow(target: Target, verb: str) -> None:
    resource = target.resource
    part = resource.subresources.get(target.subresource)
    verbs = part.verbs if part else resource.verbs
    # a name belongs to everything but create; creating a part of an object (a binding) names the object
    needs_name = verb in ("get", "update", "patch", "delete") or target.subresource
    fits = bool(target.name) if needs_name else not (target.name and verb == "create")
    if verb not in verbs or not fits or (resource.namespaced and verb == "create" and not target.namespace):
        raise status.method_not_allowed(resource.group, resource.plural, verb)


def _open(path: str) -> Answer:
    return _json(discovery.version()) if path == "/version" else web.Response(text="ok")


def _media(request: web.BaseRequest) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _json(obj: Any, *, code: int = 200, media: str = "application/json") -> Answer:
    return web.Response(body=encode(obj), status=code, headers={"Content-Type": media})


def _body(raw: bytes, *, code: int = 200, warnings: list[str] | None = None) -> Answer:
    response = web.Response(body=raw, status=code, headers={"Content-Type": "application/json"})
    for text in warnings or ():
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response
