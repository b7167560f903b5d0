"""HTTP messages for the tests of their parsers, and ways to feed them."""

from __future__ import annotations

import pytest

from .pieces import bytewise

TCHARS = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
REQUEST = (
    b"GET /chat?x=%20 HTTP/1.1\r\n"
    b"Host: example.com\r\n"
    b"upgrade:websocket\r\n"
    b"Connection: \t Upgrade \t\r\n"
    b"X-Empty:\r\n"
    b"X-Blank: \t\r\n"
    b"X-Latin: \xe9t\xe9, a:b\r\n"
    b"Cookie: a\r\n"
    b"Cookie: b\r\n"
    b"\r\n"
)
REQUEST_HEADERS = [
    ("Host", "example.com"),
    ("upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("X-Empty", ""),
    ("X-Blank", ""),
    ("X-Latin", "\xe9t\xe9, a:b"),
    ("Cookie", "a"),
    ("Cookie", "b"),
]
RESPONSE_101 = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
LENGTH = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n"


def feed_all(parser, pieces, eof=False):
    """Feed a parser like a protocol does: what comes behind the message is kept."""
    message = None
    for piece in pieces:
        if message is None:
            message = parser.feed(piece)
        else:
            parser.leftover += piece
    if eof and message is None:
        message = parser.feed_eof()
    return message


def outcome(parser, pieces, eof=False):
    """Give what comes out, exceptions by their type, to compare ways to cut the same bytes."""
    try:
        message = feed_all(parser, pieces, eof)
    except Exception as exc:
        return type(exc)
    return message, parser.leftover


def failure(make, data):
    """Give the exception for some data; it has to be the same kind byte by byte."""
    with pytest.raises(Exception) as caught:
        make().feed(data)
    assert outcome(make(), bytewise(data)) is caught.type
    return caught.value
