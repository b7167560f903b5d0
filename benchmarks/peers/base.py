"""What every peer in Python implements, and what blocking clients have in common."""

from __future__ import annotations

import abc
import dataclasses
import ssl
from collections.abc import Callable
from typing import Any, Protocol

Message = str | bytes

#: Called by a server with its port, as soon as it listens.
Ready = Callable[[int], None]

#: The greatest message of the suite, and a byte.
MAX_SIZE = (1 << 20) + 1


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a worker process is told."""

    message: Message
    port: int = 0
    #: For servers: echo, source, sink or broadcast.
    mode: str = "echo"
    deflate: bool = False
    #: A file each: the certificate and its key for servers, the authority for clients.
    certificate: str | None = None
    key: str | None = None
    authority: str | None = None
    #: Whether connections send pings, where that is the library's default: they cost memory.
    keepalive: bool = False

    @property
    def url(self) -> str:
        scheme = "wss" if self.authority else "ws"
        return f"{scheme}://localhost:{self.port}/" if self.authority else self.plain_url

    @property
    def plain_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    def server_tls(self) -> ssl.SSLContext | None:
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.authority) if self.authority else None


class Client(Protocol):
    """The client's end. Every call does a whole piece of work and is timed from outside."""

    def open(self) -> None: ...

    def echo(self, count: int) -> None: ...

    def receive(self, count: int) -> None: ...

    def send(self, count: int) -> None: ...

    def handshake(self, count: int) -> None: ...

    def close(self) -> None: ...


class BlockingClient(abc.ABC):
    """A client on any connection object with blocking calls."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.connection: Any = None

    @abc.abstractmethod
    def dial(self) -> Any:
        """Return an open connection."""

    def sender(self) -> Callable[[Any], object]:
        """The method that sends the message of this run."""
        send: Callable[[Any], object] = self.connection.send
        return send

    def text_sender(self) -> Callable[[str], object]:
        """The method that sends text."""
        send: Callable[[str], object] = self.connection.send
        return send

    def receiver(self) -> Callable[[], Any]:
        """The method that receives a message, as str or bytes."""
        receive: Callable[[], Any] = self.connection.recv
        return receive

    def open(self) -> None:
        self.connection = self.dial()

    def close(self) -> None:
        self.connection.close()

    def echo(self, count: int) -> None:
        send, receive, message = self.sender(), self.receiver(), self.options.message
        reply = None
        for _ in range(count):
            send(message)
            reply = receive()
        expect(reply, message)

    def receive(self, count: int) -> None:
        receive = self.receiver()
        self.text_sender()(str(count))
        reply = None
        for _ in range(count):
            reply = receive()
        expect(reply, self.options.message)

    def send(self, count: int) -> None:
        send, message = self.sender(), self.options.message
        for _ in range(count):
            send(message)
        self.text_sender()("done")
        expect(self.receiver()(), "ok")

    def handshake(self, count: int) -> None:
        for _ in range(count):
            self.dial().close()


def expect(got: object, wanted: Message) -> None:
    """Check the last message of a run: a peer that is fast and wrong shall not win."""
    if got != wanted or type(got) is not type(wanted):
        raise RuntimeError(f"wrong message: {got!r:.80}")


def serve_blocking(
    mode: str,
    message: Message,
    send: Callable[[Any], object],
    receive: Callable[[], Any],
    broadcast: Callable[[Any], object],
) -> None:
    """Be the server's end of one connection, until ``receive`` raises."""
    if mode == "echo":
        while True:
            send(receive())
    elif mode == "source":
        while True:
            for _ in range(int(receive())):
                send(message)
    elif mode == "sink":
        while True:
            if receive() == "done":
                send("ok")
    elif mode == "broadcast":
        while True:
            receive()
            broadcast(message)
