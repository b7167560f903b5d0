"""close(), the end of a connection, and what it ended with."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
import time
from types import ModuleType
from typing import Any

import pytest

from .links import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    TEXT,
    TIMEOUT,
    Background,
    FaultySocket,
    eventually,
    link,
    pair,
    wait_reading,
    writing,
)


@pytest.mark.parametrize("side", ["CLIENT", "SERVER"])
def test_the_closing_handshake(fd: ModuleType, side: str) -> None:
    with link(fd, side=side) as (connection, peer):
        with Background(lambda: connection.close(1001, "bye")):
            assert peer.expect_close(1001) == "bye"
            assert connection.state is fd.protocol.State.CLOSING
            assert connection.close_code is None
            peer.send_close(1001, "see you")
            if side == "SERVER":
                peer.expect_eof()  # a server ends the stream as soon as both frames are exchanged
            peer.close()
        assert connection.state is fd.protocol.State.CLOSED
        assert (connection.close_code, connection.close_reason) == (1001, "see you")
        for function in (connection.recv, connection.ping, lambda: connection.send("x")):
            with pytest.raises(fd.exceptions.ConnectionClosedOK) as caught:
                function()
            assert str(caught.value) == (
                "sent 1001 (going away) bye; then received 1001 (going away) see you"
            )


def test_a_client_waits_for_the_end_of_tcp(fd: ModuleType) -> None:
    with link(fd) as (connection, peer), Background(connection.close) as closer:
        peer.expect_close(1000)
        peer.send_close(1000)
        closer.thread.join(0.05)
        assert closer.thread.is_alive()
        assert connection.state is fd.protocol.State.CLOSING
        peer.close()
        closer.result()


def test_a_server_leaves_the_end_of_tcp_to_the_system_if_the_client_began(fd: ModuleType) -> None:
    with (
        link(fd, side="SERVER", close_timeout=TIMEOUT) as (connection, peer),
        Background(connection.recv) as receiver,
    ):
        peer.send_close(1000)
        peer.expect_close(1000)
        peer.expect_eof()
        with pytest.raises(fd.exceptions.ConnectionClosedOK):
            receiver.result()  # though the client has not ended TCP
        eventually(lambda: connection.socket.fileno() == -1)


@pytest.mark.parametrize("kind", ["SERVER began", "bytes behind the Close frame"])
def test_a_server_waits_for_the_end_of_tcp_otherwise(fd: ModuleType, kind: str) -> None:
    with link(fd, side="SERVER", close_timeout=TIMEOUT) as (connection, peer):
        began = kind == "SERVER began"
        with Background(connection.close if began else lambda: connection.wait_closed(TIMEOUT)):
            if began:
                peer.expect_close(1000)
                peer.send_close(1000)
            else:
                peer.sock.sendall(peer.frame(CLOSE, b"\x03\xe8") + b"left over")
                peer.expect_close(1000)
            peer.expect_eof()
            assert not connection.wait_closed(0.05)
            # So it is the peer that ends it, and nothing is reset.
            peer.sock.sendall(b"more")
            peer.close()
        assert connection.state is fd.protocol.State.CLOSED


def test_over_tls_a_server_reads_to_the_end(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """There is a close_notify behind the client's Close frame; unread, it would reset the connection."""
    contexts = server_context, client_context
    with pair(fd, contexts) as (client, server), pair(fd) as (_, plain):
        assert server._stream.farewell
        assert not plain._stream.farewell
        with Background(client.close), pytest.raises(fd.exceptions.ConnectionClosedOK):
            server.recv()


@pytest.mark.parametrize("again", [False, True])
def test_ctrl_c_in_close_leaves_the_deadline_to_the_service(fd: ModuleType, again: bool) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with link(fd, close_timeout=0.1) as (connection, peer):
        connection._await_end = interrupted
        for _ in range(2 if again else 1):
            with pytest.raises(KeyboardInterrupt):
                connection.close()
        peer.expect_close(1000)
        assert connection.wait_closed(TIMEOUT)  # though the peer says nothing
        del connection._await_end


