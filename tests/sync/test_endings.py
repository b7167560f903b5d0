"""How a connection ends that was lost, or whose extensions fail: with its cause, and never by waiting for ever."""

from __future__ import annotations

import socket
import threading
from types import ModuleType
from typing import Any

import pytest

from .links import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    TIMEOUT,
    Background,
    FaultySocket,
    eventually,
    link,
)


@pytest.mark.parametrize("call", ["send", "ping", "pong", "close", "wait_closed"])
def test_a_lost_connection_whose_inbox_is_full_ends(fd: ModuleType, call: str) -> None:
    """Nobody may ever make room in it for the end, which is behind what is left."""
    with link(fd, max_queue=1, max_size=1000) as (connection, peer):
        connection._high_bytes = 1000
        assert connection._reader.try_acquire(fd.roles.SERVICE) == fd.roles.FREE
        peer.sock.sendall(20 * peer.frame(BINARY, bytes(500)))
        connection._read_ahead(0.0)
        assert connection._inbox_full()
        # A writer finds out while the service has the reader role, and leaves the end to it.
        connection._lost(BrokenPipeError(32, "found by a writer"))
        assert connection.state is fd.State.OPEN
        connection._reader.release()
        if call == "wait_closed":
            connection._serve()
            assert connection.wait_closed(TIMEOUT)
        elif call == "close":
            connection.close()
        else:
            with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
                getattr(connection, call)(*([b"message"] if call == "send" else []))
            assert isinstance(caught.value.__cause__, BrokenPipeError)
        assert connection.state is fd.State.CLOSED
        assert connection.recv() == bytes(500)  # what had come before can still be read


def test_send_with_a_timeout_does_not_wait_longer_for_the_end(fd: ModuleType) -> None:
    faulty: list[FaultySocket] = []

    def wrap(sock: socket.socket) -> FaultySocket:
        faulty.append(FaultySocket(sock))
        return faulty[0]

    with link(fd, wrap=wrap) as (connection, _):
        # The reader does not find the end, since it is not done with something else.
        assert connection._reader.acquire(fd.roles.CLOSE, TIMEOUT)
        faulty[0].faults.update(send=BrokenPipeError(32, ""), sendmsg=BrokenPipeError(32, ""))
        result = Background(lambda: connection.send(b"message", timeout=0.05))
        with result, pytest.raises(TimeoutError):
            result.result()
        connection._leave_reader()


class Failing:
    """An extension that cannot encode."""

    name = "x-failing"

    def decode(self, frame: Any, *, max_size: int | None = None) -> Any:
        return frame

    def encode(self, frame: Any) -> Any:
        raise RuntimeError("cannot encode")


def test_an_extension_that_fails_to_encode_is_the_cause(fd: ModuleType) -> None:
    with link(fd, extensions=[Failing()]) as (connection, _):
        for _ in range(2):
            with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
                connection.send(b"message")
            assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_reason_that_is_too_long_ends_no_fragmented_message(fd: ModuleType) -> None:
    going, go_on = threading.Event(), threading.Event()

    def fragments() -> Any:
        yield "one"
        going.set()
        assert go_on.wait(TIMEOUT)
        yield "two"

    with link(fd) as (connection, peer):
        with Background(lambda: connection.send(fragments())):
            assert going.wait(TIMEOUT)
            with pytest.raises(fd.exceptions.ProtocolError, match="too long"):
                connection.close(1000, "x" * 124)
            assert connection.state is fd.State.OPEN
            go_on.set()
        assert [peer.receive()[2] for _ in range(2)] == [b"one", b"two"]


def test_close_does_nothing_once_it_is_closed(fd: ModuleType) -> None:
    """Whatever the reason: handlers put messages of exceptions there."""
    with link(fd) as (connection, peer):
        peer.close()
        assert connection.wait_closed(TIMEOUT)
        connection.close(1011, "x" * 200)


