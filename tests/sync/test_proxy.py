"""HTTP proxies: real ones in small, and those that lie."""

from __future__ import annotations

import os
import ssl
import time
from types import ModuleType
from typing import Any

import pytest

from .peers import (
    Peer,
    Recorder,
    answer,
    answer_and_stay,
    black_hole,
    echo,
    free_port,
    full_socket,
    header,
    no_leak,
    read_head,
    reply,
    silent,
)
from .proxies import HTTPProxy, connect_through


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def test_http_proxy(fd: ModuleType) -> None:
    handler = HTTPProxy()
    with Peer(echo) as peer, Peer(handler) as proxy, no_leak(fd):
        uri = f"ws://host.example:{peer.port}/"
        connect_through(fd, uri, f"http://127.0.0.1:{proxy.port}")
    target = f"host.example:{peer.port}"
    assert handler.heads == [
        f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {fd.http11.USER_AGENT}\r\n\r\n"
    ]


def test_http_proxy_names_default_ports_and_brackets(fd: ModuleType) -> None:
    recorder = Recorder(*(3 * [reply("403 Forbidden")]))
    with Peer(recorder) as proxy:
        for uri in ("ws://host.example", "wss://host.example", "ws://[::1]"):
            with pytest.raises(fd.exceptions.InvalidProxyStatus):
                fd.sync.client.connect(uri, proxy=f"http://127.0.0.1:{proxy.port}")
    assert [head.split(" ")[1] for head in recorder.heads] == [
        "host.example:80",
        "host.example:443",
        "[::1]:80",
    ]
    assert header(recorder.heads[2], "Host") == "[::1]:80"


def test_http_proxy_and_user_agent(fd: ModuleType) -> None:
    handler = HTTPProxy()
    with Peer(echo) as peer, Peer(handler) as proxy:
        for agent in ("Me/1", None):
            connect_through(
                fd,
                peer.uri,
                f"http://127.0.0.1:{proxy.port}",
                user_agent_header=agent,
                additional_headers={"User-Agent": "Other/2", "Cookie": "a=b"},
            )
    assert [header(head, "User-Agent") for head in handler.heads] == ["Me/1", None]
    assert [header(head, "Cookie") for head in handler.heads] == [None, None]