def test_the_peer_closes(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send_close(4000, "why not")
        assert peer.expect_close(4000) == "why not"
        peer.close()
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.recv()
        assert (connection.close_code, connection.close_reason) == (4000, "why not")
        assert str(caught.value).startswith("received 4000 (private use) why not; then sent")


def test_an_empty_close_frame_is_clean(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send(CLOSE)
        peer.expect(CLOSE, b"")
        peer.close()
        with pytest.raises(fd.exceptions.ConnectionClosedOK):
            connection.recv()
        assert (connection.close_code, connection.close_reason) == (1005, "")


def test_no_close_frame_is_abnormal(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.close()
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.recv()
        assert (connection.close_code, connection.close_reason) == (1006, "")
        assert str(caught.value) == "no close frame received or sent"


def test_close_is_idempotent_and_never_raises_connection_closed(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        with Background(peer.answer_close):
            connection.close()
        connection.close()
        connection.close(1001, "again")
        assert connection.close_code == 1000
    with link(fd) as (connection, peer):
        peer.close()
        connection.close()
        assert connection.close_code == 1006


@pytest.mark.parametrize(
    ("code", "reason"), [(999, ""), (1005, ""), (1006, ""), (1015, ""), (5000, ""), (1000, 124)]
)
def test_an_invalid_close_leaves_the_connection_open(
    fd: ModuleType, code: int, reason: str | int
) -> None:
    if isinstance(reason, int):
        reason = "é" * (reason // 2)
    with link(fd) as (connection, peer):
        with pytest.raises(fd.exceptions.ProtocolError):
            connection.close(code, reason)
        connection.send("still open")
        peer.expect(TEXT, b"still open")


def test_two_closes_at_once_send_one_frame_and_both_wait(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        with Background(connection.close) as one:
            peer.expect_close(1000)
            with Background(lambda: connection.close(1001)) as two:
                two.thread.join(0.02)
                assert one.thread.is_alive()
                assert two.thread.is_alive()
                peer.send_close(1000)
                peer.sock.shutdown(socket.SHUT_WR)
                peer.expect_eof()
        assert connection.close_code == 1000


def test_both_ends_close_at_once(fd: ModuleType) -> None:
    for _ in range(20):
        with pair(fd) as (client, server):
            barrier = threading.Barrier(2)

            def close(connection: Any, barrier: threading.Barrier = barrier) -> None:
                barrier.wait(TIMEOUT)
                connection.close()

            with Background(lambda: close(client)), Background(lambda: close(server)):
                pass
            assert client.close_code == server.close_code == 1000


def test_close_wakes_recv_with_ok(fd: ModuleType) -> None:
    with link(fd) as (connection, peer), Background(connection.recv) as receiver:
        wait_reading(connection)
        with Background(peer.answer_close):
            connection.close()
        with pytest.raises(fd.exceptions.ConnectionClosedOK):
            receiver.result()
        assert connection.socket.fileno() == -1


def test_r18_close_is_bounded_if_the_peer_is_silent(fd: ModuleType) -> None:
    with link(fd, close_timeout=0.1) as (connection, peer):
        begin = time.monotonic()
        connection.close()
        assert 0.09 < time.monotonic() - begin < 5
        assert connection.close_code == 1006
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.recv()
        assert isinstance(caught.value.__cause__, TimeoutError)
        assert "timed out while closing connection" in str(caught.value.__cause__)
        peer.expect_close(1000)
        peer.expect_eof()


def test_r18_a_peer_that_keeps_tcp_open_after_the_handshake_is_cut(fd: ModuleType) -> None:
    """The frame that came counts."""
    with link(fd, close_timeout=0.1) as (connection, peer):
        with Background(connection.close):
            peer.expect_close(1000)
            peer.send_close(1000)
        assert connection.close_code == 1000
        with pytest.raises(fd.exceptions.ConnectionClosedOK):
            connection.recv()
        peer.expect_eof()


def test_r18_a_peer_that_keeps_tcp_open_after_closing_itself_is_cut(fd: ModuleType) -> None:
    """Though nobody is in recv() or close()."""
    with link(fd, close_timeout=0.1) as (connection, peer):
        peer.send_close(1000)
        peer.expect_close(1000)
        assert connection.wait_closed(TIMEOUT)
        peer.expect_eof()


def test_r18_a_peer_that_keeps_sending_after_a_violation_is_cut(fd: ModuleType) -> None:
    with link(fd, close_timeout=0.2) as (connection, peer):
        peer.sock.sendall(b"\x83\x00")
        with Background(lambda: connection.wait_closed(TIMEOUT)) as waiter:
            peer.expect_close(1002)
            with pytest.raises(OSError):
                while True:
                    peer.send(BINARY, bytes(1000))
            assert waiter.result() is True


@pytest.mark.parametrize("size", [1 << 17, 1 << 24])
@pytest.mark.parametrize("side", ["CLIENT", "SERVER"])
def test_r18_close_wakes_a_send_to_a_stalled_peer(fd: ModuleType, size: int, side: str) -> None:
    """The deadline of closing also bounds a blocked write."""
    with link(fd, side=side, small=True, close_timeout=0.1) as (connection, _):
        with Background(lambda: connection.send(bytes(size))) as sender:
            eventually(lambda: writing(connection))
            begin = time.monotonic()
            connection.close()
            assert time.monotonic() - begin < 5
            with pytest.raises(fd.exceptions.ConnectionClosedError):
                sender.result()
        assert connection.state is fd.protocol.State.CLOSED


def test_r18_close_wakes_senders_that_wait_for_another(fd: ModuleType) -> None:
    with link(fd, small=True, close_timeout=0.1) as (connection, _):
        senders = [Background(lambda: connection.send(bytes(1 << 20))) for _ in range(3)]
        for sender in senders:
            sender.__enter__()
        eventually(lambda: writing(connection))
        connection.close()
        for sender in senders:
            with pytest.raises(fd.exceptions.ConnectionClosedError):
                sender.result()


def test_without_a_close_timeout_closing_waits(fd: ModuleType) -> None:
    with link(fd, close_timeout=None) as (connection, peer):
        with Background(connection.close) as closer:
            peer.expect_close(1000)
            closer.thread.join(0.1)
            assert closer.thread.is_alive()
            peer.close()
        assert connection.close_code == 1006


def test_messages_stay_readable_after_close(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        for number in range(10):
            peer.send(TEXT, b"%d" % number)
        with Background(peer.answer_close):
            connection.close()
        assert connection.state is fd.protocol.State.CLOSED
        assert [connection.recv() for _ in range(10)] == [str(number) for number in range(10)]
        with pytest.raises(fd.exceptions.ConnectionClosedOK):
            connection.recv()


def test_messages_stay_readable_after_the_network_failed(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send(TEXT, b"one", fin=False)
        peer.send(CONT, b" two")
        peer.send(TEXT, b"three")
        peer.close()
        assert connection.wait_closed(TIMEOUT)
        assert list(connection.recv_streaming()) == ["one", " two"]
        assert connection.recv(timeout=0) == "three"
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            connection.recv(timeout=0)


def test_more_unread_messages_than_are_buffered_do_not_hold_up_close(fd: ModuleType) -> None:
    """The Close frame of the peer is behind what nobody reads."""
    with link(fd, close_timeout=0.3, max_size=None) as (connection, peer):
        piece = bytes(1 << 20)

        def flood() -> None:
            with pytest.raises(OSError):
                while True:
                    peer.send(BINARY, piece)

        with Background(flood):
            eventually(lambda: connection._inbox_full())
            begin = time.monotonic()
            connection.close()
            assert time.monotonic() - begin < 5
        assert connection.state is fd.protocol.State.CLOSED
        assert connection.recv() == piece


def test_while_closing_a_recv_still_times_out(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send_close(1000)
        peer.expect_close(1000)
        assert connection.state is fd.protocol.State.CLOSING
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                connection.recv(timeout=timeout)
        peer.close()
        with pytest.raises(fd.exceptions.ConnectionClosedOK):
            connection.recv(timeout=TIMEOUT)


def test_after_failing_what_still_comes_is_dropped(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.sock.sendall(b"\x83\x00")
        peer.expect_close(1002)
        peer.send(TEXT, b"too late")
        peer.send(PING, b"too late")
        peer.send_close(1000)
        peer.close()
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.recv()
        assert caught.value.rcvd is None
        assert connection.close_code == 1006


def test_the_context_manager_closes(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        with Background(peer.answer_close), connection as same:
            assert same is connection
        assert connection.close_code == 1000
    with link(fd) as (connection, peer):
        with (
            Background(lambda: (peer.expect_close(1011), peer.close())),
            pytest.raises(ZeroDivisionError),
            connection,
        ):
            raise ZeroDivisionError
        assert connection.state is fd.protocol.State.CLOSED


def test_wait_closed(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        assert connection.wait_closed(0) is False
        assert connection.wait_closed(0.01) is False
        with Background(connection.wait_closed) as waiter:
            peer.close()
            assert waiter.result() is True
        assert connection.wait_closed(0) is True


@pytest.mark.parametrize("first", [0, 1], ids=["client", "server"])
def test_closing_over_tls(
    fd: ModuleType, first: int, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with pair(fd, (server_context, client_context)) as ends:
        ends[1 - first].send("before the end")
        with Background(lambda: list(ends[1 - first])):
            ends[first].close(1000, "bye")
        assert ends[first].recv() == "before the end"
        assert [end.close_code for end in ends] == [1000, 1000]


def test_the_descriptor_is_given_back_when_writer_and_reader_leave_together(
    fd: ModuleType,
) -> None:
    for _ in range(20):
        with link(fd, small=True, close_timeout=0.01) as (connection, _):
            sender = Background(lambda: connection.send(bytes(1 << 18)))
            receiver = Background(connection.recv)
            with sender, receiver:
                connection.close()
                for background in (sender, receiver):
                    with pytest.raises(fd.exceptions.ConnectionClosed):
                        background.result()
            assert connection.socket.fileno() == -1


def test_an_error_while_closing_is_the_cause(fd: ModuleType) -> None:
    faulty: list[FaultySocket] = []

    def wrap(sock: socket.socket) -> FaultySocket:
        faulty.append(FaultySocket(sock))
        return faulty[0]

    with link(fd, wrap=wrap) as (connection, _):
        error = BrokenPipeError("broken")
        faulty[0].faults["send"] = error
        connection.close()
        assert connection.state is fd.protocol.State.CLOSED
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.recv()
        assert caught.value.__cause__ is error


def test_closing_is_bounded_on_a_socket_without_a_descriptor(fd: ModuleType) -> None:
    """Its reads know no deadline; shutting it down wakes them."""
    ours, peer = socket.socketpair()

    class NoDescriptor:
        send, recv_into, setblocking = ours.send, ours.recv_into, ours.setblocking
        shutdown, close = ours.shutdown, ours.close

    protocol = fd.protocol.Protocol(fd.protocol.Side.CLIENT)
    connection = fd.sync.connection.Connection(
        NoDescriptor(), protocol, ping_interval=None, close_timeout=0.2
    )
    with peer, Background(connection.close):
        pass  # the peer says nothing
    assert connection.state is fd.protocol.State.CLOSED


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_close_in_a_signal_handler_that_interrupts_recv(fd: ModuleType) -> None:
    """It says Close, and recv() below it finds the end."""
    with link(fd, close_timeout=TIMEOUT) as (connection, peer):
        returned = []

        def handler(number: int, stack: Any) -> None:
            connection.close(1001)
            returned.append(connection.state)
            if connection.state is not fd.protocol.State.CLOSED:
                with pytest.raises(fd.exceptions.ConcurrencyError):
                    connection.send("what could not be sent any more")

        def interrupt() -> None:
            wait_reading(connection)
            while not returned:  # one that comes before the call blocks is seen by nobody
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                time.sleep(0.05)
            peer.expect_close(1001)
            peer.send_close(1001)
            peer.close()

        old = signal.signal(signal.SIGUSR1, handler)
        try:
            with Background(interrupt), pytest.raises(fd.exceptions.ConnectionClosedOK):
                connection.recv()
        finally:
            signal.signal(signal.SIGUSR1, old)
        assert returned[0] is fd.protocol.State.CLOSING


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_close_in_a_signal_handler_that_interrupts_close(fd: ModuleType) -> None:
    """While that waits for the thread in recv(): whoever comes first must not wait for the other."""
    with link(fd, close_timeout=None) as (connection, peer), Background(connection.recv) as reader:
        wait_reading(connection)
        begun = []

        def handler(number: int, stack: Any) -> None:
            begun.append(number)
            if len(begun) == 1:
                connection.close(1001)
                begun.append(connection.state)

        def interrupt() -> None:
            eventually(connection._reader.contended)
            while not begun:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                time.sleep(0.05)
            time.sleep(0.05)  # most likely it waits now
            peer.expect_close(1000)
            peer.send_close(1000)
            peer.close()

        old = signal.signal(signal.SIGUSR1, handler)
        try:
            with Background(interrupt):
                connection.close()
        finally:
            signal.signal(signal.SIGUSR1, old)
        assert begun[-1] is fd.protocol.State.CLOSED
        with pytest.raises(fd.exceptions.ConnectionClosedOK):
            reader.result()


def test_a_signal_handler_ends_the_connection_before_the_wait_for_that(fd: ModuleType) -> None:
    """It comes between the last look and the wait, so that nobody is there to be woken."""
    with link(fd) as (connection, _peer):
        wait, ran = connection._changed.wait, []

        def interrupted(timeout: float | None = None) -> bool:
            if not ran:
                ran.append("handler")
                connection._cut()
            return bool(wait(timeout))

        connection._changed.wait = interrupted
        begin = time.monotonic()
        assert connection.wait_closed(20)
        assert ran
        assert time.monotonic() - begin < 10


def test_what_fails_in_a_signal_handler_within_recv_says_why(fd: ModuleType) -> None:
    """There is no waiting for the end, which only the interrupted recv() can find."""
    with link(fd) as (connection, _peer):
        assert connection._reader.try_acquire(1) == 0  # this thread is in recv()
        with pytest.raises(TypeError, match="all fragments"):
            connection.send(["one", b"other"])
        with pytest.raises(fd.exceptions.ConcurrencyError, match="in the midst of its recv"):
            connection.send("too late")
        connection._end(None)
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            connection.send("too late")
        connection._leave_reader()


def test_close_in_a_signal_handler_bounds_the_time(fd: ModuleType) -> None:
    """As everywhere: a peer that does not answer is cut."""
    with link(fd, close_timeout=0.2) as (connection, peer):
        assert connection._reader.try_acquire(1) == 0  # this thread is in recv()
        connection.close()
        connection._leave_reader()
        peer.expect(CLOSE)
        assert connection.wait_closed(TIMEOUT)


def test_close_in_a_signal_handler_that_interrupts_anything(fd: ModuleType) -> None:
    """Whatever lock the interrupted thread holds: it cannot give that back before the handler returns."""
    with link(fd, ping_interval=60) as (connection, peer):
        with Background(peer.answer_close), connection._mutex:
            connection.close()
        assert connection.state is fd.protocol.State.CLOSED


def test_send_in_a_signal_handler_that_interrupts_send(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        assert connection._writer.try_acquire(5) == 0  # this thread is in send()
        with pytest.raises(fd.exceptions.ConcurrencyError, match="signal handler"):
            connection.send("x")
        connection.ping(b"later")
        connection._leave_writer()
        assert peer.expect(PING) == b"later"
