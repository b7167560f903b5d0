"""The client's side of the opening handshake."""

from __future__ import annotations

import logging
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .client_helpers import (
    HEADERS,
    KEY,
    REFUSAL,
    TEXT_FRAME,
    Factory,
    make_client,
    make_response,
    receive,
)
from .pieces import bytewise, halved, whole

# The request


def test_request(fd):
    client = make_client(fd)
    request = client.connect()
    assert (request.path, request.method, request.protocol) == ("/chat", "GET", "HTTP/1.1")
    client.send_request(request)
    assert b"".join(client.data_to_send()) == (
        b"GET /chat HTTP/1.1\r\n"
        b"Host: example.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"\r\n"
    )
    assert not client.close_expected()
    assert client.state is fd.protocol.State.CONNECTING


def test_order_of_headers(fd):
    client = make_client(
        fd,
        "wss://user:secret@example.com:8443/?a=b",
        origin="https://example.com",
        extensions=[Factory(fd, "x-one", [("a", None), ("b", "2")]), Factory(fd, "x-two")],
        subprotocols=["chat", "superchat"],
    )
    request = client.connect()
    assert request.path == "/?a=b"
    assert list(request.headers.raw_items()) == [
        ("Host", "example.com:8443"),
        ("Authorization", "Basic dXNlcjpzZWNyZXQ="),
        ("Origin", "https://example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Extensions", "x-one; a; b=2, x-two"),
        ("Sec-WebSocket-Protocol", "chat, superchat"),
    ]


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("ws://localhost/", "localhost"),
        ("ws://localhost:80/", "localhost"),
        ("wss://localhost:443/", "localhost"),
        ("wss://localhost:80/", "localhost:80"),
        ("ws://[::1]:8080/", "[::1]:8080"),
    ],
)
def test_host(fd, uri, host):
    assert make_client(fd, uri).connect().headers["Host"] == host


def test_key_is_fresh(fd):
    uri = fd.uri.parse_uri("ws://localhost/")
    keys = {fd.client.ClientProtocol(uri).key for _ in range(10)}
    assert len(keys) == 10


def test_empty_offers_are_not_sent(fd):
    headers = make_client(fd, extensions=[], subprotocols=[]).connect().headers
    assert "Sec-WebSocket-Extensions" not in headers
    assert "Sec-WebSocket-Protocol" not in headers


@pytest.mark.parametrize(
    ("subprotocols", "error"),
    [("chat", TypeError), ({"chat": 1}, TypeError), (["a b"], ValueError), ([""], ValueError)],
)
def test_subprotocols_are_checked(fd, subprotocols, error):
    with pytest.raises(error):
        make_client(fd, subprotocols=subprotocols)


@pytest.mark.parametrize("name", ["", "X:", "X\r\nY"])
def test_r14_request_is_validated(fd, name):
    client = make_client(fd)
    request = client.connect()
    request.headers[name] = "value"
    with pytest.raises(ValueError, match=r"^invalid header name"):
        client.send_request(request)
    assert client.data_to_send() == []


def test_r14_target_of_a_redirect_is_validated(fd):
    # Whoever builds the URI by hand, past parse_uri().
    uri = fd.uri.WebSocketURI(False, "localhost", 80, "/ HTTP/1.1\r\nX: y", "")
    client = fd.client.ClientProtocol(uri)
    with pytest.raises(ValueError, match=r"^invalid request target"):
        client.send_request(client.connect())


def test_no_request_when_the_handshake_is_over(fd):
    client = make_client(fd)
    request = client.connect()
    receive(client, make_response())
    with pytest.raises(fd.exceptions.InvalidState):
        client.send_request(request)
    client = receive(make_client(fd), eof=True)
    with pytest.raises(fd.exceptions.InvalidState):
        client.send_request(request)
    client = make_client(fd, state=fd.protocol.State.OPEN)
    with pytest.raises(fd.exceptions.InvalidState):
        client.send_request(request)


# The response


def test_open(fd):
    client = make_client(fd)
    client.send_request(client.connect())
    client.data_to_send()
    receive(client, make_response())
    assert client.state is fd.protocol.State.OPEN
    assert client.handshake_exc is None
    assert client.data_to_send() == []
    (response,) = client.events_received()
    assert type(response) is fd.http11.Response
    assert response.status_code == 101
    assert dict(response.headers.raw_items()) == HEADERS


@pytest.mark.parametrize("split", [whole, bytewise, halved])
def test_frames_behind_the_response(fd, split):
    client = receive(make_client(fd), *split(make_response() + TEXT_FRAME + b"\x89\x00"))
    _, text, ping = client.events_received()
    assert text == fd.frames.Frame(fd.frames.Opcode.TEXT, b"hello")
    assert ping.opcode is fd.frames.Opcode.PING
    (pong,) = client.data_to_send()
    assert pong[0] == 0x8A


def test_error_in_frames_behind_the_response(fd):
    client = receive(make_client(fd), make_response() + b"\x83\x00")
    assert client.handshake_exc is None
    assert client.state is fd.protocol.State.CLOSING
    assert type(client.parser_exc) is fd.exceptions.ProtocolError


