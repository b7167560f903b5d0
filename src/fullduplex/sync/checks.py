"""Arguments that would do harm only later: when a connection closes, or with the first client."""

from __future__ import annotations

import math
import numbers
from typing import Any

from .core import ConnectionCore

__all__ = [
    "check_callable",
    "check_count",
    "check_keeping",
    "check_seconds",
    "check_several",
    "check_tls",
]


def check_seconds(name: str, value: Any) -> None:
    """Refuse a time-out that is no number of seconds; None stands for no limit."""
    # This first, since what is a Real takes its time.
    if value is None or (type(value) in (int, float) and value >= 0):
        return
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number of seconds, or None: {value!r}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"{name} must not be negative: {value!r}")


def check_count(name: str, value: Any, least: int) -> None:
    """Refuse a limit that is no whole number, or a smaller one; None stands for no limit."""
    if value is None:
        return
    if not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, or None: {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} at least, or None for no limit: {value}")


def check_keeping(ping_interval: Any, ping_timeout: Any, close_timeout: Any) -> None:
    """Check how a connection is to be kept; `queue_limits` checks the rest."""
    check_seconds("ping_interval", ping_interval)
    if ping_interval is not None and not ping_interval > 0:
        raise ValueError(f"ping_interval must be positive, or None for no pings: {ping_interval}")
    check_seconds("ping_timeout", ping_timeout)
    check_seconds("close_timeout", close_timeout)


def check_callable(**functions: Any) -> None:
    """Refuse what cannot be called; None stands for no function."""
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be callable: {function!r}")


def check_tls(name: str, context: Any) -> None:
    """Refuse what is no `ssl.SSLContext`, nor anything like one."""
    if context is not None and not hasattr(context, "wrap_bio"):
        raise TypeError(f"{name} must be an ssl.SSLContext, or None: {context!r}")


def check_several(connections: Any) -> None:
    """Refuse one connection in place of several: it can be iterated as well, which would receive its messages."""
    if isinstance(connections, ConnectionCore):
        raise TypeError("connections must be a list or the like, not a connection")
