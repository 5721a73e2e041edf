# SPDX-License-Identifier: Apache-2.0
"""Serves the API on sockets that are open already, until told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import ssl

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.bootstrap import bootstrap, restore
from ringfence.lab.apiserver.expiry import keep_expiring
from ringfence.lab.apiserver.server import Server
from ringfence.lab.apiserver.store import Store
from ringfence.lab.apiserver.streaming import KubeletProxy
from ringfence.lab.config import API_SERVER_PORT, LabConfig, LabPaths
from ringfence.lab.topology import Topology

LARGEST_BODY = 3 * 1024 * 1024
_GOODBYE = 0.2  # seconds that open requests get to end


async def serve(paths: LabPaths, config: LabConfig, topology: Topology, sockets: list[socket.socket]) -> None:
    """Serve a lab's API until SIGTERM or SIGINT, from what its database holds."""
    store = Store(paths.database)
    api = Api(store)
    restore(api)
    own = () if config.simulated else topology.apiserver_addresses
    bootstrap(api, endpoints=own, port=API_SERVER_PORT)
    kubelet = KubeletProxy(paths.kubelet_socket)
    token = paths.token.read_text().strip()
    server = Server(api, token=token, kubelet=kubelet, address=f"127.0.0.1:{config.port}")
    runner = web.ServerRunner(
        web.Server(server.handle, request_factory=_request, handler_cancellation=True, access_log=None),
        shutdown_timeout=_GOODBYE,
    )
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths.server_certificate, paths.server_key)
    for each in sockets:
        await web.SockSite(runner, each, ssl_context=context, backlog=1024).start()
    gc.freeze()  # what is loaded stays: later collections need not walk it
    logging.getLogger(__name__).info("serving https://127.0.0.1:%d", config.port)
    expiring = asyncio.create_task(keep_expiring(api))
    await _until_told_to_stop()
    expiring.cancel()
    await kubelet.close()
    await runner.cleanup()
    store.close()


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=LARGEST_BODY)


async def _until_told_to_stop() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
