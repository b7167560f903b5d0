"""Requests that a server refuses, or does not even answer."""

from __future__ import annotations

import pytest

from .pieces import bytewise, whole
from .server_helpers import (
    KEY,
    TEXT_FRAME,
    exchange,
    make_request,
)

# Refusing

WRONG = {
    "method": (
        make_request(line=b"POST / HTTP/1.1"),
        (405, {"allow": "GET"}, "unsupported HTTP method: POST"),
        "InvalidMethod",
    ),
    "method in lower case": (
        make_request(line=b"get / HTTP/1.1"),
        (405, {"allow": "GET"}, "unsupported HTTP method: get"),
        "InvalidMethod",
    ),
    "HTTP/1.0": (
        make_request(line=b"GET / HTTP/1.0"),
        (505, {}, "unsupported HTTP version: HTTP/1.0"),
        "InvalidProtocol",
    ),
    "no host": (make_request("Host"), (400, {}, "missing Host header"), "InvalidHeader"),
    "empty host": (make_request(Host=""), (400, {}, "empty Host header"), "InvalidHeaderValue"),
    "two hosts": (
        make_request(more=[("host", "example.com")]),
        (400, {}, "invalid Host header: multiple values"),
        "InvalidHeader",
    ),
    **{
        f"host {host}": (
            make_request(Host=host),
            (400, {}, f"invalid Host header: {host}"),
            "InvalidHeaderValue",
        )
        for host in [
            "a b",
            "a,b",
            "a/b",
            "a@b",
            "http://a",
            "a:b",
            "a:1:2",
            "::1",
            "[::1",
            "[::1]x",
            ":80",
            "b\xfccher.example",
        ]
    },
    "no connection": (
        make_request("Connection"),
        (426, {"upgrade": "websocket"}, "missing Connection header"),
        "InvalidUpgrade",
    ),
    "connection": (
        make_request(Connection="keep-alive"),
        (426, {"upgrade": "websocket"}, "invalid Connection header: keep-alive"),
        "InvalidUpgrade",
    ),
    "malformed connection": (
        make_request(Connection=";"),
        (400, {}, "invalid Connection header: expected token at 0 in ;"),
        "InvalidHeaderFormat",
    ),
    "no upgrade": (
        make_request("Upgrade"),
        (426, {"upgrade": "websocket"}, "missing Upgrade header"),
        "InvalidUpgrade",
    ),
    "upgrade": (
        make_request(Upgrade="h2c"),
        (426, {"upgrade": "websocket"}, "invalid Upgrade header: h2c"),
        "InvalidUpgrade",
    ),
    "two upgrades": (
        make_request(Upgrade="websocket, h2c"),
        (426, {"upgrade": "websocket"}, "invalid Upgrade header: websocket, h2c"),
        "InvalidUpgrade",
    ),
    "no version": (
        make_request("Sec-WebSocket-Version"),
        (400, {"sec-websocket-version": "13"}, "missing Sec-WebSocket-Version header"),
        "InvalidHeader",
    ),
    "two versions": (
        make_request(more=[("Sec-WebSocket-Version", "13")]),
        (400, {"sec-websocket-version": "13"}, "Sec-WebSocket-Version header: multiple values"),
        "InvalidHeader",
    ),
    **{
        f"version {version}": (
            make_request(Sec_WebSocket_Version=version),
            (400, {"sec-websocket-version": "13"}, "Sec-WebSocket-Version header"),
            "InvalidHeaderValue",
        )
        for version in ["", "8", "14", "013", "13.0", "+13", "13, 8", "1\xb3"]
    },
    "no key": (
        make_request("Sec-WebSocket-Key"),
        (400, {}, "missing Sec-WebSocket-Key header"),
        "InvalidHeader",
    ),
    "two keys": (
        make_request(more=[("Sec-WebSocket-Key", KEY)]),
        (400, {}, "invalid Sec-WebSocket-Key header: multiple values"),
        "InvalidHeader",
    ),
    **{
        f"key {key}": (
            make_request(Sec_WebSocket_Key=key),
            (400, {}, "Sec-WebSocket-Key header"),
            "InvalidHeaderValue",
        )
        for key in [
            "",
            "not Base64",
            "dGhlIHNhbXBsZSBub25jZQ",  # no padding
            "dGhlIHNhbXBsZSBub25jZQ==\xe9",
            "dGhlIHNhbXBsZSBub25jZQ==x",
            "dGhl IHNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25j",  # 15 bytes
            "dGhlIHNhbXBsZSBub25jZSE=",  # 17 bytes
        ]
    },
    "two origins": (
        make_request(more=[("Origin", "https://a"), ("Origin", "https://a")]),
        (400, {}, "invalid Origin header: multiple values"),
        "InvalidHeader",
    ),
    "malformed extensions": (
        make_request(Sec_WebSocket_Extensions="a b"),
        (400, {}, "invalid Sec-WebSocket-Extensions header: expected comma at 2 in a b"),
        "InvalidHeaderFormat",
    ),
    "empty extensions": (
        make_request(Sec_WebSocket_Extensions=""),
        (400, {}, "invalid Sec-WebSocket-Extensions header"),
        "InvalidHeaderFormat",
    ),
    "malformed subprotocols": (
        make_request(Sec_WebSocket_Protocol="\xe9"),
        (400, {}, "invalid Sec-WebSocket-Protocol header"),
        "InvalidHeaderFormat",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_request(fd, case):
    data, (status, headers, text), kind = WRONG[case]
    server = fd.server.ServerProtocol()
    got_status, got_headers, body = exchange(fd, server, data)
    assert type(server.handshake_exc) is getattr(fd.exceptions, kind)
    assert got_status == status
    assert body == f"Failed to open a WebSocket connection: {server.handshake_exc}.\n"
    assert text in body
    assert got_headers.pop("date").endswith(" GMT")
    assert got_headers == {
        "connection": "close",
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(body.encode())),
        **headers,
    }


def test_method_counts_before_everything_else(fd):
    server = fd.server.ServerProtocol()
    assert exchange(fd, server, b"POST / HTTP/1.0\r\n\r\n")[0] == 405


def test_version_counts_before_host(fd):
    # HTTP/1.0 knows no Host header.
    assert exchange(fd, fd.server.ServerProtocol(), b"GET / HTTP/1.0\r\n\r\n")[0] == 505


# Requests that are answered without our caller

ANSWERED = {
    "other version": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "InvalidProtocol"),
    "long request line": (b"GET /" + b"x" * 8192, 414, "RequestLineTooLong"),
    "long header": (b"GET / HTTP/1.1\r\nX: " + b"x" * 8192, 431, "HeaderLineTooLong"),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 129, 431, "TooManyHeaders"),
    "large head": (
        b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 8000 + b"\r\n") * 17,
        431,
        "SecurityError",
    ),
    "line folding": (make_request(more=[(" X", "y")]), 400, "InvalidMessage"),
    "NUL": (make_request(more=[("X", "\x00")]), 400, "InvalidMessage"),
    "bare CR": (make_request(more=[("X", "\ry")]), 400, "InvalidMessage"),
    "bare LF": (b"GET / HTTP/1.1\r\nHost: h\n\r\n", 400, "InvalidMessage"),
    "space before colon": (make_request(more=[("X ", "y")]), 400, "InvalidMessage"),
    "body": (make_request(Content_Length="5") + b"hello", 400, "InvalidMessage"),
    "two lengths": (
        make_request(more=[("Content-Length", "0"), ("Content-Length", "5")]) + b"hello",
        400,
        "InvalidMessage",
    ),
    "chunked": (
        make_request(Transfer_Encoding="chunked") + b"0\r\n\r\n",
        400,
        "InvalidMessage",
    ),
}


