"""`broadcast`: one message to many, encoded once, and nobody waits for a slow one."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
import types

import pytest

from .serving import TIMEOUT, eventually, quiet, request, running

STALLING = 2**18  # bytes of a message of which a few fill the buffers of a socket


def clients_of(run, count, **options):
    """Open connections; the server has them in its set when this returns."""
    before = len(run.server.connections)
    clients = [run.dial(**options) for _ in range(count)]
    eventually(lambda: len(run.server.connections) == before + count)
    return clients


def stalled(run):
    """Open a connection whose peer never reads, and give both its ends."""
    known = run.server.connections
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(TIMEOUT)
    sock.connect(run.address)
    sock.sendall(request())
    assert sock.recv(12) == b"HTTP/1.1 101"
    eventually(lambda: run.server.connections - known)
    (connection,) = run.server.connections - known
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return sock, connection


def fill(fd, connection, **kwargs):
    """Broadcast to a stalled connection until it has a backlog."""
    while not connection._stream.unsent():
        fd.sync.server.broadcast([connection], b"x" * STALLING, **kwargs)


def warnings_in(caplog):
    return [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("message", "kwargs", "expected"),
    [
        ("text", {}, "text"),
        ("ä" * 50000, {}, "ä" * 50000),
        ("", {}, ""),
        (b"binary", {}, b"binary"),
        (bytearray(b"array"), {}, b"array"),
        (memoryview(b"view")[::2], {}, b"ve"),
        ("text", {"text": False}, b"text"),
        (b"bytes", {"text": True}, "bytes"),
        (b"x" * 300000, {"max_workers": 4}, b"x" * 300000),
    ],
)
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_broadcast(fd, message, kwargs, expected, compression):
    offer = [fd.extensions.permessage_deflate.ClientPerMessageDeflateFactory()]
    with running(fd, compression=compression) as run:
        clients = clients_of(run, 3, extensions=offer)
        fd.sync.server.broadcast(run.server.connections, message, **kwargs)
        for client in clients:
            received = client.recv(TIMEOUT)
            assert received == expected
            assert type(received) is type(expected)


@pytest.mark.parametrize("message", [None, 42, ["a"], {"a": "b"}, iter(["a"])])
def test_messages_of_a_wrong_type(fd, message):
    with running(fd) as run:
        (client,) = clients_of(run, 1)
        with pytest.raises(TypeError):
            fd.sync.server.broadcast(run.server.connections, message)
        fd.sync.server.broadcast(run.server.connections, "fine")
        assert client.recv(TIMEOUT) == "fine"


def test_to_nobody_with_a_policy(fd):
    fd.sync.server.broadcast([], "x", slow="close")
    with pytest.raises(ValueError):
        fd.sync.server.broadcast([], "x", slow="drop")


def test_twice_the_same(fd):
    with running(fd) as run:
        (client,) = clients_of(run, 1)
        (connection,) = run.server.connections
        fd.sync.server.broadcast([connection, connection], "x")
        fd.sync.server.broadcast([connection], "y")
        assert [client.recv(TIMEOUT) for _ in range(3)] == ["x", "x", "y"]


@pytest.mark.parametrize("what", [None, object()], ids=["None", "object"])
def test_what_is_no_connection_is_refused(fd, what):
    with running(fd) as run:
        (client,) = clients_of(run, 1)
        (connection,) = run.server.connections
        with pytest.raises(TypeError, match=type(what).__name__):
            fd.sync.server.broadcast([what, connection], "x")
        assert client.recv(TIMEOUT) == "x"


def test_encodes_once(fd, monkeypatch):
    """One frame for all that share parameters, with or without compression."""
    module = fd.sync.broadcast
    built, compressed = [], []
    real_build, real_encode = module.build_frame, module.encode_shared

    def build(*args, **kwargs):
        built.append(args)
        return real_build(*args, **kwargs)

    def encode(*args, **kwargs):
        compressed.append(args)
        return real_encode(*args, **kwargs)

    monkeypatch.setattr(module, "build_frame", build)
    monkeypatch.setattr(module, "encode_shared", encode)
    pmd = fd.extensions.permessage_deflate.ClientPerMessageDeflateFactory
    with running(fd) as run:
        clients = clients_of(run, 10)
        clients += clients_of(run, 10, extensions=[pmd()])
        clients += clients_of(run, 10, extensions=[pmd(server_max_window_bits=9)])
        module.broadcast(run.server.connections, "x" * 5000)
        assert (len(built), len(compressed)) == (3, 2)
        for client in clients:
            assert client.recv(TIMEOUT) == "x" * 5000


def test_shared_compression_fits_into_what_was_sent_before_and_after(fd):
    pmd = fd.extensions.permessage_deflate.ClientPerMessageDeflateFactory

    def handler(connection):
        for message in connection:
            connection.send(message)

    with running(fd, handler) as run:
        clients = clients_of(run, 3, extensions=[pmd()])
        for number in range(5):
            for client in clients[number % 2 :]:
                client.send(f"own {number} " * 100)
                assert client.recv(TIMEOUT) == f"own {number} " * 100
            fd.sync.server.broadcast(run.server.connections, f"own {number} all " * 100)
            for client in clients:
                assert client.recv(TIMEOUT) == f"own {number} all " * 100


def test_small_messages_are_not_compressed(fd):
    pmd = fd.extensions.permessage_deflate.ClientPerMessageDeflateFactory
    with running(fd) as run:
        (client,) = clients_of(run, 1, extensions=[pmd()])
        (connection,) = run.server.connections
        fd.sync.server.broadcast([connection], "aaaa")
        assert client.recv(TIMEOUT) == "aaaa"
        assert connection.counters["payload_sent"] == 4


def test_counters(fd):
    pmd = fd.extensions.permessage_deflate.ClientPerMessageDeflateFactory
    with running(fd) as run:
        clients = clients_of(run, 1) + clients_of(run, 1, extensions=[pmd()])
        fd.sync.server.broadcast(run.server.connections, "x" * 1000)
        for client in clients:
            client.recv(TIMEOUT)
        plain, deflated = sorted(c.counters["payload_sent"] for c in run.server.connections)[::-1]
        assert plain == 1000
        assert deflated < 100
        assert all(c.counters["frames_sent"] == 1 for c in run.server.connections)


def test_extension_of_somebody_else(fd):
    base = fd.extensions.base

    class Reverse(base.Extension):
        name = "reverse"

        def encode(self, frame):
            if frame.opcode > 7:
                return frame
            return fd.frames.Frame(frame.opcode, bytes(frame.data)[::-1], frame.fin)

        def decode(self, frame, *, max_size=None):
            return self.encode(frame)

    class Client(base.ClientExtensionFactory):
        name = "reverse"

        def get_request_params(self):
            return []

        def process_response_params(self, params, accepted):
            return Reverse()

    class Server(base.ServerExtensionFactory):
        name = "reverse"

        def process_request_params(self, params, accepted):
            return [], Reverse()

    with running(fd, extensions=[Server()], compression=None) as run:
        (client,) = clients_of(run, 1, extensions=[Client()])
        (plain,) = clients_of(run, 1)
        fd.sync.server.broadcast(run.server.connections, "abc")
        assert client.recv(TIMEOUT) == plain.recv(TIMEOUT) == "abc"


def test_debug_log(fd, caplog):
    caplog.set_level(logging.DEBUG, "fullduplex.server")
    with running(fd) as run:
        (client,) = clients_of(run, 1)
        fd.sync.server.broadcast(run.server.connections, "hello")
        assert client.recv(TIMEOUT) == "hello"
    assert any(r.message.startswith("> TEXT") and "hello" in r.message for r in caplog.records)


def test_clients_may_broadcast_too(fd):
    """Their frames are masked, each with a key of its own."""
    received = []

    def handler(connection):
        received.append(connection.recv(TIMEOUT))

    with running(fd, handler) as run:
        clients = [run.dial() for _ in range(3)]
        fd.sync.server.broadcast(clients, "from clients")
        for client in clients:
            client.wait_closed(TIMEOUT)
    assert received == ["from clients"] * 3


def test_connections_that_are_not_open_are_passed_over_silently(fd, caplog):
    with running(fd) as run:
        clients = clients_of(run, 3)
        connections = list(run.server.connections)
        clients[0].close()
        clients[1].close()
        eventually(lambda: len(run.server.connections) == 1)
        fd.sync.server.broadcast(connections, "x", raise_exceptions=True)
        assert clients[2].recv(TIMEOUT) == "x"
    assert warnings_in(caplog) == []


def test_connection_that_closes_meanwhile(fd):
    """Its state was looked at, and changed before the writer role was taken."""
    with running(fd) as run:
        (client,) = clients_of(run, 1)
        (connection,) = run.server.connections
        message = fd.sync.broadcast.prepare("x", None)
        client.close()
        assert connection._writer.acquire(5, TIMEOUT)
        problems = []
        assert fd.sync.broadcast.write(connection, message, problems) == 0
        assert problems == []


# A connection that is busy with fragments


def fragmented(fd, raise_exceptions):
    begun, go_on = threading.Event(), threading.Event()

    def fragments():
        yield "a"
        begun.set()
        assert go_on.wait(TIMEOUT)
        yield "b"

    def handler(connection):
        if connection.request.path == "/busy":
            connection.send(fragments())
        quiet(connection)

    with running(fd, handler) as run:
        (other,) = clients_of(run, 1)
        busy = run.dial("/busy")
        assert begun.wait(TIMEOUT)
        try:
            fd.sync.server.broadcast(run.server.connections, "x", raise_exceptions=raise_exceptions)
        finally:
            go_on.set()
            assert other.recv(TIMEOUT) == "x"
            assert busy.recv(TIMEOUT) == "ab"


def test_fragmented_send_is_skipped_with_a_warning(fd, caplog):
    fragmented(fd, False)
    (record,) = warnings_in(caplog)
    assert "skipped broadcast" in record.message
    assert isinstance(record.websocket, fd.sync.server.ServerConnection)


def test_fragmented_send_raises(fd, caplog):
    with pytest.raises(ExceptionGroup, match="skipped broadcast") as caught:
        fragmented(fd, True)
    (error,) = caught.value.exceptions
    assert isinstance(error, fd.exceptions.ConcurrencyError)
    assert warnings_in(caplog) == []


# Writing fails


@pytest.mark.parametrize("raise_exceptions", [False, True])
def test_write_that_fails(fd, caplog, raise_exceptions):
    with running(fd) as run:
        (broken,) = clients_of(run, 1)
        (connection,) = run.server.connections
        (other,) = clients_of(run, 1)
        connection.socket.shutdown(socket.SHUT_WR)
        if raise_exceptions:
            with pytest.raises(ExceptionGroup, match="skipped broadcast") as caught:
                fd.sync.server.broadcast(run.server.connections, "x", raise_exceptions=True)
            (error,) = caught.value.exceptions
            assert str(error) == "failed to write message"
            assert isinstance(error.__cause__, BrokenPipeError)
            assert warnings_in(caplog) == []
        else:
            fd.sync.server.broadcast(run.server.connections, "x")
            (record,) = warnings_in(caplog)
            assert record.message.startswith("skipped broadcast: failed to write message: ")
        assert other.recv(TIMEOUT) == "x"
        assert connection.wait_closed(TIMEOUT)
        broken.wait_closed(TIMEOUT)


# Slow consumers


@pytest.mark.parametrize("count", [1, 3])
def test_slow_consumer_cannot_hold_up_the_others(fd, caplog, count):
    with running(fd, close_timeout=0.1) as run:
        slow = [stalled(run) for _ in range(count)]
        for _, connection in slow:
            fill(fd, connection)
        (client,) = clients_of(run, 1)
        start = time.monotonic()
        for number in range(20):
            fd.sync.server.broadcast(run.server.connections, f"message {number}")
        duration = time.monotonic() - start
        assert [client.recv(TIMEOUT) for _ in range(20)] == [f"message {n}" for n in range(20)]
        assert duration < 2
        assert len(warnings_in(caplog)) == 20 * count
        for sock, _ in slow:
            sock.close()


def test_slow_consumer_is_skipped_but_gets_what_was_begun(fd):
    with running(fd) as run:
        sock, connection = stalled(run)
        fill(fd, connection)
        sent = connection.counters["frames_sent"]
        fd.sync.server.broadcast([connection], "left out")
        assert connection.counters["frames_sent"] == sent
        received = b""
        while received.count(b"\x82\x7f") < sent or len(received) < sent * (STALLING + 10):
            received += sock.recv(2**20)
        eventually(lambda: not connection._stream.unsent())
        # It has caught up, and takes part again.
        fd.sync.server.broadcast([connection], "next")
        while not received.endswith(b"\x81\x04next"):
            received += sock.recv(2**20)
        assert b"left out" not in received
        sock.close()


def test_slow_consumer_raises(fd, caplog):
    with running(fd, close_timeout=0.1) as run:
        sock, connection = stalled(run)
        fill(fd, connection)
        with pytest.raises(ExceptionGroup) as caught:
            fd.sync.server.broadcast([connection], "x", raise_exceptions=True)
        (error,) = caught.value.exceptions
        assert "slow consumer" in str(error)
        sock.close()


def test_slow_consumer_is_closed_by_policy(fd):
    with running(fd, close_timeout=0.2) as run:
        sock, connection = stalled(run)
        fill(fd, connection, slow="close")
        assert connection.state is fd.protocol.State.OPEN
        fd.sync.server.broadcast([connection], "x", slow="close")
        assert connection not in run.server.connections
        # It does not read even now, and is cut.
        assert connection.wait_closed(TIMEOUT)
        sock.close()


def test_slow_consumer_that_is_closed_can_read_why(fd):
    with running(fd) as run:
        sock, connection = stalled(run)
        fill(fd, connection)
        fd.sync.server.broadcast([connection], "x", slow="close")
        received = b""
        while not received.endswith(b"\x88\x0f\x03\xf0slow consumer"):
            data = sock.recv(2**20)
            assert data
            received += data
        sock.close()


def test_slow_consumer_with_a_send_that_is_stuck(fd):
    """Another thread holds the writer role, and will for long: that costs the others nothing."""

    def handler(connection):
        if connection.request.path == "/stuck":
            connection.send(b"x" * 2**26)
        quiet(connection)

    with running(fd, handler, close_timeout=0.1) as run:
        (client,) = clients_of(run, 1)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(run.address)
        sock.sendall(request("/stuck"))
        eventually(lambda: len(run.server.connections) == 2)
        (stuck,) = [c for c in run.server.connections if c.request.path == "/stuck"]
        eventually(lambda: not fd.sync.broadcast.takes_bytes(stuck))
        start = time.monotonic()
        for _ in range(50):
            fd.sync.server.broadcast(run.server.connections, "x")
        assert time.monotonic() - start < 2
        assert [client.recv(TIMEOUT) for _ in range(50)] == ["x"] * 50
        sock.close()


# Connections on which other threads send


def test_writer_that_is_busy_for_a_moment_costs_no_message(fd):
    with running(fd) as run:
        (client,) = clients_of(run, 1)
        (connection,) = run.server.connections
        assert connection._writer.acquire(5, TIMEOUT)
        timer = threading.Timer(0.02, connection._leave_writer)
        timer.start()
        fd.sync.server.broadcast([connection], "x")
        timer.join()
        assert client.recv(TIMEOUT) == "x"


def test_writer_that_is_busy_for_too_long_is_slow(fd, monkeypatch, caplog):
    monkeypatch.setattr(fd.sync.broadcast, "GRACE", 0.02)
    with running(fd) as run:
        (client,) = clients_of(run, 1)
        (connection,) = run.server.connections
        assert connection._writer.acquire(5, TIMEOUT)
        fd.sync.server.broadcast([connection], "x")
        connection._leave_writer()
        fd.sync.server.broadcast([connection], "y")
        assert client.recv(TIMEOUT) == "y"
    assert len(warnings_in(caplog)) == 1


def test_senders_and_broadcasters_at_once(fd):
    """Nothing is lost, nothing interleaves, and each thread's messages stay in order."""
    count = 200

    def handler(connection):
        for number in range(count):
            connection.send(f"own {number}" + "." * 200)
        quiet(connection)

    with running(fd, handler) as run:
        clients = clients_of(run, 3)
        connections = run.server.connections

        def broadcaster(name):
            for number in range(count):
                fd.sync.server.broadcast(connections, f"{name} {number}")

        threads = [threading.Thread(target=broadcaster, args=(n,)) for n in ("one", "two")]
        for thread in threads:
            thread.start()
        for client in clients:
            seen = {"own": [], "one": [], "two": []}
            for _ in range(3 * count):
                name, number = client.recv(TIMEOUT).rstrip(".").split()
                seen[name].append(int(number))
            assert all(numbers == list(range(count)) for numbers in seen.values())
        for thread in threads:
            thread.join(TIMEOUT)


