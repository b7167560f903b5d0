"""Pairs of streams, and sockets that misbehave."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import trustme

SOON = 0.05


def soon() -> float:
    return time.monotonic() + SOON


def masked(fd: ModuleType, payload: Any) -> tuple[bytes, Any, Any]:
    """What `Stream.write_masked` takes: a header, the encoder that has just made it, the payload."""
    encoder = fd.codec.Encoder(masked=True)
    return encoder.header(0x82, len(payload)), encoder, payload


def arguments(fd: ModuleType, method: str, data: bytes) -> tuple[Any, ...]:
    """What the methods of a stream that write take before the deadline."""
    if method == "write_masked":
        return masked(fd, data)
    return (data,) if method == "write" else (b"head", data)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


class Faulty:
    """A socket that takes and gives less than it could, or nothing, or is interrupted; with a seed."""

    def __init__(self, sock: socket.socket, seed: int) -> None:
        self.sock = sock
        self.random = random.Random(seed)
        self.fileno = sock.fileno
        self.setblocking = sock.setblocking
        self.shutdown = sock.shutdown
        self.close = sock.close

    def _fault(self) -> None:
        kind = self.random.randrange(6)
        if kind == 0:
            raise BlockingIOError
        if kind == 1:
            raise InterruptedError

    def send(self, data: Any) -> int:
        self._fault()
        return self.sock.send(memoryview(data)[: self.random.choice([1, 7, 1000, 100_000])])

    def sendmsg(self, parts: list[Any]) -> int:
        data = b"".join(bytes(part) for part in parts)
        return self.send(data)

    def recv_into(self, view: memoryview) -> int:
        self._fault()
        return self.sock.recv_into(view[: self.random.choice([1, 7, 1000, 100_000])])


class Bare:
    """As little of a socket as can be used: no descriptor, no sendmsg, no shutdown."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.send = sock.send
        self.recv_into = sock.recv_into
        self.setblocking = sock.setblocking
        self.close = sock.close


def read_exactly(stream: Any, size: int, deadline: float | None = None) -> bytes:
    """Read so many bytes, or up to the end of the stream."""
    data = bytearray()
    buffer = memoryview(bytearray(100_000))
    while len(data) < size:
        count = stream.recv_into(buffer[: size - len(data)], deadline)
        if count <= 0:
            break
        data += buffer[:count]
    return bytes(data)


class Background:
    """A call in a thread, whose result or exception is asked for later."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(call, *args), daemon=True)
        self.thread.start()

    def _run(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            self.value = call(*args)
        except BaseException as exc:
            self.error = exc

    def result(self, timeout: float = 20) -> Any:
        self.thread.join(timeout)
        assert not self.thread.is_alive(), "the call did not come back"
        if self.error is not None:
            raise self.error
        return self.value


def until(condition: Callable[[], Any]) -> None:
    """Wait for what another thread brings about."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.001)


def fill(stream: Any) -> bytes:
    """Write until the network takes nothing more; returns what was written."""
    written = b""
    block = bytes(range(256)) * 64
    while True:
        count = stream.send_some(block)
        written += block[:count]
        if count == 0:
            return written


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's and a server's."""
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return client, server


def tls_pair(
    fd: ModuleType,
    raw: tuple[Any, Any],
    client_context: ssl.SSLContext,
    server_context: ssl.SSLContext,
    portable: bool = False,
) -> tuple[Any, Any]:
    """Put TLS over a pair of streams: the best there is, or the one that works everywhere."""
    make = fd.stream.TLSStream if portable else fd.stream.open_tls_stream
    client = make(raw[0], client_context, server_hostname="localhost")
    server = make(raw[1], server_context, server_side=True)
    deadline = time.monotonic() + 20
    other = Background(server.handshake, deadline)
    client.handshake(deadline)
    other.result()
    return client, server
