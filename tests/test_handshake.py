"""What both sides of the opening handshake need."""

from __future__ import annotations

import base64
import logging

import pytest


def test_keys_are_16_random_bytes(fd):
    keys = {fd.handshake.generate_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {16}


def test_accept_key(fd):
    # RFC 6455 §1.3
    assert fd.handshake.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_single_value(fd):
    headers = fd.datastructures.Headers([("A", "1"), ("B", ""), ("C", "1"), ("c", "2")])
    assert fd.handshake.single_value(headers, "a") == "1"
    assert fd.handshake.single_value(headers, "b") == ""


@pytest.mark.parametrize(
    ("name", "error"), [("C", "invalid C header: multiple values"), ("D", "missing D header")]
)
def test_no_single_value(fd, name, error):
    headers = fd.datastructures.Headers([("C", "1"), ("c", "1")])
    with pytest.raises(fd.exceptions.InvalidHeader) as caught:
        fd.handshake.single_value(headers, name)
    assert type(caught.value) is fd.exceptions.InvalidHeader
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("connection", "upgrade"),
    [
        (["Upgrade"], ["websocket"]),
        (["upgrade"], ["WebSocket"]),
        (["UPGRADE"], ["WEBSOCKET"]),
        (["keep-alive, Upgrade"], ["websocket"]),
        (["Upgrade ,keep-alive"], ["websocket"]),
        (["keep-alive", "Upgrade"], ["websocket"]),
        ([", Upgrade,"], [", websocket ,"]),
    ],
)
def test_upgrade(fd, connection, upgrade):
    headers = fd.datastructures.Headers(
        [*(("Connection", value) for value in connection), *(("Upgrade", v) for v in upgrade)]
    )
    fd.handshake.check_upgrade(headers)


@pytest.mark.parametrize(
    ("connection", "upgrade", "error"),
    [
        ([], ["websocket"], "missing Connection header"),
        (["close"], ["websocket"], "invalid Connection header: close"),
        (["keep-alive", "te"], ["websocket"], "invalid Connection header: keep-alive, te"),
        (["Upgraded"], ["websocket"], "invalid Connection header: Upgraded"),
        (["Upgrade"], [], "missing Upgrade header"),
        (["Upgrade"], ["h2c"], "invalid Upgrade header: h2c"),
        (["Upgrade"], ["websocket, h2c"], "invalid Upgrade header: websocket, h2c"),
        (["Upgrade"], ["websocket", "websocket"], "invalid Upgrade header: websocket, websocket"),
        (["Upgrade"], ["websocket/13"], "invalid Upgrade header: websocket/13"),
        (["Upgrade"], ["websockets"], "invalid Upgrade header: websockets"),
    ],
)
def test_no_upgrade(fd, connection, upgrade, error):
    headers = fd.datastructures.Headers(
        [*(("Connection", value) for value in connection), *(("Upgrade", v) for v in upgrade)]
    )
    with pytest.raises(fd.exceptions.InvalidUpgrade) as caught:
        fd.handshake.check_upgrade(headers)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("connection", "upgrade"),
    [
        ("", "websocket"),
        (",", "websocket"),
        ("Upgrade Upgrade", "websocket"),
        ("\xe9", "websocket"),
        ("Upgrade", ""),
        ("Upgrade", "web socket"),
        ("Upgrade", "websocket;q=1"),
        ("Upgrade", "\xe9"),
    ],
)
def test_malformed_upgrade(fd, connection, upgrade):
    headers = fd.datastructures.Headers(Connection=connection, Upgrade=upgrade)
    with pytest.raises(fd.exceptions.InvalidHeaderFormat):
        fd.handshake.check_upgrade(headers)


def test_credentials_are_not_logged(fd, caplog):
    names = ["Host", "Authorization", "proxy-authorization", "Cookie", "Set-Cookie", "SET-COOKIE2"]
    headers = fd.datastructures.Headers([(name, f"secret {name}") for name in names])
    logger = logging.getLogger("test.handshake")
    with caplog.at_level(logging.DEBUG, "test.handshake"):
        fd.handshake.log_headers(logger, ">", headers)
    assert caplog.messages == [
        "> Host: secret Host",
        *(f"> {name}: [not logged]" for name in names[1:]),
    ]
