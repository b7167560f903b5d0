"""Redirects: which are followed, where to, and what goes along."""

from __future__ import annotations

import socket
import ssl
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme

from .peers import (
    Peer,
    Recorder,
    free_port,
    header,
    no_leak,
    read_head,
    reply,
    serve_echo,
    silent,
    switching,
)

FAST = {"proxy": None, "compression": None}
SECRETS = {"Authorization": "Bearer token", "Cookie": "a=b", "Proxy-Authorization": "Basic eDp5"}


def redirect(location: str, status: str = "302 Found") -> bytes:
    return reply(status, f"Location: {location}\r\n")


def path_of(head: str) -> str:
    return head.split(" ")[1]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_followed(fd: ModuleType, status: int) -> None:
    recorder = Recorder(redirect("/new?q", f"{status} Moved"))
    with (
        Peer(recorder) as peer,
        no_leak(fd),
        fd.sync.client.connect(peer.uri + "/old", **FAST) as websocket,
    ):
        websocket.send("x")
        assert websocket.recv(timeout=5) == "x"
        assert websocket.request.path == "/new?q"
        assert websocket.response.status_code == 101
    assert [path_of(head) for head in recorder.heads] == ["/old", "/new?q"]


@pytest.mark.parametrize(
    "response",
    [
        reply("304 Not Modified", "Location: /new\r\n"),
        reply("305 Use Proxy", "Location: /new\r\n"),
        reply("200 OK", "Location: /new\r\n"),
        reply("302 Found"),
        reply("302 Found", "Location: /a\r\nLocation: /b\r\n"),
    ],
)
def test_what_is_no_redirect(fd: ModuleType, response: bytes) -> None:
    with Peer(Recorder(response)) as peer:
        with pytest.raises(fd.exceptions.InvalidStatus):
            fd.sync.client.connect(peer.uri, **FAST)
        assert peer.accepted == 1


@pytest.mark.parametrize(
    ("uri", "location", "expected"),
    [
        ("ws://a.example/x/y?q", "z", "ws://a.example/x/z"),
        ("ws://a.example/x/y?q", "?r", "ws://a.example/x/y?r"),
        ("ws://a.example/x/y", "/z", "ws://a.example/z"),
        ("ws://a.example/x/y", "../../z", "ws://a.example/z"),
        ("ws://a.example:8080/x", "//b.example/z", "ws://b.example/z"),
        ("wss://a.example/x", "//b.example/z", "wss://b.example/z"),
        ("ws://a.example/x", "ws://a.example:81", "ws://a.example:81"),
        ("ws://a.example/x", "http://a.example/z", "ws://a.example/z"),
        ("ws://a.example/x", "HTTPS://a.example/z", "wss://a.example/z"),
        ("wss://[::1]:81/x", "/z", "wss://[::1]:81/z"),
        ("ws://a.example/x", "/z#fragment", "ws://a.example/z"),
        ("ws://a.example/x", "/gr\xc3\xb6\xc3\x9fe", "ws://a.example/gr%C3%B6%C3%9Fe"),
        ("ws://a.example/x", "/gr\xf6\xdfe", "ws://a.example/gr%C3%B6%C3%9Fe"),
        ("ws://a.example/x", "/%0d%0a", "ws://a.example/%0d%0a"),
        ("ws://a.example/x", "http://b:8/", "ws://b:8/"),
        ("ws://[fe80::1%25eth0]:81/x", "/z", "ws://[fe80::1%25eth0]:81/z"),
        ("ws://me:pw@[fe80::1%25eth0]/x", "http://[fe80::1]/", "ws://me:pw@[fe80::1%25eth0]/"),
        ("ws://[fe80::1%25eth0]/x", "http://[fe80::2]/z", "ws://[fe80::2]/z"),
    ],
)
def test_where_a_redirect_leads_to(fd: ModuleType, uri: str, location: str, expected: str) -> None:
    parse = fd.uri.parse_uri
    assert fd.sync.redirects.follow(parse(uri), location) == parse(expected)


@pytest.mark.parametrize(
    "location",
    [
        "ftp://a.example/",
        "https://",
        "http://[::1/",
        "http://a.example:99999/",
        "http://a.example\\@b.example/",
        "/x y",
        "/x\r\nInjected: 1",
        "/x\ty",
        "ht\ntp://b.example/",
        "javascript:alert(1)",
        "http://user@a.example/",
    ],
)
def test_r14_the_target_of_a_redirect_is_checked(fd: ModuleType, location: str) -> None:
    """R14: nothing that a server sends reaches a request unseen."""
    uri = fd.uri.parse_uri("ws://a.example/")
    with pytest.raises(fd.exceptions.InvalidURI):
        fd.sync.redirects.follow(uri, location)


@pytest.mark.parametrize(
    "location", ["ws://user:secret@b.example/", "ws://user:secret@[::1/", "/ ://user:secret@b"]
)
def test_errors_do_not_show_the_password(fd: ModuleType, location: str) -> None:
    uri = fd.uri.parse_uri("wss://a.example/")
    with pytest.raises(fd.exceptions.WebSocketException) as raised:
        fd.sync.redirects.follow(uri, location)
    assert "secret" not in "".join(traceback.format_exception(raised.value))


