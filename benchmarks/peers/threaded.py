"""websockets' threading API, and Fullduplex, which is spelled the same."""

from __future__ import annotations

import importlib
from typing import Any

from .base import MAX_SIZE, BlockingClient, Options, Ready, serve_blocking


def _settings(options: Options) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "compression": "deflate" if options.deflate else None,
        "max_size": MAX_SIZE,
    }
    if options.keepalive:
        # The load generator does not answer pings; opening 10,000 connections can take longer than
        # a ping may stay without an answer.
        settings["ping_timeout"] = None
    else:
        settings["ping_interval"] = None
    return settings


class ThreadedClient(BlockingClient):
    def __init__(self, options: Options, root: str) -> None:
        super().__init__(options)
        self.connect = importlib.import_module(f"{root}.sync.client").connect
        self.tls = options.client_tls()

    def dial(self) -> Any:
        options = self.options
        return self.connect(options.url, ssl=self.tls, proxy=None, **_settings(options))


def client(options: Options, root: str) -> ThreadedClient:
    return ThreadedClient(options, root)


def serve(options: Options, ready: Ready, root: str) -> None:
    module = importlib.import_module(f"{root}.sync.server")
    closed = importlib.import_module(f"{root}.exceptions").ConnectionClosed

    def handler(connection: Any) -> None:
        def to_all(message: Any) -> None:
            module.broadcast(server.connections, message)

        try:
            serve_blocking(options.mode, options.message, connection.send, connection.recv, to_all)
        except closed:
            pass

    server = module.serve(
        handler, "127.0.0.1", 0, ssl=options.server_tls(), **_settings(options), backlog=4096
    )
    ready(server.socket.getsockname()[1])
    server.serve_forever()
