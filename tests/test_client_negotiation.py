"""Extensions and subprotocols, as the client's side takes them from the response."""

from __future__ import annotations

import pytest

from .client_helpers import (
    Factory,
    assert_failed,
    make_client,
    make_response,
    receive,
)

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
