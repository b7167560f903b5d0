"""The server's side of the opening handshake."""

from __future__ import annotations

import http
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .pieces import bytewise, whole
from .server_helpers import (
    ACCEPT,
    HEADERS,
    TEXT_FRAME,
    exchange,
    make_request,
    open_connection,
    read,
)

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