def test_http_proxy_with_credentials(fd: ModuleType) -> None:
    recorder = Recorder()
    with Peer(recorder) as peer, Peer(HTTPProxy("user:p@ss")) as proxy, no_leak(fd):
        connect_through(fd, peer.uri, f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        assert header(recorder.heads[0], "Proxy-Authorization") is None
        for url in ("user:wrong@127.0.0.1", "127.0.0.1"):
            with pytest.raises(fd.exceptions.InvalidProxyStatus) as raised:
                fd.sync.client.connect(peer.uri, proxy=f"http://{url}:{proxy.port}")
            assert str(raised.value) == "proxy rejected connection: HTTP 407"
            assert raised.value.response.body == b"no"
            (note,) = raised.value.__notes__
            assert note == (
                f"while asking the proxy http://127.0.0.1:{proxy.port} for 127.0.0.1:{peer.port}"
            )
            del raised


def test_http_1_0_proxy(fd: ModuleType) -> None:
    with Peer(echo) as peer, Peer(HTTPProxy(protocol="HTTP/1.0")) as proxy:
        connect_through(fd, peer.uri, f"http://127.0.0.1:{proxy.port}")


def test_http_proxy_and_tls(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with Peer(echo, context=server_context) as peer, Peer(HTTPProxy()) as proxy, no_leak(fd):
        url = f"http://127.0.0.1:{proxy.port}"
        connect_through(fd, peer.secure_uri, url, ssl=client_context)


@pytest.mark.parametrize("secure", [False, True])
def test_https_proxy(
    fd: ModuleType,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    secure: bool,
) -> None:
    handler = HTTPProxy()
    context = server_context if secure else None
    with (
        Peer(echo, context=context) as peer,
        Peer(handler, context=server_context) as proxy,
        no_leak(fd),
    ):
        connect_through(
            fd,
            peer.secure_uri if secure else peer.uri,
            f"https://localhost:{proxy.port}",
            proxy_ssl=client_context,
            ssl=client_context if secure else None,
        )
    assert len(handler.heads) == 1


def test_https_proxy_by_default_trusts_the_system(
    fd: ModuleType,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Peer(echo) as peer, Peer(HTTPProxy(), context=server_context) as proxy, no_leak(fd):
        url = f"https://localhost:{proxy.port}"
        with pytest.raises(ssl.SSLCertVerificationError) as raised:
            fd.sync.client.connect(peer.uri, proxy=url)
        assert f"TLS handshake with the proxy https://localhost:{proxy.port}" in str(raised.value)
        del raised
        monkeypatch.setattr(ssl, "create_default_context", lambda: client_context)
        connect_through(fd, peer.uri, url)


def test_proxy_server_hostname(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with Peer(echo) as peer, Peer(HTTPProxy(), context=server_context) as proxy, no_leak(fd):
        url = f"https://127.0.0.2:{proxy.port}"
        options = {"address": ("127.0.0.1", proxy.port), "proxy_ssl": client_context}
        with pytest.raises(ssl.SSLCertVerificationError):
            connect_through(fd, peer.uri, url, **options)
        connect_through(fd, peer.uri, url, **options, proxy_server_hostname="localhost")


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (answer(b""), "InvalidProxyMessage"),
        (answer(b"HTTP/1.1 200"), "InvalidProxyMessage"),
        (answer_and_stay(b"220 smtp.example ESMTP\r\n"), "InvalidProxyMessage"),
        (answer_and_stay(b"HTTP/1.1 " + 9000 * b"x"), "InvalidProxyMessage"),
        (answer_and_stay(b"HTTP/1.1 200 OK\r\n" + 200 * b"A: b\r\n"), "InvalidProxyMessage"),
        (answer_and_stay(b"HTTP/1.1 200 OK\r\n\r\nmore"), "InvalidProxyMessage"),
        (answer_and_stay(reply("101 Switching Protocols")), "InvalidProxyStatus"),
        (answer_and_stay(reply("302 Found", "Location: /\r\n")), "InvalidProxyStatus"),
        (answer_and_stay(reply("502 Bad Gateway", body="oh")), "InvalidProxyStatus"),
        (
            answer_and_stay(b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\nnever"),
            "InvalidProxyStatus",
        ),
    ],
)
def test_http_proxies_that_fail(fd: ModuleType, handler: Any, error: str) -> None:
    with Peer(handler) as proxy, no_leak(fd):
        with pytest.raises(getattr(fd.exceptions, error)) as raised:
            fd.sync.client.connect(
                "ws://host.example", proxy=f"http://127.0.0.1:{proxy.port}", open_timeout=0.5
            )
        assert type(raised.value).__name__ == error
        place = f"while asking the proxy http://127.0.0.1:{proxy.port} for host.example:80"
        assert place in "\n".join([str(raised.value), *getattr(raised.value, "__notes__", [])])
        del raised


def test_any_2xx_is_success_and_headers_mean_nothing(fd: ModuleType) -> None:
    def handler(sock: Any) -> None:
        assert read_head(sock).startswith("CONNECT")
        sock.sendall(b"HTTP/1.1 299 Fine\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n")
        echo(sock)

    with Peer(handler) as proxy:
        connect_through(fd, "ws://host.example", f"http://127.0.0.1:{proxy.port}")


def test_a_proxy_that_is_not_there(fd: ModuleType) -> None:
    port = free_port()
    with no_leak(fd), pytest.raises(ConnectionRefusedError) as raised:
        fd.sync.client.connect("ws://host.example", proxy=f"http://127.0.0.1:{port}")
    assert str(raised.value).endswith(
        f"while connecting to 127.0.0.1:{port} (the proxy http://127.0.0.1:{port})"
    )


@pytest.mark.parametrize("scheme", ["http", "https", "socks4", "socks5h"])
def test_a_proxy_that_is_silent(fd: ModuleType, scheme: str) -> None:
    with (
        Peer(silent) as proxy,
        no_leak(fd),
        pytest.raises(TimeoutError, match=r"timed out .*proxy"),
    ):
        fd.sync.client.connect(
            "ws://127.0.0.1", proxy=f"{scheme}://127.0.0.1:{proxy.port}", open_timeout=0.1
        )


@pytest.mark.parametrize("scheme", ["http", "socks4"])
def test_a_proxy_that_does_not_read(fd: ModuleType, scheme: str) -> None:
    proxy = fd.sync.proxy.Proxy(scheme, "127.0.0.1", 80)
    uri = fd.uri.parse_uri("ws://127.0.0.1/")
    with full_socket() as sock:
        stream = fd.stream.open_stream(sock)
        with pytest.raises(TimeoutError):
            fd.sync.proxy.open_tunnel(
                stream, proxy, uri, user_agent=None, deadline=time.monotonic() + 0.05
            )


def test_a_proxy_behind_a_full_queue(fd: ModuleType) -> None:
    with (
        black_hole() as port,
        no_leak(fd),
        pytest.raises(TimeoutError, match="the proxy http"),
    ):
        fd.sync.client.connect("ws://127.0.0.1", proxy=f"http://127.0.0.1:{port}", open_timeout=0.1)


def test_a_refusal_without_a_length_is_not_waited_for(fd: ModuleType) -> None:
    """The proxy may keep the connection open, though it need not say how long its answer is."""
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\nwho are you?"
    with (
        Peer(answer_and_stay(refusal)) as proxy,
        no_leak(fd),
        pytest.raises(fd.exceptions.InvalidProxyStatus) as caught,
    ):
        fd.connect("ws://host.example", proxy=f"http://127.0.0.1:{proxy.port}", open_timeout=60)
    assert caught.value.response.status_code == 407


def test_an_empty_url_of_a_proxy_is_none(fd: ModuleType) -> None:
    with pytest.raises(fd.exceptions.InvalidProxy):
        fd.connect("ws://host.example", proxy="")
