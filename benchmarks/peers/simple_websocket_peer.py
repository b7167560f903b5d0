"""simple-websocket, with the smallest possible HTTP server in front: a thread per connection."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import simple_websocket

from .base import BlockingClient, Options, Ready, serve_blocking


class SimpleClient(BlockingClient):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.tls = options.client_tls()

    def dial(self) -> Any:
        return simple_websocket.Client.connect(self.options.url, ssl_context=self.tls)

    def receiver(self) -> Callable[[], Any]:
        receive: Callable[[], Any] = self.connection.receive
        return receive


def client(options: Options, root: str) -> SimpleClient:
    return SimpleClient(options)


def serve(options: Options, ready: Ready, root: str) -> None:
    everybody: set[Any] = set()
    tls = options.server_tls()

    def broadcast(message: Any) -> None:
        for other in list(everybody):
            other.send(message)

    def handle(plain: socket.socket) -> None:
        with _wrapped(plain, tls) as connection:
            websocket = simple_websocket.Server.accept(_environment(connection))
            everybody.add(websocket)
            try:
                serve_blocking(
                    options.mode, options.message, websocket.send, websocket.receive, broadcast
                )
            except simple_websocket.ConnectionClosed:
                everybody.discard(websocket)

    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    ready(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=handle, args=(connection,), daemon=True).start()


def _wrapped(connection: socket.socket, tls: ssl.SSLContext | None) -> socket.socket:
    return tls.wrap_socket(connection, server_side=True) if tls else connection


def _environment(connection: socket.socket) -> dict[str, Any]:
    """What a WSGI server would hand over."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = connection.recv(8192)
        if not data:
            raise ConnectionError("no request")
        head += data
    environment: dict[str, Any] = {"werkzeug.socket": connection}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            environment["HTTP_" + name.upper().replace("-", "_")] = value.strip()
    return environment
