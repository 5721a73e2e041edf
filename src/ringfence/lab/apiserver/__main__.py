# SPDX-License-Identifier: Apache-2.0
"""The API server's process: ``python -m ringfence.lab.apiserver --lab-dir DIR``.

It listens first and imports the rest afterwards: who connects meanwhile waits a moment in place of being refused, at a
lab's start and after a crash.
"""

from __future__ import annotations

import argparse
import errno
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from ringfence.errors import RingfenceError, UsageError
from ringfence.host import netns
from ringfence.lab.config import API_SERVER_PORT, LabConfig, LabPaths, read_config
from ringfence.lab.topology import Topology, plan_topology


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
        import asyncio  # noqa: PLC0415 - after the sockets are open, see above

        from ringfence.lab.apiserver.serving import serve  # noqa: PLC0415 - as above

        asyncio.run(serve(paths, config, topology, sockets))
    except RingfenceError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    return 0


def _sockets(config: LabConfig, topology: Topology) -> list[socket.socket]:
    """Open the sockets to listen on: loopback, and the fabric's addresses inside of its namespace."""
    found = [_listen("127.0.0.1", config.port)]
    if not config.simulated:
        with netns.enter(topology.fabric_netns):
            found += [_listen(str(address), API_SERVER_PORT) for address in topology.apiserver_addresses]
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


if __name__ == "__main__":
    sys.exit(main())
