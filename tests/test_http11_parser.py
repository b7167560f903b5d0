"""Parsers of HTTP messages."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def bytewise(data):
    return [data[i : i + 1] for i in range(len(data))]


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


@pytest.fixture
def limits(fd, monkeypatch):
    """Small limits, so that tests can exceed them with little."""
    monkeypatch.setattr(fd.http11_parser, "MAX_LINE_LENGTH", 64)
    monkeypatch.setattr(fd.http11_parser, "MAX_NUM_HEADERS", 4)
    monkeypatch.setattr(fd.http11_parser, "MAX_HEAD_SIZE", 200)
    monkeypatch.setattr(fd.http11_parser, "MAX_BODY_SIZE", 10)


# Requests


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


# Headers


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b" folded", "obsolete line folding: ' folded"),
        (b"\tfolded", "obsolete line folding: '\\tfolded"),
        (b" Name: folded", "obsolete line folding: ' Name"),
        (b"nothing", "no colon in 'nothing"),
        (b"no\x00thing", "no colon in 'no\\x00thing\\r\\n' (NUL at 2)"),
        (b": value", "no name before the colon in ': value"),
        (b"Name : value", "white space between name and colon in 'Name '"),
        (b"Name\t: value", "white space between name and colon in 'Name\\t'"),
        (b"My Name: value", "invalid name 'My Name'"),
        (b"N\xe4me: value", "invalid name 'N\\xe4me'"),
        (b"N\x00me: value", "invalid name 'N\\x00me'"),
        (b"N(me): value", "invalid name 'N(me)'"),
        (b"Name: a\x00b", "invalid value of Name (NUL at 7)"),
        (b"Name: a\rb", "invalid value of Name (bare CR at 7)"),
        (b"Name: a\r", "invalid value of Name (bare CR at 7)"),
        (b"\r", "no colon in '\\r\\r\\n' (bare CR at 0)"),
        (b"Name: a\x1bb", "invalid value of Name (control character 0x1b at 7)"),
        (b"Name: a\x7fb", "invalid value of Name (control character 0x7f at 7)"),
        (b"Name: a\x0bb", "invalid value of Name (control character 0x0b at 7)"),
    ],
)
@pytest.mark.parametrize("before", [b"", b"Host: h\r\n"])
@pytest.mark.parametrize("kind", ["request", "response"])
def test_malformed_header(fd, line, error, before, kind):
    first, make = {
        "request": (b"GET / HTTP/1.1\r\n", fd.http11_parser.RequestParser),
        "response": (b"HTTP/1.1 101 X\r\n", fd.http11_parser.ResponseParser),
    }[kind]
    exc = failure(make, first + before + line + b"\r\nX: y\r\n\r\n")
    assert type(exc) is ValueError
    assert str(exc).startswith(f"header line {2 if before else 1}: {error}")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"GET / HTTP/1.1\nHost: h\r\n\r\n", "expected an HTTP request line, got "),
        (b"GET / HTTP/1.1\r\nHost: h\n\r\n", "header line 1: invalid value of Host"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\n", "header line 2: no colon in "),
        (b"GET / HTTP/1.1\r\n\n", "header line 1: no colon in "),
    ],
)
def test_bare_lf(fd, data, text):
    exc = failure(fd.http11_parser.RequestParser, data)
    assert str(exc).startswith(text)
    assert str(exc).endswith("(the line ends in a bare LF)")


@pytest.mark.parametrize("code", range(0x100))
def test_characters_of_header_names(fd, code):
    data = b"GET / HTTP/1.1\r\nX%c: v\r\n\r\n" % code
    if code in TCHARS:
        request = fd.http11_parser.RequestParser().feed(data)
        assert request.headers[f"X{chr(code)}"] == "v"
    elif code == ord(":"):
        assert fd.http11_parser.RequestParser().feed(data).headers["X"] == ": v"
    else:
        assert type(failure(fd.http11_parser.RequestParser, data)) is ValueError


@pytest.mark.parametrize("code", range(0x100))
def test_characters_of_header_values(fd, code):
    data = b"GET / HTTP/1.1\r\nX: a%cb\r\n\r\n" % code
    if code == 0x09 or (code >= 0x20 and code != 0x7F):
        request = fd.http11_parser.RequestParser().feed(data)
        assert request.headers["X"] == f"a{chr(code)}b"
    else:
        assert type(failure(fd.http11_parser.RequestParser, data)) is ValueError


def test_error_messages_are_short(fd):
    exc = failure(fd.http11_parser.RequestParser, b"G" * 1000 + b"\r\n")
    assert len(str(exc)) < 120
    assert str(exc).endswith("G'...")


# Limits


@pytest.mark.parametrize(
    ("kind", "prefix", "suffix", "error"),
    [
        ("RequestParser", b"GET /", b" HTTP/1.1\r\n", "RequestLineTooLong"),
        ("ResponseParser", b"HTTP/1.1 101 ", b"\r\n", "StatusLineTooLong"),
        ("RequestParser", b"GET / HTTP/1.1\r\nName: ", b"\r\n", "HeaderLineTooLong"),
        ("ResponseParser", b"HTTP/1.1 101 \r\nName: ", b"\r\n", "HeaderLineTooLong"),
    ],
)
def test_line_length(fd, limits, kind, prefix, suffix, error):
    make = getattr(fd.http11_parser, kind)
    last = prefix.rpartition(b"\n")[2]
    longest = prefix + b"x" * (64 - len(last) - len(suffix)) + suffix
    assert make().feed(longest + b"\r\n") is not None
    too_long = prefix + b"x" * (65 - len(last) - len(suffix)) + suffix
    exc = failure(make, too_long + b"\r\n")
    assert type(exc) is getattr(fd.exceptions, error)
    assert "exceeds limit of 64 bytes" in str(exc)
    # As soon as it is clear, not when the line ends.
    assert make().feed(prefix + b"x" * (63 - len(last))) is None
    with pytest.raises(getattr(fd.exceptions, error)):
        make().feed(prefix + b"x" * (64 - len(last)))


def test_too_long_header_line_is_named(fd, limits):
    data = b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * 64
    exc = failure(fd.http11_parser.RequestParser, data)
    assert str(exc) == "header line 2 exceeds limit of 64 bytes: 'X-Long'"


def test_number_of_headers(fd, limits):
    data = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4
    assert len(fd.http11_parser.RequestParser().feed(data + b"\r\n").headers.get_all("a")) == 4
    for rest in (b"a: b\r\n", b"a: b\r\n\r\n"):
        exc = failure(fd.http11_parser.RequestParser, data + rest)
        assert type(exc) is fd.exceptions.TooManyHeaders
        assert str(exc) == "more than 4 headers"


@pytest.mark.parametrize(
    ("kind", "first"),
    [("RequestParser", b"GET / HTTP/1.1\r\n"), ("ResponseParser", b"HTTP/1.1 101 x\r\n")],
)
def test_r11_size_of_the_head(fd, limits, kind, first):
    make = getattr(fd.http11_parser, kind)
    assert len(first) == 16
    lines = (b"N: " + b"x" * 56 + b"\r\n") * 3  # 61 bytes each
    assert len(first + lines) == 199
    exc = failure(make, first + lines + b"\r\n")
    assert type(exc) is fd.exceptions.SecurityError
    assert str(exc) == "HTTP headers exceed limit of 200 bytes"
    assert make().feed(first + lines.replace(b"x", b"", 1) + b"\r\n") is not None


def test_r11_size_of_interim_responses(fd, limits):
    parser = fd.http11_parser.ResponseParser()
    interim = b"HTTP/1.1 102 x\r\n\r\n"
    assert len(interim) == 18
    for _ in range(11):
        assert parser.feed(interim) is None
    with pytest.raises(fd.exceptions.SecurityError, match=r"limit of 200 bytes"):
        parser.feed(interim)


def test_r11_scanning_resumes_where_it_stopped(fd):
    """Feeding single bytes costs the same for each, however many there were."""

    class Counter(bytearray):
        searched = 0

        def find(self, sub, start):
            Counter.searched += len(self) - start
            return super().find(sub, start)

    parser = fd.http11_parser.RequestParser()
    parser._buffer = Counter()
    data = b"GET /" + b"x" * 8000 + b" HTTP/1.1\r\nName: " + b"y" * 8000 + b"\r\n\r\n"
    for piece in bytewise(data[:-1]):
        assert parser.feed(piece) is None
    assert parser.feed(data[-1:]) is not None
    assert Counter.searched <= 2 * len(data)


@pytest.mark.parametrize(
    "line",
    [
        b"N" * 8190,
        b"Name:" + b" " * 8180,
        b"Name:" + b" \t" * 4000 + b"\x00",
        b"Name: " + b"a " * 4000 + b"\x00",
        b":" * 8190,
        b"Name" + b" " * 8180,
    ],
)
def test_r10_time_is_linear(fd, line):
    """A line that would make a backtracking pattern take minutes."""
    start = time.process_time()
    for _ in range(10):
        outcome(
            fd.http11_parser.RequestParser(), [b"GET / HTTP/1.1\r\n" + line[:8190] + b"\r\n\r\n"]
        )
    assert time.process_time() - start < 1


def test_default_limits(fd):
    parser = fd.http11_parser
    assert (parser.MAX_LINE_LENGTH, parser.MAX_NUM_HEADERS) == (8192, 128)
    assert (parser.MAX_HEAD_SIZE, parser.MAX_BODY_SIZE) == (2**17, 2**20)


def test_limits_from_the_environment():
    names = ["MAX_LINE_LENGTH", "MAX_NUM_HEADERS", "MAX_HEAD_SIZE", "MAX_BODY_SIZE"]
    environ = {f"FULLDUPLEX_{name}": str(number) for number, name in enumerate(names, 1)}
    environ["FULLDUPLEX_MAX_HEAD_SIZE"] = ""  # like unset
    code = f"from fullduplex import http11_parser as h; print(*[getattr(h, n) for n in {names}])"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["1", "2", "131072", "4"]


@pytest.mark.parametrize("text", ["0", "-1", "8k", "1_000", " 8", "\u0663"])
def test_nonsense_in_the_environment(fd, monkeypatch, text):
    monkeypatch.setenv("FULLDUPLEX_MAX_LINE_LENGTH", text)
    with pytest.raises(ValueError, match=r"^environment variable FULLDUPLEX_MAX_LINE_LENGTH"):
        fd.http11_parser.read_limit("FULLDUPLEX_MAX_LINE_LENGTH", 1)


# Responses


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


def test_headers_of_each_response_are_counted_anew(fd, limits):
    interim = b"HTTP/1.1 100 \r\na: b\r\na: b\r\na: b\r\n\r\n"
    final = b"HTTP/1.1 204 \r\na: b\r\na: b\r\na: b\r\na: b\r\n\r\n"
    assert fd.http11_parser.ResponseParser().feed(interim + final).status_code == 204


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


@pytest.mark.parametrize(
    ("data", "before"),
    [
        (LENGTH.replace(b"5", b"11"), 0),
        (LENGTH.replace(b"5", b"99999999999999999999"), 0),
        (b"HTTP/1.1 403 No\r\n\r\n" + b"x" * 11, 10),
        (CHUNKED + b"b\r\nhello world\r\n0\r\n\r\n", 0),
        (CHUNKED + b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n", 0),
    ],
)
def test_r2_size_of_the_body(fd, limits, data, before):
    exc = failure(fd.http11_parser.ResponseParser, data)
    assert type(exc) is fd.exceptions.SecurityError
    assert str(exc) == "body of HTTP response exceeds limit of 10 bytes"


def test_largest_body(fd, limits):
    data = LENGTH.replace(b"5", b"10") + b"x" * 10
    assert fd.http11_parser.ResponseParser().feed(data).body == b"x" * 10


# End of the stream


@pytest.mark.parametrize("make", ["RequestParser", "ResponseParser"])
def test_end_before_anything_arrived(fd, make):
    with pytest.raises(EOFError, match=r"before an HTTP message arrived"):
        getattr(fd.http11_parser, make)().feed_eof()


@pytest.mark.parametrize(
    ("make", "data"), [("RequestParser", REQUEST), ("ResponseParser", RESPONSE_101)]
)
def test_end_in_the_head(fd, make, data):
    for size in range(1, len(data)):
        parser = getattr(fd.http11_parser, make)()
        assert parser.feed(data[:size]) is None
        lines = data[:size].count(b"\n")
        where = f"after {lines - 1} lines" if lines else "in the middle of the first line"
        with pytest.raises(EOFError, match=rf"^connection closed {where} of "):
            parser.feed_eof()


@pytest.mark.parametrize(
    "data",
    [
        LENGTH,
        LENGTH + b"hell",
        CHUNKED,
        CHUNKED + b"5",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"0\r\n",
    ],
)
def test_end_in_the_body(fd, data):
    parser = fd.http11_parser.ResponseParser()
    assert parser.feed(data) is None
    assert parser.head.status_code == 403
    with pytest.raises(EOFError, match=r"^connection closed in the middle of the response: "):
        parser.feed_eof()


def test_end_after_an_interim_response(fd):
    parser = fd.http11_parser.ResponseParser()
    assert parser.feed(b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n") is None
    with pytest.raises(EOFError, match=r"before an HTTP message arrived"):
        parser.feed_eof()


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


# Properties


def cut(data, indices):
    borders = [0, *sorted(index % (len(data) + 1) for index in indices), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(borders)]


FAULTS = st.sampled_from(
    [b"", b"\n", b"\r", b"\x00", b" ", b":", b"\xff", b"x" * 40, b"\r\n", b"9"]
)
CUTS = st.lists(st.integers(min_value=0), max_size=8)
MESSAGES = st.sampled_from(
    [
        REQUEST,
        RESPONSE_101 + b"\x81\x00",
        b"HTTP/1.1 103 \r\nX: y\r\n\r\n" + RESPONSE_101,
        LENGTH + b"hello, world",
        CHUNKED + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.0 500 \r\n\r\nuntil the end",
    ]
)


@given(MESSAGES, st.integers(min_value=0), FAULTS, CUTS)
def test_any_chunking_gives_the_same(fd, message, where, fault, cuts):
    """Also for a message with a fault in it, and for what comes behind the message."""
    where %= len(message) + 1
    data = message[:where] + fault + message[where:]
    parser = fd.http11_parser
    make = parser.RequestParser if message.startswith(b"GET") else parser.ResponseParser
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(parser, "MAX_LINE_LENGTH", 50)
        monkeypatch.setattr(parser, "MAX_HEAD_SIZE", 200)
        monkeypatch.setattr(parser, "MAX_NUM_HEADERS", 8)
        expected = outcome(make(), [data], eof=True)
        assert outcome(make(), cut(data, cuts), eof=True) == expected
        assert outcome(make(), bytewise(data), eof=True) == expected


@given(st.binary(max_size=100), CUTS)
@pytest.mark.parametrize("make", ["RequestParser", "ResponseParser"])
@pytest.mark.parametrize("prefix", [b"", b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", CHUNKED])
def test_r12_nothing_but_the_documented_exceptions(fd, make, prefix, data, cuts):
    result = outcome(getattr(fd.http11_parser, make)(), cut(prefix + data, cuts), eof=True)
    if isinstance(result, type):
        assert result in (ValueError, EOFError, fd.exceptions.InvalidProtocol)


@given(
    st.sampled_from([b"GET / HTTP/1.1\r\nHost: h\r\n", b"GET /\xe9 HTTP/1.1\r\nHost: h\r\n"]),
    st.lists(
        st.lists(
            st.sampled_from([b"Na-me", b":", b" ", b"\t", b"value", b"\xff", b"\x00", b"(", b"\r"]),
            max_size=6,
        ).map(b"".join),
        max_size=4,
    ),
)
def test_what_we_accept_means_the_same_to_others(fd, first, lines):
    """h11 is our witness: whatever we take for a head, it reads in the same way."""
    data = first + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    result = outcome(fd.http11_parser.RequestParser(), [data])
    if isinstance(result, type):
        assert result is ValueError
        return
    request, leftover = result
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    event = peer.next_event()
    assert (event.method, event.target) == (request.method.encode(), request.path.encode())
    assert [(n.decode(), v.decode("latin-1")) for n, v in event.headers.raw_items()] == list(
        request.headers.raw_items()
    )
    assert peer.trailing_data[0] == leftover


@pytest.mark.parametrize("size", [63, 64, 65])
def test_whole_heads_near_the_limit_of_a_line(fd, limits, size):
    """Where reading a head at once gives way to going through its lines."""
    head = b"GET / HTTP/1.1\r\nHost: "
    head += b"h" * (size - len(head) - 4) + b"\r\n\r\n"
    for pieces in ([head + b"x"], bytewise(head + b"x")):
        parser = fd.http11_parser.RequestParser()
        request = feed_all(parser, pieces)
        assert len(request.headers["Host"]) == size - 26
        assert parser.leftover == b"x"
