"""The opening handshake of `serve`: who gets in, with what, and how soon."""

from __future__ import annotations

import logging
import re
import socket
import struct
import threading

import pytest

from .responses import errors_in, headers_of, status_of
from .serving import (
    TIMEOUT,
    certificates,
    echo,
    eventually,
    quiet,
    read_all,
    request,
    running,
)


@pytest.fixture(autouse=True)
def record_all(caplog):
    caplog.set_level(logging.INFO, "fullduplex.server")


def test_handler_has_request_and_response(fd):
    seen = []

    def handler(connection):
        seen.append((connection.request, connection.response, connection.state, connection.server))

    with running(fd, handler) as run, run.dial("/path?query") as client:
        client.wait_closed(TIMEOUT)
    ((opening, response, state, server),) = seen
    assert opening.path == "/path?query"
    assert response.status_code == 101
    assert state is fd.protocol.State.OPEN
    assert server is run.server


def test_r22_origins_is_the_first_thing_that_is_shown(fd):
    example = fd.sync.server.serve.__doc__.partition("Args:")[0]
    assert "origins=" in example


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://example.com", 101),
        ("https://a.example.org", 101),
        (None, 101),
        ("https://evil.com", 403),
        ("https://a.example.org.evil.com", 403),
        ("https://example.com:8080", 403),
    ],
)
def test_r22_origins(fd, origin, status):
    origins = ["https://example.com", re.compile(r"https://[a-z]+\.example\.org"), None]
    with running(fd, lambda c: None, origins=origins) as run:
        header = "" if origin is None else f"Origin: {origin}\r\n"
        response = run.exchange(request(headers=header) + b"\x88\x80\0\0\0\0")
    assert status_of(response) == status


def test_r22_origin_that_is_missing(fd):
    with running(fd, origins=["https://example.com"]) as run:
        assert status_of(run.exchange(request())) == 403


def test_origins_that_make_no_sense(fd):
    with pytest.raises(TypeError):
        fd.sync.server.serve(quiet, "127.0.0.1", origins="https://example.com")


@pytest.mark.parametrize(
    ("data", "status", "header"),
    [
        (request().replace(b"GET", b"POST", 1), 405, ("allow", "GET")),
        (request().replace(b"HTTP/1.1", b"HTTP/1.0", 1), 505, None),
        (request().replace(b"HTTP/1.1", b"HTTP/2.0", 1), 505, None),
        (request().replace(b"Upgrade: websocket", b"X: y", 1), 426, ("upgrade", "websocket")),
        (request().replace(b"Connection: Upgrade", b"X: y", 1), 426, ("upgrade", "websocket")),
        (request().replace(b"Host: localhost", b"X: y", 1), 400, None),
        (request(headers="Origin: a\r\nOrigin: b\r\n"), 400, None),
        (request(headers="Content-Length: 5\r\n") + b"12345", 400, None),
        (request(path="/" + "a" * 9000), 414, None),
        (request(headers=f"X: {'a' * 9000}\r\n"), 431, None),
        (request(headers="X: y\r\n" * 130), 431, None),
    ],
)
def test_statuses(fd, caplog, data, status, header):
    with running(fd) as run:
        response = run.exchange(data)
    assert status_of(response) == status
    headers = headers_of(response)
    assert headers["connection"] == "close"
    assert len(response.partition(b"\r\n\r\n")[2]) == int(headers["content-length"])
    if header is not None:
        assert headers[header[0]] == header[1]
    assert errors_in(caplog) == []


def test_client_that_still_sends_can_read_the_refusal(fd):
    """What it had sent would otherwise make TCP reset the connection, and our answer with it."""
    data = request().replace(b"GET", b"POST", 1) + b"x" * 20000
    with running(fd) as run:
        for _ in range(20):
            assert status_of(run.exchange(data)) == 405


@pytest.mark.parametrize(
    "data", [b"", b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n", b"GET", b"\r\n\r\n", b"\0" * 9000]
)
def test_probes_are_one_line_at_info(fd, caplog, data):
    with running(fd) as run:
        with run.connect() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)
        eventually(lambda: any("handshake" in r.message for r in caplog.records))
        lines = [r for r in caplog.records if not r.message.startswith("server listening")]
    (line,) = [r for r in lines if not r.message.startswith("server")]
    assert line.levelno == logging.INFO
    assert line.exc_info is None


def test_probe_that_resets(fd, caplog):
    with running(fd) as run:
        sock = run.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        eventually(lambda: any("handshake" in r.message for r in caplog.records))
    assert all(r.levelno == logging.INFO and r.exc_info is None for r in caplog.records)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x80\x2e\x01\x03\x01", b""])
def test_probes_of_a_tls_port(fd, caplog, data):
    with running(fd, ssl=certificates()[0]) as run:
        with run.connect() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)
        eventually(lambda: any("TLS" in r.message for r in caplog.records))
    assert all(r.levelno == logging.INFO and r.exc_info is None for r in caplog.records)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost"])
