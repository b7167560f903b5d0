"""The parser of responses, with their bodies."""

from __future__ import annotations

import pytest

from .http_messages import (
    CHUNKED,
    LENGTH,
    RESPONSE_101,
    failure,
    feed_all,
)
from .pieces import bytewise

# Heads


def test_response_101(fd):
    parser = fd.http11_parser.ResponseParser()
    assert parser.head is None
    response = parser.feed(RESPONSE_101 + b"\x81\x00\n")
    assert (response.status_code, response.reason_phrase) == (101, "Switching Protocols")
    assert list(response.headers.raw_items()) == [("Upgrade", "websocket")]
    assert response.body == b""
    assert parser.leftover == b"\x81\x00\n"
    assert parser.head is response


def test_response_101_has_no_body_whatever_it_says(fd):
    parser = fd.http11_parser.ResponseParser()
    data = b"HTTP/1.1 101 X\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n\x81\x00"
    assert parser.feed(data).status_code == 101
    assert parser.leftover == b"\x81\x00"


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 204 No Content", 204, "No Content"),
        (b"HTTP/1.1 204 ", 204, ""),
        (b"HTTP/1.1 204", 204, ""),
        (b"HTTP/1.0 304 \xe9\t!", 304, "\xe9\t!"),
        (b"HTTP/1.1 204  two spaces", 204, " two spaces"),
    ],
)
def test_status_lines(fd, line, status, reason):
    response = fd.http11_parser.ResponseParser().feed(line + b"\r\n\r\n")
    assert (response.status_code, response.reason_phrase) == (status, reason)


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1 2O0 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 \xb2\xb2\xb2 OK",
        b"HTTP/1 200 OK",
        b"HTTP/1.11 200 OK",
        b"HTTP/ 200 OK",
        b"HTTP/x.y 200 OK",
    ],
)
def test_not_a_status_line(fd, line):
    exc = failure(fd.http11_parser.ResponseParser, line + b"\r\n\r\n")
    assert type(exc) is ValueError
    assert str(exc).startswith("expected an HTTP status line, got ")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"HTTP/2.0 200 OK", "unsupported HTTP version: HTTP/2.0"),
        (b"HTTP/0.9 200 OK", "unsupported HTTP version: HTTP/0.9"),
        (b"HTTP/1.1 000 OK", "invalid status code: 0"),
        (b"HTTP/1.1 099 OK", "invalid status code: 99"),
        (b"HTTP/1.1 600 OK", "invalid status code: 600"),
        (b"HTTP/1.1 999 OK", "invalid status code: 999"),
        (b"HTTP/1.0 101 X", "HTTP/1.0 has no status 101"),
    ],
)
def test_unsupported_status_line(fd, line, error):
    exc = failure(fd.http11_parser.ResponseParser, line + b"\r\n\r\n")
    assert type(exc) is ValueError
    assert str(exc) == error


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x16", "TLS"),
        (b"\x16\x03\x03", "TLS"),
        (b"\x82\x00", "WebSocket frame"),
        (b"SSH-2.0-OpenSSH_9.2", "'SSH-2.0-OpenSSH_9.2'"),
        (b"220 smtp.example.com ESMTP\r\n", "220 smtp"),
        (b"<html>", "<html>"),
        (b"HTTPX", "HTTPX"),
        (b"HTTP 200 OK\r\n\r\n", "HTTP 200"),
        (b"http/1.1 200 OK\r\n\r\n", "http/1.1"),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200"),
        (b"ICY 200 OK\r\n", "ICY"),
    ],
)
def test_first_bytes_are_not_those_of_a_response(fd, data, text):
    exc = failure(fd.http11_parser.ResponseParser, data)
    assert type(exc) is ValueError
    assert str(exc).startswith("expected an HTTP response, got ")
    assert text in str(exc)


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_interim_responses_are_skipped(fd, status):
    interim = b"HTTP/1.1 %d Wait\r\nUpgrade: websocket\r\nX: y\r\n\r\n" % status
    for pieces in ([interim * 2 + RESPONSE_101], [interim, interim, RESPONSE_101], None):
        parser = fd.http11_parser.ResponseParser()
        response = feed_all(parser, pieces or bytewise(interim * 2 + RESPONSE_101))
        assert response.status_code == 101
        assert list(response.headers.raw_items()) == [("Upgrade", "websocket")]


