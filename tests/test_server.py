"""The server's side of the opening handshake."""

from __future__ import annotations

import http
import logging
import re

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HEADERS = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
TEXT_FRAME = b"\x81\x85\x00\x00\x00\x00hello"


def whole(data):
    return [data]


def bytewise(data):
    return [data[i : i + 1] for i in range(len(data))]


def make_request(*removed, more=(), line=b"GET /chat HTTP/1.1", **changed):
    """Give a request that is right, but for what is removed, changed and added."""
    headers = {**HEADERS, **{name.replace("_", "-"): value for name, value in changed.items()}}
    items = [item for item in headers.items() if item[0] not in removed]
    lines = [f"{name}: {value}\r\n".encode("latin-1") for name, value in [*items, *more]]
    return line + b"\r\n" + b"".join(lines) + b"\r\n"


def read(data):
    """Read a response with h11; give its status, its headers and its body."""
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    peer.receive_data(data)
    peer.receive_data(b"")
    event = peer.next_event()
    headers = {name.decode(): value.decode() for name, value in event.headers}
    body = b""
    while type(piece := peer.next_event()) is h11.Data:
        body += piece.data
    return event.status_code, headers, body.decode()


def exchange(fd, server, *pieces):
    """Give a request to a server that answers it by itself; return the response, read by h11."""
    for piece in pieces:
        server.receive_data(piece)
    for event in server.events_received():
        server.send_response(server.accept(event))
    *writes, eof = server.data_to_send()
    assert eof == fd.protocol.SEND_EOF
    assert server.state is fd.protocol.State.CONNECTING
    assert server.close_expected()
    assert list(server.extensions) == []
    assert (server.subprotocol, server.origin) == (None, None)
    return read(b"".join(writes))


def open_connection(fd, server, data):
    """Give a request to a server that must accept it; return the headers of the response."""
    server.receive_data(data)
    (request,) = server.events_received()
    response = server.accept(request)
    assert server.handshake_exc is None
    assert (response.status_code, response.reason_phrase) == (101, "Switching Protocols")
    server.send_response(response)
    assert server.state is fd.protocol.State.OPEN
    (data,) = server.data_to_send()
    assert data == response.serialize()
    assert not server.close_expected()
    return response.headers


class Factory:
    """A server's side of an extension for tests; it accepts any parameters, or none."""

    def __init__(self, fd, name="x-test", accept=None, error=None):
        self.fd, self.name, self.accept, self.error = fd, name, accept, error
        self.seen = []

    def process_request_params(self, params, accepted_extensions):
        self.seen.append((params, list(accepted_extensions)))
        if self.error is not None:
            raise self.error
        if self.accept is not None and params != self.accept:
            raise self.fd.exceptions.NegotiationError("no")
        extension = self.fd.extensions.Extension()
        extension.name = self.name
        extension.factory = self
        return [("ok", None), *params], extension


# Accepting


@pytest.mark.parametrize("split", [whole, bytewise])
def test_open(fd, split):
    server = fd.server.ServerProtocol()
    assert server.state is fd.protocol.State.CONNECTING
    for piece in split(make_request()):
        server.receive_data(piece)
    (request,) = server.events_received()
    assert (request.path, request.method, request.protocol) == ("/chat", "GET", "HTTP/1.1")
    assert dict(request.headers.raw_items()) == HEADERS
    assert server.data_to_send() == []
    response = server.accept(request)
    names = [name for name, _ in response.headers.raw_items()]
    assert names == ["Date", "Upgrade", "Connection", "Sec-WebSocket-Accept"]
    assert response.headers["Sec-WebSocket-Accept"] == ACCEPT
    assert response.headers["Date"].endswith(" GMT")
    assert server.state is fd.protocol.State.CONNECTING
    server.send_response(response)
    assert server.state is fd.protocol.State.OPEN
    assert server.data_to_send() == [
        f"HTTP/1.1 101 Switching Protocols\r\nDate: {response.headers['Date']}\r\n"
        f"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode()
    ]
    assert server.handshake_exc is None


