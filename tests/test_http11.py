"""HTTP messages and how they are sent."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

TCHARS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CONTROLS = [chr(code) for code in (*range(0x20), 0x7F) if code != 0x09]


class HeadersDouble:
    """Headers that somebody else made, and that check nothing."""

    def __init__(self, *items):
        self.items = items

    def raw_items(self):
        return iter(self.items)


def test_request(fd):
    headers = fd.datastructures.Headers([("Host", "example.com"), ("X", "a"), ("x", "\tb \xe9")])
    request = fd.http11.Request("/chat?a=b", headers)
    assert (request.method, request.protocol) == ("GET", "HTTP/1.1")
    assert request.serialize() == (
        b"GET /chat?a=b HTTP/1.1\r\nHost: example.com\r\nX: a\r\nx: \tb \xe9\r\n\r\n"
    )


def test_request_to_proxy(fd):
    request = fd.http11.Request("[::1]:80", fd.datastructures.Headers(), "CONNECT", "HTTP/1.0")
    assert request.serialize() == b"CONNECT [::1]:80 HTTP/1.0\r\n\r\n"


def test_response(fd):
    headers = fd.datastructures.Headers(Allow="GET")
    response = fd.http11.Response(405, "Method \xc9", headers)
    assert response.body == b""
    assert response.serialize() == b"HTTP/1.1 405 Method \xc9\r\nAllow: GET\r\n\r\n"
    response.body = b"\x00\r\n"
    assert response.serialize() == b"HTTP/1.1 405 Method \xc9\r\nAllow: GET\r\n\r\n\x00\r\n"


def test_messages_are_dataclasses(fd):
    headers = fd.datastructures.Headers(a="b")
    assert fd.http11.Request("/", headers) == fd.http11.Request("/", headers.copy())
    assert fd.http11.Request("/", headers) != fd.http11.Request("/", headers, "POST")
    assert repr(fd.http11.Response(200, "OK", headers)) == (
        "Response(status_code=200, reason_phrase='OK', headers=Headers([('a', 'b')]), body=b'')"
    )


@pytest.mark.parametrize("status", [100, 101, 199, 204, 304])
def test_statuses_without_a_body(fd, status):
    assert fd.http11.Response(status, "", fd.datastructures.Headers()).has_no_body()


@pytest.mark.parametrize("status", [200, 203, 205, 301, 303, 305, 404, 503])
def test_statuses_with_a_body(fd, status):
    assert not fd.http11.Response(status, "", fd.datastructures.Headers()).has_no_body()


# R14: every outgoing name, value and byte of the target is validated


@pytest.mark.parametrize(
    ("path", "method", "protocol", "error"),
    [
        ("", "GET", "HTTP/1.1", "target"),
        ("/a b", "GET", "HTTP/1.1", "target"),
        ("/ HTTP/1.1\r\nX: y\r\n\r\n", "GET", "HTTP/1.1", "target"),
        ("/\n", "GET", "HTTP/1.1", "target"),
        ("/\x00", "GET", "HTTP/1.1", "target"),
        ("/\x7f", "GET", "HTTP/1.1", "target"),
        ("/\xe9", "GET", "HTTP/1.1", "target"),
        ("/\u010a", "GET", "HTTP/1.1", "target"),  # LF, if it were cut to a byte
        ("/", "", "HTTP/1.1", "method"),
        ("/", "GET /x", "HTTP/1.1", "method"),
        ("/", "GET\r\n", "HTTP/1.1", "method"),
        ("/", "G\xcbT", "HTTP/1.1", "method"),
        ("/", "GET", "HTTP/1.1\r\nX: y", "version"),
        ("/", "GET", "HTTP/2.0", "version"),
        ("/", "GET", "", "version"),
    ],
)
def test_r14_request_line_is_validated(fd, path, method, protocol, error):
    request = fd.http11.Request(path, fd.datastructures.Headers(), method, protocol)
    with pytest.raises(ValueError, match=rf"^invalid .*{error}"):
        request.serialize()


@pytest.mark.parametrize("reason", [*CONTROLS, "OK\r\nX: y", "\u0100"])
def test_r14_reason_is_validated(fd, reason):
    response = fd.http11.Response(200, reason, fd.datastructures.Headers())
    with pytest.raises(ValueError, match=r"^invalid reason phrase"):
        response.serialize()


@pytest.mark.parametrize("status", [-1, 0, 99, 600, 1000])
def test_r14_status_is_validated(fd, status):
    response = fd.http11.Response(status, "", fd.datastructures.Headers())
    with pytest.raises(ValueError, match=r"^invalid status code"):
        response.serialize()


@pytest.mark.parametrize("code", [*range(0x101), 0x10A])
@pytest.mark.parametrize("message", ["request", "response"])
def test_r14_header_names_are_validated(fd, code, message):
    name = f"X{chr(code)}"
    headers = fd.datastructures.Headers([(name, "v")])
    if message == "request":
        message = fd.http11.Request("/", headers)
    else:
        message = fd.http11.Response(200, "OK", headers)
    if chr(code) in TCHARS:
        assert f"\r\n{name}: v\r\n".encode() in message.serialize()
    else:
        with pytest.raises(ValueError, match=r"^invalid header name"):
            message.serialize()


def test_r14_header_name_is_not_empty(fd):
    request = fd.http11.Request("/", fd.datastructures.Headers([("", "v")]))
    with pytest.raises(ValueError, match=r"^invalid header name: ''$"):
        request.serialize()


@pytest.mark.parametrize("value", [*CONTROLS, "v\r\nX: y", "v\n", "\u0100", "\u010a"])
def test_r14_header_values_are_validated(fd, value):
    # Also when the class of the headers is not ours.
    request = fd.http11.Request("/", HeadersDouble(("Name", value)))
    with pytest.raises(fd.exceptions.InvalidHeaderValue) as caught:
        request.serialize()
    assert (caught.value.name, caught.value.value) == ("Name", value)


@given(
    st.text(TCHARS, min_size=1),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1),
    st.lists(
        st.tuples(
            st.text(TCHARS, min_size=1),
            st.text(
                st.sampled_from([chr(c) for c in [9, *range(0x20, 0x7F), *range(0x80, 0x100)]])
            ),
        ),
        max_size=5,
    ),
)
def test_what_is_sent_is_http_to_others(fd, method, target, items):
    items = [("Host", "h"), *(("X-" + name, value) for name, value in items)]
    request = fd.http11.Request(target, fd.datastructures.Headers(items), method)
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    peer.receive_data(request.serialize())
    event = peer.next_event()
    assert event.method == method.encode()
    assert event.target == target.encode()
    assert list(event.headers.raw_items()) == [
        (name.encode(), value.encode("latin-1").strip(b" \t")) for name, value in items
    ]


# Date, Server, User-Agent


@pytest.mark.parametrize(
    ("timestamp", "date"),
    [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784111777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951782400.9, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (4102444799, "Thu, 31 Dec 2099 23:59:59 GMT"),
    ],
)
def test_format_date(fd, timestamp, date):
    assert fd.http11.format_date(timestamp) == date


def test_format_date_takes_the_current_time(fd):
    before = int(time.time())
    date = fd.http11.format_date()
    after = int(time.time())
    assert date in [fd.http11.format_date(second) for second in range(before, after + 1)]


def test_products(fd):
    major, minor = sys.version_info[:2]
    product = f"Python/{major}.{minor} fullduplex/{fd.__version__}"
    assert product == fd.http11.USER_AGENT == fd.http11.SERVER


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({"FULLDUPLEX_SERVER": "s/1", "FULLDUPLEX_USER_AGENT": "u/1"}, "s/1 u/1"),
        ({"FULLDUPLEX_SERVER": "", "FULLDUPLEX_USER_AGENT": ""}, "None None"),
    ],
)
def test_products_from_the_environment(variables, shown):
    code = "from fullduplex import http11; print(http11.SERVER, http11.USER_AGENT)"
    environ = {**os.environ, **variables}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == shown


def test_a_first_line_is_one_line(fd):
    with pytest.raises(ValueError, match="first line"):
        fd.http11.serialize_head("GET / HTTP/1.1\r\nX: smuggled", fd.datastructures.Headers())
