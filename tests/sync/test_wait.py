"""Waiting for several connections in one thread."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from .serving import TIMEOUT, certificates, eventually

SOON = 30.0
"""A time-out that is never reached when all is well."""


class Pair:
    """A client's connection, and the server's end of it: a connection too, or a bare socket."""

    def __init__(
        self, fd: ModuleType, *, bare: bool = False, secure: bool = False, **options: Any
    ) -> None:
        near, far = socket.socketpair()
        settings = {"ping_interval": None, "close_timeout": TIMEOUT, **options}
        client: Any = fd.client.ClientProtocol(
            fd.uri.parse_uri("ws://localhost/"), state=fd.State.OPEN
        )
        server: Any = fd.server.ServerProtocol(state=fd.State.OPEN)
        ends: tuple[Any, Any] = near, far
        if secure:
            ends = handshake(fd, near, far)
        self.far = far
        self.client = fd.sync.connection.Connection(ends[0], client, **settings)
        self.server = None if bare else fd.sync.connection.Connection(ends[1], server, **settings)
        self.stream = ends[1]

    def close(self) -> None:
        if self.server is None:
            self.far.close()
            with contextlib.suppress(Exception):
                self.client.close()
            return
        closing = threading.Thread(target=self.server.close)
        closing.start()
        self.client.close()
        closing.join(TIMEOUT)


def handshake(fd: ModuleType, near: Any, far: Any) -> tuple[Any, Any]:
    """Give TLS streams over two connected sockets."""
    server_context, client_context = certificates()
    stream = fd.stream
    client = stream.TLSStream(stream.open_stream(near), client_context, server_hostname="localhost")
    server = stream.TLSStream(stream.open_stream(far), server_context, server_side=True)
    deadline = time.monotonic() + TIMEOUT
    thread = threading.Thread(target=server.handshake, args=(deadline,))
    thread.start()
    client.handshake(deadline)
    thread.join()
    return client, server


@pytest.fixture
def pairs(fd: ModuleType) -> Iterator[Any]:
    """Makes pairs, and closes them at the end."""
    made: list[Pair] = []

    def make(**options: Any) -> Pair:
        made.append(Pair(fd, **options))
        return made[-1]

    yield make
    for pair in made:
        pair.close()


def frame(opcode: int, payload: bytes = b"", fin: bool = True) -> bytes:
    """Give a server's frame with a small payload."""
    return bytes([(0x80 if fin else 0) | opcode, len(payload)]) + payload


class Waiting:
    """A thread in `wait()`."""

    def __init__(self, fd: ModuleType, connections: Any, timeout: float | None = SOON) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self.fd = fd
        self.connections = connections
        self.timeout = timeout
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        eventually(
            lambda: (
                not self.thread.is_alive()
                or all(c._reader.owner == fd.roles.WAIT for c in connections)
            )
        )

    def _run(self) -> None:
        try:
            self.result = self.fd.wait(self.connections, self.timeout)
        except Exception as exc:
            self.error = exc

    def join(self) -> Any:
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        assert self.error is None
        return self.result


def test_nothing_to_wait_for(fd: ModuleType) -> None:
    assert fd.wait([]) == []
    assert fd.wait([], 0) == []


def test_timeout_zero_only_looks(fd: ModuleType, pairs: Any) -> None:
    one, other = pairs(), pairs()
    assert fd.wait([one.client, other.client], 0) == []
    assert fd.wait([one.client, other.client], -1) == []
    one.server.send("here")
    assert fd.wait([other.client, one.client], SOON) == [one.client]
    assert fd.wait([other.client, one.client], 0) == [one.client]
    assert one.client.recv(0) == "here"
    assert fd.wait([other.client, one.client], 0) == []


def test_timeout_passes(fd: ModuleType, pairs: Any) -> None:
    pair = pairs()
    begin = time.monotonic()
    assert fd.wait([pair.client], 0.05) == []
    assert time.monotonic() - begin >= 0.05


def test_those_that_are_ready_come_in_the_order_given(fd: ModuleType, pairs: Any) -> None:
    made = [pairs() for _ in range(4)]
    for index in (3, 0, 2):
        made[index].server.send(str(index))
    clients = [pair.client for pair in made]
    eventually(lambda: len(fd.wait(clients, 0)) == 3)
    assert fd.wait(clients, 0) == [clients[0], clients[2], clients[3]]
    assert fd.wait(clients[::-1], 0) == [clients[3], clients[2], clients[0]]


