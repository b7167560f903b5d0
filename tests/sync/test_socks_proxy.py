"""SOCKS proxies: real ones in small, and those that lie."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from types import ModuleType
from typing import Any

import pytest

from .peers import (
    Peer,
    echo,
    free_port,
    no_leak,
    silent,
)
from .proxies import SOCKSProxy, connect_through


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("scheme", "host", "destination"),
    [
        ("socks5", "localhost", ("address", None)),
        ("socks5", "127.0.0.1", ("address", "127.0.0.1")),
        ("socks5h", "host.example", ("name", "host.example")),
        ("socks5h", "127.0.0.1", ("address", "127.0.0.1")),
        ("socks4", "127.0.0.1", ("address", "127.0.0.1")),
        ("socks4", "localhost", ("address", "127.0.0.1")),
        ("socks4a", "host.example", ("name", "host.example")),
    ],
)
def test_socks_proxy(fd: ModuleType, scheme: str, host: str, destination: Any) -> None:
    handler = SOCKSProxy()
    with Peer(echo) as peer, Peer(handler) as proxy, no_leak(fd):
        connect_through(fd, f"ws://{host}:{peer.port}", f"{scheme}://127.0.0.1:{proxy.port}")
    ((kind, name),) = handler.destinations
    assert kind == destination[0]
    assert name == destination[1] or destination[1] is None


def test_socks_proxy_with_credentials(fd: ModuleType) -> None:
    handler = SOCKSProxy((b"user", b"p@ss"))
    with Peer(echo) as peer, Peer(handler) as proxy, no_leak(fd):
        connect_through(fd, peer.uri, f"socks5h://user:p%40ss@127.0.0.1:{proxy.port}")
        with pytest.raises(fd.exceptions.ProxyError, match="proxy did not connect"):
            fd.sync.client.connect(peer.uri, proxy=f"socks5h://user:wrong@127.0.0.1:{proxy.port}")


def test_socks_proxy_and_tls(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with Peer(echo, context=server_context) as peer, Peer(SOCKSProxy()) as proxy, no_leak(fd):
        url = f"socks5h://127.0.0.1:{proxy.port}"
        connect_through(fd, peer.secure_uri, url, ssl=client_context)


def test_socks_proxy_and_source_address(fd: ModuleType) -> None:
    port = free_port()
    with Peer(echo) as peer, Peer(SOCKSProxy()) as proxy:
        connect_through(
            fd,
            peer.uri,
            f"socks5h://127.0.0.1:{proxy.port}",
            source_address=("127.0.0.1", port),
        )
        # Nothing else says that the socket was bound.
        assert proxy.peers == [("127.0.0.1", port)]


def first_byte_then(data: bytes) -> Any:
    def handler(sock: Any) -> None:
        assert sock.recv(1)
        sock.sendall(data)
        silent(sock)

    return handler


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(lambda sock: sock.recv(65536), id="end"),
        pytest.param(first_byte_then(b"\x05\xff"), id="no method"),
        pytest.param(first_byte_then(b"\x05\x02"), id="wants credentials"),
        pytest.param(first_byte_then(b"\x05\x63"), id="unknown method"),
        pytest.param(first_byte_then(b"HTTP/1.1 400 Bad Request\r\n\r\n"), id="HTTP"),
        pytest.param(first_byte_then(b"\x05\x00\x05\x05\x00\x01" + 6 * b"\0"), id="refused"),
        pytest.param(first_byte_then(b"\x05\x00\x05\x00\x00\x09" + 6 * b"\0"), id="odd address"),
    ],
)
def test_socks_proxies_that_fail(fd: ModuleType, handler: Any) -> None:
    with Peer(handler) as proxy, no_leak(fd):
        with pytest.raises(fd.exceptions.ProxyError) as raised:
            fd.sync.client.connect(
                "ws://host.example", proxy=f"socks5h://127.0.0.1:{proxy.port}", open_timeout=2
            )
        place = f"while asking the proxy socks5h://127.0.0.1:{proxy.port} for host.example:80"
        assert place in str(raised.value)
        del raised


def refused_with(code: int) -> Any:
    return first_byte_then(b"\x05\x00\x05" + bytes([code]) + b"\x00\x01" + 6 * b"\0")


@pytest.mark.parametrize(
    ("scheme", "handler", "passes"),
    [
        pytest.param("socks5h", lambda sock: sock.recv(65536), True, id="end"),
        pytest.param("socks4a", lambda sock: sock.recv(65536), True, id="end of SOCKS4"),
        *(
            pytest.param("socks5h", refused_with(code), code in (1, 3, 4, 5, 6), id=f"{code:02}")
            for code in range(1, 10)
        ),
        pytest.param("socks5h", first_byte_then(b"\x05\xff"), False, id="no method"),
        pytest.param("socks5h", first_byte_then(b"HTTP/1.1 400"), False, id="HTTP"),
        pytest.param("socks4a", first_byte_then(b"\0\x5b" + 6 * b"\0"), True, id="5b"),
        pytest.param("socks4a", first_byte_then(b"\0\x5c" + 6 * b"\0"), False, id="5c"),
    ],
)
def test_what_may_pass_is_tried_again(
    fd: ModuleType, scheme: str, handler: Any, passes: bool
) -> None:
    """As with an HTTP proxy's statuses: a server that is down now may be up in a minute."""
    with Peer(handler) as proxy, no_leak(fd):
        again = fd.sync.client.reconnect(
            "ws://host.example",
            proxy=f"{scheme}://127.0.0.1:{proxy.port}",
            reconnect_delays=lambda: [0.0, 0.0],
            open_timeout=5,
        )
        with pytest.raises(fd.exceptions.ProxyError, match="while asking the proxy"):
            next(iter(again))
        assert proxy.accepted == (3 if passes else 1)


def test_a_socks_proxy_that_resets(fd: ModuleType) -> None:
    def handler(sock: Any) -> None:
        assert sock.recv(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    with (
        Peer(handler) as proxy,
        no_leak(fd),
        pytest.raises((ConnectionResetError, fd.exceptions.ProxyError), match="proxy"),
    ):
        fd.sync.client.connect("ws://host.example", proxy=f"socks5h://127.0.0.1:{proxy.port}")


def test_socks4_needs_an_ipv4_address(fd: ModuleType) -> None:
    with (
        Peer(silent) as proxy,
        no_leak(fd),
        pytest.raises(fd.exceptions.ProxyError, match="IPv4"),
    ):
        fd.sync.client.connect("ws://[::1]", proxy=f"socks4://127.0.0.1:{proxy.port}")


def test_socks_needs_python_socks(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    monkeypatch.setitem(sys.modules, "python_socks.sync", None)
    with pytest.raises(ImportError, match="python-socks"):
        fd.sync.client.connect("ws://localhost", proxy="socks5://localhost")
