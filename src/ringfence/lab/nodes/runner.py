# SPDX-License-Identifier: Apache-2.0
"""The runner: one single-threaded process that is the parent of all containers of a lab.

Forking from a small process that has everything loaded makes a container in a few milliseconds; being a process of its
own lets containers outlive a kubelet that crashes or is restarted. It decides nothing: the kubelet says what to run.
A runner that no kubelet speaks to for a minute ends, and its containers with it, so a killed lab leaves no process.

``python -m ringfence.lab.nodes.runner DIRECTORY`` where DIRECTORY is ``LabPaths.pods``, prepared by ``runtime``.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ringfence.lab.images.agnhost import __main__ as agnhost
from ringfence.lab.nodes import birth, kernel
from ringfence.lab.nodes.processes import READ, Log, Streams
from ringfence.lab.nodes.rootfs import PODS, Template, become_template
from ringfence.lab.nodes.runner_connection import Connection, Process

ORPHAN_SECONDS = 60.0
_SETTLE_SECONDS = 0.25


class Runner:
    """The event loop and the table of containers."""

    def __init__(self, template: Template, listener: socket.socket) -> None:
        self._template = template
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._connections: set[Connection] = set()
        self._containers: dict[str, Process] = {}
        self._by_pid: dict[int, Process] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._title = kernel.Title()
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._idle_since = time.monotonic()
        self._stopping = False
        self._requests: dict[str, Callable[[Connection, Mapping[str, Any]], None]] = {
            "attach": self._attach, "exec": self._exec, "hang-up": self._hang_up, "hello": self._hello,
            "list": self._list, "remove": self._remove, "shutdown": self._shutdown, "signal": self._signal,
            "start": self._start, "watch": self._watch_container,
        }  # fmt: skip

    def watch(self, descriptor: int, events: int, ready: Callable[[int], None]) -> None:
        """Call ``ready`` with the events when the descriptor has them; 0 stops watching."""
        known = self._selector.get_map().get(descriptor)
        if known is None and events:
            self._selector.register(descriptor, events, ready)
        elif known is not None and not events:
            self._selector.unregister(descriptor)
        elif known is not None and known.events != events:
            self._selector.modify(descriptor, events, ready)

    def run(self) -> None:
        """Serve until told to stop, or left alone."""
        wake, wake_child = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(wake_child, False)
        signal.set_wakeup_fd(wake_child)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self.watch(wake, READ, lambda _events: self._woken(wake))
        self.watch(self._listener.fileno(), READ, self._accept)
        gc.freeze()  # what is loaded stays shared with the children
        while not self._stopping:
            self._turn()
        for process in self._by_pid.values():
            os.kill(process.pid, signal.SIGKILL)

    def _turn(self) -> None:
        now = time.monotonic()
        if self._connections:
            self._idle_since = now
        elif now - self._idle_since > ORPHAN_SECONDS:
            self._stopping = True
            return
        wait = min((when for when, _ in self._timers), default=now + 5.0) - now
        for key, events in self._selector.select(max(0.0, min(wait, 5.0))):
            if self._selector.get_map().get(key.fd) is key:  # an earlier event of this turn may have closed it
                key.data(events)
        now = time.monotonic()
        due = [action for when, action in self._timers if when <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for action in due:
            action()

    def _accept(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            self._connections.add(Connection(self, sock))

    def forget(self, connection: Connection) -> None:
        """Drop a connection that has closed."""
        self._connections.discard(connection)
        process = connection.process
        if process is None:
            return
        process.streams.detach(connection)
        if connection in process.watchers:
            process.watchers.remove(connection)
        if process.exit is not None:
            return
        if process.request["op"] == "exec":
            process.streams.hang_up()  # nobody reads it any more
        elif process.request["once"] and connection.feeds and not process.streams.tty:
            # "stdin is opened on container start, is empty until the first client attaches to stdin, and then remains
            # open and accepts data until the client disconnects, at which time stdin is closed".
            process.streams.end_input()

    def answer(self, connection: Connection, request: Mapping[str, Any]) -> None:
        """Do what a request asks."""
        try:
            self._requests[request["op"]](connection, request)
        except (OSError, LookupError) as error:
            connection.reply({"error": str(error)}, last=True)

    def _hello(self, connection: Connection, _request: Mapping[str, Any]) -> None:
        connection.reply({"pid": os.getpid()})

    def _list(self, connection: Connection, _request: Mapping[str, Any]) -> None:
        connection.reply({"containers": [process.describe() for process in self._containers.values()]}, last=True)

    def _shutdown(self, connection: Connection, _request: Mapping[str, Any]) -> None:
        self._stopping = True
        connection.reply({}, last=True)

    def _container(self, request: Mapping[str, Any]) -> Process:
        found = self._containers.get(request["id"])
        if found is None:
            raise LookupError(f"container {request['id']} is not here")
        return found

    def _start(self, connection: Connection, request: Mapping[str, Any]) -> None:
        path = Path(PODS, request["log"])
        path.parent.mkdir(parents=True, exist_ok=True)
        streams = Streams(self, Log(path), tty=request["tty"], stdin=request["stdin"])
        network = connection.descriptors[0] if connection.descriptors else -1
        kernel.unshare(kernel.CLONE_NEWPID)
        self._fork(
            connection,
            request,
            streams,
            lambda report: birth.begin(request, self._template, network, streams.child, report, self._title),
        )

    def _exec(self, connection: Connection, request: Mapping[str, Any]) -> None:
        container = self._container(request)
        if container.exit is not None:
            raise LookupError(f"container {request['id']} is not running")
        merged = {**container.request, **request}
        streams = Streams(self, None, tty=request["tty"], stdin=request["stdin"])
        descriptor = os.pidfd_open(container.pid)
        try:
            kernel.setns(descriptor, kernel.CLONE_NEWPID)
            self._fork(
                connection,
                merged,
                streams,
                lambda report: birth.join(merged, descriptor, streams.child, report, self._title),
            )
        finally:
            os.close(descriptor)

    def _fork(
        self, connection: Connection, request: Mapping[str, Any], streams: Streams, become: Callable[[int], None]
    ) -> None:
        """Fork a child into the process namespace prepared for it, and answer when its program runs or has failed."""
        listen, report = os.pipe()
        if connection.process is not None:
            raise LookupError("one connection, one process")
        try:
            pid = os.fork()
            if pid == 0:
                become(report)
        finally:
            os.close(report)
            kernel.setns(self._own_pids, kernel.CLONE_NEWPID)
        process = Process(pid, streams, request)
        self._by_pid[pid] = process
        os.set_blocking(listen, False)
        self.watch(listen, READ, lambda _events: self._born(connection, process, listen))

    def _born(self, connection: Connection, process: Process, report: int) -> None:
        problem = os.read(report, 4096)
        self.watch(report, 0, lambda _events: None)
        os.close(report)
        process.born = True
        process.streams.started()
        connection.drop_descriptors()
        if problem or connection.closed:
            process.streams.hang_up()
            if not problem:
                os.kill(process.pid, signal.SIGKILL)
            connection.reply({"error": problem.decode(errors="replace")}, last=True)
            return
        connection.process = process
        process.watchers.append(connection)
        connection.reply({"pid": process.pid, "started": process.started})
        if process.request["op"] == "start":
            self._containers[process.request["id"]] = process
        else:
            process.streams.attach(connection)
        if process.exit is not None:
            self._settle(process)

    def _attach(self, connection: Connection, request: Mapping[str, Any]) -> None:
        process = self._container(request)
        if process.exit is not None:
            raise LookupError(f"container {request['id']} is not running")
        connection.process = process
        connection.feeds = bool(request["stdin"])
        connection.reply({"pid": process.pid})
        process.streams.attach(connection)
        process.watchers.append(connection)

    def _watch_container(self, connection: Connection, request: Mapping[str, Any]) -> None:
        process = self._container(request)
        connection.reply({"pid": process.pid})
        if process.exit is not None:
            connection.finish(process.exit)
            return
        connection.process = process
        process.watchers.append(connection)

    def _signal(self, connection: Connection, request: Mapping[str, Any]) -> None:
        process = self._container(request)
        if process.exit is None:
            os.kill(process.pid, request["signal"])
        connection.reply({}, last=True)

    def _hang_up(self, connection: Connection, request: Mapping[str, Any]) -> None:
        process = self._container(request)
        if process.streams.tty:
            process.streams.hang_up()
        connection.reply({}, last=True)

    def _remove(self, connection: Connection, request: Mapping[str, Any]) -> None:
        self._containers.pop(request["id"], None)  # one that still runs is reaped without anybody asking
        connection.reply({}, last=True)

    def _woken(self, wake: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self._by_pid.pop(pid, None)
            if process is None:
                continue
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            code = 128 + number if number else os.WEXITSTATUS(status)
            process.exit = {"code": code, "signal": number, "finished": time.time()}
            if process.born:
                self._settle(process)

    def _settle(self, process: Process) -> None:
        """Pass on the last of a process's output, then its end. What a terminal still holds needs a moment."""
        process.streams.drain()
        if process.streams.is_open() and process.streams.tty:
            self._timers.append((time.monotonic() + _SETTLE_SECONDS, lambda: self._end(process)))
        else:
            self._end(process)

    def _end(self, process: Process) -> None:
        process.streams.drain()
        process.streams.hang_up()
        assert process.exit is not None
        for watcher in list(process.watchers):
            watcher.finish(process.exit)


def main(directory: Path) -> int:
    """Run until told to stop; exit code 3 if another runner serves this directory already."""
    home, pods = directory, directory
    lock = os.open(directory / "runner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 3
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    os.chdir(directory)  # the path of a Unix socket may have only 107 bytes
    Path("runner.sock").unlink(missing_ok=True)
    agnhost.load()  # its files are out of sight when a container wants them
    kernel.unshare(kernel.CLONE_NEWNS)
    template = become_template(home, pods)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.chdir(PODS)
    listener.bind("runner.new")
    Path("runner.new").chmod(0o600)
    listener.listen(1024)
    listener.setblocking(False)
    # Under its final name only now: whoever can connect is answered.
    Path("runner.new").rename("runner.sock")
    os.chdir("/")
    os.umask(0o022)
    Runner(template, listener).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
