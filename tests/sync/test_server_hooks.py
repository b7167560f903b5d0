"""What the application changes in the opening handshake and in connections of `serve`."""

from __future__ import annotations

import functools
import logging
import socket
import threading

import pytest

from .responses import errors_in, headers_of, status_of
from .serving import (
    echo,
    eventually,
    quiet,
    request,
    running,
)


@pytest.fixture(autouse=True)
def record_all(caplog):
    caplog.set_level(logging.INFO, "fullduplex.server")


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


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("call", ["recv", "recv_streaming", "send", "ping", "pong", "close"])
def test_process_request_calls_what_needs_an_open_connection(fd, call, gone):
    seen = []

    def process_request(connection, request):
        if gone:
            connection.socket.setblocking(True)
            assert connection.socket.recv(1, socket.MSG_PEEK) == b""
            connection.socket.setblocking(False)
        try:
            if call == "recv_streaming":
                next(connection.recv_streaming())
            else:
                getattr(connection, call)(*(["x"] if call == "send" else []))
        except BaseException as exc:
            seen.append(exc)
        return

    with running(fd, echo, process_request=process_request) as run:
        if gone:
            with run.connect() as sock:
                sock.sendall(request())
        else:
            with run.dial() as client:
                client.send("x")
                assert client.recv() == "x"
        eventually(lambda: seen)
    assert [type(exc) for exc in seen] == [fd.exceptions.InvalidState]


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


@pytest.mark.parametrize(("limit", "status"), [(None, 101), (0, 503)])
def test_process_response_that_lets_in_what_was_refused(fd, limit, status):
    def process_response(connection, request, response):
        assert response.status_code == 403
        connection.protocol.origins = None
        return connection.protocol.accept(request)

    options = {"origins": ["https://a"], "process_response": process_response}
    with running(fd, quiet, max_connections=limit, **options) as run, run.connect() as sock:
        sock.sendall(request(headers="Origin: https://b\r\n"))
        assert status_of(sock.recv(4096)) == status
        if status == 101:
            eventually(lambda: len(run.server.connections) == 1)
        run.server.shutdown(timeout=10)
        assert run.server.connections == set()


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
