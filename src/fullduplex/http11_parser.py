"""Parsers for the HTTP/1.1 messages of the opening handshake (RFC 9112).

Heads (first line and headers) are read here, by a strict grammar; bodies of responses are read by
`h11`, which knows how they are delimited. ``docs/http-measurements.md`` has the figures behind this
split. How a head is read:

1. Bytes are searched for the end of a line, each byte once, whatever the pieces they arrive in.
2. A line is checked against the limits, then against the grammar, as soon as it is complete. So
   the first fault in the message decides, and it is the same under any chunking.
3. What cannot become a valid line is refused before it is complete: a line that is too long, and
   a first line that does not begin like HTTP (TLS, for one).

Stricter than RFC 9112 has to be: no line ends in a bare LF, there is no line folding and no white
space around the name of a header. Each of these has made two parsers disagree about a message.

Faults are a :exc:`ValueError` (what arrived is wrong), an :exc:`EOFError` (it is incomplete), or a
subclass of :exc:`~fullduplex.exceptions.InvalidHandshake` where one fits. The limits come from the
environment, at import:

================================  ========  ==============================================
variable                          default   limits
================================  ========  ==============================================
``FULLDUPLEX_MAX_LINE_LENGTH``    8192      bytes of a line, with its line ending
``FULLDUPLEX_MAX_NUM_HEADERS``    128       headers of a message
``FULLDUPLEX_MAX_HEAD_SIZE``      131072    bytes of a head: first line and headers together
``FULLDUPLEX_MAX_BODY_SIZE``      1048576   bytes of the body of a response
================================  ========  ==============================================
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import NoReturn

from .datastructures import Headers
from .environment import read_limit
from .exceptions import (
    HeaderLineTooLong,
    InvalidProtocol,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
)
from .headers import is_token
from .http11 import TEXT_BYTES, USUAL_NAMES, Request, Response, serialize_head

__all__ = ["RequestParser", "ResponseParser"]


MAX_LINE_LENGTH = read_limit("FULLDUPLEX_MAX_LINE_LENGTH", 8192)
MAX_NUM_HEADERS = read_limit("FULLDUPLEX_MAX_NUM_HEADERS", 128)
MAX_HEAD_SIZE = read_limit("FULLDUPLEX_MAX_HEAD_SIZE", 131072)
MAX_BODY_SIZE = read_limit("FULLDUPLEX_MAX_BODY_SIZE", 1048576)

# No part of these patterns can match the character that ends the part before it, so there is
# nothing to backtrack into.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 §5.6.2
_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"  # RFC 9110 §5.5, with the white space around it

# RFC 9112 §3. The target is not taken apart: it has to be visible ASCII.
_match_request_line = re.compile(rb"(%b) ([\x21-\x7e]+) (HTTP/[0-9]\.[0-9])\r\n" % _TOKEN).fullmatch
# RFC 9112 §4. Some servers leave out the space before an empty reason.
_match_status_line = re.compile(rb"(HTTP/[0-9]\.[0-9]) ([0-9]{3})(?: (%b))?\r\n" % _TEXT).fullmatch
# RFC 9112 §5
_match_header_line = re.compile(rb"(%b):(%b)\r\n" % (_TOKEN, _TEXT)).fullmatch


class _HeadParser(ABC):
    """Reads the head of a message: what requests and responses have in common."""

    # What to raise for a first line that is too long
    _first_line_too_long: type[SecurityError]
    # How messages begin that need no closer look at their first bytes
    _usual_start: bytes

    def __init__(self) -> None:
        # What has arrived and has not been taken.
        self._buffer = bytearray()
        # Up to this index, the buffer has been searched for the end of a line.
        self._searched = 0
        # Bytes in the lines that were taken; for a response, interim ones included.
        self._size = 0
        self._headers = Headers()
        self._num_headers = 0
        self._in_headers = False

    @property
    def has_first_line(self) -> bool:
        """Whether a valid first line has arrived: the peer speaks HTTP."""
        return self._in_headers

    def _feed_head(self, data: bytes) -> bool:
        """Take bytes of the head; tell whether it is complete.

        When it is, what follows it is left in the buffer.
        """
        buffer = self._buffer
        if not buffer and not self._in_headers and self._take_whole(data):
            return True
        buffer += data
        if not self._in_headers and buffer:
            self._check_first_bytes(buffer)
        start = 0
        complete = False
        while not complete:
            end = buffer.find(b"\n", self._searched) + 1
            if not end:
                # The line is at least one byte longer than this, as its end is not here yet.
                self._check_size(start, len(buffer) + 1)
                self._searched = len(buffer)
                break
            self._searched = end
            self._check_size(start, end)
            self._size += end - start
            complete = self._take_line(buffer[start:end])
            start = end
        del buffer[:start]
        self._searched -= start
        return complete

    def _take_whole(self, data: bytes) -> bool:
        """Take a head that arrives in one piece, as nearly all of them do; tell whether it did.

        That takes half the time. Anything wrong with the headers, or near a limit, is left to
        going through the lines.
        """
        end = data.find(b"\r\n\r\n") + 4
        if not 4 <= end <= min(MAX_LINE_LENGTH, MAX_HEAD_SIZE - self._size):
            return False
        start = data.find(b"\n") + 1
        block = data[start : end - 2]
        lines = block.decode("latin-1").split("\r\n")
        lines.pop()  # behind the last line ending
        if len(lines) > MAX_NUM_HEADERS or block.translate(None, TEXT_BYTES) != b"\r\n" * len(
            lines
        ):
            return False
        items = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or (name not in USUAL_NAMES and not is_token(name)):
                return False
            items.append((name, value.strip(" \t")))
        if not data.startswith(self._usual_start):
            self._check_first_bytes(data)
        self._take_first_line(data[:start])
        self._size += end
        if len(data) > end:
            self._buffer += data[end:]
        self._in_headers = True
        self._headers._extend(items)
        return True

    def _check_size(self, start: int, end: int) -> None:
        """Check a line against the limits; if it exceeds both, the one that it hits first counts.

        Args:
            start: Index of the line in the buffer.
            end: Index of its end, which may be past what has arrived.
        """
        length = end - start
        left = MAX_HEAD_SIZE - self._size
        if left < MAX_LINE_LENGTH:
            if length > left:
                raise SecurityError(f"HTTP headers exceed limit of {MAX_HEAD_SIZE} bytes")
        elif length > MAX_LINE_LENGTH:
            limit = f"exceeds limit of {MAX_LINE_LENGTH} bytes"
            if not self._in_headers:
                raise self._first_line_too_long(f"first line of HTTP message {limit}")
            line = f"header line {self._num_headers + 1}"
            name = self._buffer[start : start + 60].partition(b":")[0]
            raise HeaderLineTooLong(f"{line} {limit}: {_excerpt(name)}")

    def _take_line(self, line: bytearray) -> bool:
        """Take a line, with its line ending; tell whether it ended the head."""
        if not self._in_headers:
            self._take_first_line(line)
            self._in_headers = True
            return False
        if line == b"\r\n":
            return True
        self._num_headers += 1
        if self._num_headers > MAX_NUM_HEADERS:
            raise TooManyHeaders(f"more than {MAX_NUM_HEADERS} headers")
        match = _match_header_line(line)
        if match is None:
            raise ValueError(f"header line {self._num_headers}: {_explain_header_line(line)}")
        name, value = match.groups()
        self._headers[name.decode("ascii")] = value.strip(b" \t").decode("latin-1")
        return False

    @abstractmethod
    def _check_first_bytes(self, buffer: bytes | bytearray) -> None:
        """Refuse what cannot become a first line; the buffer holds at least one byte."""

    @abstractmethod
    def _take_first_line(self, line: bytes | bytearray) -> None:
        """Take the first line, with its line ending."""

    def _raise_eof(self) -> NoReturn:
        """Say where in the head the stream ended."""
        if self._in_headers:
            raise EOFError(f"connection closed after {self._num_headers} lines of HTTP headers")
        if self._buffer:
            raise EOFError("connection closed in the middle of the first line of an HTTP message")
        raise EOFError("connection closed before an HTTP message arrived")


class RequestParser(_HeadParser):
    """Reads one request, in any pieces.

    After an exception the parser is of no further use. Not for concurrent use.

    Attributes:
        leftover: After the request: the bytes that came behind it.
    """

    _first_line_too_long = RequestLineTooLong
    _usual_start = b"GET "

    def __init__(self) -> None:
        super().__init__()
        self.leftover = b""
        self._method = self._path = self._protocol = ""

    def feed(self, data: bytes) -> Request | None:
        """Take bytes; return the request once it is complete.

        Raises:
            ValueError: If this is not an HTTP request, or if it has a body.
            InvalidProtocol: If it is not HTTP/1.
            RequestLineTooLong: If its first line exceeds the limit.
            HeaderLineTooLong: If a header exceeds the limit.
            TooManyHeaders: If there are too many headers.
            SecurityError: If the headers together exceed the limit.
        """
        if not self._feed_head(data):
            return None
        self.leftover = bytes(self._buffer)
        # A body would come where the frames begin. Whoever sends one means something else than a
        # WebSocket, or means to make us and a proxy disagree about where the request ends.
        for name in ("Transfer-Encoding", "Content-Length"):
            for value in self._headers.get_all(name):
                if name == "Transfer-Encoding" or value != "0":
                    raise ValueError(f"request with a body, {name} is {value!r}")
        return Request(self._path, self._headers, self._method, self._protocol)

    def feed_eof(self) -> NoReturn:
        """Take the end of the stream before the request is complete: raise :exc:`EOFError`."""
        self._raise_eof()

    def _check_first_bytes(self, buffer: bytes | bytearray) -> None:
        if not is_token(chr(buffer[0])):
            raise ValueError(f"expected an HTTP request, got {_explain_bytes(buffer)}")

    def _take_first_line(self, line: bytes | bytearray) -> None:
        match = _match_request_line(line)
        if match is None:
            raise ValueError(f"expected an HTTP request line, got {_explain_text(line)}")
        method, path, protocol = match.groups()
        self._method = method.decode("ascii")
        self._path = path.decode("ascii")
        self._protocol = protocol.decode("ascii")
        if not self._protocol.startswith("HTTP/1."):
            raise InvalidProtocol(self._protocol)


class ResponseParser(_HeadParser):
    """Reads the final response to one request, in any pieces.

    Responses in HTTP/1.0 are understood: refusals come from all kinds of servers and proxies.
    Interim responses (1xx other than 101) are skipped, as RFC 9110 §15.2 asks; they count towards
    the limit of the head.

    To talk to an HTTP proxy, send ``Request("host:port", headers, method="CONNECT").serialize()``
    and give the answer to ``ResponseParser("CONNECT")``: any 2xx has no body, whatever its headers
    say (RFC 9110 §9.3.6), and what comes behind its head belongs to the tunnel.

    After an exception the parser is of no further use. Not for concurrent use.

    Args:
        method: The method of the request.

    Attributes:
        head: The response without its body, as soon as its headers are complete; None before.
        leftover: After the response: the bytes that came behind it.
    """

    _first_line_too_long = StatusLineTooLong
    _usual_start = b"HTTP/1."

    def __init__(self, method: str = "GET") -> None:
        super().__init__()
        self.head: Response | None = None
        self.leftover = b""
        self._method = method
        self._status = 0
        self._reason = ""
        self._body: _Body | None = None

    def feed(self, data: bytes) -> Response | None:
        """Take bytes; return the response once it is complete, with its body.

        Raises:
            ValueError: If this is not an HTTP response, or if its body is malformed.
            StatusLineTooLong: If its first line exceeds the limit.
            HeaderLineTooLong: If a header exceeds the limit.
            TooManyHeaders: If there are too many headers.
            SecurityError: If the headers together, or the body, exceed their limits.
        """
        while self._body is None:
            if not self._feed_head(data):
                return None
            data = bytes(self._buffer)
            self._buffer.clear()
            self._searched = 0
            response = Response(self._status, self._reason, self._headers)
            if 100 <= self._status < 200 and self._status != 101:
                self._headers = Headers()
                self._num_headers = 0
                self._in_headers = False
                continue
            self.head = response
            if response.has_no_body() or (self._method == "CONNECT" and 200 <= self._status < 300):
                self.leftover = data
                return response
            self._body = _Body(response)
        return self._finish(self._body.feed(data))

    def feed_eof(self) -> Response:
        """Take the end of the stream; return the response if that is how its body ends.

        Raises:
            EOFError: If the response is incomplete.
        """
        if self._body is None:
            self._raise_eof()
        try:
            response = self._finish(self._body.feed_eof())
        except ValueError as exc:
            raise EOFError(f"connection closed in the middle of the response: {exc}") from exc
        assert response is not None  # h11 ends a body at the end of the stream, or raises
        return response

    def partial(self) -> Response:
        """Return the response with as much of its body as has come, within the limit.

        Also after an exception about the body; needs a ``head``.
        """
        assert self.head is not None
        body = b"" if self._body is None else self._body.so_far()
        return Response(self.head.status_code, self.head.reason_phrase, self.head.headers, body)

    def _finish(self, body: bytes | None) -> Response | None:
        """Return the response, if its body is complete."""
        assert self._body is not None
        assert self.head is not None
        if body is None:
            return None
        self.leftover = self._body.leftover
        head = self.head
        return Response(head.status_code, head.reason_phrase, head.headers, body)

    def _check_first_bytes(self, buffer: bytes | bytearray) -> None:
        if not b"HTTP/".startswith(buffer[:5]):
            raise ValueError(f"expected an HTTP response, got {_explain_bytes(buffer)}")

    def _take_first_line(self, line: bytes | bytearray) -> None:
        match = _match_status_line(line)
        if match is None:
            raise ValueError(f"expected an HTTP status line, got {_explain_text(line)}")
        version, status, reason = match.groups()
        self._status = int(status)
        self._reason = (reason or b"").decode("latin-1")
        if not version.startswith(b"HTTP/1."):
            raise ValueError(f"unsupported HTTP version: {version.decode('ascii')}")
        if not 100 <= self._status < 600:
            raise ValueError(f"invalid status code: {self._status}")
        if self._status == 101 and version == b"HTTP/1.0":  # RFC 9110 §15.2
            raise ValueError("HTTP/1.0 has no status 101")


class _Body:
    """Reads the body of a response with h11 (RFC 9112 §6, §7).

    h11 gets to see the headers that say where the body ends, and no others.
    """

    def __init__(self, response: Response) -> None:
        import h11  # only clients that are refused need it

        self._h11 = h11
        self._connection = h11.Connection(h11.CLIENT)
        self._connection.send(h11.Request(method="GET", target="/", headers=[("Host", "-")]))
        framing = Headers()
        for name in ("Content-Length", "Transfer-Encoding"):
            for value in response.headers.get_all(name):
                framing[name] = value
        self._connection.receive_data(serialize_head(f"HTTP/1.1 {response.status_code} ", framing))
        self._pieces: list[bytes] = []
        self._size = 0
        self.leftover = b""

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; return the body once it is complete.

        Raises:
            ValueError: If the body, or a header that says where it ends, is malformed.
            SecurityError: If the body exceeds the limit.
        """
        if data:
            self._connection.receive_data(data)
        return self._read()

    def feed_eof(self) -> bytes | None:
        """Take the end of the stream; return the body if that completes it.

        Raises:
            ValueError: If it does not.
        """
        self._connection.receive_data(b"")
        return self._read()

    def so_far(self) -> bytes:
        """Return what has come of the body, within the limit."""
        return b"".join(self._pieces)

    def _read(self) -> bytes | None:
        while True:
            try:
                event = self._connection.next_event()
            except self._h11.RemoteProtocolError as exc:
                raise ValueError(str(exc)) from exc
            if isinstance(event, self._h11.Response):
                for name, value in event.headers:
                    if name == b"content-length":
                        self._check_size(int(value))
            elif isinstance(event, self._h11.Data):
                self._pieces.append(bytes(event.data[: MAX_BODY_SIZE - self._size]))
                self._size += len(event.data)
                self._check_size(self._size)
            elif isinstance(event, self._h11.EndOfMessage):
                self.leftover = self._connection.trailing_data[0]
                return b"".join(self._pieces)
            else:
                return None

    def _check_size(self, size: int) -> None:
        if size > MAX_BODY_SIZE:
            raise SecurityError(f"body of HTTP response exceeds limit of {MAX_BODY_SIZE} bytes")


