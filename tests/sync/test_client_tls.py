"""TLS of clients: trust, names, servers without it, TLS in TLS."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import trustme

from .peers import (
    Peer,
    TLSSocket,
    echo,
    frame,
    no_leak,
    read_frame,
    read_head,
    serve_echo,
    silent,
    switching,
)

FAST = {"proxy": None, "compression": None}


def test_tls(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with (
        Peer(echo, context=server_context) as peer,
        no_leak(fd),
        fd.sync.client.connect(peer.secure_uri, **FAST, ssl=client_context) as websocket,
    ):
        websocket.send("secret")
        assert websocket.recv(timeout=5) == "secret"


def test_tls_by_default_trusts_the_system(
    fd: ModuleType,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Peer(echo, context=server_context) as peer:
        with no_leak(fd), pytest.raises(ssl.SSLCertVerificationError):
            fd.sync.client.connect(peer.secure_uri, **FAST)
        monkeypatch.setattr(ssl, "create_default_context", lambda: client_context)
        fd.sync.client.connect(peer.secure_uri, **FAST).close()


def test_tls_with_an_address(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with Peer(echo, context=server_context) as peer:
        uri = f"wss://127.0.0.1:{peer.port}"
        fd.sync.client.connect(uri, **FAST, ssl=client_context).close()


def test_tls_name(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    names = []
    server_context.sni_callback = lambda _, name, __: names.append(name)
    try:
        with Peer(echo, context=server_context) as peer:
            address = ("127.0.0.1", peer.port)
            for name in ("LOCALHOST", "localhost."):
                uri = f"wss://{name}"
                fd.sync.client.connect(uri, **FAST, ssl=client_context, address=address).close()
            fd.sync.client.connect(
                "wss://other.example",
                **FAST,
                ssl=client_context,
                server_hostname="localhost",
                address=address,
            ).close()
            sock = socket.create_connection(("127.0.0.1", peer.port))
            uri = "wss://localhost"
            fd.sync.client.connect(uri, **FAST, ssl=client_context, sock=sock).close()
    finally:
        server_context.sni_callback = None
    assert names == 4 * ["localhost"]


def test_tls_wrong_name(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with Peer(echo, context=server_context) as peer, no_leak(fd):
        address = ("127.0.0.1", peer.port)
        with pytest.raises(ssl.SSLCertVerificationError) as raised:
            fd.sync.client.connect(
                "wss://other.example", **FAST, ssl=client_context, address=address
            )
        message = str(raised.value)
        assert "Hostname mismatch" in message
        assert "during the TLS handshake with other.example:443 via 127.0.0.1:" in message
        assert raised.value.verify_code == 62
        del raised


def test_tls_expired(fd: ModuleType, ca: trustme.CA, client_context: ssl.SSLContext) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    ca.issue_cert("localhost", not_before=past, not_after=past).configure_cert(context)
    with (
        Peer(echo, context=context) as peer,
        no_leak(fd),
        pytest.raises(ssl.SSLCertVerificationError, match="expired"),
    ):
        fd.sync.client.connect(peer.secure_uri, **FAST, ssl=client_context)


def test_tls_unknown_authority(fd: ModuleType, client_context: ssl.SSLContext) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with (
        Peer(echo, context=context) as peer,
        no_leak(fd),
        pytest.raises(ssl.SSLCertVerificationError, match="TLS handshake with localhost"),
    ):
        fd.sync.client.connect(peer.secure_uri, **FAST, ssl=client_context)


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(lambda sock: sock.recv(1), id="end of the stream"),
        pytest.param(lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), id="HTTP"),
    ],
)
def test_tls_with_a_server_without(
    fd: ModuleType, client_context: ssl.SSLContext, handler: Callable[[Any], None]
) -> None:
    with Peer(handler) as peer, no_leak(fd):
        with pytest.raises((ssl.SSLError, ConnectionResetError)) as raised:
            fd.sync.client.connect(peer.secure_uri, **FAST, ssl=client_context)
        assert f"during the TLS handshake with localhost:{peer.port}" in str(raised.value)
        del raised


def test_tls_with_a_server_that_is_silent(fd: ModuleType, client_context: ssl.SSLContext) -> None:
    with (
        Peer(silent) as peer,
        no_leak(fd),
        pytest.raises(TimeoutError, match="timed out during the TLS handshake with local"),
    ):
        fd.sync.client.connect(peer.secure_uri, **FAST, ssl=client_context, open_timeout=0.1)


def test_a_server_with_tls_for_a_client_without(
    fd: ModuleType, server_context: ssl.SSLContext
) -> None:
    with (
        Peer(echo, context=server_context) as peer,
        no_leak(fd),
        pytest.raises(fd.exceptions.InvalidMessage, match="valid HTTP response"),
    ):
        fd.sync.client.connect(f"ws://localhost:{peer.port}", **FAST)


def test_a_bad_server_hostname(fd: ModuleType, client_context: ssl.SSLContext) -> None:
    with (
        Peer(silent) as peer,
        no_leak(fd),
        pytest.raises(ValueError),
    ):
        fd.sync.client.connect(
            peer.secure_uri, **FAST, ssl=client_context, server_hostname=".example"
        )


# TLS in TLS: what the streams have to do for it


def connect_in_tls(fd: ModuleType, port: int, context: ssl.SSLContext) -> Any:
    """Connect through TLS in TLS, as `connect()` does with an ``https://`` proxy."""
    stream = fd.stream.open_stream(socket.create_connection(("127.0.0.1", port)))
    deadline = time.monotonic() + 5
    for _ in range(2):
        stream = fd.stream.TLSStream(stream, context, server_hostname="localhost")
        stream.handshake(deadline)
    protocol = fd.client.ClientProtocol(fd.uri.parse_uri("wss://localhost/"))
    websocket = fd.sync.client.ClientConnection(stream, protocol)
    fd.sync.opening.shake_hands(stream, protocol, protocol.connect(), deadline)
    websocket._opened()
    return websocket


