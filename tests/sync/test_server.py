"""Where `serve` listens, its handler, and its limits, over real sockets."""

from __future__ import annotations

import inspect
import logging
import os
import socket
import threading

import pytest

from .responses import errors_in, status_of
from .serving import (
    TIMEOUT,
    certificates,
    echo,
    eventually,
    handler_threads,
    quiet,
    request,
    running,
)


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


def test_handler_ends_with_its_connection(fd, caplog):
    """That a client goes away is no fault of the handler's."""
    with running(fd, echo) as run:
        with run.connect() as sock:
            sock.sendall(request())
            assert sock.recv(65536)
        eventually(lambda: "ended with its connection" in caplog.text)
    assert not errors_in(caplog)


def test_handler_that_goes_on_after_it_has_closed(fd, caplog):
    """That is one."""

    def handler(connection):
        connection.close()
        connection.send("more")

    with running(fd, handler) as run:
        with run.dial() as client, pytest.raises(fd.exceptions.ConnectionClosedOK):
            client.recv()
        eventually(lambda: errors_in(caplog))


def test_handler_ends_with_another_connection(fd, caplog):
    def handler(connection):
        with fd.connect(url, proxy=None) as other:
            other.recv()

    with running(fd, lambda c: c.close(4000)) as elsewhere, running(fd, handler) as run:
        url = f"ws://127.0.0.1:{elsewhere.address[1]}"
        with run.dial() as client, pytest.raises(fd.exceptions.ConnectionClosedError):
            client.recv()
    (record,) = errors_in(caplog)
    assert record.exc_info[0] is fd.exceptions.ConnectionClosedError


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
    eventually(lambda: not handler_threads())  # one that is off the list may still be ending


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
    eventually(lambda: not handler_threads())  # one that is off the list may still be ending
    eventually(lambda: len(os.listdir("/dev/fd")) <= fds + 3)