@pytest.mark.parametrize(
    "changed",
    [
        {"Host": "example.com:8080"},
        {"Host": "example.com:"},
        {"Host": "[::1]:80"},
        {"Host": "[fe80::1%25eth0]"},
        {"Host": "127.0.0.1"},
        {"Host": "xn--bcher-kva.example"},
        {"Host": "a_b.example"},
        {"Host": "%62.example"},
        {"Connection": "keep-alive, upgrade"},
        {"Upgrade": "WebSocket"},
        {"Content-Length": "0"},
        {"Origin": "https://anywhere.example"},
        {"Sec-WebSocket-Protocol": "chat"},
        {"Sec-WebSocket-Extensions": "permessage-deflate, x-foo; a=1"},
        {"Cookie": "\xe9"},
    ],
)
def test_right_requests(fd, changed):
    headers = open_connection(fd, fd.server.ServerProtocol(), make_request(**changed))
    assert "Sec-WebSocket-Protocol" not in headers
    assert "Sec-WebSocket-Extensions" not in headers


def test_accept_without_bytes(fd):
    """The methods may be used on their own, with a request that somebody else has read."""
    server = fd.server.ServerProtocol()
    request = fd.http11.Request("/", fd.datastructures.Headers(HEADERS))
    server.send_response(server.accept(request))
    assert server.state is fd.protocol.State.OPEN


def test_response_may_be_changed(fd):
    server = fd.server.ServerProtocol()
    server.receive_data(make_request())
    response = server.accept(*server.events_received())
    response.headers["Server"] = "test"
    server.send_response(response)
    assert b"\r\nServer: test\r\n" in server.data_to_send()[0]


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


# Bytes behind the request


@pytest.mark.parametrize("split", [whole, bytewise])
def test_frames_behind_the_request_wait(fd, split):
    server = fd.server.ServerProtocol()
    for piece in split(make_request() + TEXT_FRAME + b"\x89\x80\x00\x00\x00\x00"):
        server.receive_data(piece)
    server.receive_data(TEXT_FRAME)
    (request,) = server.events_received()
    response = server.accept(request)
    assert server.events_received() == []
    assert server.data_to_send() == []
    server.send_response(response)
    assert server.data_to_send() == [response.serialize(), b"\x8a\x00"]
    text, ping, other = server.events_received()
    assert text == other == fd.frames.Frame(fd.frames.Opcode.TEXT, b"hello")
    assert ping.opcode is fd.frames.Opcode.PING


def test_wrong_frames_behind_the_request_wait(fd):
    """An unmasked frame: refused, but not before the 101 is on its way."""
    server = fd.server.ServerProtocol()
    server.receive_data(make_request() + b"\x81\x00")
    (request,) = server.events_received()
    response = server.accept(request)
    assert server.parser_exc is None
    server.send_response(response)
    first, close, eof = server.data_to_send()
    assert first == response.serialize()
    assert close[:1] == b"\x88"
    assert eof == fd.protocol.SEND_EOF
    assert type(server.parser_exc) is fd.exceptions.ProtocolError


def test_frames_behind_a_refused_request_do_not_count(fd):
    server = fd.server.ServerProtocol()
    exchange(fd, server, make_request("Host") + b"\x81\x00", b"\x81\x00")
    server.receive_data(b"\x81\x00")
    assert server.parser_exc is None
    assert server.events_received() == []


@pytest.mark.parametrize("split", [True, False])
def test_r11_bytes_behind_the_request_are_limited(fd, monkeypatch, split):
    monkeypatch.setattr(fd.http11_parser, "MAX_HEAD_SIZE", 300)
    server = fd.server.ServerProtocol()
    data = make_request()
    if split:
        server.receive_data(data + b"x" * 300)
        assert server.handshake_exc is None
        server.receive_data(b"x")
    else:
        server.receive_data(data + b"x" * 301)
    assert type(server.handshake_exc) is fd.exceptions.SecurityError
    assert len(server.events_received()) == 1
    # The caller answers, knowing nothing; it must not matter.
    server.send_response(server.reject(200, "fine"))
    *writes, eof = server.data_to_send()
    status, _, body = read(b"".join(writes))
    assert status == 413
    assert "over 300 bytes arrived before the handshake was complete" in body
    assert eof == fd.protocol.SEND_EOF