def send_at_once(sock: TLSSocket, *pieces: bytes) -> None:
    """Send pieces through TLS in TLS: each in records of its own, all of them in one packet."""
    outer = sock.raw
    for piece in pieces:
        sock.object.write(piece)
        outer.object.write(sock.outgoing.read())
    outer._flush()


def test_tls_in_tls(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    def handler(sock: Any) -> None:
        inner = TLSSocket(sock, server_context)
        frames = [frame(1, str(number).encode()) for number in range(40)]
        send_at_once(inner, switching(read_head(inner)), *frames)
        serve_echo(inner)

    with (
        Peer(handler, context=server_context) as peer,
        no_leak(fd),
        connect_in_tls(fd, peer.port, client_context) as websocket,
    ):
        for number in range(40):
            assert websocket.recv(timeout=5) == str(number)
        for size in (10, 100):
            websocket.send(size * "x")
            assert websocket.recv(timeout=5) == size * "x"


def test_tls_in_tls_is_read_to_its_end_when_nobody_waits(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """Decrypted bytes are in memory, at several levels: the socket need not become readable."""
    pongs = []

    def handler(sock: Any) -> None:
        inner = TLSSocket(sock, server_context)
        inner.sendall(switching(read_head(inner)))
        for _ in range(5):
            # A large message is received piece by piece, with nothing else in memory.
            large = b"\x82\x7e\xea\x60" + 60000 * b"y"
            pieces = (large[i : i + 6000] for i in range(0, len(large), 6000))
            send_at_once(inner, frame(2, b"x"), *pieces, frame(9, b"ping"))
            pongs.append(read_frame(inner))
        serve_echo(inner)

    with (
        Peer(handler, context=server_context) as peer,
        connect_in_tls(fd, peer.port, client_context) as websocket,
    ):
        peer.wait(lambda: len(pongs) == 5)
        for _ in range(5):
            assert websocket.recv(timeout=0) == b"x"
            assert websocket.recv(timeout=0) == 60000 * b"y"
    assert pongs == 5 * [(10, b"ping")]


# Certificates of clients


@contextlib.contextmanager
def asking_for_certificates(fd: ModuleType, ca: trustme.CA, handler: Any) -> Iterator[str]:
    """Serve clients that have a certificate, and give the URI."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    with fd.serve(handler, "127.0.0.1", 0, ssl=context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"wss://localhost:{server.socket.getsockname()[1]}"
    thread.join()


@pytest.mark.parametrize("own_socket", [False, True])
def test_each_side_can_ask_who_the_other_is(
    fd: ModuleType, ca: trustme.CA, own_socket: bool
) -> None:
    def name_of_peer(connection: Any) -> None:
        connection.send(str(connection.ssl_object.getpeercert()["subjectAltName"]))

    context = ssl.create_default_context()
    ca.configure_trust(context)
    ca.issue_cert("client.example").configure_cert(context)
    with asking_for_certificates(fd, ca, name_of_peer) as uri:
        if own_socket:  # TLS that somebody else has begun
            sock = socket.create_connection(("127.0.0.1", int(uri.rpartition(":")[2])))
            secure = context.wrap_socket(sock, server_hostname="localhost")
            options = {"sock": secure}
            uri = uri.replace("wss", "ws")
        else:
            options = {"ssl": context}
        with fd.connect(uri, **FAST, **options) as websocket:
            assert "client.example" in websocket.recv(timeout=5)
            assert "localhost" in str(websocket.ssl_object.getpeercert())
            assert websocket.ssl_object.version().startswith("TLS")


def test_without_tls_there_is_nobody_to_ask(fd: ModuleType) -> None:
    with Peer(echo) as peer, fd.connect(peer.uri, **FAST) as websocket:
        assert websocket.ssl_object is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_that_is_missing(
    fd: ModuleType, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    """It is a failure of TLS, also where the server finds out after the handshake."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    context.minimum_version = context.maximum_version = version
    with (
        asking_for_certificates(fd, ca, lambda _: None) as uri,
        no_leak(fd),
        pytest.raises(ssl.SSLError),
    ):
        fd.connect(uri, **FAST, ssl=context)
