"""Responses that fail a client's opening handshake."""

from __future__ import annotations

import pytest

from .client_helpers import (
    ACCEPT,
    REFUSAL,
    TEXT_FRAME,
    Factory,
    assert_failed,
    make_client,
    make_response,
    receive,
)
from .pieces import bytewise, whole

# Wrong and unreadable responses


REJECTED = {
    "no connection": (make_response("Connection"), "InvalidUpgrade", "missing Connection header"),
    "connection": (
        make_response(Connection="close"),
        "InvalidUpgrade",
        "invalid Connection header: close",
    ),
    "malformed connection": (
        make_response(Connection="\xe9"),
        "InvalidHeaderFormat",
        "invalid Connection header: expected token at 0 in \xe9",
    ),
    "no upgrade": (make_response("Upgrade"), "InvalidUpgrade", "missing Upgrade header"),
    "upgrade": (make_response(Upgrade="h2c"), "InvalidUpgrade", "invalid Upgrade header: h2c"),
    "no accept": (
        make_response("Sec-WebSocket-Accept"),
        "InvalidHeader",
        "missing Sec-WebSocket-Accept header",
    ),
    "empty accept": (
        make_response(Sec_WebSocket_Accept=""),
        "InvalidHeaderValue",
        "empty Sec-WebSocket-Accept header",
    ),
    "two accepts": (
        make_response(more=[("Sec-WebSocket-Accept", ACCEPT)]),
        "InvalidHeader",
        "invalid Sec-WebSocket-Accept header: multiple values",
    ),
    "accept": (
        make_response(Sec_WebSocket_Accept=ACCEPT.lower()),
        "InvalidHeaderValue",
        f"invalid Sec-WebSocket-Accept header: {ACCEPT.lower()}",
    ),
    "non-ASCII accept": (
        make_response(Sec_WebSocket_Accept="\xe9"),
        "InvalidHeaderValue",
        "invalid Sec-WebSocket-Accept header: \xe9",
    ),
    "extension": (
        make_response(Sec_WebSocket_Extensions="x-foo; a=1"),
        "NegotiationError",
        "the server chose an extension that was not offered: x-foo; a=1",
    ),
    "malformed extension": (
        make_response(Sec_WebSocket_Extensions="x-foo;"),
        "InvalidHeaderFormat",
        None,
    ),
    "subprotocol": (
        make_response(Sec_WebSocket_Protocol="other"),
        "NegotiationError",
        "the server chose a subprotocol that was not offered: other",
    ),
    "malformed subprotocol": (
        make_response(Sec_WebSocket_Protocol="\xe9"),
        "InvalidHeaderFormat",
        None,
    ),
    "empty subprotocol": (make_response(Sec_WebSocket_Protocol=""), "InvalidHeaderFormat", None),
    "two subprotocols": (
        make_response(Sec_WebSocket_Protocol="chat, other"),
        "InvalidHeader",
        "invalid Sec-WebSocket-Protocol header: multiple values",
    ),
    "two subprotocols, twice": (
        make_response(more=[("Sec-WebSocket-Protocol", "chat")] * 2),
        "InvalidHeader",
        "invalid Sec-WebSocket-Protocol header: multiple values",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
@pytest.mark.parametrize("split", [whole, bytewise])
def test_wrong_response(fd, case, split):
    data, kind, text = REJECTED[case]
    client = make_client(fd, subprotocols=["chat"])
    # What comes behind a wrong response does not count.
    receive(client, *split(data + TEXT_FRAME))
    assert_failed(fd, client, kind, text)
    (response,) = client.events_received()
    assert response.status_code == 101
    receive(client, TEXT_FRAME, eof=True)
    assert client.events_received() == []
    assert client.data_to_send() == []


UNREADABLE = {
    "nothing": (b"", EOFError),
    "half a line": (b"HTTP/1.1 1", EOFError),
    "half a head": (make_response()[:-2], EOFError),
    "half a body": (REFUSAL[:-1], EOFError),
    "garbage": (b"220 smtp.example.com ESMTP\r\n", ValueError),
    "TLS": (b"\x15\x03\x01\x00\x02\x02\x50", ValueError),
    "a frame": (b"\x81\x00", ValueError),
    "HTTP/2": (b"HTTP/2.0 101 X\r\n\r\n", ValueError),
    "HTTP/1.0 with 101": (make_response().replace(b"1.1", b"1.0", 1), ValueError),
    "line folding": (make_response(more=[(" X", "y")]), ValueError),
    "NUL": (make_response(more=[("X", "\x00")]), ValueError),
    "no status": (b"HTTP/1.1 abc\r\n\r\n", ValueError),
    "body": (b"HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", ValueError),
}


@pytest.mark.parametrize("case", UNREADABLE)
@pytest.mark.parametrize("split", [whole, bytewise])
def test_unreadable_response(fd, case, split):
    data, cause = UNREADABLE[case]
    client = receive(make_client(fd), *split(data), eof=True)
    exc = assert_failed(fd, client, "InvalidMessage")
    assert type(exc.__cause__) is cause
    assert str(exc) == f"did not receive a valid HTTP response: {exc.__cause__}"
    assert client.events_received() == []


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"HTTP/1.1 101 " + b"x" * 8192, "StatusLineTooLong"),
        (b"HTTP/1.1 101 \r\nX: " + b"x" * 8192, "HeaderLineTooLong"),
        (b"HTTP/1.1 101 \r\n" + b"X: y\r\n" * 129, "TooManyHeaders"),
        (b"HTTP/1.1 101 \r\n" + (b"X: " + b"y" * 8000 + b"\r\n") * 17, "SecurityError"),
        (b"HTTP/1.1 404 \r\nContent-Length: 1048577\r\n\r\n", "SecurityError"),
        (b"HTTP/1.1 404 \r\n\r\n" + b"x" * 1048577, "SecurityError"),
    ],
)
def test_r2_limits(fd, data, kind):
    client = receive(make_client(fd), data)
    assert_failed(fd, client, kind)
    assert client.events_received() == []