# End of the stream


def test_half_closed_client_gets_its_refusal(fd):
    server = fd.server.ServerProtocol()
    server.receive_data(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    server.receive_eof()
    assert server.handshake_exc is None
    server.send_response(server.reject(http.HTTPStatus.OK, "OK\n"))
    *writes, _ = server.data_to_send()
    assert read(b"".join(writes))[::2] == (200, "OK\n")


def test_end_of_stream_before_the_101(fd):
    server = fd.server.ServerProtocol()
    server.receive_data(make_request() + TEXT_FRAME)
    server.receive_eof()
    (request,) = server.events_received()
    server.send_response(server.accept(request))
    assert len(server.events_received()) == 1
    assert server.state is fd.protocol.State.CLOSED
    assert server.data_to_send()[-1] == fd.protocol.SEND_EOF
    assert server.close_code == fd.frames.CloseCode.ABNORMAL_CLOSURE


def test_end_of_stream_before_the_101_is_left_to_a_connection(fd):
    server = fd.server.ServerProtocol()
    server.pulling = True
    server.receive_data(make_request() + TEXT_FRAME)
    server.receive_eof()
    (request,) = server.events_received()
    server.send_response(server.accept(request))
    assert server.state is fd.protocol.State.OPEN
    assert server.pull() == "hello"
    server.receive_eof()
    assert server.state is fd.protocol.State.CLOSED


# Responses of the caller


@pytest.mark.parametrize("status", [404, http.HTTPStatus.NOT_FOUND])
def test_reject(fd, status):
    server = fd.server.ServerProtocol()
    response = server.reject(status, "Nothing\xe9\n")
    assert (response.status_code, response.reason_phrase) == (404, "Not Found")
    assert type(response.status_code) is int
    assert response.body == b"Nothing\xc3\xa9\n"
    date, *items = response.headers.raw_items()
    assert date[0] == "Date"
    assert items == [
        ("Connection", "close"),
        ("Content-Length", "10"),
        ("Content-Type", "text/plain; charset=utf-8"),
    ]
    server.send_response(response)
    assert server.data_to_send() == [response.serialize(), fd.protocol.SEND_EOF]
    assert type(server.handshake_exc) is fd.exceptions.InvalidStatus
    assert server.handshake_exc.response == response


def test_reject_with_a_status_that_is_none(fd):
    with pytest.raises(ValueError, match=r"999"):
        fd.server.ServerProtocol().reject(999, "")


def test_reject_with_text_that_is_none(fd):
    assert fd.server.ServerProtocol().reject(400, "\ud800").body == b"\\ud800"


def test_reject_before_the_request(fd):
    """When the server shuts down, there is no time to wait for it."""
    server = fd.server.ServerProtocol()
    server.receive_data(make_request()[:-10])
    server.send_response(server.reject(503, "Shutting down.\n"))
    *writes, _ = server.data_to_send()
    assert read(b"".join(writes))[::2] == (503, "Shutting down.\n")
    server.receive_data(make_request()[-10:])
    assert server.events_received() == []


@pytest.mark.parametrize(
    ("status", "headers", "body", "sent"),
    [
        (200, {}, b"hello", {"Connection": "close", "Content-Length": "5"}),
        (200, {}, b"", {"Connection": "close", "Content-Length": "0"}),
        (200, {"connection": "x"}, b"", {"connection": "x", "Content-Length": "0"}),
        (200, {"content-length": "5"}, b"hello", {"content-length": "5", "Connection": "close"}),
        (
            200,
            {"Transfer-Encoding": "chunked"},
            b"0\r\n\r\n",
            {"Transfer-Encoding": "chunked", "Connection": "close"},
        ),
        (204, {}, b"", {"Connection": "close"}),
        (304, {}, b"", {"Connection": "close"}),
    ],
)
def test_responses_are_completed(fd, status, headers, body, sent):
    server = fd.server.ServerProtocol()
    response = fd.http11.Response(status, "X", fd.datastructures.Headers(headers), body)
    server.send_response(response)
    data, eof = server.data_to_send()
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    assert data == f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body
    assert eof == fd.protocol.SEND_EOF
    # The caller may use the same response for every request.
    assert dict(response.headers.raw_items()) == headers


def test_head_gets_no_body(fd):
    server = fd.server.ServerProtocol()
    server.receive_data(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    (request,) = server.events_received()
    server.send_response(server.accept(request))
    data, _ = server.data_to_send()
    assert data.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nContent-Length: " in data
    assert data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", [101, 200])
def test_r14_response_is_validated(fd, status):
    server = fd.server.ServerProtocol()
    headers = fd.datastructures.Headers([("X\r\nY", "z")])
    with pytest.raises(ValueError, match=r"^invalid header name"):
        server.send_response(fd.http11.Response(status, "X", headers))
    assert server.data_to_send() == []
    assert server.state is fd.protocol.State.CONNECTING
    server.send_response(server.reject(500, ""))
    assert len(server.data_to_send()) == 2


def test_no_response_when_the_connection_is_open(fd):
    server = fd.server.ServerProtocol()
    open_connection(fd, server, make_request())
    with pytest.raises(fd.exceptions.InvalidState):
        server.send_response(server.reject(500, ""))
    server = fd.server.ServerProtocol(state=fd.protocol.State.OPEN)
    with pytest.raises(fd.exceptions.InvalidState):
        server.send_response(server.reject(500, ""))


def test_no_second_refusal(fd):
    server = fd.server.ServerProtocol()
    server.send_response(server.reject(403, ""))
    server.send_response(server.reject(404, ""))
    assert len(server.data_to_send()) == 2
    assert server.handshake_exc.response.status_code == 403


# Origins


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        (None, None),
        (None, "https://a.example"),
        (["https://a.example"], "https://a.example"),
        (["https://b.example", "https://a.example"], "https://a.example"),
        ([None], None),
        ([None, "https://a.example"], "https://a.example"),
        ([re.compile(r"https://.*\.example")], "https://a.example"),
        ([re.compile(r"https://b"), None], None),
        ([""], ""),
    ],
)
def test_origin(fd, origins, origin):
    server = fd.server.ServerProtocol(origins=origins)
    open_connection(fd, server, make_request(**({} if origin is None else {"Origin": origin})))
    assert server.origin == origin