def test_open_timeout_cuts_slow_clients(fd, caplog, tls, data):
    context = certificates()[0] if tls else None
    with running(fd, open_timeout=0.05, ssl=context) as run, run.connect() as sock:
        if not tls:
            sock.sendall(data)
        assert sock.recv(100) == b""
    assert errors_in(caplog) == []


def test_open_timeout_is_one_for_all_of_a_slow_request(fd):
    """A client that sends a byte now and then is cut all the same."""
    with running(fd, open_timeout=0.3) as run, run.connect() as sock:
        sock.settimeout(0.02)
        received = None
        for byte in request()[:60]:
            try:
                sock.send(bytes([byte]))
                received = sock.recv(100)
                break
            except TimeoutError:
                continue
            except OSError:
                received = b""
                break
        assert received == b""


def test_open_timeout_passes_in_process_request(fd):
    done = threading.Event()

    def process_request(connection, request):
        done.wait(TIMEOUT)

    with (
        running(fd, process_request=process_request, open_timeout=0.05) as run,
        run.connect() as sock,
    ):
        sock.sendall(request())
        threading.Timer(0.1, done.set).start()
        assert read_all(sock) == b""


def test_bytes_behind_the_request_wait_for_the_101(fd):
    """They are taken as frames, not before the answer: here they are wrong, and too early."""
    with running(fd) as run:
        response = run.exchange(request() + b"\x81\x05hello")
    head, _, frames = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames[:4] == b"\x88" + frames[1:2] + struct.pack("!H", 1002)


def test_messages_behind_the_request_arrive(fd):
    with running(fd, echo) as run:
        response = run.exchange(request() + b"\x81\x85\0\0\0\0hello" + b"\x88\x80\0\0\0\0")
    assert response.endswith(b"\r\n\r\n\x81\x05hello\x88\x00")


def test_request_byte_by_byte(fd):
    with running(fd, echo) as run, run.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request():
            sock.sendall(bytes([byte]))
        assert sock.recv(12) == b"HTTP/1.1 101"


@pytest.mark.parametrize("compression", ["deflate", None])
def test_compression(fd, compression):
    offer = [fd.extensions.permessage_deflate.ClientPerMessageDeflateFactory()]
    with running(fd, echo, compression=compression) as run, run.dial(extensions=offer) as client:
        header = "Sec-WebSocket-Extensions" in client.response.headers
        assert header is (compression is not None)
        client.send("x" * 5000)
        assert client.recv() == "x" * 5000


def test_compression_that_is_unknown(fd):
    with pytest.raises(ValueError):
        fd.sync.server.serve(quiet, "127.0.0.1", compression="gzip")


def test_extensions_of_the_application_win(fd):
    pmd = fd.extensions.permessage_deflate
    ours = pmd.ServerPerMessageDeflateFactory(server_no_context_takeover=True)
    with (
        running(fd, extensions=[ours]) as run,
        run.dial(extensions=[pmd.ClientPerMessageDeflateFactory()]) as client,
    ):
        assert "server_no_context_takeover" in client.response.headers["Sec-WebSocket-Extensions"]


def test_subprotocols(fd):
    with running(fd, subprotocols=["b", "a"]) as run:
        with run.dial(subprotocols=["a", "b"]) as client:
            assert client.subprotocol == "b"
        with pytest.raises(fd.exceptions.InvalidStatus) as caught:
            run.dial(subprotocols=["c"])
        assert caught.value.response.status_code == 400
        with pytest.raises(fd.exceptions.InvalidStatus):
            run.dial()


@pytest.mark.parametrize(("subprotocols", "error"), [("chat", TypeError), (["a b"], ValueError)])
def test_subprotocols_that_make_no_sense(fd, subprotocols, error):
    with pytest.raises(error):
        fd.sync.server.serve(quiet, "127.0.0.1", subprotocols=subprotocols)


def test_select_subprotocol(fd):
    seen = []

    def select_subprotocol(connection, offered):
        seen.append((connection, list(offered)))
        return offered[-1] if offered else None

    with running(fd, select_subprotocol=select_subprotocol) as run:
        with run.dial(subprotocols=["a", "b"]) as client:
            assert client.subprotocol == "b"
        with run.dial() as client:
            assert client.subprotocol is None
    assert isinstance(seen[0][0], fd.sync.server.ServerConnection)
    assert [offered for _, offered in seen] == [["a", "b"], []]


def test_select_subprotocol_refuses(fd, caplog):
    def select_subprotocol(connection, offered):
        raise fd.exceptions.NegotiationError("none of these")

    with running(fd, select_subprotocol=select_subprotocol) as run:
        response = run.exchange(request())
    assert status_of(response) == 400
    assert b"none of these" in response
    assert errors_in(caplog) == []


def test_select_subprotocol_fails(fd, caplog):
    def select_subprotocol(connection, offered):
        raise LookupError("a secret")

    with running(fd, select_subprotocol=select_subprotocol) as run:
        response = run.exchange(request())
    assert status_of(response) == 500
    assert b"secret" not in response
    (record,) = errors_in(caplog)
    assert record.exc_info[0] is LookupError
