"""Responses for a client's side of the opening handshake, and what it makes of them."""

from __future__ import annotations

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
HEADERS = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}
TEXT_FRAME = b"\x81\x05hello"
REFUSAL = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nSorry"


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
