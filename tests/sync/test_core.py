"""Inside a connection: what is buffered, who is in which role, and how the last to leave cleans up."""

from __future__ import annotations

import socket
import threading
import weakref
from types import ModuleType
from typing import Any

import pytest

from .links import BINARY, PING, PONG, TEXT, TIMEOUT, Background, eventually, link, pair


def test_max_queue_bounds_what_is_read_ahead(fd: ModuleType) -> None:
    with link(fd, max_queue=4) as (connection, peer):
        for number in range(20):
            peer.send(TEXT, b"%d" % number)
        eventually(lambda: connection._inbox_frames == 4)
        for number in range(20):
            assert connection.recv() == str(number)
            assert connection._inbox_frames <= 4


def test_reading_stops_at_the_high_mark_and_goes_on_at_the_low_one(fd: ModuleType) -> None:
    with link(fd, max_queue=(6, 2)) as (connection, peer):
        for number in range(20):
            peer.send(TEXT, b"%d" % number)
        eventually(lambda: connection._inbox_frames == 6)
        for number in range(3):  # 3 are left: above the low mark
            assert connection.recv() == str(number)
            assert connection._watch == 0
            connection._serve()  # as the service would, were it asked to
            assert connection._inbox_frames == 5 - number
        assert connection.recv() == "3"
        eventually(lambda: connection._inbox_frames == 6)
        assert [connection.recv() for _ in range(16)] == [str(number) for number in range(4, 20)]


def test_a_paused_connection_reads_on_when_it_is_being_closed(fd: ModuleType) -> None:
    """Else the peer's Close frame, behind what is not read yet, could not arrive."""
    with link(fd, max_queue=(4, 1)) as (connection, peer):
        for number in range(10):
            peer.send(TEXT, b"%d" % number)
        eventually(lambda: connection._inbox_frames == 4)
        assert connection.recv() == "0"
        with Background(connection.close):
            peer.expect_close(1000)
            peer.send(8, (1000).to_bytes(2, "big"))
            peer.close()
        assert connection.close_code == 1000
        assert [connection.recv() for _ in range(9)] == [str(number) for number in range(1, 10)]


@pytest.mark.parametrize("queue", [None, 3, (8, 2), (None, 2), (8, None)])
def test_forms_of_max_queue(fd: ModuleType, queue: Any) -> None:
    with link(fd, max_queue=queue) as (connection, peer):
        for number in range(30):
            peer.send(BINARY, bytes([number]))
        assert [connection.recv()[0] for _ in range(30)] == list(range(30))


@pytest.mark.parametrize("queue", [(1, 2), (4, -1)])
def test_impossible_max_queue(fd: ModuleType, queue: Any) -> None:
    ours, theirs = socket.socketpair()
    protocol = fd.protocol.Protocol(fd.protocol.Side.CLIENT)
    with ours, theirs, pytest.raises(ValueError):
        fd.sync.connection.Connection(ours, protocol, max_queue=queue)


def test_r3_queues_are_bounded_in_bytes(fd: ModuleType) -> None:
    """However many frames may be queued, their bytes are bounded too."""
    with link(fd, max_queue=None) as (connection, peer):
        piece = bytes(1 << 19)

        def flood() -> None:
            for _ in range(20):
                peer.send(BINARY, piece)

        with Background(flood):
            eventually(lambda: connection._inbox_full())
            assert connection._inbox_bytes < 4 << 20
            assert all(connection.recv() == piece for _ in range(20))


def test_a_connection_has_no_thread_of_its_own(fd: ModuleType) -> None:
    fd.sync.service.get_service()
    before = threading.active_count()
    with pair(fd) as (client, server):
        client.send("hello")
        assert server.recv() == "hello"
        assert threading.active_count() == before


@pytest.mark.parametrize(
    ("given", "marks"),
    [
        (None, (0, 0)),
        (16, (16, 4)),
        (3, (3, 0)),
        (0, (1, 0)),
        ((0, 0), (1, 0)),
        ((8, 2), (8, 2)),
        ((None, 2), (8, 2)),
    ],
)
def test_marks_of_the_queue(fd: ModuleType, given: Any, marks: tuple[int, int]) -> None:
    assert fd.sync.queueing.queue_limits(given) == marks