# Refusals


REFUSALS = {
    "length": (REFUSAL, False, b"Sorry"),
    "length, then more": (REFUSAL + b" folks", False, b"Sorry"),
    "chunked": (
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nSorry\r\n0\r\n\r\n",
        False,
        b"Sorry",
    ),
    "end of stream": (b"HTTP/1.1 404 Not Found\r\n\r\nSorry", True, b"Sorry"),
    "HTTP/1.0": (b"HTTP/1.0 404 Not Found\r\n\r\nSorry", True, b"Sorry"),
    "no body": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", False, b""),
}


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("split", [whole, bytewise])
def test_refusal(fd, case, split):
    data, eof, body = REFUSALS[case]
    client = receive(make_client(fd), *split(data), eof=eof)
    text = "server rejected WebSocket connection: HTTP 404"
    exc = assert_failed(fd, client, "InvalidStatus", text)
    assert exc.response.body == body
    assert client.events_received() == [exc.response]


@pytest.mark.parametrize("status", [200, 204, 301, 401, 426, 503])
def test_other_statuses(fd, status):
    data = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nLocation: /\r\n\r\n".encode()
    client = receive(make_client(fd), data)
    exc = assert_failed(fd, client, "InvalidStatus")
    assert exc.response.status_code == status
    assert exc.response.headers["Location"] == "/"


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request", b"204 No Content"])
def test_r7_only_a_101_negotiates(fd, status):
    """A proxy's or an attacker's response of another status leaves no trace."""
    factory = Factory(fd)
    client = make_client(fd, extensions=[factory], subprotocols=["chat"])
    data = make_response(
        status=status,
        more=[
            ("Sec-WebSocket-Extensions", "x-test"),
            ("Sec-WebSocket-Protocol", "chat"),
            ("Content-Length", "0"),
        ],
    )
    receive(client, data)
    assert factory.seen == []
    assert_failed(fd, client, "InvalidStatus")


def test_r7_interim_responses_do_not_negotiate(fd):
    factory = Factory(fd)
    client = make_client(fd, extensions=[factory], subprotocols=["chat"])
    more = [("Sec-WebSocket-Extensions", "x-test"), ("Sec-WebSocket-Protocol", "chat")]
    receive(client, make_response(status=b"103 Early Hints", more=more), make_response())
    assert client.state is fd.protocol.State.OPEN
    assert factory.seen == []
    assert list(client.extensions) == []
    assert client.subprotocol is None


@pytest.mark.parametrize(
    "changed",
    [
        {"Sec_WebSocket_Accept": "wrong"},
        {"Sec_WebSocket_Protocol": "other"},
        {"Sec_WebSocket_Extensions": "x-test, x-other"},
    ],
)
def test_r7_a_wrong_101_negotiates_nothing(fd, changed):
    more = [("Sec-WebSocket-Extensions", "x-test")]
    client = make_client(fd, extensions=[Factory(fd)], subprotocols=["chat"])
    receive(client, make_response(more=more, **changed))
    assert client.handshake_exc is not None
    assert list(client.extensions) == []
    assert client.subprotocol is None