# What is wrong with a line, for error messages


def _excerpt(data: bytes | bytearray) -> str:
    """Return the beginning of something that a peer sent."""
    return repr(bytes(data[:60]))[1:] + ("..." if len(data) > 60 else "")


def _explain_bytes(data: bytes | bytearray) -> str:
    """Say what it may be that does not begin like HTTP."""
    first = data[0]
    if first in (0x15, 0x16):  # RFC 8446 §5.1: alert, handshake
        return "TLS (is it ws:// on one side and wss:// on the other?)"
    if first & 0xF0 == 0x80 and first & 0x0F in (0, 1, 2, 8, 9, 10):  # RFC 6455 §5.2
        return f"what looks like a WebSocket frame: {_excerpt(data)}"
    return _excerpt(data)


def _explain_text(line: bytes | bytearray) -> str:
    """Show a first line that does not follow the grammar."""
    return f"{_excerpt(line)}{_explain_characters(line)}"


def _explain_characters(line: bytes | bytearray) -> str:
    """Point at a character that may not stand in any line."""
    if not line.endswith(b"\r\n"):
        return " (the line ends in a bare LF)"
    for pos, byte in enumerate(line[:-2]):
        if (byte < 0x20 and byte != 0x09) or byte == 0x7F:
            name = {0x00: "NUL", 0x0D: "bare CR"}.get(byte, f"control character 0x{byte:02x}")
            return f" ({name} at {pos})"
    return ""


def _explain_header_line(line: bytearray) -> str:
    """Say what is wrong with a header line."""
    if line[0] in b" \t":
        return f"obsolete line folding: {_excerpt(line)}"
    name, colon, _ = line.partition(b":")
    if not colon:
        return f"no colon in {_excerpt(line)}{_explain_characters(line)}"
    if not name:
        return f"no name before the colon in {_excerpt(line)}"
    if name[-1] in b" \t":
        return f"white space between name and colon in {_excerpt(name)}"
    if not is_token(name.decode("latin-1")):
        return f"invalid name {_excerpt(name)}"
    return f"invalid value of {name.decode('ascii')}{_explain_characters(line)}"
