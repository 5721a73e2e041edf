# SPDX-License-Identifier: Apache-2.0
"""A small API server for tests: real HTTP on loopback, collections in memory, and misfortune to order.

It lists in pages, watches, streams initial lists, sends bookmarks and forgets old versions as kube-apiserver does.
It knows no schema and validates nothing: for that there is the lab's API server.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from aiohttp import web

Object = dict[str, Any]


@dataclass
class ApiServer:
    """The server's state, and how it misbehaves.

    ``watch_list``: ``yes`` streams initial lists, ``refused`` answers 422 as a server without the feature, ``ignored``
    behaves as one that is older still. ``gone``: how it says that a version is too old. ``tokens``: who may ask
    (None: everybody). ``stalled``: watches tell nothing more; ``stalled_paths``: those of these collections only (lists
    tell everything). ``forbidden``: collections that nobody may read. ``requests``: what was
    asked, as ``METHOD path?query``.
    """

    watch_list: Literal["yes", "refused", "ignored"] = "yes"
    gone: Literal["status", "event"] = "status"
    tokens: set[str] | None = None
    version: int = 100
    forgotten: int = 100
    stalled: bool = False
    stalled_paths: set[str] = field(default_factory=set)
    forbidden: set[str] = field(default_factory=set)
    fail_after_pages: int | None = None
    collections: dict[str, dict[str, Object]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    url: str = ""
    _log: list[tuple[int, str, str, Object]] = field(default_factory=list)
    _refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    _streams: dict[web.StreamResponse, tuple[web.Request, asyncio.Event]] = field(default_factory=dict)

    def put(self, path: str, obj: Object) -> Object:
        """Store an object in a collection and tell the watchers."""
        collection = self.collections.setdefault(path, {})
        key = _key(obj)
        self.version += 1
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        self._tell("MODIFIED" if key in collection else "ADDED", path, stored)
        collection[key] = stored
        return stored

    def remove(self, path: str, key: str) -> None:
        """Delete an object and tell the watchers."""
        obj = self.collections[path].pop(key)
        self.version += 1
        gone = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        self._tell("DELETED", path, gone)

    def compact(self) -> None:
        """Forget every version before the current one: who is behind gets 410."""
        self.forgotten = self.version
        self._log.clear()

    def refuse(self, code: int, *, times: int = 1, **headers: str) -> None:
        """Answer the next requests with an error."""
        self._refusals += [(code, {name.replace("_", "-"): value for name, value in headers.items()})] * times

    def forgive(self) -> None:
        """Answer again as asked."""
        self._refusals.clear()

    async def bookmark(self, path: str) -> None:
        """Send a bookmark of the current version to the watchers of a collection."""
        line = _line("BOOKMARK", {"kind": "X", "metadata": {"resourceVersion": str(self.version)}})
        for response, (request, _) in list(self._streams.items()):
            if request.path == path:
                await response.write(line)

    async def drop(self, *, half_a_line: bytes = b"") -> int:
        """Break every open watch, after half a line if one is given; returns how many there were."""
        broken = list(self._streams.items())
        for response, (request, _) in broken:
            if half_a_line:
                await response.write(half_a_line)
                await asyncio.sleep(0)
            if request.transport is not None:
                request.transport.abort()
            self._streams.pop(response, None)
        return len(broken)

    def watching(self, path: str) -> int:
        """Return how many watches of a collection are open."""
        return sum(request.path == path for request, _ in self._streams.values())

    @contextlib.asynccontextmanager
    async def serving(
        self, tls: ssl.SSLContext | None = None, port: int = 0, listener: socket.socket | None = None
    ) -> AsyncIterator[ApiServer]:
        """Serve on loopback, or on a socket that listens already (in another network namespace); ``url`` says where."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        if listener is None:
            await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        else:
            await web.SockSite(runner, listener, ssl_context=tls).start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await self.drop()
            await runner.cleanup()

    def _tell(self, kind: str, path: str, obj: Object) -> None:
        self._log.append((self.version, kind, path, obj))
        for _, wake in self._streams.values():
            wake.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        self.headers.append(dict(request.headers))
        if self._refusals:
            code, headers = self._refusals.pop(0)
            return _status(code, "Refused", headers)
        if (
            self.tokens is not None
            and request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens
        ):
            return _status(401, "Unauthorized")
        match request.method:
            case "GET" if request.query.get("watch") == "true":
                return await self._watch(request)
            case "GET":
                return self._get(request)
            case "POST":
                return self._create(request.path, await request.json())
            case _:
                return _status(405, "MethodNotAllowed")

    def _create(self, path: str, obj: Object) -> web.Response:
        if _key(obj) in self.collections.get(path, {}):
            return _status(409, "AlreadyExists")
        return web.json_response(self.put(path, obj), status=201)

    def _get(self, request: web.Request) -> web.Response:
        if request.path in self.forbidden:
            return _status(403, "Forbidden")
        one = self._one(request.path)
        if one is not None:
            return web.json_response(one)
        found = self._collection(request.path)
        if found is None:
            return _status(404, "NotFound")
        version, _, start = request.query.get("continue", f"{self.version}:0").partition(":")
        if int(version) < self.forgotten:
            return _status(410, "Expired")
        page = int(start)
        if self.fail_after_pages is not None and page >= self.fail_after_pages:
            self.fail_after_pages = None
            return _status(500, "InternalError")
        items = [obj for _, obj in sorted(found.items())]
        size = int(request.query.get("limit", 0)) or max(1, len(items))
        shown = items[page * size : (page + 1) * size]
        meta = {"resourceVersion": version}
        if len(items) > (page + 1) * size:
            meta["continue"] = f"{version}:{page + 1}"
        return web.json_response({"kind": "List", "metadata": meta, "items": shown})

    def _stands_still(self, path: str) -> bool:
        return self.stalled or path in self.stalled_paths

    def _collection(self, path: str) -> dict[str, Object] | None:
        """Return a collection, or the part of one that is in a namespace."""
        if path in self.collections:
            return self.collections[path]
        group, _, rest = path.partition("/namespaces/")
        namespace, _, resource = rest.partition("/")
        whole = self.collections.get(f"{group}/{resource}") if resource else None
        if whole is None:
            return None
        return {key: obj for key, obj in whole.items() if obj["metadata"].get("namespace") == namespace}

    def _one(self, path: str) -> Object | None:
        """Return an object by its own path."""
        collection, _, name = path.rpartition("/")
        found = self._collection(collection) or {}
        return next((obj for obj in found.values() if obj["metadata"]["name"] == name), None)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        initial = request.query.get("sendInitialEvents") == "true"
        if initial and self.watch_list == "refused":
            return _status(422, "Invalid")
        version = int(request.query.get("resourceVersion") or self.version)
        if version < self.forgotten and self.gone == "status":
            return _status(410, "Expired")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if version < self.forgotten:
            await response.write(
                _line("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
            )
            return response
        if initial:
            version = await self._initial(request.path, response)
        await self._follow(request, response, version)
        return response

    async def _initial(self, path: str, response: web.StreamResponse) -> int:
        version = self.version
        for _, obj in sorted(self.collections.get(path, {}).items()):
            await response.write(_line("ADDED", obj))
        if self.watch_list == "yes":
            meta = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
            await response.write(_line("BOOKMARK", {"kind": "X", "metadata": meta}))
        return version

    async def _follow(self, request: web.Request, response: web.StreamResponse, version: int) -> None:
        wake = asyncio.Event()
        self._streams[response] = (request, wake)
        try:
            async with asyncio.timeout(float(request.query.get("timeoutSeconds", 3600))):
                while response in self._streams:
                    for at, kind, path, obj in list(self._log):
                        if at > version and path == request.path and not self._stands_still(path):
                            version = at
                            await response.write(_line(kind, obj))
                    await wake.wait()
                    wake.clear()
        except (TimeoutError, ConnectionError):
            return
        finally:
            self._streams.pop(response, None)


def _key(obj: Object) -> str:
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def _line(kind: str, obj: Object) -> bytes:
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"


def _status(code: int, reason: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": f"refused: {reason}"}
    return web.json_response(body, status=code, headers=headers)
