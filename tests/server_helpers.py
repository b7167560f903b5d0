"""Requests for a server's side of the opening handshake, and what it makes of them."""

from __future__ import annotations

import h11

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
