"""Pings that wait for their pong."""

from __future__ import annotations

import os
import threading
import time


def new_payload() -> bytes:
    """Make up the payload of a ping, four random bytes."""
    return os.urandom(4)


class Ping:
    """A ping that waits for its pong."""

    __slots__ = ("ack_on_close", "event", "sent")

    def __init__(self, ack_on_close: bool) -> None:
        self.event = threading.Event()
        self.ack_on_close = ack_on_close
        self.sent = time.monotonic()