def test_who_finds_a_writer_at_work_leaves_the_cleaning_to_it(fd: ModuleType) -> None:
    """The descriptor is given back once, by the last who leaves a role."""
    with link(fd) as (connection, peer):
        assert connection._writer.try_acquire(5) == 0
        peer.close()
        assert connection.wait_closed(TIMEOUT)
        connection._dispose()
        assert connection.socket.fileno() >= 0
        connection._leave_writer()
        # At once, unless the service thread, which found the end, still has the reader role.
        eventually(lambda: connection.socket.fileno() == -1)
        connection._dispose()


def test_who_finds_a_reader_at_work_leaves_the_cleaning_to_it(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        assert connection._reader.acquire(2, TIMEOUT)
        peer.close()
        connection._end(None)
        connection._dispose()
        assert connection.socket.fileno() >= 0
        connection._leave_reader()
        assert connection.socket.fileno() == -1


def test_the_cleaner_looks_again_after_a_writer_left_meanwhile(fd: ModuleType) -> None:
    """The writer leaves while the cleaner holds the reader role: neither may rely on the other."""
    for _ in range(50):
        with link(fd) as (connection, peer):
            assert connection._reader.acquire(2, TIMEOUT)
            assert connection._writer.acquire(5, TIMEOUT)
            peer.close()
            connection._end(None)
            barrier = threading.Barrier(2)

            def leave_writer(barrier: threading.Barrier = barrier, found: Any = connection) -> None:
                barrier.wait(TIMEOUT)
                found._leave_writer()

            with Background(leave_writer):
                barrier.wait(TIMEOUT)
                connection._leave_reader()
            assert connection.socket.fileno() == -1


def test_control_frames_wait_for_the_writer_and_go_out_when_it_leaves(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        assert connection._writer.acquire(5, TIMEOUT)
        peer.send(PING, b"1")
        peer.send(PING, b"2")
        peer.send(TEXT, b"read")
        assert connection.recv() == "read"
        connection.ping(b"mine")
        assert connection._due
        connection._leave_writer()
        peer.expect(PONG, b"2")
        peer.expect(PING, b"mine")


def test_a_cut_ends_the_connection_though_unread_messages_fill_the_inbox(fd: ModuleType) -> None:
    with link(fd, max_size=None) as (connection, peer):
        piece = bytes(1 << 20)

        def flood() -> None:
            with pytest.raises(OSError):
                while True:
                    peer.send(BINARY, piece)

        with Background(flood):
            eventually(lambda: connection._inbox_full())
            connection._cut()
            assert connection.wait_closed(TIMEOUT)
        assert connection.recv() == piece


def test_what_is_kept_of_an_error_holds_no_frames(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.sock.sendall(b"\x83\x00")
        peer.expect_close(1002)
        error: BaseException | None = connection.protocol.parser_exc
        assert error is not None
        while error is not None:
            assert error.__traceback__ is None
            assert error.__context__ is None
            error = error.__cause__


def test_weak_references_do_not_keep_a_connection(fd: ModuleType) -> None:
    with link(fd) as (connection, _):
        assert weakref.ref(connection)() is connection
        assert connection in fd.sync.service.get_service().connections


def test_a_bytearray_can_grow_where_a_message_did_not_fit(fd: ModuleType) -> None:
    """Nothing holds it any more, the exception with its traceback included."""
    with link(fd) as (connection, peer):
        peer.send(BINARY, b"0123456789")
        buffer = bytearray(4)
        try:
            connection.recv_into(buffer, TIMEOUT)
        except BufferError:
            buffer.extend(bytes(6))
        assert connection.recv_into(buffer, TIMEOUT) == 10
        buffer.append(0)


def test_the_end_does_not_overtake_the_close_frame(fd: ModuleType) -> None:
    """A reader gets the peer's, and queues the answer, while another thread writes a pong."""

    class Overtaken(fd.protocol.Protocol):  # type: ignore[misc]
        taken = 0

        def take_control(self) -> bytes:
            data = bytes(super().take_control())
            self.taken += 1
            if self.taken == 1:  # what the reader does then; the writer role is not free for it
                self.receive_control(8, b"\x03\xe8")
                connection._due = True
            return data

    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(TIMEOUT)
        connection = fd.sync.connection.Connection(
            ours, Overtaken(fd.protocol.Side.SERVER), ping_interval=None
        )
        connection.pong(b"x")
        received = b""
        while data := theirs.recv(100):
            received += data
        assert received == b"\x8a\x01x\x88\x02\x03\xe8"
    connection.close()