def test_a_connection_listed_twice_counts_once(fd: ModuleType, pairs: Any) -> None:
    pair = pairs()
    pair.server.send("here")
    assert fd.wait([pair.client, pair.client], SOON) == [pair.client]


def test_a_message_wakes_it(fd: ModuleType, pairs: Any) -> None:
    one, other = pairs(), pairs()
    waiting = Waiting(fd, [one.client, other.client])
    other.server.send(b"now")
    assert waiting.join() == [other.client]
    assert other.client.recv(0) == b"now"
    # The roles were given back: both can be used as before.
    one.server.send("later")
    assert one.client.recv(SOON) == "later"


def test_without_a_timeout(fd: ModuleType, pairs: Any) -> None:
    pair = pairs()
    waiting = Waiting(fd, [pair.client], None)
    pair.server.send("now")
    assert waiting.join() == [pair.client]


def test_pings_are_answered_and_do_not_make_it_ready(fd: ModuleType, pairs: Any) -> None:
    pair = pairs()
    waiting = Waiting(fd, [pair.client])
    assert pair.server.ping().wait(TIMEOUT)
    assert waiting.thread.is_alive()
    pair.server.send("now")
    assert waiting.join() == [pair.client]


def test_half_a_message_does_not_make_it_ready(fd: ModuleType, pairs: Any) -> None:
    pair = pairs(bare=True)
    waiting = Waiting(fd, [pair.client])
    pair.far.sendall(frame(1, b"half", fin=False))
    pair.far.sendall(frame(9, b"ping"))
    assert pair.far.recv(100)  # the pong: what was before it has been read
    assert waiting.thread.is_alive()
    pair.far.sendall(frame(0, b" and half"))
    assert waiting.join() == [pair.client]
    assert pair.client.recv(0) == "half and half"


def test_the_next_fragment_makes_a_streamed_message_ready(fd: ModuleType, pairs: Any) -> None:
    pair = pairs(bare=True)
    pair.far.sendall(frame(1, b"one", fin=False))
    fragments = pair.client.recv_streaming()
    assert next(fragments) == "one"
    assert fd.wait([pair.client], 0) == []
    pair.far.sendall(frame(0, b"two"))
    assert fd.wait([pair.client], SOON) == [pair.client]
    assert list(fragments) == ["two"]


def test_a_peer_that_closes_makes_it_ready(fd: ModuleType, pairs: Any) -> None:
    pair = pairs()
    waiting = Waiting(fd, [pair.client])
    pair.server.close(4000, "enough")
    assert waiting.join() == [pair.client]
    assert fd.wait([pair.client], 0) == [pair.client]
    with pytest.raises(fd.exceptions.ConnectionClosedError, match="4000"):
        pair.client.recv(0)


def test_messages_before_the_close_come_first(fd: ModuleType, pairs: Any) -> None:
    pair = pairs()
    pair.server.send("last words")
    pair.server.close()
    assert fd.wait([pair.client], SOON) == [pair.client]
    assert pair.client.recv(0) == "last words"
    assert fd.wait([pair.client], SOON) == [pair.client]
    with pytest.raises(fd.exceptions.ConnectionClosedOK):
        pair.client.recv(0)


def test_a_peer_that_vanishes_makes_it_ready(fd: ModuleType, pairs: Any) -> None:
    pair = pairs(bare=True)
    waiting = Waiting(fd, [pair.client])
    pair.far.close()
    assert waiting.join() == [pair.client]
    with pytest.raises(fd.exceptions.ConnectionClosedError, match="no close frame"):
        pair.client.recv(0)


