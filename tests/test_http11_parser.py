"""What the parsers of HTTP messages have in common."""

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

from .http_messages import (
    CHUNKED,
    LENGTH,
    REQUEST,
    RESPONSE_101,
    TCHARS,
    failure,
    feed_all,
    outcome,
)
from .pieces import bytewise


@pytest.fixture
def limits(fd, monkeypatch):
    """Small limits, so that tests can exceed them with little."""
    monkeypatch.setattr(fd.http11_parser, "MAX_LINE_LENGTH", 64)
    monkeypatch.setattr(fd.http11_parser, "MAX_NUM_HEADERS", 4)
    monkeypatch.setattr(fd.http11_parser, "MAX_HEAD_SIZE", 200)
    monkeypatch.setattr(fd.http11_parser, "MAX_BODY_SIZE", 10)


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


def test_headers_of_each_response_are_counted_anew(fd, limits):
    interim = b"HTTP/1.1 100 \r\na: b\r\na: b\r\na: b\r\n\r\n"
    final = b"HTTP/1.1 204 \r\na: b\r\na: b\r\na: b\r\na: b\r\n\r\n"
    assert fd.http11_parser.ResponseParser().feed(interim + final).status_code == 204


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
