"""Peers that send without a pause: they cost neither time beyond a bound, nor memory, nor another connection's turn.

The peer is a socket that always has more, so that nothing here depends on who is faster.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from .links import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    TIMEOUT,
    Background,
    FaultySocket,
    RawPeer,
    eventually,
    link,
    reading,
)


class Endless(FaultySocket):
    """Has more of ``frame`` whenever it is asked, while that is not None; what is written goes nowhere then."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._mutex = threading.Lock()
        self._frame: bytes | None = None
        self.rest = b""

    @property
    def frame(self) -> bytes | None:
        return self._frame

    @frame.setter
    def frame(self, frame: bytes | None) -> None:
        # Who has seen that there is none is done with the real socket then, and does not read what is sent to it next.
        with self._mutex:
            self._frame = frame

    def recv_into(self, view: memoryview) -> int:
        with self._mutex:
            frame = self._frame
            if frame is None and not self.rest:
                return self.sock.recv_into(view)
        if frame is not None:
            self.rest += frame * (1 + (len(view) - len(self.rest)) // len(frame))
        part, self.rest = self.rest[: len(view)], self.rest[len(view) :]
        view[: len(part)] = part
        return len(part)

    def send(self, data: bytes, *flags: int) -> int:
        return self.sock.send(data, *flags) if self.frame is None else len(data)

    def shutdown(self, how: int) -> None:
        self.frame = None
        self.sock.shutdown(how)


@contextlib.contextmanager
def flooded(fd: ModuleType, **options: Any) -> Iterator[tuple[Any, RawPeer, Endless]]:
    """A connection, its peer, and the socket whose flood can be let loose."""
    sockets: list[Endless] = []

    def wrap(sock: socket.socket) -> Endless:
        sockets.append(Endless(sock))
        return sockets[0]

    with link(fd, wrap=wrap, **options) as (connection, peer):
        try:
            yield connection, peer, sockets[0]
        finally:
            sockets[0].frame = None
            sockets[0].rest = b""
            connection._stream.abort()


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_recv_times_out_while_pings_come_without_a_pause(fd: ModuleType, timeout: float) -> None:
    with flooded(fd) as (connection, peer, sock):
        sock.frame = peer.frame(PING, b"x")
        with Background(lambda: connection.recv(timeout)) as receiver, pytest.raises(TimeoutError):
            receiver.result()


def test_a_message_behind_pings_is_not_lost_by_a_time_out(fd: ModuleType) -> None:
    with flooded(fd) as (connection, peer, sock):
        sock.frame = peer.frame(PING, b"x")
        with pytest.raises(TimeoutError):
            connection.recv(0.05)
        sock.frame = None
        sock.rest += peer.frame(TEXT, b"message")
        assert connection.recv(TIMEOUT) == "message"


def test_close_is_bounded_while_pings_come_without_a_pause(fd: ModuleType) -> None:
    with flooded(fd, close_timeout=0.1) as (connection, peer, sock):
        sock.frame = peer.frame(PING, b"x")
        with Background(connection.close):
            pass
        assert connection.close_code == 1006


def test_a_flood_does_not_hold_up_other_connections(fd: ModuleType) -> None:
    with flooded(fd) as (connection, peer, sock), link(fd) as (other, other_peer):
        eventually(lambda: connection._watch == fd.sync.service.ARMED)
        eventually(lambda: other._watch == fd.sync.service.ARMED)
        sock.frame = peer.frame(PING, b"x")
        peer.sock.sendall(b"\0")  # what the watch sees; it is never read
        eventually(lambda: sock.rest)  # somebody reads
        for number in range(3):
            other_peer.send(PING, b"%d" % number)
            other_peer.expect(PONG, b"%d" % number)
        with pytest.raises(TimeoutError):  # and wait() comes back
            connection.recv(0.05)
        assert fd.wait([connection], 0.05) == []


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "small"])
def test_r3_a_flood_of_small_messages_while_closing_is_bounded(
    fd: ModuleType, payload: bytes
) -> None:
    with (
        flooded(fd, close_timeout=TIMEOUT) as (connection, peer, sock),
        Background(connection.close) as closer,
    ):
        peer.expect(CLOSE)
        sock.frame = peer.frame(BINARY, payload)
        # What wakes the reader; it is never read as long as the flood lasts.
        peer.sock.sendall(b"\0")
        eventually(connection._inbox_full)
        count = len(connection._inbox)
        assert count * fd.sync.core.ITEM_BYTES <= connection._high_bytes + 2**20
        time.sleep(0.05)
        assert len(connection._inbox) == count
        sock.frame = None
        sock.sock.recv(1)
        while connection._inbox or sock.rest:
            assert connection.recv(TIMEOUT) == payload
        peer.send_close()
        peer.close()
        closer.result()


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "small"])
def test_r3_a_flood_of_small_fragments_while_streaming_is_bounded(
    fd: ModuleType, payload: bytes
) -> None:
    with flooded(fd, max_size=None) as (connection, peer, sock):
        fragments = connection.recv_streaming()
        peer.send(BINARY, b"begin", fin=False)
        assert next(fragments) == b"begin"
        sock.frame = peer.frame(CONT, payload, fin=False)
        peer.sock.sendall(b"\0")
        eventually(connection._inbox_full)
        assert (
            len(connection._fragments) * fd.sync.core.ITEM_BYTES <= connection._high_bytes + 2**20
        )
        sock.frame = None
        sock.rest += peer.frame(CONT, b"end")
        sock.sock.recv(1)
        assert b"".join(fragments).strip(b"x") == b"end"
        assert connection._inbox_bytes == 0


