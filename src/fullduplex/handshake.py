"""What both sides of the opening handshake need (RFC 6455 §4): keys, shared checks, logs."""

from __future__ import annotations

import binascii
import hashlib
import os
import re
from typing import TYPE_CHECKING

from .exceptions import InvalidHeader, InvalidHeaderValue, InvalidUpgrade
from .headers import parse_connection, parse_upgrade

if TYPE_CHECKING:
    from .datastructures import Headers
    from .typing import LoggerLike

__all__ = [
    "accept_key",
    "check_host",
    "check_upgrade",
    "generate_key",
    "log_headers",
    "single_value",
]

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3

# Headers whose values are secrets: logs are read by more people than these are meant for.
_SECRET = frozenset(["authorization", "cookie", "proxy-authorization", "set-cookie", "set-cookie2"])


# RFC 9112 §3.2, RFC 3986 §3.2.2: a name or an address, and perhaps a port. Without the comma, which
# would be legal: it is what a proxy makes of two headers. No class can match what ends it, so there
# is nothing to backtrack into.
_is_host = re.compile(
    r"(?:\[[0-9A-Za-z.:\-_~%!$&'()*+;=]+\]|[0-9A-Za-z.\-_~%!$&'()*+;=]+)(?::[0-9]*)?"
).fullmatch


def generate_key() -> str:
    """Return a new Sec-WebSocket-Key: 16 random bytes in Base64 (RFC 6455 §4.1)."""
    return binascii.b2a_base64(os.urandom(16), newline=False).decode()


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 §4.2.2).

    Args:
        key: The key; ASCII.
    """
    digest = hashlib.sha1((key + _GUID).encode("ascii"), usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode()


def single_value(headers: Headers, name: str) -> str:
    """Return the value of a header that has to be there exactly once.

    Raises:
        InvalidHeader: If it is missing or repeated.
    """
    values = headers.get_all(name)
    if not values:
        raise InvalidHeader(name)
    if len(values) > 1:
        raise InvalidHeader(name, "multiple values")
    return values[0]


def check_host(headers: Headers) -> None:
    """Check that there is one Host header and that it can be one (RFC 9112 §3.2).

    Raises:
        InvalidHeader: If it is missing or repeated.
        InvalidHeaderValue: If it is neither a name nor an address, with or without a port.
    """
    host = single_value(headers, "Host")
    if _is_host(host) is None:
        raise InvalidHeaderValue("Host", host)


def check_upgrade(headers: Headers) -> None:
    """Check that Connection and Upgrade are those of a WebSocket handshake (RFC 6455 §4.1, §4.2.1).

    Connection must contain the option ``upgrade``; Upgrade must name ``websocket`` and nothing
    else. Both are compared without regard to case.

    Raises:
        InvalidHeaderFormat: If one of them is malformed.
        InvalidUpgrade: If one of them is missing or says something else.
    """
    # What nearly everybody sends needs no parser.
    connection, upgrade = headers.get_all("Connection"), headers.get_all("Upgrade")
    if connection == ["Upgrade"] and upgrade == ["websocket"]:
        return
    options: list[str] = []
    for value in connection:
        options += parse_connection(value)
    if not any(option.lower() == "upgrade" for option in options):
        raise InvalidUpgrade("Connection", ", ".join(options) if options else None)
    protocols: list[str] = []
    for value in upgrade:
        protocols += parse_upgrade(value)
    if len(protocols) != 1 or protocols[0].lower() != "websocket":
        raise InvalidUpgrade("Upgrade", ", ".join(protocols) if protocols else None)


def log_headers(logger: LoggerLike, direction: str, headers: Headers) -> None:
    """Write headers to the debug log, all but credentials and cookies.

    Args:
        logger: Where to.
        direction: ``<`` for received, ``>`` for sent.
        headers: The headers.
    """
    for name, value in headers.raw_items():
        shown = "[not logged]" if name.lower() in _SECRET else value
        logger.debug("%s %s: %s", direction, name, shown)