@pytest.mark.parametrize(
    ("origins", "origin"),
    [
        ([], None),
        ([], "https://a.example"),
        (["https://a.example"], None),
        ([None], "https://a.example"),
        ([None], ""),
        ([""], None),
        (["https://a.example"], "https://A.example"),
        (["https://a.example"], "https://a.example.evil"),
        (["https://a.example"], "null"),
        ([re.compile(r"https://a\.example")], "https://a.example.evil"),
        ([re.compile(r"a\.example")], "https://a.example"),
        ([re.compile(r".*")], None),
        (["https://a.example"], "\xe9"),
    ],
)
def test_forbidden_origin(fd, origins, origin):
    server = fd.server.ServerProtocol(origins=origins)
    data = make_request(**({} if origin is None else {"Origin": origin}))
    status, _, _ = exchange(fd, server, data)
    assert status == 403
    assert type(server.handshake_exc) is fd.exceptions.InvalidOrigin
    assert server.handshake_exc.value == origin


@pytest.mark.parametrize("origins", ["https://a.example", re.compile("https://a.example")])
def test_origins_are_a_list(fd, origins):
    with pytest.raises(TypeError, match=r"origins must be a list"):
        fd.server.ServerProtocol(origins=origins)


# Extensions


def test_extensions(fd):
    one, two = Factory(fd, "x-one"), Factory(fd, "x-two")
    server = fd.server.ServerProtocol(extensions=[one, two])
    more = [
        ("Sec-WebSocket-Extensions", "x-two; a=1, x-other"),
        ("Sec-WebSocket-Extensions", "x-one"),
    ]
    headers = open_connection(fd, server, make_request(more=more))
    assert headers["Sec-WebSocket-Extensions"] == "x-two; ok; a=1, x-one; ok"
    assert [extension.factory for extension in server.extensions] == [two, one]
    assert two.seen == [([("a", "1")], [])]
    assert one.seen == [([], [server.extensions[0]])]


