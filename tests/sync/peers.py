"""Small servers for tests of the client, each in a thread, over real sockets."""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

V4, V6 = socket.AF_INET, socket.AF_INET6

Handler = Callable[[Any], None]

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Peer:
    """A listening socket, and a function that is called with each connection, in a thread.

    Errors of the network in the function are part of the game; all others fail the test. At the
    end all connections are closed, and all threads have ended.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        family: int = socket.AF_INET,
        path: Path | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.handler = handler
        self.context = context
        self.sock = socket.socket(family)
        if path is None:
            self.sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            self.port = self.sock.getsockname()[1]
        else:
            self.sock.bind(str(path))
        self.sock.listen()
        self.accepted = 0
        self.peers: list[Any] = []
        self.errors: list[Exception] = []
        self.connections: list[socket.socket] = []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._accept)]

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def secure_uri(self) -> str:
        return f"wss://localhost:{self.port}"

    def __enter__(self) -> Self:
        self.threads[0].start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.threads[0].join()
        self.sock.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        if exc_type is None and self.errors:
            raise self.errors[0]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until something has happened in a handler; fails after some seconds."""
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            assert not self.errors, self.errors
            time.sleep(0.001)

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self.sock.accept()
            except OSError:
                return
            self.accepted += 1
            self.peers.append(address)
            self.connections.append(connection)
            thread = threading.Thread(target=self._handle, args=(connection,))
            self.threads.append(thread)
            thread.start()

    def _handle(self, connection: socket.socket) -> None:
        sock: Any = connection
        try:
            if self.context is not None:
                sock = TLSSocket(connection, self.context)
            self.handler(sock)
        except OSError:
            pass
        except Exception as exc:
            self.errors.append(exc)
        finally:
            sock.close()


class TLSSocket:
    """TLS in memory over anything with sendall() and recv(): also over another one of these."""

    def __init__(self, raw: Any, context: ssl.SSLContext) -> None:
        self.raw = raw
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self._run(self.object.do_handshake)

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        while True:
            try:
                result = function(*args)
            except ssl.SSLWantReadError:
                self._flush()
                data = self.raw.recv(65536)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            except ssl.SSLError:
                self._flush()
                raise
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if self.outgoing.pending:
            self.raw.sendall(self.outgoing.read())

    def sendall(self, data: bytes) -> None:
        self._run(self.object.write, data)

    def recv(self, size: int) -> bytes:
        try:
            data: bytes = self._run(self.object.read, size)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        return data

    def close(self) -> None:
        self.raw.close()


def read_head(sock: Any) -> str:
    """Read a request up to its empty line; what follows it must not have come yet."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = sock.recv(65536)
        if not received:
            raise ConnectionError("the client went away")
        data += received
    assert data.endswith(b"\r\n\r\n"), data
    return data.decode("latin-1")


def header(head: str, name: str) -> str | None:
    """Give the value of a header that is there once, or None."""
    lines = [line.partition(": ") for line in head.split("\r\n")[1:]]
    values = [value for key, _, value in lines if key.lower() == name.lower()]
    assert len(values) <= 1, values
    return values[0] if values else None


def switching(head: str, extra: str = "") -> bytes:
    """Make the response that opens the connection."""
    digest = hashlib.sha1(f"{header(head, 'Sec-WebSocket-Key')}{GUID}".encode()).digest()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n{extra}\r\n"
    ).encode()


def reply(status: str, headers: str = "", body: str = "") -> bytes:
    """Make another response."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n{body}".encode()


def read_frame(sock: Any, data: bytes = b"") -> tuple[int, bytes]:
    """Read a small masked frame, which may have begun: its opcode and its payload."""
    while len(data) < 6 or len(data) < 6 + (data[1] & 0x7F):
        received = sock.recv(6 + (data[1] & 0x7F) - len(data) if len(data) >= 2 else 2 - len(data))
        if not received:
            raise ConnectionError("the client went away")
        data += received
    assert data[1] & 0x80
    key = data[2:6]
    return data[0] & 0x0F, bytes(byte ^ key[i % 4] for i, byte in enumerate(data[6:]))


def frame(opcode: int, payload: bytes) -> bytes:
    """Make a small frame of a server."""
    return bytes([0x80 | opcode, len(payload)]) + payload


def serve_echo(sock: Any) -> None:
    """Send messages and pings back until the client closes."""
    while True:
        opcode, payload = read_frame(sock)
        sock.sendall(frame(opcode, payload))
        if opcode == 8:
            return


def echo(sock: Any) -> None:
    """Accept every client, without extensions, and echo."""
    sock.sendall(switching(read_head(sock)))
    serve_echo(sock)


def answer(data: bytes) -> Handler:
    """Make a handler that reads the request, sends something, and ends the stream."""

    def handler(sock: Any) -> None:
        read_head(sock)
        sock.sendall(data)

    return handler


def silent(sock: Any) -> None:
    """Read until the client goes away, and never say anything."""
    while sock.recv(65536):
        pass


def answer_and_stay(data: bytes) -> Handler:
    """Make a handler that answers, and keeps the connection open."""

    def handler(sock: Any) -> None:
        read_head(sock)
        sock.sendall(data)
        silent(sock)

    return handler


class Recorder:
    """A handler that notes requests, and answers each with the next of some responses.

    When there are no more of them, it accepts the client and echoes.
    """

    def __init__(self, *responses: bytes) -> None:
        self.responses = list(responses)
        self.heads: list[str] = []

    def __call__(self, sock: Any) -> None:
        head = read_head(sock)
        self.heads.append(head)
        if self.responses:
            sock.sendall(self.responses.pop(0))
        else:
            sock.sendall(switching(head))
            serve_echo(sock)


def free_port() -> int:
    """Give a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """Give a port whose queue of connections is full, so that connecting to it never ends."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        while True:
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            code = client.connect_ex(address)
            if code:  # in progress, and it stays so
                break
        yield address[1]


@contextlib.contextmanager
def full_socket() -> Iterator[socket.socket]:
    """Give a connected socket that takes no more bytes, since its peer does not read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(b"\0")
        yield ours


def descriptors() -> set[str]:
    """Give the open file descriptors, with what they lead to."""
    gc.collect()
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


@contextlib.contextmanager
def no_leak(fd: ModuleType) -> Iterator[None]:
    """Check that what happens inside leaves no descriptor open, once the peers have ended too."""
    if not os.path.isdir("/proc/self/fd"):
        yield
        return
    fd.sync.service.get_service()
    before = descriptors()
    yield
    deadline = time.monotonic() + 5
    while left := descriptors() - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.001)


def entry(host: str, port: int) -> Any:
    """Make one of the entries that getaddrinfo() gives."""
    address = (host, port, 0, 0) if ":" in host else (host, port)
    return (V6 if ":" in host else V4, socket.SOCK_STREAM, 6, "", address)


def dial(
    fd: ModuleType, host: str, port: int, timeout: float | None = 5, cancel: Any = None, **kw: Any
) -> socket.socket:
    """Dial as the client does."""
    dialing = fd.sync.dialing
    deadline = None if timeout is None else time.monotonic() + timeout
    sock: socket.socket = dialing.dial(host, port, dialing.DialOptions(**kw), deadline, cancel)
    return sock
