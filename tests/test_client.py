"""The client's side of the opening handshake."""

from __future__ import annotations

import logging
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HEADERS = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}
TEXT_FRAME = b"\x81\x05hello"
REFUSAL = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nSorry"


def whole(data):
    return [data]


def bytewise(data):
    return [data[i : i + 1] for i in range(len(data))]


def halved(data):
    return [data[:50], data[50:]]


def make_client(fd, uri="ws://example.com/chat", **kwargs):
    client = fd.client.ClientProtocol(fd.uri.parse_uri(uri), **kwargs)
    client.key = KEY
    return client


def make_response(*removed, more=(), status=b"101 Switching Protocols", **changed):
    """Give a response that is right, but for what is removed, changed and added."""
    headers = {**HEADERS, **{name.replace("_", "-"): value for name, value in changed.items()}}
    items = [item for item in headers.items() if item[0] not in removed]
    lines = [f"{name}: {value}\r\n".encode("latin-1") for name, value in [*items, *more]]
    return b"HTTP/1.1 " + status + b"\r\n" + b"".join(lines) + b"\r\n"


def receive(client, *pieces, eof=False):
    for piece in pieces:
        client.receive_data(piece)
    if eof:
        client.receive_eof()
    return client


def assert_failed(fd, client, kind, text=None):
    exc = client.handshake_exc
    assert type(exc) is getattr(fd.exceptions, kind)
    if text is not None:
        assert str(exc) == text
    assert client.state is fd.protocol.State.CONNECTING
    assert client.data_to_send() == [fd.protocol.SEND_EOF]
    assert client.close_expected()
    assert list(client.extensions) == []
    assert client.subprotocol is None
    return exc


class Factory:
    """A client's side of an extension for tests; it agrees if the server repeats the offer."""

    def __init__(self, fd, name="x-test", params=(), error=None):
        self.fd, self.name, self.params, self.error = fd, name, list(params), error
        self.seen = []

    def get_request_params(self):
        return self.params

    def process_response_params(self, params, accepted_extensions):
        self.seen.append((params, list(accepted_extensions)))
        if self.error is not None:
            raise self.error
        if params != self.params:
            raise self.fd.exceptions.NegotiationError("not what was offered")
        extension = self.fd.extensions.Extension()
        extension.name = self.name
        extension.factory = self
        return extension


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


# Extensions


def test_extensions(fd):
    one, two = Factory(fd, "x-one", [("a", "1")]), Factory(fd, "x-two")
    client = make_client(fd, extensions=[one, two])
    receive(client, make_response(Sec_WebSocket_Extensions="x-two, x-one; a=1"))
    assert client.state is fd.protocol.State.OPEN
    # In the order of the response (RFC 6455 §9.1)
    assert [extension.factory for extension in client.extensions] == [two, one]
    assert two.seen == [([], [])]
    assert one.seen == [([("a", "1")], [client.extensions[0]])]


def test_extensions_in_several_headers(fd):
    factories = [Factory(fd, "x-one"), Factory(fd, "x-two")]
    client = make_client(fd, extensions=factories)
    more = [("Sec-WebSocket-Extensions", "x-one"), ("Sec-WebSocket-Extensions", "x-two")]
    receive(client, make_response(more=more))
    assert [extension.factory for extension in client.extensions] == factories


def test_server_may_choose_no_extension(fd):
    client = receive(make_client(fd, extensions=[Factory(fd)]), make_response())
    assert client.state is fd.protocol.State.OPEN
    assert list(client.extensions) == []


def test_next_factory_of_the_same_name(fd):
    one, two = Factory(fd, params=[("a", None)]), Factory(fd, params=[("b", None)])
    client = make_client(fd, extensions=[one, two])
    receive(client, make_response(Sec_WebSocket_Extensions="x-test; b"))
    assert [extension.factory for extension in client.extensions] == [two]


def test_no_factory_agrees(fd):
    client = make_client(fd, extensions=[Factory(fd)])
    receive(client, make_response(Sec_WebSocket_Extensions="x-test; c=3"))
    exc = assert_failed(
        fd,
        client,
        "NegotiationError",
        "the server's extension isn't acceptable: x-test; c=3: not what was offered",
    )
    assert type(exc.__cause__) is fd.exceptions.NegotiationError


def test_extension_that_raises(fd):
    """Whatever an extension does, the outcome is a failed handshake."""
    client = make_client(fd, extensions=[Factory(fd, error=ZeroDivisionError())])
    receive(client, make_response(Sec_WebSocket_Extensions="x-test"))
    assert type(client.handshake_exc) is ZeroDivisionError
    assert client.data_to_send() == [fd.protocol.SEND_EOF]


def test_permessage_deflate(fd):
    module = fd.extensions.permessage_deflate
    client = make_client(fd, extensions=[module.ClientPerMessageDeflateFactory()])
    offer = client.connect().headers["Sec-WebSocket-Extensions"]
    assert offer == "permessage-deflate; client_max_window_bits"
    receive(client, make_response(Sec_WebSocket_Extensions="permessage-deflate"))
    assert [extension.name for extension in client.extensions] == ["permessage-deflate"]


# Subprotocols


@pytest.mark.parametrize("chosen", ["chat", "superchat"])
def test_subprotocol(fd, chosen):
    client = make_client(fd, subprotocols=["chat", "superchat"])
    receive(client, make_response(Sec_WebSocket_Protocol=chosen))
    assert client.state is fd.protocol.State.OPEN
    assert client.subprotocol == chosen


def test_server_may_choose_no_subprotocol(fd):
    client = receive(make_client(fd, subprotocols=["chat"]), make_response())
    assert client.state is fd.protocol.State.OPEN
    assert client.subprotocol is None


def test_subprotocol_without_an_offer(fd):
    client = receive(make_client(fd), make_response(Sec_WebSocket_Protocol="chat"))
    assert_failed(fd, client, "NegotiationError")


def test_subprotocols_are_compared_with_case(fd):
    client = make_client(fd, subprotocols=["chat"])
    receive(client, make_response(Sec_WebSocket_Protocol="Chat"))
    assert_failed(fd, client, "NegotiationError")


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
