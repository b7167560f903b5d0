"""How a server ends: what it closes, what it waits for, and what bounds that."""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import threading
import time

import pytest

from .serving import (
    TIMEOUT,
    Running,
    certificates,
    echo,
    eventually,
    handler_threads,
    quiet,
    read_all,
    request,
    run_script,
    running,
)


def test_connections_are_closed_with_1001(fd):
    with running(fd, echo) as run:
        clients = [run.dial() for _ in range(5)]
        run.server.shutdown()
        assert run.server.connections == set()
        for client in clients:
            with pytest.raises(fd.exceptions.ConnectionClosedOK) as caught:
                client.recv()
            assert caught.value.rcvd == fd.frames.Close(1001, "")


def test_code_and_reason(fd):
    with running(fd, echo) as run, run.dial() as client:
        run.server.shutdown(code=1012, reason="back soon")
        client.wait_closed(TIMEOUT)
        assert (client.close_code, client.close_reason) == (1012, "back soon")


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (999, ""), (1001, "x" * 124)])
def test_code_or_reason_that_cannot_be_sent(fd, code, reason):
    with running(fd, echo) as run, run.dial() as client:
        with pytest.raises(fd.exceptions.ProtocolError):
            run.server.shutdown(code=code, reason=reason)
        client.send("still here")
        assert client.recv() == "still here"


def test_nothing_is_left(fd):
    def keeps_no_cycles():
        with running(fd, echo) as run:
            clients = [run.dial() for _ in range(5)]
            server = run.server
        for client in clients:
            client.close()
        return server

    keeps_no_cycles()
    gc.collect()
    fds = len(os.listdir("/dev/fd"))
    server = keeps_no_cycles()
    assert handler_threads() == []
    eventually(lambda: len(os.listdir("/dev/fd")) == fds)
    assert server.fileno() == -1
    assert not server._opening
    assert not server._admitted


def test_nobody_can_connect_afterwards(fd):
    with running(fd, echo) as run:
        run.server.shutdown()
        with pytest.raises(ConnectionRefusedError):
            run.connect()


