"""send(), ping() and pong()."""

from __future__ import annotations

import collections
import errno
import socket
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
    eventually,
    link,
    pair,
    wait_reading,
    writing,
)

LONG = 1 << 20


def test_str_is_text_and_bytes_like_is_binary(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        connection.send("café")
        peer.expect(TEXT, "café".encode())
        for data in (b"data", bytearray(b"data"), memoryview(b"data")):
            connection.send(data)
            peer.expect(BINARY, b"data")


def test_text_forces_the_kind(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        connection.send(b"text", text=True)
        peer.expect(TEXT, b"text")
        connection.send("binary", text=False)
        peer.expect(BINARY, b"binary")
        connection.send([b"te", b"xt"], text=True)
        assert [peer.receive() for _ in range(3)] == [
            (TEXT, False, b"te"),
            (CONT, False, b"xt"),
            (CONT, True, b""),
        ]


@pytest.mark.parametrize("size", [8, 40_000])
def test_views_of_all_shapes_are_sent_by_their_bytes(fd: ModuleType, size: int) -> None:
    """R20: the size of a message is its bytes, never the number of its items."""
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    views = [
        memoryview(data).cast("I"),
        memoryview(data).cast("B", (2, size // 2)),
        memoryview(data + data)[::2],
        memoryview(bytearray(data)).toreadonly(),
    ]
    with link(fd) as (connection, peer):
        for view in views:
            with Background(lambda view=view: connection.send(view)):
                peer.expect(BINARY, view.tobytes())
            with Background(lambda view=view: connection.send([view])):
                assert peer.receive() == (BINARY, False, view.tobytes())
                peer.expect(CONT, b"")


@pytest.mark.parametrize("message", [None, 1, 1.5, object(), {"a": 1}, collections.Counter("a")])
def test_other_types_are_refused_and_the_connection_stays_usable(
    fd: ModuleType, message: Any
) -> None:
    with link(fd) as (connection, peer):
        with pytest.raises(TypeError):
            connection.send(message)
        connection.send("still usable")
        peer.expect(TEXT, b"still usable")


def test_text_that_cannot_be_encoded_leaves_the_connection_usable(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        for count in (1, 40_000):
            with pytest.raises(UnicodeEncodeError):
                connection.send("\ud800" * count)
        connection.send("still usable")
        peer.expect(TEXT, b"still usable")


def test_keys_of_a_dict_are_fragments(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        connection.send({"a": 1, "b": 2}.keys())
        assert [peer.receive()[2] for _ in range(3)] == [b"a", b"b", b""]


def test_an_empty_iterable_sends_nothing(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        connection.send([])
        connection.send(iter(()))
        connection.send("something")
        peer.expect(TEXT, b"something")


@pytest.mark.parametrize("items", [["a", b"b"], [b"a", "b"], ["a", 1], [b"a", None]])
def test_a_bad_item_closes_with_1011(fd: ModuleType, items: list[Any]) -> None:
    with link(fd) as (connection, peer):
        with Background(lambda: connection.send(items)) as sender:
            assert peer.receive()[1:] == (False, b"a")
            assert peer.expect_close(1011) == "error in fragmented message"
            peer.close()
            with pytest.raises(TypeError):
                sender.result()
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.send("more")
        assert caught.value.sent.code == 1011


@pytest.mark.parametrize("items", [[1], [None, "a"], [["a"]]])
def test_a_bad_first_item_closes_as_well(fd: ModuleType, items: list[Any]) -> None:
    with link(fd) as (connection, peer), Background(lambda: connection.send(items)) as sender:
        assert peer.expect_close(1011) == "error in fragmented message"
        peer.close()
        with pytest.raises(TypeError):
            sender.result()


def test_an_exception_in_the_iterable_closes_with_1011_and_propagates(fd: ModuleType) -> None:
    def items() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError

    with link(fd) as (connection, peer), Background(lambda: connection.send(items())) as sender:
        assert peer.receive() == (TEXT, False, b"a")
        peer.expect_close(1011)
        peer.send_close(1011)
        peer.close()
        with pytest.raises(ZeroDivisionError):
            sender.result()


def test_control_frames_go_between_fragments_and_messages_do_not(fd: ModuleType) -> None:
    go = threading.Event()

    def items() -> Iterator[str]:
        yield "one"
        assert go.wait(TIMEOUT)
        yield "two"

    with link(fd) as (connection, peer), Background(lambda: connection.send(items())) as sender:
        assert peer.receive() == (TEXT, False, b"one")
        eventually(lambda: connection.protocol.outgoing)
        for message in ("other", b"other", ["other"], [b"other"]):
            with pytest.raises(fd.exceptions.ConcurrencyError, match="another thread"):
                connection.send(message)
        connection.ping(b"between")
        peer.expect(PING, b"between")
        connection.pong(b"between")
        peer.expect(PONG, b"between")
        peer.send(PING, b"from the peer")
        peer.expect(PONG, b"from the peer")
        go.set()
        assert peer.receive() == (CONT, False, b"two")
        assert peer.receive() == (CONT, True, b"")
        sender.result()
        connection.send("after")
        peer.expect(TEXT, b"after")


def test_close_during_a_fragmented_message(fd: ModuleType) -> None:
    go = threading.Event()

    def items() -> Iterator[str]:
        yield "one"
        assert go.wait(TIMEOUT)
        yield "two"

    with link(fd) as (connection, peer), Background(lambda: connection.send(items())) as sender:
        assert peer.receive() == (TEXT, False, b"one")
        eventually(lambda: connection.protocol.outgoing)
        with Background(connection.close):
            peer.expect_close(1011)
            go.set()
            peer.close()
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            sender.result()
        assert str(caught.value).endswith("; no close frame received")


def test_what_is_sent_after_the_peer_began_closing_waits_for_the_end(fd: ModuleType) -> None:
    for name, args in (("send", ("x",)), ("send", (["x"],)), ("ping", ()), ("pong", ())):
        with link(fd) as (connection, peer):
            peer.send_close(1001, "bye")
            peer.expect(CLOSE)
            with Background(lambda: getattr(connection, name)(*args)) as caller:  # noqa: B023
                eventually(lambda: connection._reader.owner == 2)
                peer.close()
                with pytest.raises(fd.exceptions.ConnectionClosedOK):
                    caller.result()


def test_send_after_the_network_failed(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.close()
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            for _ in range(1000):
                connection.send(b"lost")
        for function in (lambda: connection.send(b"lost"), connection.ping, connection.pong):
            with pytest.raises(fd.exceptions.ConnectionClosedError):
                function()


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, "broken pipe"),
        TimeoutError(errno.ETIMEDOUT, "retransmissions ran out"),
        OSError(errno.ENETDOWN, "network is down"),
    ],
)
@pytest.mark.parametrize("message", [b"small", bytes(LONG), [b"fragment"]])
def test_an_error_of_the_network_while_sending(
    fd: ModuleType, error: OSError, message: Any
) -> None:
    faulty: list[FaultySocket] = []

    def wrap(sock: socket.socket) -> FaultySocket:
        faulty.append(FaultySocket(sock))
        return faulty[0]

    with link(fd, wrap=wrap) as (connection, _):
        faulty[0].faults["send"] = error
        faulty[0].faults["sendmsg"] = error
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.send(message, timeout=10)
        assert caught.value.__cause__ is error
        assert connection.state is fd.protocol.State.CLOSED


# Time-outs


@pytest.mark.parametrize("timeout", [0, 0.01, 10])
def test_a_timeout_does_not_hurt_if_there_is_room(fd: ModuleType, timeout: float) -> None:
    with link(fd) as (connection, peer):
        for size in (7, 20_000):
            connection.send(bytes(size), timeout=timeout)
            peer.expect(BINARY, bytes(size))


def test_a_timeout_before_the_first_byte_changes_nothing(fd: ModuleType) -> None:
    with link(fd, small=True) as (connection, peer):
        # Fill the way with bytes that belong to no frame of ours, so that no frame is torn.
        connection.socket.setblocking(False)
        filled = 0
        with pytest.raises(BlockingIOError):
            while True:
                filled += connection.socket.send(bytes(1024))
        for message in (b"message", bytes(50_000)):
            with pytest.raises(TimeoutError):
                connection.send(message, timeout=0.01)
        assert connection.state is fd.protocol.State.OPEN
        peer._take(filled)
        connection.send(b"message", timeout=10)
        peer.expect(BINARY, b"message")


@pytest.mark.parametrize("side", ["CLIENT", "SERVER"])
def test_a_timeout_in_the_midst_fails_the_connection(fd: ModuleType, side: str) -> None:
    with link(fd, side=side, small=True) as (connection, _):
        with pytest.raises(TimeoutError):
            connection.send(bytes(LONG), timeout=0.05)
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            connection.send(b"more")
        assert connection.state is fd.protocol.State.CLOSED


def test_a_timeout_while_another_thread_sends(fd: ModuleType) -> None:
    with (
        link(fd, small=True) as (connection, peer),
        Background(lambda: connection.send(bytes(LONG))) as sender,
    ):
        eventually(lambda: writing(connection))
        with pytest.raises(TimeoutError, match="another thread"):
            connection.send(b"me too", timeout=0.01)
        assert connection.state is fd.protocol.State.OPEN
        peer.expect(BINARY, bytes(LONG))
        sender.result()


# ping and pong


def test_ping_gives_an_event_for_its_pong(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        event = connection.ping()
        assert not event.is_set()
        payload = peer.expect(PING)
        assert len(payload) == 4
        peer.send(PONG, payload)
        assert event.wait(TIMEOUT)
        assert connection.latency > 0


@pytest.mark.parametrize("data", ["café", b"bytes", bytearray(b"array"), memoryview(b"view"), b""])
def test_payloads_of_control_frames(fd: ModuleType, data: Any) -> None:
    expected = data.encode() if isinstance(data, str) else bytes(data)
    with link(fd) as (connection, peer):
        connection.ping(data)
        peer.expect(PING, expected)
        connection.pong(data)
        peer.expect(PONG, expected)


def test_control_frames_of_wrong_type_or_size(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        for function in (connection.ping, connection.pong):
            for data in (1, ["a"], {"a": 1}):
                with pytest.raises(TypeError):
                    function(data)
            for long in (b"x" * 126, memoryview(bytes(128)).cast("I")):
                with pytest.raises(fd.exceptions.ProtocolError):
                    function(long)
            function(b"x" * 125)
            assert len(peer.receive()[2]) == 125


def test_a_payload_that_waits_cannot_be_used_again(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        event = connection.ping(b"once")
        with pytest.raises(RuntimeError) as caught:
            connection.ping(b"once")
        assert isinstance(caught.value, fd.exceptions.ConcurrencyError)
        peer.expect(PING)
        peer.send(PONG, b"once")
        assert event.wait(TIMEOUT)
        assert not connection.ping(b"once").is_set()
        peer.expect(PING, b"once")


def test_a_pong_acknowledges_earlier_pings_but_no_later_ones(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        events = [connection.ping(b"%d" % number) for number in range(4)]
        peer.send(PONG, b"unknown")
        peer.send(PONG, b"2")
        assert events[2].wait(TIMEOUT)
        assert [event.is_set() for event in events] == [True, True, True, False]


def test_a_pong_is_noticed_while_a_thread_receives(fd: ModuleType) -> None:
    with link(fd) as (connection, peer), Background(connection.recv) as receiver:
        wait_reading(connection)
        event = connection.ping(b"x")
        peer.expect(PING)
        peer.send(PONG, b"x")
        assert event.wait(TIMEOUT)
        peer.send(TEXT, b"end")
        assert receiver.result() == "end"


def test_events_when_the_connection_ends(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        plain = connection.ping(b"plain")
        acknowledged = connection.ping(b"ack", ack_on_close=True)
        peer.close()
        assert acknowledged.wait(TIMEOUT)
        assert connection.wait_closed(TIMEOUT)
        assert not plain.is_set()


def test_ping_does_not_wait_for_a_blocked_writer(fd: ModuleType) -> None:
    with (
        link(fd, small=True) as (connection, peer),
        Background(lambda: connection.send(bytes(LONG))),
    ):
        eventually(lambda: writing(connection))
        connection.ping(b"queued")
        connection.pong(b"queued")
        for number in range(3):
            peer.send(PING, b"%d" % number)
        peer.send(TEXT, b"behind the pings")
        assert connection.recv() == "behind the pings"
        peer.expect(BINARY, bytes(LONG))
        peer.expect(PING, b"queued")
        peer.expect(PONG, b"queued")
        peer.expect(PONG, b"2")


def test_a_ping_flood_by_a_peer_that_does_not_read_costs_no_memory(fd: ModuleType) -> None:
    """R17: pongs that cannot be sent replace one another."""
    with link(fd, small=True) as (connection, peer):
        count = 10_000
        for start in range(0, count, 1000):
            pings = [peer.frame(PING, b"%d" % n + bytes(100)) for n in range(start, start + 1000)]
            peer.sock.sendall(b"".join(pings))
        peer.send(TEXT, b"end of the flood")
        assert connection.recv() == "end of the flood"
        assert len(connection._stream.backlog) < 1000
        assert len(connection.protocol.control) <= 1
        pongs = []
        while not pongs or not pongs[-1].startswith(b"%d\0" % (count - 1)):
            pongs.append(peer.expect(PONG))
        assert len(pongs) < count / 2
        connection.send("usable")
        peer.expect(TEXT, b"usable")


def test_a_ping_flood_while_a_writer_is_blocked_costs_no_memory(fd: ModuleType) -> None:
    """R17, with a message stuck in the midst."""
    with (
        link(fd, small=True) as (connection, peer),
        Background(lambda: connection.send(bytes(LONG))),
    ):
        eventually(lambda: writing(connection))
        for number in range(1000):
            peer.send(PING, b"%d" % number)
        peer.send(TEXT, b"end of the flood")
        assert connection.recv() == "end of the flood"
        assert len(connection.protocol.control) == 1
        peer.expect(BINARY, bytes(LONG))
        peer.expect(PONG, b"999")


def test_view_with_gaps_is_compressed(fd: ModuleType) -> None:
    extension = fd.extensions.permessage_deflate.PerMessageDeflate(False, False, 15, 15)
    with pair(fd) as (client, server):
        for connection in (client, server):
            connection.protocol.extensions = [extension]
        client.send(memoryview(b"ab" * 500)[::2])
        assert server.recv(TIMEOUT) == b"a" * 500


def test_nothing_follows_a_frame_that_was_interrupted(fd: ModuleType) -> None:
    """Say, by a signal's handler while a control frame was encrypted."""
    with link(fd) as (connection, _):
        connection._stream.torn = True
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.send("next")
        assert isinstance(caught.value.__cause__, ConnectionAbortedError)


def test_per_message_compression(fd: ModuleType) -> None:
    deflate = fd.extensions.permessage_deflate.PerMessageDeflate(False, False, 15, 15)
    with link(fd, extensions=[deflate]) as (connection, peer):
        data = b"compressible " * 100
        connection.send(data, compress=False)
        peer.expect(BINARY, data)
        connection.send(data, compress=True)
        assert len(peer.expect(BINARY)) < 200
        connection.send(data)
        assert len(peer.expect(BINARY)) < 200
        assert connection.counters["compressed_ratio"] < 0.5


def test_many_threads_send_and_nothing_interleaves(fd: ModuleType) -> None:
    messages = [bytes([65 + n]) * size for n, size in enumerate((10, 5_000, 17_000, 150_000))]
    with pair(fd) as (client, server):

        def send(data: bytes) -> None:
            for _ in range(10):
                client.send(data)

        senders = [Background(lambda data=data: send(data)) for data in messages]
        for sender in senders:
            sender.__enter__()
        found = collections.Counter(server.recv() for _ in range(40))
        assert found == dict.fromkeys(messages, 10)
        for sender in senders:
            sender.result()


def test_a_small_send_is_one_system_call(fd: ModuleType) -> None:
    faulty: list[FaultySocket] = []

    def wrap(sock: socket.socket) -> FaultySocket:
        faulty.append(FaultySocket(sock))
        return faulty[0]

    with link(fd, wrap=wrap) as (connection, peer):
        eventually(lambda: connection._watch == fd.sync.service.ARMED)
        faulty[0].calls.clear()
        connection.send("message")
        assert faulty[0].calls == ["send"]
        peer.expect(TEXT, b"message")


def test_a_thread_that_sends_without_a_pause_lets_others_send(fd: ModuleType) -> None:
    """Who has waited for a while is next, however soon the other wants to send again."""
    with pair(fd) as (client, server):
        ended = threading.Event()
        sent = [0]

        def drain() -> None:
            for message in server:
                if message == "end":
                    return

        def busy() -> None:
            while not ended.is_set():
                client.send(bytes(LONG // 2))
                sent[0] += 1

        with Background(drain), Background(busy):
            for _ in range(5):
                eventually(lambda: writing(client))
                before = sent[0]
                client.send("small", timeout=TIMEOUT)
                assert sent[0] - before < 100
            ended.set()
            eventually(lambda: not writing(client))
            client.send("end")


def test_time_limit_of_fragments_to_a_peer_that_does_not_read(fd: ModuleType) -> None:
    with link(fd, small=True, close_timeout=60) as (connection, peer):
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            connection.send([bytes(LONG)] * 2, timeout=0.1)
        assert time.monotonic() - begin < TIMEOUT
        peer.close()


def test_time_limit_while_the_connection_is_being_closed(fd: ModuleType) -> None:
    with link(fd, close_timeout=60) as (connection, peer), Background(lambda: connection.close()):
        peer.expect(CLOSE)
        with pytest.raises(TimeoutError, match="being closed"):
            connection.send("x", timeout=0.1)
        peer.send_close()
        peer.close()


class Trap:
    """A connection's mutex; something happens just before it is taken, once."""

    def __init__(self, mutex: Any, sprung: Any) -> None:
        self.mutex = mutex
        self.sprung = sprung

    def __enter__(self) -> None:
        sprung, self.sprung = self.sprung, None
        if sprung is not None:
            sprung()
        self.mutex.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.mutex.release()


@pytest.mark.parametrize(
    "what",
    [
        lambda connection: connection.send([b"one", b"two"]),
        lambda connection: connection.ping(),
        lambda connection: connection.pong(),
    ],
    ids=["fragments", "ping", "pong"],
)
def test_nothing_follows_a_close_that_came_first(fd: ModuleType, what: Any) -> None:
    """Between the look at the state and the first frame, another thread closes."""
    with link(fd) as (connection, peer):
        mutex = connection._mutex
        closers = []

        def close() -> None:
            connection._mutex = mutex
            closers.append(Background(connection.close))
            closers[0].__enter__()
            eventually(lambda: not connection.protocol.is_open)

        def answer() -> None:
            peer.expect_close(1000)
            peer.send_close()
            peer.close()

        connection._mutex = Trap(mutex, close)
        with Background(answer), pytest.raises(fd.exceptions.ConnectionClosedOK):
            what(connection)
        closers[0].result()