def test_messages_that_close_has_read_are_given_at_once(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        with Background(connection.close) as closer:
            peer.expect(CLOSE)
            eventually(lambda: connection._reader.owner == fd.roles.CLOSE)
            peer.send(TEXT, b"one")
            peer.send(BINARY, b"two")
            peer.send(TEXT, b"three")
            eventually(lambda: len(connection._inbox) == 3)
            assert connection._reader.owner == fd.roles.CLOSE
            assert connection.recv(0) == "one"
            assert connection.recv(decode=True) == "two"
            assert connection.recv(TIMEOUT, decode=False) == b"three"
            with pytest.raises(TimeoutError):
                connection.recv(0)
            with Background(connection.recv) as receiver:
                peer.send(TEXT, b"four")
                assert receiver.result() == "four"
            assert (connection._inbox_frames, connection._inbox_bytes) == (0, 0)
            peer.send_close()
            peer.close()
            closer.result()
        with pytest.raises(fd.exceptions.ConnectionClosedOK):
            connection.recv()


def test_of_two_readers_that_wait_for_the_service_one_is_refused(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        assert connection._reader.try_acquire(fd.roles.SERVICE) == fd.roles.FREE
        both = threading.Barrier(3)
        results: list[Any] = []

        def receive() -> None:
            both.wait(TIMEOUT)
            try:
                results.append(connection.recv())
            except fd.exceptions.ConcurrencyError as exc:
                results.append(exc)

        with Background(receive), Background(receive):
            both.wait(TIMEOUT)
            time.sleep(0.02)  # both wait for the role now, most of the time
            connection._reader.release()
            eventually(lambda: results)  # the other one goes on waiting for a message
            assert isinstance(results[0], fd.exceptions.ConcurrencyError)
            assert reading(connection)
            peer.send(TEXT, b"message")
        assert results[1:] == ["message"]


def test_close_in_the_midst_of_the_first_fragment_tells_that_the_message_is_not_whole(
    fd: ModuleType,
) -> None:
    with link(fd, close_timeout=TIMEOUT) as (connection, peer):
        first = bytes(8_000_000)
        with Background(lambda: connection.send(itertools.chain([first], [b"second"]))) as sender:
            eventually(lambda: connection._writer.owner != fd.roles.FREE)
            eventually(lambda: connection.protocol.outgoing)
            with Background(connection.close):
                eventually(lambda: not connection.protocol.is_open)
                assert peer.receive() == (BINARY, False, first)
                peer.expect_close(1011)
                peer.close()
            with pytest.raises(fd.exceptions.ConnectionClosedError):
                sender.result()


def test_a_first_fragment_that_never_began_does_not_count(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        with pytest.raises(UnicodeEncodeError):
            connection.send(["\ud800"])
        connection.send("still usable")
        peer.expect(TEXT, b"still usable")


class TestPortableWatcher:
    """Descriptors that are closed without a word, as those of dropped connections are."""

    def test_a_number_that_is_used_again_is_watched(self, fd: ModuleType) -> None:
        watcher = fd.sync.service.SelectorWatcher()
        one, two = socket.socketpair()
        number = one.fileno()
        watcher.arm(number, fd.sync.service.READ)
        one.close()
        two.close()
        again, other = socket.socketpair()
        with again, other:
            assert number in (again.fileno(), other.fileno())
            ours, theirs = (again, other) if again.fileno() == number else (other, again)
            watcher.arm(number, fd.sync.service.READ)
            theirs.send(b"x")
            assert watcher.wait(TIMEOUT) == [(ours.fileno(), fd.sync.service.READ)]
        watcher.close()

    def test_one_that_is_closed_does_not_blind_the_others(
        self, fd: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        selectors = fd.sync.service.selectors
        monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
        watcher = fd.sync.service.SelectorWatcher()
        one, two = socket.socketpair()
        closed, gone = socket.socketpair()
        with one, two:
            watcher.arm(closed.fileno(), fd.sync.service.READ)
            watcher.arm(one.fileno(), fd.sync.service.READ)
            closed.close()
            gone.close()
            two.send(b"x")
            found = [watcher.wait(TIMEOUT) for _ in range(2)]
            assert found == [[], [(one.fileno(), fd.sync.service.READ)]]
        watcher.close()


class Mute:
    """TLS without cryptography, whose records have no data in them once ``mute`` is set; the context of it, too."""

    def __init__(self) -> None:
        self.mute = False

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **_: Any) -> Mute:
        self.incoming = incoming
        self.write = outgoing.write
        return self

    def read(self, size: int, buffer: memoryview) -> int:
        data = self.incoming.read() if self.mute else self.incoming.read(size)
        if self.mute or not data:
            raise ssl.SSLWantReadError
        buffer[: len(data)] = data
        return len(data)

    def unwrap(self) -> None:
        pass


@contextlib.contextmanager
def muted(fd: ModuleType, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A connection and what lets loose a flood of records without data, such as key updates, by its peer."""
    with flooded(fd, **options) as (connection, peer, sock):
        tls = Mute()
        assert connection._reader.try_acquire(1) == 0  # keeps the service away
        connection._stream = fd.stream.open_tls_stream(connection._stream, tls)
        connection._leave_reader()

        def flood() -> None:
            tls.mute = True
            sock.frame = b"no data"
            peer.sock.sendall(b"\0")  # what a watch sees; it is never read

        yield connection, flood


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_recv_times_out_while_records_without_data_come(fd: ModuleType, timeout: float) -> None:
    with muted(fd) as (connection, flood):
        flood()
        with Background(lambda: connection.recv(timeout)) as receiver, pytest.raises(TimeoutError):
            receiver.result()


def test_close_is_bounded_while_records_without_data_come(fd: ModuleType) -> None:
    with muted(fd, close_timeout=0.1) as (connection, flood):
        flood()
        with Background(connection.close):
            pass
        assert connection.close_code == 1006


def test_records_without_data_do_not_hold_up_other_connections(fd: ModuleType) -> None:
    with muted(fd) as (connection, flood), link(fd) as (other, other_peer):
        eventually(lambda: connection._watch == fd.sync.service.ARMED)
        eventually(lambda: other._watch == fd.sync.service.ARMED)
        flood()
        for number in range(3):
            other_peer.send(PING, b"%d" % number)
            other_peer.expect(PONG, b"%d" % number)
        assert fd.wait([connection], 0.05) == []


def bottomless(fd: ModuleType, sock: socket.socket, seconds: float) -> Any:
    """Make a stream that holds pings in memory, as TLS does, for so long; then a message."""

    class Bottomless(fd.stream.Stream):  # type: ignore[misc, name-defined]
        until = 0.0

        def pending(self) -> bool:
            return self.until >= 0

        def _receive_counted(self, view: memoryview, deadline: Any, came: list[int]) -> None:
            now = time.monotonic()
            if self.until < 0:
                return
            self.until = self.until or now + seconds
            data = b"\x89\x00"
            if now >= self.until:
                self.until = -1.0
                data = b"\x81\x02ok"
            view[: len(data)] = data
            came.append(len(data))

        def send_some(self, data: Any) -> int:
            return len(data)

    return Bottomless(sock)


def test_what_tls_holds_in_memory_does_not_hold_the_service(fd: ModuleType) -> None:
    with link(fd) as (connection, _):
        assert connection._reader.try_acquire(1) == 0  # keeps the service away
        stream, connection._stream = connection._stream, bottomless(fd, connection.socket, 3600)
        connection._leave_reader()
        begin = time.monotonic()
        connection._serve()
        assert time.monotonic() - begin < TIMEOUT
        # Nor is it forgotten: no watch would see what is in memory.
        before = connection.counters["frames_received"]
        eventually(lambda: connection.counters["frames_received"] > before)
        connection._stream.until = -1.0
        eventually(lambda: connection._reader.try_acquire(1) == 0)
        connection._stream = stream
        connection._leave_reader()


def test_wait_reads_what_tls_holds_in_memory(fd: ModuleType) -> None:
    """Also when it takes longer than a turn."""
    with link(fd) as (connection, _):
        assert connection._reader.try_acquire(1) == 0
        stream, connection._stream = connection._stream, bottomless(fd, connection.socket, 0.05)
        connection._leave_reader()
        assert fd.wait([connection], TIMEOUT) == [connection]
        assert connection.recv(0) == "ok"
        connection._stream = stream