def test_the_end_of_tcp_without_an_answer_to_close_is_the_cause(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        with Background(lambda: (peer.expect(CLOSE), peer.close())):
            connection.close()
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.recv()
        assert isinstance(caught.value.__cause__, EOFError)


def test_a_ping_without_an_answer_is_the_cause(fd: ModuleType) -> None:
    with link(fd, ping_interval=0.01, ping_timeout=0.02) as (connection, _):
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.recv()
        assert caught.value.sent.code == 1011
        assert isinstance(caught.value.__cause__, TimeoutError)


def test_torn_control_frames_end_the_connection(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a handler raised in the midst of one nothing can be sent any more."""

    class Torn:
        """Tears when it is made to send something."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

    if fd.IMPLEMENTATION != "pure":
        pytest.skip("the attribute is typed in the compiled one")
    with link(fd) as (connection, _):
        torn = Torn(connection._stream)
        connection._stream = torn

        def flush(deadline: float | None) -> bool:
            torn.stream.torn = True
            raise KeyboardInterrupt

        monkeypatch.setattr(torn, "flush", flush, raising=False)
        with pytest.raises(KeyboardInterrupt):
            connection.pong()
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.recv(TIMEOUT)
        assert isinstance(caught.value.__cause__, ConnectionAbortedError)


def test_who_waits_hears_of_the_end_though_a_handler_raises(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with link(fd) as (connection, peer), Background(connection.wait_closed) as waiter:
        event = connection.ping(b"last", ack_on_close=True)
        notify = connection._changed.notify_all

        def interrupted() -> None:
            connection._changed.notify_all = notify
            raise KeyboardInterrupt

        assert connection._reader.acquire(fd.roles.CLOSE, TIMEOUT)
        monkeypatch.setattr(connection._changed, "notify_all", interrupted, raising=False)
        with pytest.raises(KeyboardInterrupt):
            connection._end(None)
        assert event.wait(TIMEOUT)
        assert waiter.result() is True
        connection._leave_reader()
        peer.close()


def test_a_writer_does_not_take_the_watch_for_bytes_away(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wishes for room says nothing of bytes, which the service may just have begun to watch for."""
    module = fd.sync.service
    with link(fd) as (connection, _):
        service = module.get_service()
        eventually(lambda: connection._watch == module.ARMED)
        wishes: list[int] = []
        arm = service.watcher.arm

        def noting(number: int, events: int) -> None:
            if number == connection._stream.fileno():
                wishes.append(events)
            arm(number, events)

        monkeypatch.setattr(service.watcher, "arm", noting)
        service.arm(connection, module.WRITE)
        eventually(lambda: wishes)
        assert wishes[0] == module.READ | module.WRITE


def test_a_burst_of_pings_gets_few_answers(fd: ModuleType) -> None:
    """The first ones each their own, and the last one; so that a flood costs no call of the system for each."""
    count = 5000
    with link(fd) as (connection, peer):
        pings = b"".join(peer.frame(PING, index.to_bytes(2, "big")) for index in range(count))
        with Background(lambda: peer.sock.sendall(pings + peer.frame(BINARY, b"end"))):
            assert connection.recv(TIMEOUT) == b"end"
        answers = [peer.expect(PONG)]
        while answers[-1] != (count - 1).to_bytes(2, "big"):
            answers.append(peer.expect(PONG))
        assert answers == sorted(answers)
        assert answers[:10] == [index.to_bytes(2, "big") for index in range(10)]
        assert len(answers) < 1000


def test_pings_that_nobody_judges_are_forgotten(fd: ModuleType) -> None:
    with link(fd, ping_interval=0.002, ping_timeout=None) as (connection, peer):
        user = connection.ping(b"mine")
        payloads = [peer.expect(PING) for _ in range(60)]
        assert len(connection._pings) < 30
        peer.send(PONG, payloads[-1])  # acknowledges those before it
        assert user.wait(TIMEOUT)
        eventually(lambda: connection.latency > 0)


def test_the_last_ping_of_a_burst_is_answered(fd: ModuleType) -> None:
    """There is one answer for many of them, which must not wait until the call ends."""
    count = 5000
    with link(fd) as (connection, peer), Background(lambda: fd.wait([connection])) as waiter:
        pings = b"".join(peer.frame(PING, index.to_bytes(2, "big")) for index in range(count))
        with Background(lambda: peer.sock.sendall(pings)):
            while peer.expect(PONG) != (count - 1).to_bytes(2, "big"):
                pass
        peer.send(TEXT, b"ready")
        assert waiter.result() == [connection]