def test_without_poll(fd, monkeypatch):
    monkeypatch.setattr(fd.sync.broadcast, "select", types.SimpleNamespace(select=select.select))
    with running(fd) as run:
        (client,) = clients_of(run, 1)
        (connection,) = run.server.connections
        assert fd.sync.broadcast.takes_bytes(connection)
        client.close()


def test_socket_that_cannot_be_asked(fd):
    with running(fd) as run:
        (client,) = clients_of(run, 1)
        (connection,) = run.server.connections
        client.close()
        eventually(lambda: connection.socket.fileno() == -1)
        assert fd.sync.broadcast.takes_bytes(connection)


def test_an_extension_that_fails_does_not_keep_others_from_the_message(fd, caplog):
    class Failing:
        name = "failing"

        def encode(self, frame):
            raise LookupError("no code for it")

    with running(fd, lambda c: c.wait_closed()) as run:
        clients = clients_of(run, 3)
        connections = sorted(run.server.connections, key=lambda c: c.remote_address)
        clients.sort(key=lambda c: c.local_address)
        connections[1].protocol.extensions = [Failing()]
        fd.sync.server.broadcast(connections, "message")
        assert clients[0].recv(TIMEOUT) == clients[2].recv(TIMEOUT) == "message"
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            clients[1].recv(TIMEOUT)
        assert "no code for it" in warnings_in(caplog)[0].getMessage()
