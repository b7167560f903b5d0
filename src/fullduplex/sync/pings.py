"""Pings that wait for their pong."""

from __future__ import annotations

import os
import threading
import time


def new_payload() -> bytes:
    """Make up the payload of a ping, four random bytes."""
    return os.urandom(4)


def check_interval(ping_interval: float | None) -> None:
    """Refuse an interval between pings that would leave no time between them."""
    if ping_interval is not None and not ping_interval > 0:
        raise ValueError(f"ping_interval must be positive, or None for no pings: {ping_interval}")


class Ping:
    """A ping that waits for its pong."""

    __slots__ = ("ack_on_close", "event", "sent")

    def __init__(self, ack_on_close: bool) -> None:
        self.event = threading.Event()
        self.ack_on_close = ack_on_close
        self.sent = time.monotonic()