def test_offers_that_cannot_be_accepted_are_passed_over(fd):
    factory = Factory(fd, accept=[("b", None)])
    server = fd.server.ServerProtocol(extensions=[factory])
    data = make_request(Sec_WebSocket_Extensions="x-test; a, x-test; b, x-test; c")
    headers = open_connection(fd, server, data)
    assert headers["Sec-WebSocket-Extensions"] == "x-test; ok; b"
    assert [params for params, _ in factory.seen] == [[("a", None)], [("b", None)], [("c", None)]]
    assert len(server.extensions) == 1


def test_next_factory_of_the_same_name(fd):
    one, two = Factory(fd, accept=[("b", None)]), Factory(fd)
    server = fd.server.ServerProtocol(extensions=[one, two])
    open_connection(fd, server, make_request(Sec_WebSocket_Extensions="x-test; a"))
    assert [extension.factory for extension in server.extensions] == [two]


def test_no_offer_can_be_accepted(fd):
    server = fd.server.ServerProtocol(extensions=[Factory(fd, accept=[("a", None)])])
    headers = open_connection(fd, server, make_request(Sec_WebSocket_Extensions="x-test"))
    assert "Sec-WebSocket-Extensions" not in headers
    assert list(server.extensions) == []


def test_extensions_of_a_refused_request_are_dropped(fd):
    server = fd.server.ServerProtocol(extensions=[Factory(fd)], subprotocols=["chat"])
    exchange(fd, server, make_request(Sec_WebSocket_Extensions="x-test", Origin="https://a"))


def test_extension_that_raises(fd, caplog):
    server = fd.server.ServerProtocol(extensions=[Factory(fd, error=ZeroDivisionError())])
    status, _, body = exchange(fd, server, make_request(Sec_WebSocket_Extensions="x-test"))
    assert status == 500
    assert "ZeroDivision" not in body
    assert type(server.handshake_exc) is ZeroDivisionError


