"""Servers and bare clients for the tests, on the loopback interface."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import trustme

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
TIMEOUT = 10.0
"""Seconds after which something that should have happened is given up."""


@functools.cache
def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Give contexts for a server called localhost and for its clients."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client


def eventually(condition: Callable[[], Any]) -> None:
    """Wait until something is true that nobody tells us about; the clock decides nothing else."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


def request(path: str = "/", headers: str = "", host: str = "localhost") -> bytes:
    """Give the bytes of a valid opening handshake."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    ).encode("latin-1")


def handler_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "fullduplex handler"]


def run_script(fd: ModuleType, source: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, on the same implementation from the same place."""
    environment = {
        **os.environ,
        "FULLDUPLEX_PURE_PYTHON": "1" if fd.IMPLEMENTATION == "pure" else "0",
        "PYTHONPATH": str(Path(fd.__file__ or "").parent.parent),
    }
    return subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, timeout=50
    )


class Running:
    """A server whose accept loop runs in a thread."""

    def __init__(self, fd: ModuleType, server: Any) -> None:
        self.fd = fd
        self.server = server
        self.address = server.socket.getsockname()
        self.thread = threading.Thread(target=server.serve_forever, name="serve_forever")
        self.thread.start()

    def connect(self) -> socket.socket:
        """Open a bare connection."""
        sock = socket.socket(self.server.socket.family)
        try:
            sock.settimeout(TIMEOUT)
            sock.connect(self.address)
        except BaseException:
            sock.close()
            raise
        return sock

    def exchange(self, data: bytes) -> bytes:
        """Send bytes and give all that comes back until the server closes."""
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock)

    def dial(
        self,
        path: str = "/",
        *,
        headers: dict[str, str] | None = None,
        sock: Any = None,
        connection: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Open a WebSocket connection.

        Raises:
            InvalidHandshake: if the server refuses.
        """
        fd = self.fd
        protocol = fd.client.ClientProtocol(fd.uri.parse_uri(f"ws://localhost{path}"), **options)
        protocol.pulling = True
        opening = protocol.connect()
        for name, value in (headers or {}).items():
            opening.headers[name] = value
        protocol.send_request(opening)
        sock = self.connect() if sock is None else sock
        try:
            for data in protocol.data_to_send():
                sock.sendall(data)
            while not protocol.events:
                data = sock.recv(65536)
                if data:
                    protocol.receive_data(data)
                else:
                    protocol.receive_eof()
                if protocol.handshake_exc is not None:
                    raise protocol.handshake_exc
        except BaseException:
            sock.close()
            raise
        (response,) = protocol.events_received()
        settings = {"ping_interval": None, "close_timeout": TIMEOUT, **(connection or {})}
        made = fd.sync.connection.Connection(sock, protocol, **settings)
        made.request, made.response = opening, response
        return made


def read_all(sock: socket.socket) -> bytes:
    """Read until the end of the stream."""
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


def echo(connection: Any) -> None:
    for message in connection:
        connection.send(message)


def quiet(connection: Any) -> None:
    """Read until the end, whatever it is."""
    with contextlib.suppress(Exception):
        for _ in connection:
            pass


@contextlib.contextmanager
def running(
    fd: ModuleType, handler: Callable[[Any], None] = quiet, **kwargs: Any
) -> Iterator[Running]:
    """Run a server; afterwards it has shut down, and its thread is gone."""
    make = fd.sync.server.serve
    if "path" in kwargs or kwargs.pop("unix", False):
        make = fd.sync.server.unix_serve
    elif "sock" not in kwargs:
        kwargs.setdefault("host", "127.0.0.1")
    kwargs.setdefault("close_timeout", 2)
    with running_server(fd, make(handler, **kwargs)) as run:
        yield run


@contextlib.contextmanager
def running_server(fd: ModuleType, server: Any) -> Iterator[Running]:
    run = Running(fd, server)
    try:
        yield run
    finally:
        server.shutdown()
        run.thread.join(TIMEOUT)
        assert not run.thread.is_alive()
