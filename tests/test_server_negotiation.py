"""Origins, extensions and subprotocols, as the server's side chooses them."""

from __future__ import annotations

import logging
import re

import pytest

from .server_helpers import (
    Factory,
    exchange,
    make_request,
    open_connection,
)

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