def test_shutdown_twice_and_from_several_threads(fd):
    with running(fd, echo) as run, run.dial():
        threads = [threading.Thread(target=run.server.shutdown) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        run.server.shutdown()


def test_shutdown_before_serve_forever(fd):
    server = fd.sync.server.serve(quiet, "127.0.0.1")
    server.shutdown()
    server.serve_forever()
    assert server.fileno() == -1


def test_exit_shuts_down(fd):
    with fd.sync.server.serve(quiet, "127.0.0.1") as server:
        run = Running(fd, server)
        client = run.dial()
    assert server.closing
    client.wait_closed(TIMEOUT)
    assert client.close_code == 1001
    run.thread.join(TIMEOUT)
    assert not run.thread.is_alive()


def test_serve_forever_in_two_threads(fd):
    with running(fd) as run, pytest.raises(RuntimeError):
        eventually(lambda: run.server._loop_thread is not None)
        run.server.serve_forever()


def test_requests_in_the_opening_handshake_get_503(fd):
    with running(fd) as run:
        silent, slow = run.connect(), run.connect()
        slow.sendall(request()[:50])
        eventually(lambda: len([c for c in run.server._opening.values() if c]) == 2)
        shutdown = threading.Thread(target=run.server.shutdown)
        shutdown.start()
        for sock in (silent, slow):
            assert read_all(sock).startswith(b"HTTP/1.1 503 ")
            sock.close()
        shutdown.join(TIMEOUT)
        assert not shutdown.is_alive()


def test_request_that_is_being_answered_gets_503(fd):
    asked, go_on = threading.Event(), threading.Event()

    def process_request(connection, request):
        asked.set()
        go_on.wait(TIMEOUT)

    ran = threading.Event()
    with running(fd, lambda c: ran.set(), process_request=process_request) as run:
        with run.connect() as sock:
            sock.sendall(request())
            assert asked.wait(TIMEOUT)
            shutdown = threading.Thread(target=run.server.shutdown)
            shutdown.start()
            eventually(lambda: run.server.closing)
            go_on.set()
            assert read_all(sock).startswith(b"HTTP/1.1 503 ")
        shutdown.join(TIMEOUT)
    assert not ran.is_set()


@pytest.mark.parametrize("tls", [False, True])
def test_clients_that_never_send_a_request_cannot_hold_it_up(fd, tls):
    context = certificates()[0] if tls else None
    with running(fd, ssl=context, open_timeout=None) as run:
        clients = [run.connect() for _ in range(3)]
        eventually(lambda: len(run.server._opening) == 3)
        start = time.monotonic()
        run.server.shutdown()
        assert time.monotonic() - start < 5
        for sock in clients:
            sock.close()


def test_waits_for_handlers_that_run_on(fd):
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def handler(connection):
        begun.set()
        quiet(connection)
        release.wait(TIMEOUT)
        ended.set()

    with running(fd, handler) as run:
        client = run.dial()
        assert begun.wait(TIMEOUT)
        shutdown = threading.Thread(target=run.server.shutdown)
        shutdown.start()
        client.wait_closed(TIMEOUT)
        assert shutdown.is_alive()
        release.set()
        shutdown.join(TIMEOUT)
        assert ended.is_set()


def test_close_connections_false_waits_only(fd):
    with running(fd, echo) as run:
        client = run.dial()
        shutdown = threading.Thread(target=run.server.shutdown, args=(False,))
        shutdown.start()
        eventually(lambda: run.server.fileno() == -1)
        client.send("x")
        assert client.recv() == "x"
        assert shutdown.is_alive()
        client.close()
        assert client.close_code == 1000
        shutdown.join(TIMEOUT)
        assert not shutdown.is_alive()


def test_closing_after_all(fd):
    """A second call may be less patient than the first."""
    with running(fd, echo) as run:
        client = run.dial()
        patient = threading.Thread(target=run.server.shutdown, args=(False,))
        patient.start()
        eventually(lambda: run.server.closing)
        run.server.shutdown()
        client.wait_closed(TIMEOUT)
        assert client.close_code == 1001
        patient.join(TIMEOUT)
        assert not patient.is_alive()


def test_handler_cannot_wait_for_itself(fd):
    errors = []

    def handler(connection):
        try:
            connection.server.shutdown(False)
        except RuntimeError as exc:
            errors.append(exc)

    with running(fd, handler) as run, run.dial() as client:
        client.wait_closed(TIMEOUT)
        assert not run.server.closing
    assert len(errors) == 1


def test_handler_may_shut_the_server_down(fd):
    def handler(connection):
        if connection.request.path == "/stop":
            connection.server.shutdown()
        else:
            quiet(connection)

    with running(fd, handler) as run:
        other = run.dial()
        with run.dial("/stop") as client:
            client.wait_closed(TIMEOUT)
            assert client.close_code == 1001
        other.wait_closed(TIMEOUT)
        assert other.close_code == 1001
        run.thread.join(TIMEOUT)
        assert not run.thread.is_alive()


def test_two_handlers_may_shut_the_server_down_at_once(fd):
    both = threading.Barrier(2)

    def handler(connection):
        both.wait(TIMEOUT)
        connection.server.shutdown()

    with running(fd, handler) as run:
        clients = [run.dial() for _ in range(2)]
        for client in clients:
            assert client.wait_closed(TIMEOUT)
        run.thread.join(TIMEOUT)
        assert not run.thread.is_alive()
        run.server.shutdown(timeout=TIMEOUT)
        assert handler_threads() == []


def blocked(connection):
    """Tell whether a thread is stuck in a send on a connection."""
    if connection._writer.try_acquire(5) == 0:
        connection._leave_writer()
        return False
    return not select.select([], [connection.socket], [], 0)[1]


def test_r18_stalled_clients_are_cut_together_within_close_timeout(fd):
    """They neither read nor answer; each has a send that is stuck, and keepalive is off."""
    stuck = threading.Semaphore(0)

    def handler(connection):
        stuck.release()
        try:
            while True:
                connection.send(b"x" * 2**20)
        except fd.exceptions.ConnectionClosed:
            pass

    with running(fd, handler, close_timeout=0.3, ping_interval=None) as run:
        clients = [run.connect() for _ in range(5)]
        for sock in clients:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(request())
        for _ in clients:
            assert stuck.acquire(timeout=TIMEOUT)
        # Each handler is in a send that the network does not take.
        eventually(lambda: all(blocked(c) for c in run.server._admitted))
        start = time.monotonic()
        run.server.shutdown()
        assert time.monotonic() - start < 3
        for sock in clients:
            sock.close()
    assert handler_threads() == []


def test_client_that_keeps_tcp_open_is_cut(fd):
    with running(fd, close_timeout=0.2) as run, run.connect() as sock:
        sock.sendall(request())
        assert sock.recv(12) == b"HTTP/1.1 101"
        eventually(lambda: run.server.connections)
        start = time.monotonic()
        run.server.shutdown()
        assert 0.1 < time.monotonic() - start < 3


def test_timeout_returns_though_a_handler_does_not(fd, caplog):
    caplog.set_level(logging.WARNING, "fullduplex.server")
    begun, release = threading.Event(), threading.Event()

    def handler(connection):
        begun.set()
        release.wait(TIMEOUT)

    with running(fd, handler) as run:
        client = run.dial()
        assert begun.wait(TIMEOUT)
        start = time.monotonic()
        run.server.shutdown(timeout=0.2)
        assert 0.1 < time.monotonic() - start < 3
        assert client.wait_closed(TIMEOUT)
        release.set()
    assert any("did not return in time" in record.message for record in caplog.records)


def test_timeout_bounds_closing_without_close_timeout(fd):
    with running(fd, quiet, close_timeout=None) as run, run.connect() as sock:
        sock.sendall(request())
        assert sock.recv(12) == b"HTTP/1.1 101"
        eventually(lambda: run.server.connections)
        start = time.monotonic()
        run.server.shutdown(timeout=0.2)
        assert time.monotonic() - start < 3
    assert handler_threads() == []


def test_client_can_read_our_close_frame(fd):
    """Also when it is still sending: an orderly end of TCP, no reset (RFC 6455 §7.1.1)."""
    with running(fd, echo) as run:
        with run.connect() as sock:
            sock.sendall(request())
            assert sock.recv(12) == b"HTTP/1.1 101"
            eventually(lambda: run.server.connections)
            shutdown = threading.Thread(target=run.server.shutdown)
            shutdown.start()
            received = b""
            while b"\x88\x02\x03\xe9" not in received:
                sock.sendall(b"\x81\x81\0\0\0\0x")
                received += sock.recv(65536)
            sock.sendall(b"\x88\x82\0\0\0\0\x03\xe9")
            read_all(sock)
        shutdown.join(TIMEOUT)


def test_connection_in_the_midst_of_fragments(fd):
    begun, go_on = threading.Event(), threading.Event()

    def fragments():
        yield "a"
        begun.set()
        go_on.wait(TIMEOUT)
        yield "b"

    def handler(connection):
        connection.send(fragments())

    with running(fd, handler) as run:
        client = run.dial()
        assert begun.wait(TIMEOUT)
        shutdown = threading.Thread(target=run.server.shutdown)
        shutdown.start()
        assert client.wait_closed(TIMEOUT)
        assert client.close_code == 1011
        go_on.set()
        shutdown.join(TIMEOUT)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no signals")
def test_signal_handler_in_the_thread_of_serve_forever(fd):
    """The usual way: the main thread accepts, and the handler of SIGTERM shuts down in it."""
    server = fd.sync.server.serve(echo, "127.0.0.1")
    clients = []

    def client():
        run = Running.__new__(Running)
        run.fd, run.server, run.address = fd, server, server.socket.getsockname()
        clients.append(run.dial())
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: server.shutdown())
    thread = threading.Thread(target=client)
    try:
        thread.start()
        server.serve_forever()
    finally:
        signal.signal(signal.SIGUSR1, before)
        server.shutdown()
    thread.join(TIMEOUT)
    clients[0].wait_closed(TIMEOUT)
    assert clients[0].close_code == 1001


