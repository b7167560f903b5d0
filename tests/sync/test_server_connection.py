"""`ServerConnection`, and its opening handshake where servers are in the way of a test."""

from __future__ import annotations

import contextlib
import http
import inspect
import socket
import threading
import time

import pytest

from .serving import TIMEOUT, request


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(TIMEOUT)
    with ours, theirs:
        yield ours, theirs


@contextlib.contextmanager
def connection_over(fd, sock, server=None):
    protocol = fd.server.ServerProtocol()
    protocol.pulling = True
    connection = fd.sync.server.ServerConnection(sock, protocol, server)
    try:
        yield connection
    finally:
        if connection.state is fd.protocol.State.CONNECTING:
            connection._stream.close()
        else:
            connection._cut()
            assert connection.wait_closed(TIMEOUT)


def open_connection(fd, connection, deadline=None, **hooks):
    module = fd.sync.server_connection
    return module.open_connection(connection, module.Hooks(**hooks), deadline)


def test_signature_is_the_documented_one(fd):
    cls = fd.sync.server.ServerConnection
    parameters = inspect.signature(cls).parameters
    assert list(parameters)[1:7] == [
        "protocol",
        "server",
        "ping_interval",
        "ping_timeout",
        "close_timeout",
        "max_queue",
    ]
    assert issubclass(cls, fd.sync.connection.Connection)


@pytest.mark.parametrize("name", ["socket", "sock"])
def test_attributes(fd, pair, name):
    protocol = fd.server.ServerProtocol()
    server = object()
    connection = fd.sync.server.ServerConnection(
        **{name: pair[0]}, protocol=protocol, server=server
    )
    assert connection.server is server
    assert connection.handler is None
    assert connection.handler_kwargs == {}
    assert connection.request is None
    assert connection.response is None
    connection.anything = 1
    assert connection in {connection}
    assert not hasattr(connection, "username")


@pytest.mark.parametrize("status", [404, http.HTTPStatus.NOT_FOUND])
def test_respond(fd, pair, status):
    with connection_over(fd, pair[0]) as connection:
        response = connection.respond(status, "häh?")
    assert (response.status_code, response.reason_phrase) == (404, "Not Found")
    assert response.body == "häh?".encode()
    names = [name for name, _ in response.headers.raw_items()]
    assert names == ["Date", "Connection", "Content-Length", "Content-Type"]
    assert response.headers["Connection"] == "close"
    assert response.headers["Content-Length"] == "5"
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_respond_with_a_status_that_does_not_exist(fd, pair):
    with connection_over(fd, pair[0]) as connection, pytest.raises(ValueError):
        connection.respond(799, "")


def test_open(fd, pair):
    ours, theirs = pair
    with connection_over(fd, ours) as connection:
        theirs.sendall(request("/x"))
        assert open_connection(fd, connection) is True
        assert connection.state is fd.protocol.State.OPEN
        assert connection.request.path == "/x"
        assert connection.response.status_code == 101
        assert theirs.recv(12) == b"HTTP/1.1 101"


def test_refused(fd, pair):
    ours, theirs = pair
    with connection_over(fd, ours) as connection:
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        theirs.shutdown(socket.SHUT_WR)
        assert open_connection(fd, connection) is False
        assert connection.state is fd.protocol.State.CONNECTING
        assert theirs.recv(12) == b"HTTP/1.1 400"


def test_refused_client_that_never_closes(fd, pair, monkeypatch):
    monkeypatch.setattr(fd.sync.server_connection, "LINGER", 0.05)
    ours, theirs = pair
    with connection_over(fd, ours) as connection:
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        start = time.monotonic()
        assert open_connection(fd, connection) is False
        assert 0.04 < time.monotonic() - start < 5


def test_refused_client_that_never_stops_sending(fd, pair, monkeypatch):
    monkeypatch.setattr(fd.sync.server_connection, "LINGER", 0.05)
    ours, theirs = pair
    stop = threading.Event()

    def flood():
        with contextlib.suppress(OSError):
            while not stop.is_set():
                theirs.send(b"x" * 4096)

    thread = threading.Thread(target=flood)
    with connection_over(fd, ours) as connection:
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        thread.start()
        assert open_connection(fd, connection) is False
    stop.set()
    thread.join(TIMEOUT)