def test_interim_responses(fd):
    client = receive(make_client(fd), b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n", make_response())
    assert client.state is fd.protocol.State.OPEN
    assert len(client.events_received()) == 1


def test_accept_of_the_own_key(fd):
    client = fd.client.ClientProtocol(fd.uri.parse_uri("ws://localhost/"))
    receive(client, make_response(Sec_WebSocket_Accept=fd.handshake.accept_key(client.key)))
    assert client.state is fd.protocol.State.OPEN


# End of the stream


def test_end_after_opening(fd):
    client = receive(make_client(fd), make_response(), eof=True)
    assert client.handshake_exc is None
    assert client.state is fd.protocol.State.CLOSED


def test_nothing_after_the_end(fd):
    client = receive(make_client(fd), eof=True)
    client.receive_eof()
    with pytest.raises(EOFError):
        client.receive_data(b"x")


# Logs


def test_debug_log(fd, caplog):
    logger = logging.getLogger("test.client")
    with caplog.at_level(logging.DEBUG, "test.client"):
        client = make_client(fd, "ws://user:secret@localhost/", logger=logger)
        client.send_request(client.connect())
        receive(client, REFUSAL)
    assert caplog.messages == [
        "> GET / HTTP/1.1",
        "> Host: localhost",
        "> Authorization: [not logged]",
        "> Upgrade: websocket",
        "> Connection: Upgrade",
        f"> Sec-WebSocket-Key: {KEY}",
        "> Sec-WebSocket-Version: 13",
        "< HTTP/1.1 404 Not Found",
        "< Content-Length: 5",
        "< [body] (5 bytes)",
    ]


def test_debug_log_without_a_body(fd, caplog):
    with caplog.at_level(logging.DEBUG, "fullduplex.client"):
        receive(make_client(fd), make_response())
    assert caplog.messages[0] == "< HTTP/1.1 101 Switching Protocols"
    assert not any("[body]" in message for message in caplog.messages)


# Whether to try again


def make_status(fd, kind, status):
    response = fd.http11.Response(status, "", fd.datastructures.Headers())
    return getattr(fd.exceptions, kind)(response)


def make_message(fd, kind, cause):
    exc = getattr(fd.exceptions, kind)("did not receive a valid HTTP response")
    exc.__cause__ = cause
    return exc


@pytest.mark.parametrize(
    "make",
    [
        lambda fd: OSError(),
        lambda fd: ConnectionRefusedError(),
        lambda fd: ssl.SSLError(),
        lambda fd: TimeoutError(),
        lambda fd: make_message(fd, "InvalidMessage", EOFError()),
        lambda fd: make_message(fd, "InvalidProxyMessage", EOFError()),
        *(
            lambda fd, kind=kind, status=status: make_status(fd, kind, status)
            for kind in ("InvalidStatus", "InvalidProxyStatus")
            for status in (500, 502, 503, 504)
        ),
    ],
)
def test_transient_exceptions(fd, make):
    assert fd.client.process_exception(make(fd)) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda fd: ValueError(),
        lambda fd: EOFError(),
        lambda fd: fd.exceptions.InvalidURI("x", "y"),
        lambda fd: fd.exceptions.SecurityError(),
        lambda fd: fd.exceptions.InvalidUpgrade("Upgrade"),
        lambda fd: fd.exceptions.InvalidMessage(),
        lambda fd: make_message(fd, "InvalidMessage", ValueError()),
        *(
            lambda fd, kind=kind, status=status: make_status(fd, kind, status)
            for kind in ("InvalidStatus", "InvalidProxyStatus")
            for status in (200, 301, 400, 401, 403, 404, 407, 429, 501, 505)
        ),
    ],
)
def test_fatal_exceptions(fd, make):
    exc = make(fd)
    assert fd.client.process_exception(exc) is exc


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 101 X\r\n", REFUSAL[:-1]])
def test_end_of_stream_in_the_handshake_is_transient(fd, data):
    client = receive(make_client(fd), data, eof=True)
    assert fd.client.process_exception(client.handshake_exc) is None


# Properties


@given(
    st.lists(st.binary(max_size=20), max_size=8),
    st.sampled_from([b"", b"HTTP/1.1 101 X\r\n", b"HTTP/1.1 404 X\r\n\r\n", make_response()[:-2]]),
)
def test_r12_no_exception_leaves_the_handshake(fd, pieces, prefix):
    client = receive(make_client(fd), prefix, *pieces, eof=True)
    assert client.state in (fd.protocol.State.CONNECTING, fd.protocol.State.CLOSED)
    if client.state is fd.protocol.State.CONNECTING:
        assert isinstance(client.handshake_exc, fd.exceptions.InvalidHandshake)


# Controls of ISO-8859-1 (0x80 to 0x9f) among them, which are legal in HTTP
VALUES = st.text([chr(code) for code in range(0x20, 0x100) if code != 0x7F])


@given(st.sampled_from([*HEADERS, "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"]), VALUES)
def test_r12_any_value_in_any_header(fd, name, value):
    headers = [item for item in HEADERS.items() if item[0] != name]
    client = make_client(fd, extensions=[Factory(fd)], subprotocols=["chat"])
    lines = "".join(f"{n}: {v}\r\n" for n, v in [*headers, (name, value)])
    receive(client, f"HTTP/1.1 101 X\r\n{lines}\r\n".encode("latin-1"))
    if client.handshake_exc is None:
        assert client.state is fd.protocol.State.OPEN
    else:
        assert isinstance(client.handshake_exc, fd.exceptions.InvalidHandshake)
