"""Proxies: HTTP and SOCKS, real ones in small, and those that lie; the system's settings."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from .peers import (
    Peer,
    Recorder,
    TLSSocket,
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


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def pump(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for sock in (source, target):
        with contextlib.suppress(OSError, AttributeError):
            getattr(sock, "raw", sock).shutdown(socket.SHUT_RDWR)


def join(client: Any, server: socket.socket) -> None:
    """Carry bytes both ways until one of the sides ends. TLS is for one thread: the client's."""
    if isinstance(client, TLSSocket):
        # The same without a second thread inside TLS: ask the server only when it has something.
        join_tls(client, server)
        return
    thread = threading.Thread(target=pump, args=(server, client))
    thread.start()
    pump(client, server)
    thread.join()


def join_tls(client: TLSSocket, server: socket.socket) -> None:
    import select

    raw = client.raw
    with contextlib.suppress(OSError):
        while True:
            ready, _, _ = select.select([raw, server], [], [], 5)
            if server in ready:
                data = server.recv(65536)
                if not data:
                    return
                client.sendall(data)
            if raw in ready:
                received = raw.recv(65536)
                if not received:
                    return
                client.incoming.write(received)
                with contextlib.suppress(ssl.SSLWantReadError):
                    while data := client.object.read(65536):
                        server.sendall(data)


class HTTPProxy:
    """A handler that is an HTTP proxy: names lead to the loopback."""

    def __init__(self, credentials: str | None = None, protocol: str = "HTTP/1.1") -> None:
        self.credentials = credentials
        self.protocol = protocol
        self.heads: list[str] = []

    def __call__(self, sock: Any) -> None:
        head = read_head(sock)
        self.heads.append(head)
        if self.credentials is not None:
            expected = base64.b64encode(self.credentials.encode()).decode()
            if header(head, "Proxy-Authorization") != f"Basic {expected}":
                sock.sendall(reply("407 Proxy Authentication Required", body="no"))
                return
        match = re.match(r"CONNECT (.*):(\d+) HTTP/1.1\r\n", head)
        assert match is not None
        with socket.create_connection(("127.0.0.1", int(match[2]))) as server:
            sock.sendall(f"{self.protocol} 200 Connection established\r\n\r\n".encode())
            join(sock, server)


class SOCKSProxy:
    """A handler that is a SOCKS proxy: names lead to the loopback."""

    def __init__(self, credentials: tuple[bytes, bytes] | None = None) -> None:
        self.credentials = credentials
        self.destinations: list[tuple[str, str]] = []

    def __call__(self, sock: Any) -> None:
        stream = sock.makefile("rb", buffering=0)
        read = lambda size: stream.read(size) if size else b""  # noqa: E731
        port = self.version_5(sock, read) if read(1) == b"\x05" else self.version_4(sock, read)
        stream.close()
        if port is None:
            return
        with socket.create_connection(("127.0.0.1", port)) as server:
            join(sock, server)

    def version_5(self, sock: Any, read: Any) -> int | None:
        methods = read(read(1)[0])
        if self.credentials is not None:
            assert 2 in methods
            sock.sendall(b"\x05\x02")
            assert read(1) == b"\x01"
            given = (read(read(1)[0]), read(read(1)[0]))
            if given != self.credentials:
                sock.sendall(b"\x01\x01")
                return None
            sock.sendall(b"\x01\x00")
        else:
            sock.sendall(b"\x05\x00")
        assert read(3) == b"\x05\x01\x00"
        kind = read(1)[0]
        if kind == 3:
            host = read(read(1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, read(size))
        (port,) = struct.unpack("!H", read(2))
        self.destinations.append(("name" if kind == 3 else "address", host))
        sock.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50")
        return int(port)

    def version_4(self, sock: Any, read: Any) -> int | None:
        assert read(1) == b"\x01"
        port, address = struct.unpack("!H4s", read(6))
        until_nul = lambda: b"".join(iter(lambda: read(1), b"\0"))  # noqa: E731
        until_nul()
        if address[:3] == b"\0\0\0":
            self.destinations.append(("name", until_nul().decode()))
        else:
            self.destinations.append(("address", socket.inet_ntoa(address)))
        sock.sendall(b"\x00\x5a" + 6 * b"\0")
        return int(port)


def connect_through(fd: ModuleType, uri: str, proxy: str, **kwargs: Any) -> None:
    """Connect through a proxy, and see that it works."""
    with fd.sync.client.connect(uri, proxy=proxy, compression=None, **kwargs) as websocket:
        websocket.send("through")
        assert websocket.recv(timeout=5) == "through"


# HTTP


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


# SOCKS


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


# URLs


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
        ("http://proxy:x", "Port"),
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
