"""The service thread: who is watched when, and that nothing of one connection touches another."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
import weakref
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from .links import (
    PING,
    PONG,
    TEXT,
    TIMEOUT,
    Background,
    FaultySocket,
    eventually,
    link,
    wait_reading,
)


def test_there_is_one_service(fd: ModuleType) -> None:
    service = fd.sync.service.get_service()
    assert fd.sync.service.get_service() is service
    with link(fd), link(fd):
        assert fd.sync.service.get_service() is service
        names = [thread.name for thread in threading.enumerate() if thread is service._thread]
        assert names == ["fullduplex"]
    assert service._thread.daemon


def test_an_idle_connection_is_watched(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        eventually(lambda: connection._watch == fd.sync.service.ARMED)
        peer.send(PING, b"1")
        peer.expect(PONG, b"1")
        peer.send(PING, b"2")
        peer.expect(PONG, b"2")


def test_a_connection_with_a_waiting_reader_is_left_alone(fd: ModuleType) -> None:
    with link(fd) as (connection, peer), Background(connection.recv) as receiver:
        wait_reading(connection)
        eventually(lambda: connection._watch == fd.sync.service.BLOCKED)
        peer.send(TEXT, b"message")
        assert receiver.result() == "message"
        eventually(lambda: connection._watch == fd.sync.service.ARMED)
        peer.send(PING, b"who reads now?")
        peer.expect(PONG, b"who reads now?")


def test_messages_are_read_ahead_in_order(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        for number in range(5):
            peer.send(TEXT, b"%d" % number)
            eventually(lambda: len(connection._inbox) == number + 1)  # noqa: B023
        assert [connection.recv(timeout=0) for _ in range(5)] == list("01234")


def test_a_full_inbox_stops_reading_until_it_is_drained(fd: ModuleType) -> None:
    with link(fd, max_queue=2) as (connection, peer):
        for number in range(6):
            peer.send(TEXT, b"%d" % number)
        eventually(lambda: connection._watch == fd.sync.service.BLOCKED)
        assert len(connection._inbox) == 2
        peer.send(PING, b"behind")
        assert [connection.recv() for _ in range(6)] == list("012345")
        peer.expect(PONG, b"behind")


def test_who_takes_a_message_before_the_service_says_that_it_waits_for_that(fd: ModuleType) -> None:
    """Between letting the reader role go and noting that the inbox is full, somebody empties it."""

    class Overtaken(fd.sync.connection.Connection):  # type: ignore[misc]
        taken: Any = None

        def _read_ahead(self, deadline: float | None) -> Any:
            more = super()._read_ahead(deadline)
            self._due = self._due or (self.taken is None and self._inbox_full())
            return more

        def _flush(self) -> None:
            super()._flush()
            if self.taken is None and self._inbox_full():
                self.taken = (self.recv(), self.recv())

    ours, theirs = socket.socketpair()
    with ours, theirs:
        protocol = fd.protocol.Protocol(fd.protocol.Side.CLIENT)
        connection = Overtaken(ours, protocol, max_queue=2, ping_interval=None)
        theirs.sendall(b"\x81\x011\x81\x012\x81\x013")
        eventually(lambda: connection.taken == ("1", "2"))
        theirs.sendall(b"\x89\x04ping")
        theirs.settimeout(TIMEOUT)
        pong = theirs.recv(100)  # answered though nobody takes the next message
        assert pong[0] == 0x8A
        assert connection.recv(timeout=TIMEOUT) == "3"
        theirs.close()
        connection.close()


def test_the_backlog_goes_out_when_the_peer_reads_again(fd: ModuleType) -> None:
    with link(fd, small=True) as (connection, peer):
        connection.socket.setblocking(False)
        filled = 0
        with pytest.raises(BlockingIOError):
            while True:
                filled += connection.socket.send(bytes(1024))
        connection.ping(b"queued")
        peer._take(filled)
        peer.expect(PING, b"queued")  # nobody but the service thread is there to send it


def test_a_connection_dropped_without_close_is_forgotten(fd: ModuleType) -> None:
    gc.disable()
    try:
        ours, theirs = socket.socketpair()
        number = ours.fileno()
        protocol = fd.protocol.Protocol(fd.protocol.Side.CLIENT)
        connection = fd.sync.connection.Connection(ours, protocol)
        reference = weakref.ref(connection)
        eventually(lambda: connection._watch == fd.sync.service.ARMED)
        del ours, protocol
        with pytest.warns(ResourceWarning):  # noqa: PT031
            connection = None
            eventually(lambda: reference() is None)  # the service may just look at it
        with pytest.raises(OSError):
            os.fstat(number)
        assert theirs.recv(10) == b""
        theirs.close()
    finally:
        gc.enable()


def test_a_descriptor_used_again_belongs_to_its_new_connection(fd: ModuleType) -> None:
    numbers = set()
    for _ in range(20):
        with link(fd) as (connection, peer):
            numbers.add(connection.socket.fileno())
            eventually(lambda: connection._watch == fd.sync.service.ARMED)
            peer.send(PING, b"x")
            peer.expect(PONG, b"x")
    assert len(numbers) < 20


def test_arming_a_closed_connection_does_not_touch_who_has_its_descriptor_now(
    fd: ModuleType,
) -> None:
    """Two threads: one gives the descriptor back while the other is about to arm it."""
    service = fd.sync.service.get_service()
    with link(fd) as (old, old_peer):
        number = old.socket.fileno()
        old_peer.close()
        assert old.wait_closed(TIMEOUT)
        eventually(lambda: old.socket.fileno() == -1)
        watched = dict(service.watched)
        service.arm(old)
        old._arm()
        assert service.watched == watched
        assert number not in watched


def test_timers_run_in_order_and_late_additions_wake_the_service(fd: ModuleType) -> None:
    service = fd.sync.service.get_service()
    called: list[str] = []

    class Timed:
        def __init__(self, name: str) -> None:
            self.name = name

        def _on_timer(self, now: float) -> None:
            called.append(self.name)

    now = time.monotonic()
    timed = [Timed("late"), Timed("early"), Timed("never")]
    service.schedule(timed[0], now + 0.1)
    service.schedule(timed[1], now + 0.01)
    service.schedule(timed[2], now + 0.05)
    del timed[2]  # nothing is called for what its owner has dropped
    eventually(lambda: len(called) == 2)
    assert called == ["early", "late"]


class Brief:
    """A connection that is closed when the service looks at it."""

    _watch = 0
    _seen_reads = 0

    def __init__(self, is_closed: bool = True) -> None:
        self.protocol = SimpleNamespace(is_closed=is_closed)

    def _on_tick(self) -> bool:
        return False


def test_a_stream_of_short_connections_does_not_wake_the_service_for_each(fd: ModuleType) -> None:
    service = fd.sync.service.get_service()
    eventually(lambda: not service._awake)
    woken: list[float] = []
    real = service.wake

    def wake() -> None:
        woken.append(time.monotonic())
        real()

    service.wake = wake
    try:
        start = time.monotonic()
        for _ in range(100):
            service.adopt(Brief())
            time.sleep(0.001)
        # It takes two looks without anybody new to let it sleep.
        least = 3 * fd.sync.service.FIRST_TICK
        assert 1 <= len(woken) <= (time.monotonic() - start) / least + 1
    finally:
        del service.wake
    eventually(lambda: not service._awake)


def test_timers_of_closed_connections_are_dropped(fd: ModuleType) -> None:
    service = fd.sync.service.get_service()
    later = time.monotonic() + 1000
    closed, gone = Brief(), Brief(is_closed=False)
    alive = [Brief(is_closed=False) for _ in range(10)]
    for connection in (closed, gone, *alive):
        service.schedule(connection, later)
    del connection
    reference = weakref.ref(gone)
    del gone
    assert reference() is None
    try:
        for _ in range(1000):
            service.schedule(closed, later)
        service.wake()
        eventually(lambda: not service._planned)
        assert len(service._timers) <= 2 * fd.sync.service.MIN_PURGE
        kept = [timer[2]() for timer in service._timers]
        assert [connection for connection in kept if connection in alive] == alive
        assert None not in kept
    finally:
        del alive, kept
        service._timers = [timer for timer in service._timers if timer[0] < later]


def test_a_timer_may_be_dropped_while_its_connection_is_freed(fd: ModuleType) -> None:
    """What the last reference calls may set another one."""
    service = fd.sync.service.get_service()
    later = time.monotonic() + 1000
    other = Brief()

    class Last(Brief):
        def __del__(self) -> None:
            service.schedule(other, later)

    class Fleeting:
        """A reference that gives the only one to a new connection."""

        def __call__(self) -> Last:
            return Last(is_closed=False)

    try:
        service._planned.append((later, -1, Fleeting()))
        with Background(lambda: [service.schedule(other, later) for _ in range(200)]):
            pass
        service.wake()
        eventually(lambda: not service._planned)
    finally:
        service._timers = [timer for timer in service._timers if timer[0] < later]


@pytest.mark.parametrize("where", ["_on_timer", "_on_tick"])
def test_a_bug_in_a_callback_does_not_end_the_service(fd: ModuleType, where: str) -> None:
    service = fd.sync.service.get_service()
    reported: list[Exception] = []
    error = ZeroDivisionError()

    class Broken:
        _watch = 0
        _seen_reads = 0

        def _on_timer(self, *args: Any) -> bool:
            raise error

        _on_tick = _on_timer

        def _on_bug(self, exc: Exception) -> None:
            reported.append(exc)

    broken = Broken()
    if where == "_on_timer":
        service.schedule(broken, time.monotonic())
    else:
        service.adopt(broken)
    eventually(lambda: reported)
    assert reported == [error]
    assert service._thread.is_alive()
    with link(fd) as (_, peer):
        peer.send(PING, b"x")
        peer.expect(PONG, b"x")


def test_the_portable_watcher(fd: ModuleType) -> None:
    watcher = fd.sync.service.SelectorWatcher()
    one, two = socket.socketpair()
    with one, two:
        watcher.arm(one.fileno(), fd.sync.service.READ)
        assert watcher.wait(0) == []
        two.send(b"x")
        assert watcher.wait(TIMEOUT) == [(one.fileno(), fd.sync.service.READ)]
        assert watcher.wait(0) == []  # one shot
        both = fd.sync.service.READ | fd.sync.service.WRITE
        watcher.arm(one.fileno(), fd.sync.service.READ)
        watcher.arm(one.fileno(), both)
        assert watcher.wait(TIMEOUT) == [(one.fileno(), both)]
        watcher.arm(one.fileno(), fd.sync.service.WRITE)
        watcher.disarm(one.fileno())
        watcher.disarm(one.fileno())
        assert watcher.wait(0) == []
    watcher.close()


def test_connections_on_the_portable_watcher(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no epoll, and a sleeping thread must be woken to see a new watch."""
    monkeypatch.setattr(fd.sync.service, "make_watcher", fd.sync.service.SelectorWatcher)
    service = fd.sync.service.Service()
    monkeypatch.setattr(fd.sync.service, "_service", service)
    try:
        assert isinstance(service.watcher, fd.sync.service.SelectorWatcher)
        with link(fd, ping_interval=0.03, ping_timeout=TIMEOUT) as (connection, peer):
            peer.send(PING, b"x")
            found = {peer.receive()[:1] for _ in range(2)}
            assert found == {(PONG,), (PING,)}
            with Background(connection.recv) as receiver:
                wait_reading(connection)
                peer.send(TEXT, b"message")
                assert receiver.result() == "message"
            with Background(peer.close):
                connection.close()
    finally:
        service.stop()
        assert not service._thread.is_alive()