def test_a_reset_makes_it_ready(fd: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    protocol = fd.client.ClientProtocol(fd.uri.parse_uri("ws://localhost/"), state=fd.State.OPEN)
    connection = fd.sync.connection.Connection(near, protocol, ping_interval=None)
    waiting = Waiting(fd, [connection])
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    assert waiting.join() == [connection]
    with pytest.raises(fd.exceptions.ConnectionClosedError):
        connection.recv(0)


def test_a_violation_makes_it_ready(fd: ModuleType, pairs: Any) -> None:
    pair = pairs(bare=True, close_timeout=0.1)
    waiting = Waiting(fd, [pair.client])
    pair.far.sendall(frame(3))
    assert waiting.join() == [pair.client]
    with pytest.raises(fd.exceptions.ConnectionClosedError, match="1002"):
        pair.client.recv(SOON)


def test_another_threads_close_makes_it_ready(fd: ModuleType, pairs: Any) -> None:
    one, other = pairs(), pairs()
    waiting = Waiting(fd, [one.client, other.client])
    one.client.close()
    assert waiting.join() == [one.client]
    assert one.client.close_code == 1000
    assert other.client.state is fd.State.OPEN


def test_another_threads_close_with_a_silent_peer(fd: ModuleType, pairs: Any) -> None:
    pair = pairs(bare=True, close_timeout=0.1)
    waiting = Waiting(fd, [pair.client])
    pair.client.close()
    assert waiting.join() == [pair.client]
    assert pair.client.close_code == 1006


def test_a_connection_that_is_being_closed_does_not_keep_others_waiting(
    fd: ModuleType, pairs: Any
) -> None:
    closing, open_ = pairs(bare=True), pairs()
    closer = threading.Thread(target=closing.client.close)
    closer.start()
    eventually(lambda: closing.client._reader.owner == fd.roles.CLOSE)
    assert fd.wait([closing.client, open_.client], 0) == []
    open_.server.send("here")
    assert fd.wait([closing.client, open_.client], SOON) == [open_.client]
    open_.client.recv(0)
    closing.far.close()
    assert fd.wait([closing.client, open_.client], SOON) == [closing.client]
    closer.join(TIMEOUT)


def test_a_second_receiver_is_an_error_for_itself_only(fd: ModuleType, pairs: Any) -> None:
    one, other = pairs(), pairs()
    waiting = Waiting(fd, [one.client])
    with pytest.raises(fd.exceptions.ConcurrencyError):
        one.client.recv(0)
    with pytest.raises(fd.exceptions.ConcurrencyError):
        fd.wait([other.client, one.client], 0)
    one.server.send("now")
    assert waiting.join() == [one.client]
    # The one that came before the error was given back.
    other.server.send("later")
    assert other.client.recv(SOON) == "later"


def test_waiting_where_another_thread_is_in_recv_is_an_error(fd: ModuleType, pairs: Any) -> None:
    one, other = pairs(), pairs()
    received: list[Any] = []
    thread = threading.Thread(target=lambda: received.append(one.client.recv()))
    thread.start()
    eventually(lambda: one.client._reader.owner == fd.roles.RECV)
    with pytest.raises(fd.exceptions.ConcurrencyError, match="wait"):
        fd.wait([other.client, one.client], SOON)
    one.server.send("undisturbed")
    thread.join(TIMEOUT)
    assert received == ["undisturbed"]
    assert other.client._reader.owner == fd.roles.FREE


def test_other_threads_may_send_meanwhile(fd: ModuleType, pairs: Any) -> None:
    pair = pairs()
    waiting = Waiting(fd, [pair.client])
    pair.client.send("from another thread")
    assert pair.server.recv(SOON) == "from another thread"
    pair.server.send("answer")
    assert waiting.join() == [pair.client]


def test_many_connections(fd: ModuleType, pairs: Any) -> None:
    made = [pairs() for _ in range(100)]
    left = {pair.client for pair in made}
    numbers = {pair.client: number for number, pair in enumerate(made)}

    def send() -> None:
        for number, pair in enumerate(made):
            pair.server.send(str(number))

    sender = threading.Thread(target=send)
    sender.start()
    while left:
        ready = fd.wait(left, SOON)
        assert ready
        for client in ready:
            assert client.recv(0) == str(numbers[client])
            left.remove(client)
    sender.join(TIMEOUT)


def test_what_tls_holds_in_memory_counts(fd: ModuleType, pairs: Any) -> None:
    pair = pairs(secure=True, max_queue=1)
    for number in range(5):
        pair.server.send(str(number))
    # All five come in one read of the socket; afterwards the socket alone would say: nothing there.
    for number in range(5):
        assert fd.wait([pair.client], SOON) == [pair.client]
        assert pair.client.recv(0) == str(number)
    assert fd.wait([pair.client], 0) == []


def test_tls_peers_that_close(fd: ModuleType, pairs: Any) -> None:
    pair = pairs(secure=True)
    waiting = Waiting(fd, [pair.client])
    pair.server.close()
    assert waiting.join() == [pair.client]
    with pytest.raises(fd.exceptions.ConnectionClosedOK):
        pair.client.recv(0)


class WithoutDescriptor:
    """A socket that has no file descriptor, and nothing to read until it is at its end."""

    ended = False

    def fileno(self) -> int:
        return -1

    def setblocking(self, blocking: bool) -> None:
        pass

    def recv_into(self, view: memoryview) -> int:
        if not self.ended:
            raise BlockingIOError
        return 0

    def close(self) -> None:
        pass


def test_a_socket_without_a_descriptor_is_refused(fd: ModuleType, pairs: Any) -> None:
    protocol = fd.client.ClientProtocol(fd.uri.parse_uri("ws://localhost/"), state=fd.State.OPEN)
    double = WithoutDescriptor()
    connection = fd.sync.connection.Connection(double, protocol, ping_interval=None)
    pair = pairs()
    with pytest.raises(ValueError, match="descriptor"):
        fd.wait([pair.client, connection], 0)
    pair.server.send("later")
    assert pair.client.recv(SOON) == "later"
    # Once it is closed, it needs none.
    double.ended = True
    with pytest.raises(fd.exceptions.ConnectionClosedError):
        connection.recv()
    assert fd.wait([pair.client, connection], 0) == [connection]


class Select:
    """A `select` that knows when it is used."""

    POLLIN = select.POLLIN

    def __init__(self, on_poll: Callable[[], Any], *, blind: bool = False) -> None:
        self.on_poll = on_poll
        self.blind = blind
        self.timeouts: list[float | None] = []
        self.poller = select.poll()

    def poll(self) -> Any:
        return SimpleNamespace(register=self.poller.register, poll=self._poll)

    def _poll(self, timeout: float | None) -> list[tuple[int, int]]:
        self.timeouts.append(timeout)
        self.on_poll()
        return [] if self.blind else self.poller.poll(timeout)


def once(function: Callable[[], Any]) -> Callable[[], Any]:
    """Make a function do something the first time only."""
    calls = iter([function])
    return lambda: next(calls, lambda: None)()


def test_something_comes_while_it_polls(
    fd: ModuleType, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = pairs()
    fake = Select(once(lambda: pair.server.send("now")))
    monkeypatch.setattr(fd.sync.wait, "select", fake)
    assert fd.wait([pair.client]) == [pair.client]
    assert fake.timeouts == [None] if fd.sync.wait.WAIT_SLICE is None else fake.timeouts


def test_a_connection_whose_close_takes_long_is_looked_at_now_and_then(
    fd: ModuleType, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, open_ = pairs(bare=True), pairs()
    closer = threading.Thread(target=closing.client.close)
    closer.start()
    eventually(lambda: closing.client._reader.owner == fd.roles.CLOSE)
    fake = Select(once(closing.far.close))
    monkeypatch.setattr(fd.sync.wait, "select", fake)
    assert fd.wait([closing.client, open_.client]) == [closing.client]
    assert set(fake.timeouts) == {1000 * fd.sync.wait.CLOSER_SLICE}
    closer.join(TIMEOUT)


def test_a_reader_that_stays_longer_than_a_moment(fd: ModuleType) -> None:
    roles, owners = fd.roles, [fd.roles.SERVICE, fd.roles.FREE]
    role = SimpleNamespace(try_acquire=lambda kind: owners.pop(0), acquire=lambda *args: False)
    assert fd.sync.wait.enter(SimpleNamespace(_reader=role))
    owners[:] = [roles.SERVICE]
    leaves = SimpleNamespace(try_acquire=lambda kind: owners.pop(0), acquire=lambda *args: True)
    assert fd.sync.wait.enter(SimpleNamespace(_reader=leaves))
    owners[:] = [roles.SERVICE, roles.CLOSE]
    assert not fd.sync.wait.enter(SimpleNamespace(_reader=role))


def test_without_poll(fd: ModuleType, pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    one, other, closing = pairs(), pairs(), pairs(bare=True)
    monkeypatch.setattr(fd.sync.wait, "select", SimpleNamespace(select=select.select))
    assert fd.wait([one.client, other.client], 0.01) == []
    waiting = Waiting(fd, [one.client, other.client])
    other.server.send("now")
    assert waiting.join() == [other.client]
    closer = threading.Thread(target=closing.client.close)
    closer.start()
    eventually(lambda: closing.client._reader.owner == fd.roles.CLOSE)
    assert fd.wait([closing.client], 0.01) == []
    closing.far.close()
    assert fd.wait([closing.client], SOON) == [closing.client]
    closer.join(TIMEOUT)


def test_where_a_cut_gives_no_sign(
    fd: ModuleType, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, where poll() may sleep through a shutdown() of our own."""
    pair = pairs()
    fake = Select(once(lambda: pair.server.send("now")), blind=True)
    monkeypatch.setattr(fd.sync.wait, "select", fake)
    monkeypatch.setattr(fd.sync.wait, "WAIT_SLICE", 0.01)
    assert fd.wait([pair.client], SOON) == [pair.client]
    assert set(fake.timeouts) == {10}