def test_r14_a_bad_target_over_the_wire(fd: ModuleType) -> None:
    recorder = Recorder(redirect("/a b\tc"))
    with Peer(recorder) as peer, no_leak(fd):
        with pytest.raises(fd.exceptions.InvalidURI) as raised:
            fd.sync.client.connect(peer.uri, **FAST)
        assert isinstance(raised.value.__context__, fd.exceptions.InvalidStatus)
        assert peer.accepted == 1
        del raised


def test_no_downgrade(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    plain = Recorder()
    with Peer(plain) as other, no_leak(fd):
        for scheme in ("ws", "http"):
            recorder = Recorder(redirect(f"{scheme}://127.0.0.1:{other.port}/"))
            with (
                Peer(recorder, context=server_context) as peer,
                pytest.raises(fd.exceptions.SecurityError, match="insecure"),
            ):
                fd.sync.client.connect(peer.secure_uri, **FAST, ssl=client_context)
        assert other.accepted == 0


def test_an_upgrade_to_tls(
    fd: ModuleType,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssl, "create_default_context", lambda: client_context)
    secure = Recorder()
    with (
        Peer(secure, context=server_context) as other,
        Peer(Recorder(redirect(f"https://localhost:{other.port}/x"))) as peer,
    ):
        fd.sync.client.connect(peer.uri, **FAST).close()
    assert path_of(secure.heads[0]) == "/x"


# How many


def test_ten_attempts(fd: ModuleType) -> None:
    recorder = Recorder(*(redirect(f"/{number}") for number in range(1, 10)))
    with Peer(recorder) as peer:
        fd.sync.client.connect(peer.uri + "/0", **FAST).close()
    assert [path_of(head) for head in recorder.heads] == [f"/{number}" for number in range(10)]


def test_too_many_redirects(fd: ModuleType) -> None:
    recorder = Recorder(*(20 * [redirect("/again")]))
    with Peer(recorder) as peer, no_leak(fd):
        with pytest.raises(fd.exceptions.SecurityError, match="more than 10 redirects"):
            fd.sync.client.connect(peer.uri, **FAST)
        assert peer.accepted == 10


def test_the_number_is_adjustable(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, error in ((0, "InvalidStatus"), (1, "SecurityError"), (3, "SecurityError")):
        monkeypatch.setattr(fd.sync.redirects, "MAX_REDIRECTS", limit)
        with Peer(Recorder(*(5 * [redirect("/again")]))) as peer:
            with pytest.raises(getattr(fd.exceptions, error)):
                fd.sync.client.connect(peer.uri, **FAST)
            assert peer.accepted == max(limit, 1)


# What goes along


def test_the_same_origin_gets_everything(fd: ModuleType) -> None:
    recorder = Recorder(redirect("/new"))
    with Peer(recorder) as peer:
        fd.sync.client.connect(
            peer.uri, **FAST, additional_headers=SECRETS, origin="http://a.example"
        ).close()
    for head in recorder.heads:
        for name, value in SECRETS.items():
            assert header(head, name) == value
        assert header(head, "Origin") == "http://a.example"


def test_r15_credentials_stay_with_their_origin(fd: ModuleType) -> None:
    """R15: another port is another origin; the way back does not bring them back."""
    here = Recorder()
    with Peer(here) as peer:
        there = Recorder(redirect(f"{peer.uri}/back"))
        with Peer(there) as other:
            here.responses.append(redirect(f"{other.uri}/there"))
            headers = {**SECRETS, "Host": "here.example", "X-Kept": "1"}
            fd.sync.client.connect(peer.uri, **FAST, additional_headers=headers).close()
            port = other.port
    for name, value in SECRETS.items():
        assert header(here.heads[0], name) == value
    assert header(here.heads[0], "Host") == "here.example"
    assert header(there.heads[0], "Host") == f"127.0.0.1:{port}"
    for head in (there.heads[0], here.heads[1]):
        assert header(head, "X-Kept") == "1"
        for name in SECRETS:
            assert header(head, name) is None


def test_r15_credentials_of_the_uri_stay_with_their_origin(fd: ModuleType) -> None:
    here, there = Recorder(redirect("/step")), Recorder()
    with Peer(there) as other, Peer(here) as peer:
        here.responses.append(redirect(f"{other.uri}/there"))
        uri = f"ws://user:secret@127.0.0.1:{peer.port}"
        fd.sync.client.connect(uri, **FAST).close()
    for head in here.heads:
        assert header(head, "Authorization") == "Basic dXNlcjpzZWNyZXQ="
    assert len(here.heads) == 2
    assert header(there.heads[0], "Authorization") is None


def test_r15_another_origin_gets_no_answer_to_its_challenge(fd: ModuleType) -> None:
    here = Recorder()
    challenge = 'WWW-Authenticate: Digest realm="r", nonce="n"\r\n'
    there = Recorder(reply("401 Unauthorized", challenge), reply("401 Unauthorized", challenge))
    with Peer(there) as other, Peer(here) as peer:
        here.responses.append(redirect(other.uri))
        uri = f"ws://user:secret@127.0.0.1:{peer.port}"
        with pytest.raises(fd.exceptions.InvalidStatus, match="401"):
            fd.sync.client.connect(uri, **FAST)
    assert len(there.heads) == 1
    assert header(there.heads[0], "Authorization") is None


def test_credentials_in_the_location(fd: ModuleType) -> None:
    there = Recorder()
    with Peer(there) as other:
        location = f"ws://other:pass@127.0.0.1:{other.port}/"
        with Peer(Recorder(redirect(location))) as peer:
            fd.sync.client.connect(peer.uri, **FAST).close()
    assert header(there.heads[0], "Authorization") == "Basic b3RoZXI6cGFzcw=="


def test_the_servers_name_stays_with_its_origin(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    names = []
    server_context.sni_callback = lambda _, name, __: names.append(name)
    try:
        with Peer(Recorder(), context=server_context) as other:
            recorder = Recorder(redirect(f"wss://127.0.0.1:{other.port}"))
            with Peer(recorder, context=server_context) as peer:
                uri = f"wss://127.0.0.1:{peer.port}"
                fd.sync.client.connect(
                    uri, **FAST, ssl=client_context, server_hostname="localhost"
                ).close()
    finally:
        server_context.sni_callback = None
    assert names == ["localhost", None]  # an address is no name (RFC 6066 §3)


# What ties to a server


def test_with_a_socket(fd: ModuleType) -> None:
    with Peer(Recorder(redirect("/new"))) as peer:
        sock = socket.create_connection(("127.0.0.1", peer.port))
        with pytest.raises(ValueError, match="cannot follow a redirect to /new with a preexisting"):
            fd.sync.client.connect(peer.uri, sock=sock)
        assert sock.fileno() == -1


def test_with_a_unix_socket(fd: ModuleType, tmp_path: Path) -> None:
    recorder = Recorder(redirect("/new"))
    with Peer(recorder, family=socket.AF_UNIX, path=tmp_path / "s"):
        fd.sync.client.unix_connect(tmp_path / "s").close()
        assert path_of(recorder.heads[1]) == "/new"
        recorder.responses.append(redirect("ws://other.example/"))
        with pytest.raises(ValueError, match=r"cross-origin redirect .* with a Unix socket"):
            fd.sync.client.unix_connect(tmp_path / "s")


def test_with_an_address(fd: ModuleType) -> None:
    recorder = Recorder(redirect("/new"))
    with Peer(recorder) as peer:
        options: Any = {**FAST, "address": ("127.0.0.1", peer.port)}
        fd.sync.client.connect("ws://a.example/", **options).close()
        assert path_of(recorder.heads[1]) == "/new"
        recorder.responses.append(redirect(f"ws://b.example:{free_port()}/"))
        with pytest.raises(ValueError, match=r"cross-origin redirect .* with an address"):
            fd.sync.client.connect("ws://a.example/", **options)


def test_r15_a_clients_certificate_stays_with_its_origin(fd: ModuleType, ca: trustme.CA) -> None:
    """R15: a TLS context does not tell whether it has one, so the caller does."""
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(asking)
    ca.configure_trust(asking)
    asking.verify_mode = ssl.CERT_REQUIRED
    context = ssl.create_default_context()
    ca.configure_trust(context)
    ca.issue_cert("client.example").configure_cert(context)
    options: Any = {**FAST, "ssl": context, "cross_origin_redirects": False}
    here = Recorder(redirect("/new"))
    with Peer(Recorder(), context=asking) as other, Peer(here, context=asking) as peer, no_leak(fd):
        fd.sync.client.connect(peer.secure_uri, **options).close()
        here.responses.append(redirect(other.secure_uri))
        match = r"cross-origin redirect .* with cross_origin_redirects=False"
        with pytest.raises(ValueError, match=match):
            fd.sync.client.connect(peer.secure_uri, **options)
        assert other.accepted == 0


@pytest.mark.parametrize("body", [b"", b"x" * 2_000_000, b"Content-Length: 2000000"])
def test_the_body_of_a_redirect_is_not_waited_for(fd: ModuleType, body: bytes) -> None:
    """On a connection that is kept open, a body without a length has no end."""
    length, body = (body + b"\r\n", b"") if body.startswith(b"Content") else (b"", body)
    first = b"HTTP/1.1 302 Found\r\nLocation: /new\r\n" + length + b"\r\n" + body
    paths = []

    def handler(sock: Any) -> None:
        head = read_head(sock)
        paths.append(path_of(head))
        if len(paths) == 1:
            sock.sendall(first)
            silent(sock)
        else:
            sock.sendall(switching(head))
            serve_echo(sock)

    with Peer(handler) as peer, no_leak(fd):
        begin = time.monotonic()
        fd.sync.client.connect(f"{peer.uri}/old", **FAST, open_timeout=5).close()
        assert time.monotonic() - begin < 3
    assert paths == ["/old", "/new"]