@pytest.mark.parametrize("case", ANSWERED)
@pytest.mark.parametrize("split", [whole, bytewise])
def test_bad_request(fd, case, split):
    data, status, kind = ANSWERED[case]
    server = fd.server.ServerProtocol()
    for piece in split(data):
        server.receive_data(piece)
    assert server.events_received() == []
    exc = server.handshake_exc
    assert type(exc) is getattr(fd.exceptions, kind)
    got_status, headers, body = exchange(fd, server)
    assert got_status == status
    assert headers["connection"] == "close"
    assert body == f"Failed to open a WebSocket connection: {exc}.\n"
    # Nothing counts any more.
    server.receive_data(make_request() + TEXT_FRAME)
    server.receive_eof()
    assert server.events_received() == []
    assert server.data_to_send() == []


@pytest.mark.parametrize(
    "header", [("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Content-Length", "x")]
)
def test_r13_request_with_a_body_gets_no_101(fd, header):
    server = fd.server.ServerProtocol()
    data = make_request(more=[header]) + b"5\r\nhello"
    assert exchange(fd, server, data)[0] == 400
    assert str(server.handshake_exc).startswith(
        f"did not receive a valid HTTP request: request with a body, {header[0]}"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"Upgrade": "h2c"},
        {"Upgrade": "websocket, h2c"},
        {"Connection": "close"},
        {"Sec_WebSocket_Version": "8"},
        {"Sec_WebSocket_Version": "13, 8"},
    ],
)
def test_r13_upgrade_connection_and_version_are_checked_in_full(fd, changed):
    server = fd.server.ServerProtocol()
    assert exchange(fd, server, make_request(**changed))[0] in (400, 426)


# What is not HTTP gets no answer

UNREADABLE = {
    "garbage": (b"HELO relay.invalid\r\nMAIL FROM: <alice@invalid>\r\n", ValueError),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ValueError),
    "a frame": (TEXT_FRAME, ValueError),
    "zeros": (b"\x00" * 100, ValueError),
    "bare LF": (b"GET / HTTP/1.1\n\n", ValueError),
    "nothing": (b"", EOFError),
    "half a line": (b"GET / HT", EOFError),
    "half a head": (make_request()[:-2], EOFError),
}


@pytest.mark.parametrize("case", UNREADABLE)
@pytest.mark.parametrize("split", [whole, bytewise])
def test_unreadable_request(fd, case, split):
    data, cause = UNREADABLE[case]
    server = fd.server.ServerProtocol()
    for piece in split(data):
        server.receive_data(piece)
    server.receive_eof()
    exc = server.handshake_exc
    assert type(exc) is fd.exceptions.InvalidMessage
    assert type(exc.__cause__) is cause
    assert str(exc) == f"did not receive a valid HTTP request: {exc.__cause__}"
    assert server.events_received() == []
    assert server.data_to_send() == [fd.protocol.SEND_EOF]
    assert server.state is fd.protocol.State.CONNECTING
