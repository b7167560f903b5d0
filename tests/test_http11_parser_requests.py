"""The parser of requests."""

from __future__ import annotations

import pytest

from .http_messages import (
    REQUEST,
    REQUEST_HEADERS,
    failure,
)
from .pieces import bytewise


def test_request(fd):
    parser = fd.http11_parser.RequestParser()
    request = parser.feed(REQUEST)
    assert (request.method, request.path, request.protocol) == ("GET", "/chat?x=%20", "HTTP/1.1")
    assert list(request.headers.raw_items()) == REQUEST_HEADERS
    assert parser.leftover == b""


def test_request_byte_by_byte(fd):
    parser = fd.http11_parser.RequestParser()
    for piece in bytewise(REQUEST[:-1]):
        assert parser.feed(piece) is None
    assert list(parser.feed(REQUEST[-1:]).headers.raw_items()) == REQUEST_HEADERS
    assert parser.leftover == b""


def test_request_and_what_comes_behind_it(fd):
    parser = fd.http11_parser.RequestParser()
    assert parser.feed(REQUEST + b"\x81\x80\n\r\n\r\n") is not None
    assert parser.leftover == b"\x81\x80\n\r\n\r\n"


def test_first_line_says_that_it_is_http(fd):
    parser = fd.http11_parser.RequestParser()
    parser.feed(b"GET / HTTP/1.1\r")
    assert not parser.has_first_line
    parser.feed(b"\n")
    assert parser.has_first_line


@pytest.mark.parametrize(
    ("line", "method", "path", "protocol"),
    [
        (b"POST / HTTP/1.1", "POST", "/", "HTTP/1.1"),
        (b"get / HTTP/1.1", "get", "/", "HTTP/1.1"),
        (b"M-SEARCH * HTTP/1.1", "M-SEARCH", "*", "HTTP/1.1"),
        (b"GET / HTTP/1.0", "GET", "/", "HTTP/1.0"),
        (b"GET http://h:1/p?q HTTP/1.1", "GET", "http://h:1/p?q", "HTTP/1.1"),
        (b'GET /"<>\\^`{|} HTTP/1.1', "GET", '/"<>\\^`{|}', "HTTP/1.1"),
        (b"CONNECT h:1 HTTP/1.1", "CONNECT", "h:1", "HTTP/1.1"),
    ],
)
def test_request_lines(fd, line, method, path, protocol):
    request = fd.http11_parser.RequestParser().feed(line + b"\r\n\r\n")
    assert (request.method, request.path, request.protocol) == (method, path, protocol)
    assert len(request.headers) == 0


@pytest.mark.parametrize(
    "line",
    [
        b"HELO relay.invalid",
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET /\tHTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1",
        b"GET / HTTP/1.10",
        b"GET / HTTP/1.x",
        b"GET / XTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"GET /\r HTTP/1.1",
        b"G@T / HTTP/1.1",
        b"G\xcbT / HTTP/1.1",
    ],
)
def test_not_a_request_line(fd, line):
    exc = failure(fd.http11_parser.RequestParser, line + b"\r\n\r\n")
    assert type(exc) is ValueError
    assert str(exc).startswith("expected an HTTP request line, got ")
    assert repr(line)[2:-1] in str(exc)


@pytest.mark.parametrize("line", [b"PRI * HTTP/2.0", b"GET / HTTP/0.9", b"GET / HTTP/3.0"])
def test_other_versions_in_request(fd, line):
    exc = failure(fd.http11_parser.RequestParser, line + b"\r\n\r\nSM\r\n\r\n")
    assert type(exc) is fd.exceptions.InvalidProtocol
    assert exc.protocol == line[-8:].decode()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "TLS"),
        (b"\x15\x03\x01\x00\x02\x02\x50", "TLS"),
        (b"\x81\x85\x00\x00\x00\x00hello", "WebSocket frame"),
        (b"\x88\x80\x00\x00\x00\x00", "WebSocket frame"),
        (b"\x00\x00\x00", r"\\x00\\x00\\x00"),
        (b"\xf4", r"\\xf4"),
        (b"\r\n", r"\\r\\n"),
        (b" GET / HTTP/1.1\r\n", " GET /"),
        (b"\x05\x01\x00", r"\\x05"),
    ],
)
def test_first_byte_is_not_that_of_a_request(fd, data, text):
    # There is no need for a line ending, which may never come, to know.
    with pytest.raises(ValueError, match=rf"^expected an HTTP request, got .*{text}"):
        fd.http11_parser.RequestParser().feed(data)
    with pytest.raises(ValueError, match=r"^expected an HTTP request, got "):
        fd.http11_parser.RequestParser().feed(data[:1])


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (b"Transfer-Encoding: chunked", "Transfer-Encoding is 'chunked'"),
        (b"transfer-encoding: identity", "Transfer-Encoding is 'identity'"),
        (b"Transfer-Encoding:", "Transfer-Encoding is ''"),
        (b"Content-Length: 1", "Content-Length is '1'"),
        (b"Content-Length: 00", "Content-Length is '00'"),
        (b"Content-Length: -0", "Content-Length is '-0'"),
        (b"Content-Length: 0, 0", "Content-Length is '0, 0'"),
        (b"Content-Length: 0\r\nContent-Length: 5", "Content-Length is '5'"),
        (b"Content-Length: \xb2", "Content-Length is '\xb2'"),
        (b"Content-Length:", "Content-Length is ''"),
    ],
)
def test_r13_request_with_a_body(fd, header, error):
    data = b"GET / HTTP/1.1\r\nHost: h\r\n" + header + b"\r\n\r\n"
    exc = failure(fd.http11_parser.RequestParser, data)
    assert str(exc) == f"request with a body, {error}"


def test_empty_body_is_none(fd):
    data = b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    assert fd.http11_parser.RequestParser().feed(data).method == "POST"
