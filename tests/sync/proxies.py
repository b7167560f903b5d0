"""Proxies in small, for tests of the client."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import struct
import threading
from types import ModuleType
from typing import Any

from .peers import (
    TLSSocket,
    header,
    read_head,
    reply,
)


def pump(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for sock in (source, target):
        with contextlib.suppress(OSError, AttributeError):
            getattr(sock, "raw", sock).shutdown(socket.SHUT_RDWR)


def join(client: Any, server: socket.socket) -> None:
    """Carry bytes both ways until one of the sides ends. TLS is for one thread: the client's."""
    if isinstance(client, TLSSocket):
        # The same without a second thread inside TLS: ask the server only when it has something.
        join_tls(client, server)
        return
    thread = threading.Thread(target=pump, args=(server, client))
    thread.start()
    pump(client, server)
    thread.join()


def join_tls(client: TLSSocket, server: socket.socket) -> None:
    import select

    raw = client.raw
    with contextlib.suppress(OSError):
        while True:
            ready, _, _ = select.select([raw, server], [], [], 5)
            if server in ready:
                data = server.recv(65536)
                if not data:
                    return
                client.sendall(data)
            if raw in ready:
                received = raw.recv(65536)
                if not received:
                    return
                client.incoming.write(received)
                with contextlib.suppress(ssl.SSLWantReadError):
                    while data := client.object.read(65536):
                        server.sendall(data)


class HTTPProxy:
    """A handler that is an HTTP proxy: names lead to the loopback."""

    def __init__(self, credentials: str | None = None, protocol: str = "HTTP/1.1") -> None:
        self.credentials = credentials
        self.protocol = protocol
        self.heads: list[str] = []

    def __call__(self, sock: Any) -> None:
        head = read_head(sock)
        self.heads.append(head)
        if self.credentials is not None:
            expected = base64.b64encode(self.credentials.encode()).decode()
            if header(head, "Proxy-Authorization") != f"Basic {expected}":
                sock.sendall(reply("407 Proxy Authentication Required", body="no"))
                return
        match = re.match(r"CONNECT (.*):(\d+) HTTP/1.1\r\n", head)
        assert match is not None
        with socket.create_connection(("127.0.0.1", int(match[2]))) as server:
            sock.sendall(f"{self.protocol} 200 Connection established\r\n\r\n".encode())
            join(sock, server)


class SOCKSProxy:
    """A handler that is a SOCKS proxy: names lead to the loopback."""

    def __init__(self, credentials: tuple[bytes, bytes] | None = None) -> None:
        self.credentials = credentials
        self.destinations: list[tuple[str, str]] = []

    def __call__(self, sock: Any) -> None:
        stream = sock.makefile("rb", buffering=0)
        read = lambda size: stream.read(size) if size else b""  # noqa: E731
        port = self.version_5(sock, read) if read(1) == b"\x05" else self.version_4(sock, read)
        stream.close()
        if port is None:
            return
        with socket.create_connection(("127.0.0.1", port)) as server:
            join(sock, server)

    def version_5(self, sock: Any, read: Any) -> int | None:
        methods = read(read(1)[0])
        if self.credentials is not None:
            assert 2 in methods
            sock.sendall(b"\x05\x02")
            assert read(1) == b"\x01"
            given = (read(read(1)[0]), read(read(1)[0]))
            if given != self.credentials:
                sock.sendall(b"\x01\x01")
                return None
            sock.sendall(b"\x01\x00")
        else:
            sock.sendall(b"\x05\x00")
        assert read(3) == b"\x05\x01\x00"
        kind = read(1)[0]
        if kind == 3:
            host = read(read(1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, read(size))
        (port,) = struct.unpack("!H", read(2))
        self.destinations.append(("name" if kind == 3 else "address", host))
        sock.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50")
        return int(port)

    def version_4(self, sock: Any, read: Any) -> int | None:
        assert read(1) == b"\x01"
        port, address = struct.unpack("!H4s", read(6))
        until_nul = lambda: b"".join(iter(lambda: read(1), b"\0"))  # noqa: E731
        until_nul()
        if address[:3] == b"\0\0\0":
            self.destinations.append(("name", until_nul().decode()))
        else:
            self.destinations.append(("address", socket.inet_ntoa(address)))
        sock.sendall(b"\x00\x5a" + 6 * b"\0")
        return int(port)


def connect_through(fd: ModuleType, uri: str, proxy: str, **kwargs: Any) -> None:
    """Connect through a proxy, and see that it works."""
    with fd.sync.client.connect(uri, proxy=proxy, compression=None, **kwargs) as websocket:
        websocket.send("through")
        assert websocket.recv(timeout=5) == "through"