def test_permessage_deflate(fd):
    module = fd.extensions.permessage_deflate
    server = fd.server.ServerProtocol(extensions=[module.ServerPerMessageDeflateFactory()])
    data = make_request(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
    headers = open_connection(fd, server, data)
    assert headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
    assert [extension.name for extension in server.extensions] == ["permessage-deflate"]


# Subprotocols


@pytest.mark.parametrize(
    ("available", "offered", "chosen"),
    [
        (None, [], None),
        (None, ["chat"], None),
        ([], ["chat"], None),
        (["chat"], ["chat"], "chat"),
        (["superchat", "chat"], ["chat, superchat"], "superchat"),
        (["superchat", "chat"], ["chat", "superchat"], "superchat"),
        (["superchat", "chat"], ["other, chat"], "chat"),
    ],
)
def test_subprotocol(fd, available, offered, chosen):
    server = fd.server.ServerProtocol(subprotocols=available)
    more = [("Sec-WebSocket-Protocol", value) for value in offered]
    headers = open_connection(fd, server, make_request(more=more))
    assert server.subprotocol == chosen
    assert headers.get("Sec-WebSocket-Protocol") == chosen


@pytest.mark.parametrize(
    ("offered", "error"),
    [
        ([], "missing subprotocol, expected one of chat, superchat"),
        (["a, b"], "invalid subprotocol a, b, expected one of chat, superchat"),
        (["Chat"], "invalid subprotocol Chat, expected one of chat, superchat"),
    ],
)
def test_no_common_subprotocol(fd, offered, error):
    server = fd.server.ServerProtocol(subprotocols=["chat", "superchat"])
    more = [("Sec-WebSocket-Protocol", value) for value in offered]
    status, _, _ = exchange(fd, server, make_request(more=more))
    assert status == 400
    assert type(server.handshake_exc) is fd.exceptions.NegotiationError
    assert str(server.handshake_exc) == error


@pytest.mark.parametrize(
    ("subprotocols", "error"), [("chat", TypeError), ({"a": 1}, TypeError), (["a b"], ValueError)]
)
def test_subprotocols_are_checked(fd, subprotocols, error):
    with pytest.raises(error):
        fd.server.ServerProtocol(subprotocols=subprotocols)


def test_select_subprotocol(fd):
    calls = []

    def select_subprotocol(protocol, offered):
        calls.append((protocol, offered))
        return offered[-1]

    server = fd.server.ServerProtocol(subprotocols=["chat"], select_subprotocol=select_subprotocol)
    open_connection(fd, server, make_request(Sec_WebSocket_Protocol="chat, other"))
    assert server.subprotocol == "other"
    assert calls == [(server, ["chat", "other"])]


def test_select_subprotocol_may_choose_none(fd):
    server = fd.server.ServerProtocol(select_subprotocol=lambda protocol, offered: None)
    headers = open_connection(fd, server, make_request())
    assert "Sec-WebSocket-Protocol" not in headers


def test_select_subprotocol_can_be_overridden(fd):
    class ServerProtocol(fd.server.ServerProtocol):
        def select_subprotocol(self, subprotocols):
            return super().select_subprotocol(subprotocols[1:])

    server = ServerProtocol(subprotocols=["a", "b"])
    open_connection(fd, server, make_request(Sec_WebSocket_Protocol="a, b"))
    assert server.subprotocol == "b"


def test_select_subprotocol_refuses(fd, caplog):
    def select_subprotocol(protocol, offered):
        raise fd.exceptions.NegotiationError("not today")

    server = fd.server.ServerProtocol(select_subprotocol=select_subprotocol)
    status, _, body = exchange(fd, server, make_request())
    assert (status, body) == (400, "Failed to open a WebSocket connection: not today.\n")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("chosen", ["other", "a, b", "", 5])
def test_select_subprotocol_chooses_what_was_not_offered(fd, chosen):
    server = fd.server.ServerProtocol(select_subprotocol=lambda protocol, offered: chosen)
    status, _, _ = exchange(fd, server, make_request(Sec_WebSocket_Protocol="chat"))
    assert status == 500
    assert repr(chosen) in str(server.handshake_exc)


def test_select_subprotocol_raises(fd, caplog):
    def select_subprotocol(protocol, offered):
        raise ZeroDivisionError("secret")

    server = fd.server.ServerProtocol(select_subprotocol=select_subprotocol)
    status, _, body = exchange(fd, server, make_request())
    assert status == 500
    assert body == (
        "Failed to open a WebSocket connection.\nSee server log for more information.\n"
    )
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "opening handshake failed"
    assert record.exc_info[0] is ZeroDivisionError


# Logs


def test_log_of_an_open_connection(fd, caplog):
    with caplog.at_level(logging.INFO, "fullduplex.server"):
        open_connection(fd, fd.server.ServerProtocol(), make_request())
    assert caplog.messages == ["connection open"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (make_request("Host"), "connection rejected (400 Bad Request)"),
        (make_request(Content_Length="1"), "connection rejected (400 Bad Request)"),
    ],
)
def test_log_of_a_rejected_connection(fd, caplog, data, message):
    with caplog.at_level(logging.INFO, "fullduplex.server"):
        exchange(fd, fd.server.ServerProtocol(), data)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.INFO, message)
    ]


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01", b"HELO relay.invalid\r\n"])
def test_a_probe_is_one_line_in_the_log(fd, caplog, data):
    server = fd.server.ServerProtocol()
    with caplog.at_level(logging.INFO, "fullduplex.server"):
        server.receive_data(data)
        server.receive_eof()
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.exc_info is None
    assert record.getMessage().startswith("opening handshake failed: did not receive a valid HTTP ")


