"""HTTP/1.1 messages of the opening handshake (RFC 9112): what is in them, and how they are sent.

Only as much of HTTP as a handshake needs: a request without a body, and a response. How they are
read is the matter of :mod:`~fullduplex.http11_parser`.

Nothing leaves this module unchecked: methods, targets, reasons, names and values that cannot stand
in an HTTP message raise an exception, so that no caller can be talked into sending a header, or a
whole request, that somebody else wrote.

The environment variables ``FULLDUPLEX_SERVER`` and ``FULLDUPLEX_USER_AGENT`` set the defaults of
these headers; empty, they remove them. They are read at import.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import time
from dataclasses import dataclass

from ._version import __version__
from .datastructures import Headers
from .exceptions import InvalidHeaderValue

__all__ = ["SERVER", "USER_AGENT", "Request", "Response", "format_date"]

_PRODUCT = f"Python/{sys.version_info[0]}.{sys.version_info[1]} fullduplex/{__version__}"

USER_AGENT: str | None = os.environ.get("FULLDUPLEX_USER_AGENT", _PRODUCT) or None
"""Default ``User-Agent`` header; None for none."""

SERVER: str | None = os.environ.get("FULLDUPLEX_SERVER", _PRODUCT) or None
"""Default ``Server`` header; None for none."""

# Each pattern repeats one character class and nothing else, so there is nothing to backtrack into.
_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch  # RFC 9110 §5.6.2
_is_text = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch  # RFC 9110 §5.5
_is_target = re.compile(r"[\x21-\x7e]+").fullmatch  # RFC 9112 §3.2: no more than its characters
_is_version = re.compile(r"HTTP/1\.[01]").fullmatch

# The same characters as in _is_text, for bytes.translate(): with them left out of a head, what remains are the
# ends of its lines, and whatever does not belong there.
TEXT_BYTES = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])

# The names that need no look whether they are tokens
USUAL_NAMES = frozenset(
    [
        "Accept-Encoding",
        "Accept-Language",
        "Cache-Control",
        "Connection",
        "Cookie",
        "Date",
        "Host",
        "Origin",
        "Pragma",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Version",
        "Server",
        "Upgrade",
        "User-Agent",
    ]
)

# RFC 9110 §6.4.1
_BODILESS = frozenset([*range(100, 200), 204, 304])


@dataclass
class Request:
    """The request of an opening handshake.

    Attributes:
        path: Path and query, or another target (RFC 9112 §3.2), as sent; ASCII.
        headers: The headers.
        method: The method.
        protocol: The version of HTTP.
    """

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"

    def serialize(self) -> bytes:
        """Return the request as it goes over the wire, with everything in it checked.

        Raises:
            ValueError: If method, path, protocol or the name of a header cannot be sent.
            InvalidHeaderValue: If the value of a header cannot be sent.
        """
        if self.method != "GET" and _is_token(self.method) is None:
            raise ValueError(f"invalid method: {self.method!r}")
        if _is_target(self.path) is None:
            raise ValueError(f"invalid request target: {self.path!r}")
        if self.protocol != "HTTP/1.1" and _is_version(self.protocol) is None:
            raise ValueError(f"invalid HTTP version: {self.protocol!r}")
        return serialize_head(f"{self.method} {self.path} {self.protocol}", self.headers)


@dataclass
class Response:
    """The response of an opening handshake.

    Attributes:
        status_code: The status, 100 to 599.
        reason_phrase: The text after the status.
        headers: The headers.
        body: The body. For a 101 always empty: what follows it is not HTTP.
    """

    status_code: int
    reason_phrase: str
    headers: Headers
    body: bytes = b""

    def serialize(self) -> bytes:
        """Return the response as it goes over the wire, with everything in it checked.

        The headers are sent as they are; no Content-Length is added.

        Raises:
            ValueError: If status, reason or the name of a header cannot be sent.
            InvalidHeaderValue: If the value of a header cannot be sent.
        """
        if not 100 <= self.status_code < 600:
            raise ValueError(f"invalid status code: {self.status_code!r}")
        if _is_text(self.reason_phrase) is None:
            raise ValueError(f"invalid reason phrase: {self.reason_phrase!r}")
        status_line = f"HTTP/1.1 {self.status_code:d} {self.reason_phrase}"
        return serialize_head(status_line, self.headers) + self.body

    def has_no_body(self) -> bool:
        """Tell whether the status rules out a body (RFC 9110 §6.4.1)."""
        return self.status_code in _BODILESS


def serialize_head(first_line: str, headers: Headers) -> bytes:
    """Return a first line, which has been checked, and headers, which are checked here.

    Raises:
        ValueError: If the name of a header is not a token, or the first line has more than one line in it.
        InvalidHeaderValue: If the value of a header cannot be sent.
    """
    lines = [first_line]
    for name, value in headers.raw_items():
        if name not in USUAL_NAMES and _is_token(name) is None:
            raise ValueError(f"invalid header name: {name!r}")
        lines.append(f"{name}: {value}")
    ends = len(lines) + 1
    lines.append("\r\n")
    head = "\r\n".join(lines)
    # All values at once: to match each of them costs more than all of this.
    try:
        data = head.encode("latin-1")
        sound = data.translate(None, TEXT_BYTES) == b"\r\n" * ends
    except UnicodeEncodeError:
        sound = False
    if sound:
        return data
    for name, value in headers.raw_items():
        if _is_text(value) is None:
            raise InvalidHeaderValue(name, value)
    raise ValueError(f"invalid first line: {first_line!r}")


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def format_date(timestamp: float | None = None) -> str:
    """Return a time as it stands in a Date header (RFC 9110 §5.6.7), whatever the locale.

    Args:
        timestamp: Seconds since the epoch; None for now.
    """
    return _format_second(int(time.time() if timestamp is None else timestamp // 1))


@functools.lru_cache(maxsize=2)
def _format_second(timestamp: int) -> str:
    t = time.gmtime(timestamp)
    day, month = _DAYS[t.tm_wday], _MONTHS[t.tm_mon - 1]
    clock = f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"
    return f"{day}, {t.tm_mday:02d} {month} {t.tm_year:04d} {clock} GMT"