def test_server_that_was_made_before_a_fork(fd):
    """Each child accepts for itself, and the shutdown of one is not that of another."""
    server = fd.sync.server.serve(lambda c: c.send(str(os.getpid())), "127.0.0.1")
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.signal(signal.SIGTERM, lambda *_: server.shutdown())
                server.serve_forever()
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    run = Running.__new__(Running)
    run.fd, run.server, run.address = fd, server, server.socket.getsockname()
    try:
        for _ in range(5):
            with run.dial() as client:
                assert int(client.recv()) in children
        os.kill(children[0], signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
        for _ in range(5):
            with run.dial() as client:
                assert int(client.recv()) == children[1]
    finally:
        os.kill(children[1], signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(children[1], 0)[1]) == 0
        server.shutdown()


def test_connections_are_cut_where_handlers_do_not_return(fd):
    """`shutdown` was not to close them, and its time is over."""
    states = []

    def handler(connection):
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            connection.recv()
        states.append(connection.state)

    with running(fd, handler) as run, run.dial() as client:
        eventually(lambda: run.server.connections)
        run.server.shutdown(close_connections=False, timeout=0.1)
        assert client.wait_closed(TIMEOUT)
        eventually(lambda: states)
    assert states == [fd.protocol.State.CLOSED]


def test_signal_handler_as_serve_forever_ends(fd):
    """A second SIGTERM: it must not wait for what only the interrupted thread can do."""
    server = fd.sync.server.serve(echo, "127.0.0.1")
    ended = []

    class Interrupted(threading.Event):
        def set(self) -> None:
            ended.append("handler")
            server.shutdown()
            super().set()
            server.shutdown()

    server._loop_ended = Interrupted()
    stopping = threading.Timer(0.1, server.shutdown)
    stopping.start()
    server.serve_forever()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()
    assert ended


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_child_shuts_down_what_its_parent_serves(fd):
    """It gives its copies back; the loop, the connections and the threads are the parent's."""
    with running(fd, echo) as run, run.dial() as client:
        client.send("before")
        assert client.recv() == "before"
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                run.server.shutdown()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        client.send("after")
        assert client.recv() == "after"
        with run.dial() as another:
            another.send("new")
            assert another.recv() == "new"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_socket_file_is_its_makers(fd, tmp_path):
    """A child that shuts down leaves it to the other processes that serve there."""
    path = str(tmp_path / "socket")
    server = fd.sync.server.unix_serve(echo, path)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGTERM, lambda *_: server.shutdown())
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            server.serve_forever()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert os.path.exists(path)
    server.shutdown()
    assert not os.path.exists(path)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_socket_file_of_a_daemon(fd, tmp_path):
    """Whose maker has gone: it removes the file, so that it can be started again."""
    path = str(tmp_path / "socket")
    result = run_script(
        fd,
        f"""
import os, time
from fullduplex.sync.server import unix_serve

server = unix_serve(print, {path!r})
maker = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == maker:
    time.sleep(0.01)
assert os.path.exists({path!r})
server.shutdown()
print(os.path.exists({path!r}), flush=True)
""",
    )
    assert (result.stdout, result.stderr) == ("False\n", "")
