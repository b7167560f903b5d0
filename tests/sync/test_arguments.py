"""Arguments that make no sense are refused at once, and by their name, not with the first client."""

from __future__ import annotations

import socket
import ssl
from types import ModuleType
from typing import Any

import pytest

from .links import link

URI = "ws://127.0.0.1:9/"

SECONDS = ("open_timeout", "ping_interval", "ping_timeout", "close_timeout")


def handler(connection: Any) -> None:
    """Serve nobody."""


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize(
    ("value", "error"),
    [("5", TypeError), ([1], TypeError), (float("nan"), ValueError), (-1, ValueError)],
)
def test_seconds(fd: ModuleType, name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        fd.connect(URI, **{name: value})
    with pytest.raises(error, match=name):
        fd.serve(handler, "127.0.0.1", 0, **{name: value})
    if name != "open_timeout":
        one, other = socket.socketpair()
        with one, other, pytest.raises(error, match=name):
            fd.Connection(one, fd.protocol.Protocol(fd.Side.CLIENT), **{name: value})


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [None, 3600, 0.5, float("inf")])
def test_seconds_that_are_fine(fd: ModuleType, name: str, value: float | None) -> None:
    with fd.serve(handler, "127.0.0.1", 0, **{name: value}):
        pass


@pytest.mark.parametrize("name", ["max_connections", "max_handshakes"])
@pytest.mark.parametrize(("value", "error"), [("5", TypeError), (1.5, TypeError), (-1, ValueError)])
def test_limits_of_servers(fd: ModuleType, name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        fd.serve(handler, "127.0.0.1", 0, **{name: value})


def test_a_server_that_accepts_nobody(fd: ModuleType) -> None:
    """It may refuse all, but not leave them without an answer."""
    with pytest.raises(ValueError, match="max_handshakes"):
        fd.serve(handler, "127.0.0.1", 0, max_handshakes=0)
    fd.serve(handler, "127.0.0.1", 0, max_connections=0).shutdown()


@pytest.mark.parametrize("value", [1e6, "1", (1, 2.5)])
def test_max_size_is_a_whole_number(fd: ModuleType, value: Any) -> None:
    for call in (fd.connect, fd.serve):
        with pytest.raises(TypeError, match="max_size"):
            call(URI if call is fd.connect else handler, max_size=value)


@pytest.mark.parametrize("name", ["ssl", "proxy_ssl"])
@pytest.mark.parametrize("value", [True, "cert.pem", ssl.PROTOCOL_TLS_CLIENT])
def test_contexts(fd: ModuleType, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        fd.connect("wss://127.0.0.1:9/", **{name: value})
    if name == "ssl":
        with pytest.raises(TypeError, match=name):
            fd.serve(handler, "127.0.0.1", 0, ssl=value)


@pytest.mark.parametrize(
    "name", ["process_request", "process_response", "select_subprotocol", "create_connection"]
)
def test_functions_of_servers(fd: ModuleType, name: str) -> None:
    with pytest.raises(TypeError, match=name):
        fd.serve(handler, "127.0.0.1", 0, **{name: 5})


def test_handlers(fd: ModuleType) -> None:
    async def coroutine(connection: Any) -> None:
        handler(connection)

    for wrong in (5, None, coroutine):
        with pytest.raises(TypeError, match="handler"):
            fd.serve(wrong, "127.0.0.1", 0)


@pytest.mark.parametrize("value", [5, b"bytes"])
def test_headers_are_str(fd: ModuleType, value: Any) -> None:
    with pytest.raises(TypeError, match="Server"):
        fd.serve(handler, "127.0.0.1", 0, server_header=value)
    with pytest.raises(TypeError, match="X-Test"):
        fd.connect(URI, additional_headers={"X-Test": value})


@pytest.mark.parametrize("uri", [5, b"ws://127.0.0.1/", None])
def test_a_uri_is_a_str(fd: ModuleType, uri: Any) -> None:
    with pytest.raises(TypeError, match="URI"):
        fd.connect(uri)


def test_a_host_is_a_str(fd: ModuleType) -> None:
    with pytest.raises(TypeError, match="host"):
        fd.serve(handler, 8765)


@pytest.mark.parametrize("function", ["wait", "broadcast"])
def test_one_connection_in_place_of_a_list(fd: ModuleType, function: str) -> None:
    """It can be iterated: that would receive, and swallow, its messages."""
    with link(fd) as (connection, peer):
        peer.send(1, b"still there")
        with pytest.raises(TypeError, match="connections"):
            getattr(fd, function)(connection, "message")
        assert connection.recv() == "still there"


@pytest.mark.parametrize("arguments", [("bye",), (1000, b"bye"), (1000.0,), (None,)])
def test_close_codes_and_reasons(fd: ModuleType, arguments: tuple[Any, ...]) -> None:
    with link(fd) as (connection, _):
        with pytest.raises(TypeError, match="close code"):
            connection.close(*arguments)
        assert connection.state is fd.State.OPEN
