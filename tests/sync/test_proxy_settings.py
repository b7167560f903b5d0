"""URLs of proxies, and the system's settings."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from .peers import (
    Peer,
    echo,
    free_port,
)
from .proxies import HTTPProxy, connect_through


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy", ("http", "proxy", 80)),
        ("https://proxy/", ("https", "proxy", 443)),
        ("socks4://proxy", ("socks4", "proxy", 80)),
        ("socks4a://proxy:1080", ("socks4a", "proxy", 1080)),
        ("socks5://[::1]:1080", ("socks5", "::1", 1080)),
        ("socks5h://PROXY", ("socks5h", "proxy", 80)),
        ("http://bücher.example:8", ("http", "xn--bcher-kva.example", 8)),
        ("http://a:b@proxy", ("http", "proxy", 80, "a", "b")),
        ("http://%C3%A4:b%3Ac@proxy", ("http", "proxy", 80, "ä", "b:c")),
        ("http://a:@proxy", ("http", "proxy", 80, "a", "")),
        ("socks5://[fe80::1%25eth0]:1080", ("socks5", "fe80::1%eth0", 1080)),
        ("socks5://[fe80::1%eth0]:1080", ("socks5", "fe80::1%eth0", 1080)),
    ],
)
def test_urls(fd: ModuleType, url: str, expected: tuple[Any, ...]) -> None:
    assert fd.sync.proxy.parse_proxy(url) == fd.sync.proxy.Proxy(*expected)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://proxy", "scheme ftp isn't supported"),
        ("proxy:80", "scheme proxy isn't supported"),
        ("", "scheme  isn't supported"),
        ("http://", "hostname isn't provided"),
        ("http://:80", "hostname isn't provided"),
        ("http://proxy:x", "port isn't a number"),
        ("http://proxy:0", "port 0"),
        ("http://[::1", "IPv6"),
        ("http://proxy/path", "path is meaningless"),
        ("http://proxy?q", "query is meaningless"),
        ("http://proxy#f", "fragment identifier is meaningless"),
        ("http://user@proxy", "username provided without password"),
        ("http://%ff:x@proxy", "isn't valid UTF-8"),
        ("http://a%3Ab:x@proxy", "colon"),
        ("http://proxy\r\nX: y", "control characters"),
        (f"http://{'ä' * 70}", "international name"),
        # as in URIs
        ("http://a%0D%0AX:b@proxy", "control character"),
        ("http://a:b%00@proxy", "control character"),
        ("socks5://a:b%7F@proxy", "control character"),
        ("http://[fe80::1%25a%2fb]", "IPv6 address"),
        ("http://[v1.x]", "IPv6 address"),
        ("http://a|b", "invalid characters"),
        ("http://a..b", "empty or an overlong part"),
    ],
)
def test_bad_urls(fd: ModuleType, url: str, message: str) -> None:
    with pytest.raises(fd.exceptions.InvalidProxy) as raised:
        fd.sync.proxy.parse_proxy(url)
    assert message in str(raised.value)
    assert raised.value.proxy == url


def test_messages_name_a_proxy_without_its_password(fd: ModuleType) -> None:
    proxy = fd.sync.proxy.parse_proxy("http://user:secret@[::1]:80")
    assert str(proxy) == "http://[::1]:80"
    assert "secret" not in repr(proxy)


def test_arguments(fd: ModuleType) -> None:
    connect = fd.sync.client.connect
    context = ssl.create_default_context()
    with pytest.raises(fd.exceptions.InvalidProxy):
        connect("ws://localhost", proxy="gopher://proxy")
    with pytest.raises(ValueError, match="proxy_ssl is incompatible"):
        connect("ws://localhost", proxy="http://proxy", proxy_ssl=context)


def test_no_proxy_for_a_socket_of_the_caller(fd: ModuleType) -> None:
    with Peer(echo) as peer:
        sock = socket.create_connection(("127.0.0.1", peer.port))
        connect_through(fd, "ws://host.example", f"http://127.0.0.1:{free_port()}", sock=sock)


# The system's settings


def system(fd: ModuleType, uri: str) -> str | None:
    proxy = fd.sync.proxy.system_proxy(fd.uri.parse_uri(uri))
    return None if proxy is None else str(proxy)


def test_settings_in_their_order(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert system(fd, "ws://host.example") is None
    steps = [
        ("http_proxy", "http://p1:1", "http://p1:1", None),
        ("HTTPS_PROXY", "http://p2:2", "http://p2:2", "http://p2:2"),
        ("socks_proxy", "socks5://p3:3", "socks5://p3:3", "socks5://p3:3"),
        ("Ws_Proxy", "http://p4:4", "http://p4:4", "socks5://p3:3"),
        ("wss_proxy", "https://p5:5", "http://p4:4", "https://p5:5"),
    ]
    for name, value, plain, secure in steps:
        monkeypatch.setenv(name, value)
        assert system(fd, "ws://host.example") == plain
        assert system(fd, "wss://host.example") == secure


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ws_proxy", "proxy:3128", "http://proxy:3128"),
        ("socks_proxy", "http://proxy:1080", "socks5h://proxy:1080"),
        ("socks_proxy", "proxy:1080", "socks5h://proxy:1080"),
        ("socks_proxy", "socks4://proxy:1080", "socks4://proxy:1080"),
        ("ws_proxy", "", None),
        ("ftp_proxy", "http://proxy:1", None),
    ],
)
def test_forms_of_settings(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str | None
) -> None:
    monkeypatch.setenv(name, value)
    assert system(fd, "ws://host.example") == expected


def test_a_bad_setting(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ws_proxy", "gopher://proxy")
    with pytest.raises(fd.exceptions.InvalidProxy):
        fd.sync.client.connect("ws://host.example")
    monkeypatch.setenv("ws_proxy", "http://proxy")
    with pytest.raises(ValueError, match="proxy_ssl is incompatible"):
        fd.sync.client.connect("ws://host.example", proxy_ssl=ssl.create_default_context())


def test_no_proxy(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", "localhost,.internal.example,::1,host.example:81")
    for uri in (
        "ws://localhost",
        "ws://a.internal.example:8080",
        "ws://[::1]:80",
        "ws://host.example:81",
    ):
        assert system(fd, uri) is None
    assert system(fd, "ws://host.example") == "http://proxy:1"
    monkeypatch.setenv("no_proxy", "*")
    assert system(fd, "ws://host.example") is None


def test_settings_of_other_kinds(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"http": "http://system:1", "socks": "http://socks:2"}
    monkeypatch.setattr(urllib.request, "getproxies", lambda: settings)
    assert system(fd, "ws://host.example") == "socks5h://socks:2"


def test_where_settings_are_not_in_the_environment(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert system(fd, "ws://host.example") is None


def test_an_environment_of_another_make(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"HTTP_PROXY": "http://proxy:1"})
    assert system(fd, "ws://host.example") == "http://proxy:1"
    monkeypatch.setattr(os, "environ", {"HOME": "/"})
    assert system(fd, "ws://host.example") is None


def test_settings_are_used_and_looked_at_each_time(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = HTTPProxy()
    with Peer(echo) as peer, Peer(handler) as proxy:
        fd.sync.client.connect(peer.uri).close()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        fd.sync.client.connect(peer.uri).close()
        fd.sync.client.connect(peer.uri, proxy=None).close()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        fd.sync.client.connect(peer.uri).close()
    assert len(handler.heads) == 1


@pytest.fixture
def fresh_request() -> Iterator[None]:
    saved = sys.modules.pop("urllib.request")
    yield
    sys.modules["urllib.request"] = saved


def test_urllib_is_not_imported_without_settings(fd: ModuleType, fresh_request: None) -> None:
    assert system(fd, "ws://host.example") is None
    assert "urllib.request" not in sys.modules