def test_debug_log(fd, caplog):
    logger = logging.getLogger("test.server")
    with caplog.at_level(logging.DEBUG, "test.server"):
        server = fd.server.ServerProtocol(logger=logger)
        server.receive_data(b"GET / HTTP/1.1\r\nHost: h\r\nCookie: secret\r\n\r\n")
        response = fd.http11.Response(
            200, "OK", fd.datastructures.Headers({"Content-Length": "2"}), b"OK"
        )
        server.send_response(response)
    assert caplog.messages == [
        "< GET / HTTP/1.1",
        "< Host: h",
        "< Cookie: [not logged]",
        "> HTTP/1.1 200 OK",
        "> Content-Length: 2",
        "> Connection: close",
        "> [body] (2 bytes)",
        "connection rejected (200 OK)",
    ]


def test_debug_log_of_an_open_connection(fd, caplog):
    with caplog.at_level(logging.DEBUG, "fullduplex.server"):
        server = fd.server.ServerProtocol()
        open_connection(fd, server, make_request())
    assert "> HTTP/1.1 101 Switching Protocols" in caplog.messages
    assert not any("[body]" in message for message in caplog.messages)


# Both ends


@pytest.mark.parametrize("split", [whole, bytewise])
def test_client_and_server(fd, split):
    module = fd.extensions.permessage_deflate
    client = fd.client.ClientProtocol(
        fd.uri.parse_uri("ws://localhost/"),
        origin="https://a.example",
        extensions=[module.ClientPerMessageDeflateFactory()],
        subprotocols=["chat"],
    )
    server = fd.server.ServerProtocol(
        origins=["https://a.example"],
        extensions=[module.ServerPerMessageDeflateFactory()],
        subprotocols=["chat"],
    )
    client.send_request(client.connect())
    for piece in split(b"".join(client.data_to_send())):
        server.receive_data(piece)
    (request,) = server.events_received()
    server.send_response(server.accept(request))
    server.send_text(b"welcome" * 100)
    for piece in split(b"".join(server.data_to_send())):
        client.receive_data(piece)
    _, frame = client.events_received()
    assert frame.data == b"welcome" * 100
    assert client.subprotocol == server.subprotocol == "chat"
    assert client.state is server.state is fd.protocol.State.OPEN


# Properties


@given(st.lists(st.binary(max_size=20), max_size=8), st.sampled_from([b"", b"GET / HTTP/1.1\r\n"]))
def test_r12_no_exception_leaves_the_handshake(fd, pieces, prefix):
    server = fd.server.ServerProtocol()
    for piece in (prefix, *pieces):
        server.receive_data(piece)
    for request in server.events_received():
        server.send_response(server.accept(request))
    server.receive_eof()
    assert isinstance(server.handshake_exc, fd.exceptions.InvalidHandshake)
    assert server.data_to_send()[-1] == fd.protocol.SEND_EOF


VALUES = st.text([chr(code) for code in range(0x20, 0x100) if code != 0x7F])


@given(
    st.sampled_from([*HEADERS, "Origin", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"]),
    VALUES,
)
def test_r12_any_value_in_any_header_is_400_at_worst(fd, name, value):
    module = fd.extensions.permessage_deflate
    server = fd.server.ServerProtocol(
        extensions=[module.ServerPerMessageDeflateFactory()], origins=[None, "https://a.example"]
    )
    headers = [item for item in HEADERS.items() if item[0] != name]
    lines = "".join(f"{n}: {v}\r\n" for n, v in [*headers, (name, value)])
    server.receive_data(f"GET / HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
    (request,) = server.events_received()
    response = server.accept(request)
    assert response.status_code in (101, 400, 403, 426)
    server.send_response(response)
    assert server.data_to_send()[0].startswith(b"HTTP/1.1 %d " % response.status_code)
