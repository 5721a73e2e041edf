# SPDX-License-Identifier: Apache-2.0
"""The API server's process: ``python -m ringfence.lab.apiserver --lab-dir DIR``."""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from ringfence.errors import RingfenceError, UsageError
from ringfence.host import netns
from ringfence.lab.apiserver.api import Api
from ringfence.lab.apiserver.bootstrap import bootstrap, restore
from ringfence.lab.apiserver.server import Server
from ringfence.lab.apiserver.store import Store
from ringfence.lab.apiserver.streaming import KubeletProxy
from ringfence.lab.config import LabConfig, LabPaths, read_config
from ringfence.lab.topology import Topology, plan_topology

FABRIC_PORT = 6443
LARGEST_BODY = 3 * 1024 * 1024
_GOODBYE = 0.2  # seconds that open requests get to end


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ringfence.lab.apiserver", description=__doc__)
    parser.add_argument("--lab-dir", required=True, type=Path, help="the lab's directory")
    paths = LabPaths(parser.parse_args(arguments).lab_dir)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        config = read_config(paths)
        topology = plan_topology(config.name, config.network_plugin, config.nodes)
        sockets = _sockets(config, topology)
        asyncio.run(_serve(paths, config, topology, sockets))
    except RingfenceError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    return 0


def _sockets(config: LabConfig, topology: Topology) -> list[socket.socket]:
    """Open the sockets to listen on: loopback, and the fabric's addresses inside of its namespace."""
    found = [_listen("127.0.0.1", config.port)]
    if not config.simulated:
        with netns.enter(topology.fabric_netns):
            found += [_listen(str(address), FABRIC_PORT) for address in topology.apiserver_addresses]
    return found


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((address, port))
        opened.listen(1024)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} on {address} is in use by another process; choose another with --port"
            ) from None
        raise UsageError(f"cannot listen on {address} port {port}: {error.strerror}") from None
    return opened


async def _serve(paths: LabPaths, config: LabConfig, topology: Topology, sockets: list[socket.socket]) -> None:
    store = Store(paths.database)
    api = Api(store)
    restore(api)
    own = () if config.simulated else topology.apiserver_addresses
    bootstrap(api, endpoints=own, port=FABRIC_PORT)
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
    await _until_told_to_stop()
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


if __name__ == "__main__":
    sys.exit(main())
