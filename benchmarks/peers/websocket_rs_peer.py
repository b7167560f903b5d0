"""websocket-rs: the sync client."""

from __future__ import annotations

from typing import Any

from websocket_rs.sync.client import connect

from .base import BlockingClient, Options


class RustClient(BlockingClient):
    def dial(self) -> Any:
        return connect(self.options.url)


def client(options: Options, root: str) -> RustClient:
    return RustClient(options)