def test_client_that_resets_while_it_is_refused(fd):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    with ours, connection_over(fd, ours) as connection:
        theirs.sendall(b"POST / HTTP/1.1\r\n\r\n")
        # What it does not read makes its close a reset.
        original = connection._stream.shutdown_write
        seen = []

        def process_request(connection, request):
            ours.send(b"unread")
            theirs.recv(1)
            theirs.close()
            seen.append(original)
            return connection.respond(200, "")

        with contextlib.suppress(OSError):
            assert open_connection(fd, connection, process_request=process_request) is False
        assert seen


@pytest.mark.parametrize("data", [b"", request()[:40]])
def test_deadline_of_reading(fd, pair, data):
    ours, theirs = pair
    with connection_over(fd, ours) as connection:
        theirs.sendall(data)
        with pytest.raises(TimeoutError):
            open_connection(fd, connection, time.monotonic() + 0.02)
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_deadline_of_writing(fd, pair):
    """A client that asks for more than it reads."""
    ours, theirs = pair

    def process_request(connection, request):
        return connection.respond(200, "x" * 2**23)

    with connection_over(fd, ours) as connection:
        theirs.sendall(request())
        with pytest.raises(TimeoutError):
            open_connection(fd, connection, time.monotonic() + 0.1, process_request=process_request)


def test_client_that_has_gone_before_the_101(fd, pair):
    ours, theirs = pair

    def process_request(connection, request):
        theirs.close()

    with connection_over(fd, ours) as connection:
        theirs.sendall(request())
        with pytest.raises(OSError):
            open_connection(fd, connection, process_request=process_request)
        # The protocol was open for a moment.
        assert connection.wait_closed(TIMEOUT)
        assert connection.close_code == 1006


def test_nobody_writes_before_the_101(fd, pair):
    """Others see the state OPEN before the 101 is on its way; what they send comes later."""
    ours, theirs = pair
    received = []

    class SlowStream(fd.stream.Stream):
        def __init__(self, raw):
            super().__init__(raw.sock)
            self.raw = raw

        def recv_into(self, view, deadline):
            return self.raw.recv_into(view, deadline)

        def read(self, decoder, deadline):
            return self.raw.read(decoder, deadline)

        def write(self, data, deadline):
            fd.sync.server.broadcast([connection], "early", raise_exceptions=False)
            return self.raw.write(data, deadline)

        def send_some(self, data):
            return self.raw.send_some(data)

        def wait_writable(self, deadline):
            return self.raw.wait_writable(deadline)

    stream = SlowStream(fd.stream.open_stream(ours))
    with connection_over(fd, stream) as connection:
        theirs.sendall(request())
        assert open_connection(fd, connection) is True
        while b"\r\n\r\n" not in b"".join(received):
            received.append(theirs.recv(1000))
    assert b"".join(received).startswith(b"HTTP/1.1 101")


def test_refuse_while_the_request_is_read(fd, pair):
    """What Server.shutdown does, in the thread that calls it."""
    ours, theirs = pair
    results = []
    with connection_over(fd, ours) as connection:
        thread = threading.Thread(target=lambda: results.append(open_connection(fd, connection)))
        thread.start()
        connection.refuse()
        connection.refuse()
        assert theirs.recv(12) == b"HTTP/1.1 503"
        theirs.sendall(request())
        theirs.close()
        thread.join(TIMEOUT)
    assert results == [False]


def test_refuse_a_client_that_has_gone(fd, pair):
    ours, theirs = pair
    with connection_over(fd, ours) as connection:
        theirs.close()
        connection.refuse()
        assert connection._stream.aborted


def test_connection_is_freed_without_the_garbage_collector(fd, pair):
    import gc
    import weakref

    def select_subprotocol(connection, offered):
        return None

    ours, theirs = pair
    gc.disable()
    try:
        with connection_over(fd, ours) as connection:
            theirs.sendall(request())
            assert open_connection(fd, connection, select_subprotocol=select_subprotocol)
            theirs.recv(1000)
        reference = weakref.ref(connection)
        del connection
        deadline = time.monotonic() + TIMEOUT
        while reference() is not None:  # the service thread may hold it for a moment
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        gc.enable()
