"""Connections over socket pairs: to a raw peer that is driven frame by frame, or to one another."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Self

TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10

TIMEOUT = 20.0
"""Seconds after which something that should have happened is given up."""


def eventually(condition: Callable[[], Any], message: str = "it never came true") -> None:
    """Wait until something is true that nobody tells us about; the clock decides nothing else."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.001)


class RawPeer:
    """The other end of a connection: a socket that sends and expects single frames."""

    def __init__(self, fd: ModuleType, sock: socket.socket, masks: bool) -> None:
        self.fd = fd
        self.sock = sock
        self.sock.settimeout(TIMEOUT)
        self.masks = masks
        self.data = b""

    def send(self, opcode: int, payload: bytes = b"", fin: bool = True) -> None:
        self.sock.sendall(self.frame(opcode, payload, fin))

    def frame(self, opcode: int, payload: bytes = b"", fin: bool = True) -> bytes:
        frame: bytes = self.fd.codec.build_frame(
            opcode, payload, fin=fin, mask=b"\x11\x22\x33\x44" if self.masks else None
        )
        return frame

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        self.send(CLOSE, code.to_bytes(2, "big") + reason.encode())

    def _take(self, count: int) -> bytes:
        while len(self.data) < count:
            received = self.sock.recv(65536)
            if not received:
                raise EOFError(f"end of stream after {self.data[:100]!r}")
            self.data += received
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def receive(self) -> tuple[int, bool, bytes]:
        """Give the next frame: opcode, FIN, payload. EOFError at the end of the stream."""
        first, second = self._take(2)
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(self._take(2), "big")
        elif size == 127:
            size = int.from_bytes(self._take(8), "big")
        assert (second & 0x80 != 0) != self.masks, "the connection has to mask if its peer doesn't"
        key = b"" if self.masks else self._take(4)
        payload = self._take(size)
        if key:
            payload = self.fd.codec.apply_mask(payload, key)
        return first & 0x0F, first & 0x80 != 0, payload

    def expect(self, opcode: int, payload: bytes | None = None) -> bytes:
        """Receive one whole frame of this opcode, and payload if given."""
        found, fin, data = self.receive()
        assert (found, fin) == (opcode, True), (found, fin, data)
        assert payload is None or data == payload
        return data

    def expect_close(self, code: int) -> str:
        """Receive a Close frame with this code; gives its reason."""
        data = self.expect(CLOSE)
        assert int.from_bytes(data[:2], "big") == code, data
        return data[2:].decode()

    def expect_eof(self) -> None:
        try:
            left = self.data or self.sock.recv(65536)
        except ConnectionResetError:
            left = b""
        assert left == b""

    def answer_close(self) -> None:
        """Do the peer's part of a closing handshake that the connection begins."""
        data = self.expect(CLOSE)
        self.send(CLOSE, data)
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def small_buffers(sock: socket.socket) -> None:
    """Have a few kilobytes fill the way from this socket and to it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)


@contextlib.contextmanager
def link(
    fd: ModuleType,
    *,
    side: str = "CLIENT",
    wrap: Callable[[socket.socket], Any] | None = None,
    max_size: Any = 2**20,
    small: bool = False,
    extensions: Any = (),
    **options: Any,
) -> Iterator[tuple[Any, RawPeer]]:
    """A connection and its raw peer. Keepalive is started if there is a ``ping_interval``."""
    ours, theirs = socket.socketpair()
    if small:
        small_buffers(ours)
        small_buffers(theirs)
    options.setdefault("ping_interval", None)
    protocol = fd.protocol.Protocol(fd.protocol.Side[side], max_size=max_size)
    if extensions:
        protocol.extensions = list(extensions)
    connection = fd.sync.connection.Connection(
        ours if wrap is None else wrap(ours), protocol, **options
    )
    if options["ping_interval"] is not None:
        connection.start_keepalive()
    peer = RawPeer(fd, theirs, masks=side == "SERVER")
    try:
        yield connection, peer
    finally:
        peer.close()
        connection.close()
        ours.close()


def streams(
    fd: ModuleType, contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None = None
) -> tuple[Any, Any]:
    """Give a client's and a server's stream that lead to one another, over TLS if there are contexts."""
    client_sock, server_sock = socket.socketpair()
    client, server = fd.stream.open_stream(client_sock), fd.stream.open_stream(server_sock)
    if contexts is None:
        return client, server
    server_context, client_context = contexts
    client = fd.stream.TLSStream(client, client_context, server_hostname="localhost")
    server = fd.stream.TLSStream(server, server_context, server_side=True)
    deadline = time.monotonic() + TIMEOUT
    with Background(lambda: server.handshake(deadline)):
        client.handshake(deadline)
    return client, server


@contextlib.contextmanager
def pair(
    fd: ModuleType,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    *,
    max_size: Any = 2**20,
    **options: Any,
) -> Iterator[tuple[Any, Any]]:
    """Two connections, client and server, to one another."""
    options.setdefault("ping_interval", None)
    ends = [
        fd.sync.connection.Connection(
            stream, fd.protocol.Protocol(side, max_size=max_size), **options
        )
        for stream, side in zip(
            streams(fd, contexts), (fd.protocol.Side.CLIENT, fd.protocol.Side.SERVER), strict=True
        )
    ]
    try:
        yield ends[0], ends[1]
    finally:
        with Background(ends[1].close):
            ends[0].close()


class Background:
    """A function in a thread, as a context manager that joins it and raises what it raised.

    ``result()`` gives what the function returned.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.value: Any = None
        self.exception: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.value = self.function()
        except BaseException as exc:
            self.exception = exc

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def join(self) -> None:
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive(), f"{self.function} does not end"

    def result(self) -> Any:
        self.join()
        if self.exception is not None:
            exception, self.exception = self.exception, None
            raise exception
        return self.value

    def __exit__(self, exc_type: object, exc_value: object, traceback: object) -> None:
        if exc_type is None:
            self.result()


def reading(connection: Any) -> bool:
    """Tell whether a thread is in recv() or the like."""
    return bool(connection._reader.owner == 1)


def writing(connection: Any) -> bool:
    """Tell whether a thread is in send()."""
    return bool(connection._writer.owner != 0)


def wait_reading(connection: Any) -> None:
    """Wait until another thread is in recv(), and has had the time to wait for the network."""
    eventually(lambda: reading(connection))


class FaultySocket:
    """A socket-like object around a socket, whose calls can be made to fail.

    ``faults`` maps the name of a method to an exception that its next calls raise.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.faults: dict[str, BaseException] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.sock, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if name in self.faults:
                raise self.faults[name]
            return method(*args, **kwargs)

        return call