@pytest.mark.parametrize("status", [204, 304])
def test_responses_without_a_body(fd, status):
    parser = fd.http11_parser.ResponseParser()
    response = parser.feed(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\nhello" % status)
    assert response.body == b""
    assert parser.leftover == b"hello"


# Bodies


@pytest.mark.parametrize(
    ("data", "body", "leftover"),
    [
        (LENGTH + b"hello", b"hello", b""),
        (LENGTH + b"hello!", b"hello", b"!"),
        (LENGTH.replace(b"5", b"0"), b"", b""),
        (LENGTH.replace(b"5", b"0") + b"x", b"", b"x"),
        (LENGTH.replace(b"5", b"5, 5") + b"hello", b"hello", b""),
        (LENGTH.replace(b"1.1", b"1.0") + b"hello", b"hello", b""),
        (CHUNKED + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n", b"hello world", b""),
        (CHUNKED + b"5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n!", b"hello", b"!"),
        (CHUNKED + b"0\r\n\r\n", b"", b""),
    ],
)
@pytest.mark.parametrize("cut", ["whole", "bytewise", "head first"])
def test_body(fd, data, body, leftover, cut):
    head, separator, rest = data.partition(b"\r\n\r\n")
    pieces = {"whole": [data], "bytewise": bytewise(data), "head first": [head + separator, rest]}
    parser = fd.http11_parser.ResponseParser()
    response = feed_all(parser, pieces[cut])
    assert response.status_code == 403
    assert response.body == body
    assert type(response.body) is bytes
    assert parser.leftover == leftover
    assert parser.head.headers == response.headers
    assert parser.head.body == b""


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("body", [b"", b"hello", b"\x00\r\n" * 1000])
def test_body_until_the_end_of_the_stream(fd, version, body):
    data = b"HTTP/%b 503 Unavailable\r\nX: y\r\n\r\n" % version + body
    for pieces in ([data], bytewise(data)):
        parser = fd.http11_parser.ResponseParser()
        for piece in pieces:
            assert parser.feed(piece) is None
        assert parser.head.status_code == 503
        response = parser.feed_eof()
        assert response.body == body
        assert response.headers == fd.datastructures.Headers(X="y")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: x", b""),
        (b"Content-Length: +5", b"hello"),
        (b"Content-Length: -5", b"hello"),
        (b"Content-Length: 5, 6", b"hello"),
        (b"Content-Length: 5\r\nContent-Length: 6", b"hello"),
        (b"Content-Length: \xb2", b"hello"),
        (b"Transfer-Encoding: gzip, chunked", b""),
        (b"Transfer-Encoding: gzip", b""),
        (b"Transfer-Encoding: \xe9", b""),
        (b"Transfer-Encoding: chunked", b"x\r\n"),
        (b"Transfer-Encoding: chunked", b"-1\r\n"),
        (b"Transfer-Encoding: chunked", b"0x5\r\n"),
        (b"Transfer-Encoding: chunked", b"5\r\nhelloworld"),
        (b"Transfer-Encoding: chunked", b"ffffffffffffffffffffffff\r\n"),
    ],
)
def test_malformed_body(fd, headers, body):
    data = b"HTTP/1.1 403 No\r\n" + headers + b"\r\n\r\n" + body
    assert type(failure(fd.http11_parser.ResponseParser, data)) is ValueError


# Proxies


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("status", [200, 201, 299])
@pytest.mark.parametrize(
    "header", [b"", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"]
)
def test_answer_to_connect(fd, version, status, header):
    parser = fd.http11_parser.ResponseParser("CONNECT")
    data = b"HTTP/%b %d Connection established\r\n%b\r\n" % (version, status, header)
    response = parser.feed(data + b"\x16\x03")
    assert response.status_code == status
    assert response.body == b""
    assert parser.leftover == b"\x16\x03"


def test_refusal_of_connect(fd):
    parser = fd.http11_parser.ResponseParser("CONNECT")
    response = parser.feed(b"HTTP/1.0 407 Auth\r\nContent-Length: 2\r\n\r\nno")
    assert (response.status_code, response.body) == (407, b"no")
