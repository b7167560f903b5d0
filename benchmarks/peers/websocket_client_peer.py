"""websocket-client: ``websocket.create_connection``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import websocket

from .base import BlockingClient, Options


class PlainClient(BlockingClient):
    def dial(self) -> Any:
        tls = {"context": self.options.client_tls()} if self.options.authority else None
        return websocket.create_connection(self.options.url, sslopt=tls)

    def sender(self) -> Callable[[Any], object]:
        binary = isinstance(self.options.message, bytes)
        send: Callable[[Any], object] = (
            self.connection.send_binary if binary else self.connection.send_text
        )
        return send


def client(options: Options, root: str) -> PlainClient:
    return PlainClient(options)