def test_a_descriptor_that_failed_in_select_is_survived(fd: ModuleType) -> None:
    def wrap(sock: socket.socket) -> FaultySocket:
        return FaultySocket(sock)

    with link(fd, wrap=wrap) as (connection, peer):
        eventually(lambda: connection._watch == fd.sync.service.ARMED)
        peer.send(PING, b"x")
        peer.expect(PONG, b"x")


def test_a_connection_is_looked_at_once_however_often_it_is_added(fd: ModuleType) -> None:
    """As the service does in each look, where a peer's flood over TLS goes on."""
    service = fd.sync.service.get_service()

    class Flooded:
        looks = 0
        protocol = SimpleNamespace(is_closed=False)
        _watch = _seen_reads = 0

        def _on_tick(self) -> bool:
            self.looks += 1
            for _ in range(3):
                service.adopt(self)
            return self.looks < 200

    flooded = Flooded()
    service.adopt(flooded)
    begin = time.monotonic()
    eventually(lambda: flooded.looks >= 10)
    # At most one in each 4 ms, the first period; and one that is in the midst.
    assert flooded.looks <= 2 + (time.monotonic() - begin) / fd.sync.service.FIRST_TICK
    flooded._on_tick = lambda: False  # type: ignore[method-assign]


def test_a_signal_handler_needs_the_service_while_it_is_made(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fd.sync.service
    made = []

    class Interrupted(module.Service):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            made.append(self)
            if len(made) == 1:
                made.append(module.get_service())

    monkeypatch.setattr(module, "_service", None)
    monkeypatch.setattr(module, "Service", Interrupted)
    service = module.get_service()
    first, inner, given = made
    assert inner is given is service is module._service
    assert not first._thread.is_alive()
    service.stop()


@pytest.mark.parametrize("far", [30 * 86400.0, 1e10, float("inf")])
def test_times_far_away_do_not_end_it(fd: ModuleType, far: float) -> None:
    with link(fd, ping_interval=far, close_timeout=far), link(fd) as (connection, peer):
        fd.sync.service.get_service().schedule(connection, time.monotonic() + far)
        time.sleep(0.05)
        for number in range(3):
            peer.send(PING, b"%d" % number)
            peer.expect(PONG, b"%d" % number)
    assert fd.sync.service.get_service()._thread.is_alive()


@pytest.mark.parametrize("call", ["recv", "wait", "wait_closed", "send"])
@pytest.mark.parametrize("far", [1e7, 1e10, float("inf")])
def test_time_limits_far_away(fd: ModuleType, call: str, far: float) -> None:
    with link(fd, small=True) as (connection, peer):
        calls = {
            "recv": lambda: connection.recv(far),
            "wait": lambda: fd.sync.wait.wait([connection], far),
            "wait_closed": lambda: connection.wait_closed(far),
            "send": lambda: connection.send(bytes(100_000), timeout=far),
        }
        with Background(calls[call]) as background:
            time.sleep(0.02)
            if call == "send":
                peer.expect(2)
            elif call == "wait_closed":
                peer.close()
            else:
                peer.send(TEXT, b"x")
        assert background.result() in ("x", [connection], True, None)
