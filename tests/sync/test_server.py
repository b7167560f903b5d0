"""`serve` and its parameters, over real sockets."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
import socket
import struct
import threading

import pytest

from .serving import (
    TIMEOUT,
    certificates,
    echo,
    eventually,
    handler_threads,
    quiet,
    read_all,
    request,
    running,
)


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


def headers_of(response: bytes) -> dict[str, str]:
    head = response.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}


def errors_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture(autouse=True)
def record_all(caplog):
    caplog.set_level(logging.INFO, "fullduplex.server")


# Listening


def test_echo(fd):
    with running(fd, echo) as run, run.dial() as client:
        for message in ("text", b"binary", "", "ä" * 70000):
            client.send(message)
            assert client.recv() == message


def test_listens_on_all_interfaces_without_host(fd):
    with running(fd, echo, host=None) as run:
        assert run.address[0] == "0.0.0.0"
        run.address = ("127.0.0.1", run.address[1])
        with run.dial() as client:
            client.send("x")
            assert client.recv() == "x"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_listens_on_ipv6(fd):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("the loopback interface has no IPv6 address")
    with running(fd, echo, host="::1") as run, run.dial() as client:
        client.send("x")
        assert client.recv() == "x"


def test_port_is_as_given(fd):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running(fd, port=port) as run:
        assert run.address[1] == port


def test_port_in_use(fd):
    with running(fd) as run, pytest.raises(OSError):
        fd.sync.server.serve(quiet, *run.address)


def test_sock(fd):
    listening = socket.create_server(("127.0.0.1", 0))
    with running(fd, echo, sock=listening) as run:
        assert run.server.socket is listening
        assert run.server.fileno() == listening.fileno()
        with run.dial() as client:
            client.send("x")
            assert client.recv() == "x"
    assert listening.fileno() == -1


def test_several_socks(fd):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    with running(fd, echo, sock=sockets) as run:
        for sock in sockets:
            run.address = sock.getsockname()
            with run.dial() as client:
                client.send("x")
                assert client.recv() == "x"
    assert [sock.fileno() for sock in sockets] == [-1, -1, -1]


def test_no_sock_at_all(fd):
    with pytest.raises(ValueError):
        fd.sync.server.serve(quiet, sock=[])


@pytest.mark.parametrize("other", [{"host": "localhost"}, {"port": 80}, {"path": "/tmp/x"}])
def test_sock_excludes_addresses(fd, other):
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(ValueError):
        fd.sync.server.serve(quiet, sock=sock, **other)


def test_unix(fd, tmp_path):
    path = tmp_path / "socket"
    with running(fd, echo, path=path) as run, run.dial() as client:
        assert os.path.exists(path)
        client.send("x")
        assert client.recv() == "x"
    assert not os.path.exists(path)


def test_unix_sock(fd, tmp_path):
    sock = socket.create_server(str(tmp_path / "socket"), family=socket.AF_UNIX)
    with running(fd, echo, sock=sock, unix=True) as run, run.dial() as client:
        client.send("x")
        assert client.recv() == "x"


def test_unix_needs_path_or_sock(fd):
    with pytest.raises(ValueError, match="missing path"):
        fd.sync.server.unix_serve(quiet)


def test_unix_path_excludes_sock(fd):
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(ValueError):
        fd.sync.server.unix_serve(quiet, "/tmp/x", sock=sock)


def test_kwargs_go_to_create_server(fd):
    with pytest.raises(TypeError):
        fd.sync.server.serve(quiet, "127.0.0.1", backlok=5)
    with running(fd, echo, backlog=5) as run, run.dial() as client:
        client.send("x")
        assert client.recv() == "x"


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT")
def test_reuse_port(fd):
    with running(fd, echo, reuse_port=True) as first:
        port = first.address[1]
        with running(fd, echo, port=port, reuse_port=True) as second:
            clients = [first.dial() for _ in range(32)]
            shares = [len(run.server.connections) for run in (first, second)]
            for client in clients:
                client.close()
    assert sum(shares) == 32
    assert all(shares), "one of the servers got no connection"


def test_small_messages_go_out_at_once(fd):
    seen = []

    def handler(connection):
        seen.append(connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    with running(fd, handler) as run, run.dial() as client:
        client.wait_closed(TIMEOUT)
    assert seen == [1]


def test_works_over_tls(fd):
    server_context, client_context = certificates()
    with running(fd, echo, ssl=server_context) as run:
        sock = run.connect()
        tls = client_context.wrap_socket(sock, server_hostname="localhost")
        with run.dial(sock=tls) as client:
            client.send("x" * 100000)
            assert client.recv() == "x" * 100000


def test_signature_is_the_documented_one(fd):
    parameters = list(inspect.signature(fd.sync.server.serve).parameters)
    documented = [
        "handler",
        "host",
        "port",
        "sock",
        "ssl",
        "origins",
        "extensions",
        "subprotocols",
        "select_subprotocol",
        "compression",
        "process_request",
        "process_response",
        "server_header",
        "open_timeout",
        "ping_interval",
        "ping_timeout",
        "close_timeout",
        "max_size",
        "max_queue",
        "logger",
        "create_connection",
    ]
    assert parameters[: len(documented)] == documented
    assert {"broadcast", "serve", "unix_serve", "ServerConnection", "Server", "basic_auth"} <= set(
        fd.sync.server.__all__
    )


# The opening handshake


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


def test_process_request_lets_pass(fd):
    def process_request(connection, request):
        connection.tenant = request.headers["X-Tenant"]
        del request.headers["Origin"]

    def handler(connection):
        connection.send(connection.tenant)

    with (
        running(fd, handler, process_request=process_request, origins=[None]) as run,
        run.dial(headers={"X-Tenant": "me"}, origin="https://evil.com") as client,
    ):
        assert client.recv() == "me"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "BREW"])
def test_process_request_answers_plain_http(fd, caplog, method):
    def process_request(connection, request):
        assert request.method == method
        if request.path == "/health":
            return connection.respond(200, "OK\n")
        return None

    ran = threading.Event()
    with running(fd, lambda c: ran.set(), process_request=process_request) as run:
        response = run.exchange(f"{method} /health HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status_of(response) == 200
    assert response.endswith(b"\r\n\r\n" if method == "HEAD" else b"\r\n\r\nOK\n")
    assert not ran.is_set()
    assert errors_in(caplog) == []


def test_process_request_sees_http_1_0(fd):
    def process_request(connection, request):
        return connection.respond(200, request.protocol)

    with running(fd, process_request=process_request) as run:
        assert run.exchange(b"GET / HTTP/1.0\r\n\r\n").endswith(b"HTTP/1.0")


def test_process_request_may_accept_by_itself(fd):
    def process_request(connection, request):
        response = connection.protocol.accept(request)
        response.headers["X-Mine"] = "yes"
        return response

    with running(fd, echo, process_request=process_request) as run, run.dial() as client:
        assert client.response.headers["X-Mine"] == "yes"
        client.send("x")
        assert client.recv() == "x"


def test_process_request_fails(fd, caplog):
    def process_request(connection, request):
        raise LookupError("a secret")

    ran = threading.Event()
    with running(fd, lambda c: ran.set(), process_request=process_request) as run:
        response = run.exchange(request())
    assert status_of(response) == 500
    assert b"secret" not in response
    (record,) = errors_in(caplog)
    assert record.exc_info[0] is LookupError
    assert isinstance(record.websocket, fd.sync.server.ServerConnection)
    assert not ran.is_set()


def test_process_response_changes(fd):
    def process_response(connection, request, response):
        assert request is connection.request
        response.headers["X-Mine"] = "yes"

    with running(fd, process_response=process_response) as run:
        with run.dial() as client:
            assert client.response.headers["X-Mine"] == "yes"
        assert headers_of(run.exchange(b"GET / HTTP/1.1\r\n\r\n"))["x-mine"] == "yes"


def test_process_response_replaces(fd):
    ran = threading.Event()

    def process_response(connection, request, response):
        assert response.status_code == 101
        return connection.respond(418, "teapot")

    with running(fd, lambda c: ran.set(), process_response=process_response) as run:
        response = run.exchange(request())
        eventually(lambda: not run.server._admitted)
    assert status_of(response) == 418
    assert response.endswith(b"teapot")
    assert not ran.is_set()


def test_process_response_fails(fd, caplog):
    def process_response(connection, request, response):
        raise LookupError

    with running(fd, process_response=process_response) as run:
        assert status_of(run.exchange(request())) == 500
    (record,) = errors_in(caplog)
    assert record.exc_info[0] is LookupError


@pytest.mark.parametrize(
    ("name", "value"), [("X-Evil", "a\r\nSet-Cookie: b"), ("X\r\nSet-Cookie: b", "a"), ("X Y", "a")]
)
def test_r14_no_header_is_sent_that_somebody_else_wrote(fd, caplog, name, value):
    def process_response(connection, request, response):
        response.headers._list.append((name, value)) if hasattr(
            response.headers, "_list"
        ) else response.headers.update([(name, value)])

    with running(fd, process_response=process_response) as run:
        response = run.exchange(request())
    assert status_of(response) == 500
    assert b"Set-Cookie" not in response
    assert len(errors_in(caplog)) == 1


@pytest.mark.parametrize("value", ["me/1", None, ...])
def test_server_header(fd, value):
    kwargs = {} if value is ... else {"server_header": value}
    expected = fd.http11.SERVER if value is ... else value
    with running(fd, **kwargs) as run:
        with run.dial() as client:
            assert client.response.headers.get("Server") == expected
        refusal = run.exchange(b"GET / HTTP/1.1\r\n\r\n")
    assert headers_of(refusal).get("server") == expected


def test_server_header_of_a_response_that_is_used_again(fd):
    same = fd.http11.Response(200, "OK", fd.datastructures.Headers(), b"x")
    with running(fd, process_request=lambda c, r: same) as run:
        for _ in range(3):
            assert run.exchange(request()).count(b"Server:") == 1


def test_create_connection(fd):
    class Mine(fd.sync.server.ServerConnection):
        def greet(self):
            self.send("hello")

    with running(fd, Mine.greet, create_connection=Mine) as run, run.dial() as client:
        assert client.recv() == "hello"


def test_create_connection_may_be_any_function(fd):
    calls = []

    def create(prefix, sock, protocol, server, **kwargs):
        calls.append((prefix, kwargs))
        return fd.sync.server.ServerConnection(sock, protocol, server, **kwargs)

    create_connection = functools.partial(create, "x")
    with (
        running(fd, echo, create_connection=create_connection, max_queue=3) as run,
        run.dial() as client,
    ):
        client.send("x")
        assert client.recv() == "x"
    ((prefix, kwargs),) = calls
    assert prefix == "x"
    assert kwargs == {"ping_interval": 20, "ping_timeout": 20, "close_timeout": 2, "max_queue": 3}


def test_create_connection_fails(fd, caplog):
    def create_connection(*args, **kwargs):
        raise LookupError

    with running(fd, create_connection=create_connection) as run:
        assert run.exchange(b"") == b""
    (record,) = errors_in(caplog)
    assert record.exc_info[0] is LookupError


def test_max_size(fd):
    with running(fd, echo, max_size=10) as run, run.dial() as client:
        client.send("x" * 11)
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            client.recv()
    assert caught.value.rcvd.code == 1009


@pytest.mark.parametrize("max_queue", [(1, 2), (1, -1), -1])
def test_max_queue_that_makes_no_sense(fd, max_queue):
    with pytest.raises(ValueError):
        fd.sync.server.serve(quiet, "127.0.0.1", max_queue=max_queue)


def test_logger(fd, caplog):
    logger = logging.getLogger("mine")
    caplog.set_level(logging.INFO, "mine")
    with running(fd, echo, logger=logger) as run:
        assert run.server.logger is logger
        run.dial().close()
    assert {record.name for record in caplog.records} == {"mine"}
    opened = [r for r in caplog.records if r.message == "connection open"]
    assert isinstance(opened[0].websocket, fd.sync.server.ServerConnection)


def test_keepalive(fd):
    with running(fd, ping_interval=0.02) as run, run.dial() as client:
        eventually(lambda: client.counters["frames_received"] >= 3)
        (connection,) = run.server.connections
        eventually(lambda: connection.latency > 0)


def test_debug_log_has_the_handshake(fd, caplog):
    caplog.set_level(logging.DEBUG, "fullduplex.server")
    with running(fd, echo) as run, run.dial() as client:
        client.send("hello")
        client.recv()
    lines = [record.message for record in caplog.records]
    assert "< GET / HTTP/1.1" in lines
    assert "> HTTP/1.1 101 Switching Protocols" in lines


# The handler


def test_handler_returns(fd):
    with (
        running(fd, lambda c: None) as run,
        run.dial() as client,
        pytest.raises(fd.exceptions.ConnectionClosedOK) as caught,
    ):
        client.recv()
    assert caught.value.rcvd == fd.frames.Close(1000, "")


@pytest.mark.parametrize("error", [LookupError, SystemExit])
def test_handler_raises(fd, caplog, error):
    def handler(connection):
        raise error

    with (
        running(fd, handler) as run,
        run.dial() as client,
        pytest.raises(fd.exceptions.ConnectionClosedError) as caught,
    ):
        client.recv()
    assert caught.value.rcvd == fd.frames.Close(1011, "")
    (record,) = errors_in(caplog)
    assert record.exc_info[0] is error


def test_handler_has_closed_already(fd):
    with (
        running(fd, lambda c: c.close(3000, "bye")) as run,
        run.dial() as client,
        pytest.raises(fd.exceptions.ConnectionClosedError) as caught,
    ):
        client.recv()
    assert caught.value.rcvd == fd.frames.Close(3000, "bye")


def test_connections(fd):
    with running(fd, echo) as run:
        assert run.server.connections == set()
        clients = [run.dial() for _ in range(3)]
        eventually(lambda: len(run.server.connections) == 3)
        assert run.server.connections is not run.server.connections
        for client in clients:
            client.close()
        assert run.server.connections == set()


def test_handler_threads_are_used_again(fd):
    seen = []

    def handler(connection):
        seen.append(threading.get_ident())

    with running(fd, handler) as run:
        for _ in range(10):
            run.dial().close()
            # Its thread is free again once it has forgotten the connection.
            eventually(lambda: not run.server._admitted)
            eventually(lambda: run.server._workers._idle)
        assert len(handler_threads()) == 1
    assert len(seen) == 10
    assert len(set(seen)) == 1
    assert handler_threads() == []


# Limits


def test_max_connections(fd, caplog):
    with running(fd, echo, max_connections=2) as run:
        clients = [run.dial() for _ in range(2)]
        for _ in range(3):
            with pytest.raises(fd.exceptions.InvalidStatus) as caught:
                run.dial()
            assert caught.value.response.status_code == 503
        for client in clients:
            client.send("x")
            assert client.recv() == "x"
        clients[0].close()
        eventually(lambda: len(run.server._admitted) < 2)
        clients.append(run.dial())
        for client in clients[1:]:
            client.close()
    assert errors_in(caplog) == []


def test_health_checks_are_answered_when_there_are_too_many_connections(fd):
    def process_request(connection, request):
        return connection.respond(200, "OK") if request.path == "/health" else None

    with running(fd, echo, max_connections=1, process_request=process_request) as run, run.dial():
        assert status_of(run.exchange(request("/health"))) == 200
        assert status_of(run.exchange(request("/"))) == 503


def test_max_handshakes_bounds_threads(fd):
    with running(fd, echo, max_handshakes=3) as run:
        slow = [run.connect() for _ in range(6)]
        eventually(lambda: run.server._acceptor and run.server._acceptor.held)
        assert len(run.server._opening) == 3
        assert len(handler_threads()) == 3
        # Those in the system's queue are served as soon as there is room.
        for sock in slow:
            sock.sendall(request())
            assert sock.recv(12) == b"HTTP/1.1 101"
            sock.close()


def test_a_burst_of_clients_with_few_handshakes_at_once(fd):
    with running(fd, echo, max_handshakes=2) as run:
        opened = []

        def client():
            with run.dial() as connection:
                connection.send("x")
                opened.append(connection.recv())

        threads = [threading.Thread(target=client) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
    assert opened == ["x"] * 40


@pytest.mark.slow
def test_2000_connections_opened_and_dropped(fd):
    fds = len(os.listdir("/dev/fd"))
    with running(fd) as run:
        for number in range(2000):
            sock = run.connect()
            if number % 2:
                sock.sendall(request()[: number % 200])
            sock.close()
        with run.dial() as client:
            client.ping().wait(TIMEOUT)
    assert handler_threads() == []
    eventually(lambda: len(os.listdir("/dev/fd")) <= fds + 3)
