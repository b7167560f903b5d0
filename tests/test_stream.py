"""Streams over sockets: deadlines, what is torn and what waits, wake-up, signals, sockets that misbehave."""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from .codec.wire import BINARY, PING, frame
from .streams import (
    SOON,
    Background,
    Bare,
    Faulty,
    arguments,
    fill,
    masked,
    read_exactly,
    soon,
    tcp_pair,
    until,
)

KINDS = ["open_stream", "SocketStream"]


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, fd: ModuleType) -> Iterator[tuple[Any, Any]]:
    """Two connected streams: by the best means for a plain socket, and by the portable ones."""
    make = getattr(fd.stream, request.param)
    streams = tuple(make(sock) for sock in socket.socketpair())
    yield streams  # type: ignore[misc]
    for stream in streams:
        stream.close()


def test_which_stream(fd: ModuleType) -> None:
    one, other = socket.socketpair()
    with one, other:
        expected = (
            "FdStream" if fd.IMPLEMENTATION == "compiled" and os.name == "posix" else "SocketStream"
        )
        assert type(fd.stream.open_stream(one)).__name__ == expected
        assert type(fd.stream.open_stream(Faulty(other, 1))).__name__ == "SocketStream"


def test_base_class_is_an_interface(fd: ModuleType) -> None:
    stream = fd.stream.Stream(object())
    assert stream.fileno() == -1
    assert not stream.pending() and not stream.unsent()
    for call in (
        lambda: stream.recv_into(memoryview(bytearray(1)), None),
        lambda: stream.send_some(b"a"),
        lambda: stream.wait_writable(None),
    ):
        with pytest.raises(NotImplementedError):
            call()
    stream.shutdown_write()
    stream.after_fork()
    stream.abort()
    assert stream.aborted


def test_read_into_a_decoder(fd: ModuleType, pair: Any) -> None:
    one, other = pair
    decoder = fd.codec.Decoder(masked=False)
    assert one.write(frame(PING, b"p") + frame(BINARY, b"a" * 100), None)
    while decoder.pending < 105:
        assert other.read(decoder, None) > 0
    assert decoder.pull() == b"p"
    assert decoder.pull() == b"a" * 100
    assert other.read(decoder, 0.0) == -1
    one.close()
    assert other.read(decoder, None) == 0
    assert other.read(decoder, 0.0) == 0


def test_large_message_into_a_decoder(fd: ModuleType, pair: Any) -> None:
    one, other = pair
    payload = random.Random(1).randbytes(3_000_000)
    decoder = fd.codec.Decoder(masked=False)
    writing = Background(one.write_large, frame(BINARY, payload)[:10], payload, None)
    while (message := decoder.pull()) is None:
        assert other.read(decoder, None) > 0
    assert message == payload
    assert writing.result()


@pytest.mark.parametrize("size", [0, 1, 49_152, 131_072, 131_073, 147_456, 3_000_001])
@pytest.mark.parametrize("deadline", [None, 60])
def test_masked_message_into_a_decoder(
    fd: ModuleType, pair: Any, size: int, deadline: float | None
) -> None:
    """Whole, or in pieces with what the socket does not take of them."""
    if deadline is not None:
        deadline += time.monotonic()
    one, other = pair
    payload = random.Random(size).randbytes(size)
    decoder = fd.codec.Decoder(masked=True)
    for kind in (bytes, bytearray, memoryview):
        writing = Background(one.write_masked, *masked(fd, kind(payload)), deadline)
        while (message := decoder.pull()) is None:
            assert other.read(decoder, None) > 0
        assert message == payload
        assert writing.result()
        assert not one.torn


def test_many_masked_messages_go_either_way(fd: ModuleType, pair: Any) -> None:
    """At once or in pieces, whichever is tried: more messages than until the second trial."""
    one, other = pair
    decoder = fd.codec.Decoder(masked=True)
    chance = random.Random(1)
    ways = set()
    for size in (131_072 + chance.randrange(200_000) for _ in range(40)):
        payload = chance.randbytes(size)
        ways.add(getattr(one, "in_pieces", None))
        writing = Background(one.write_masked, *masked(fd, payload), None)
        while (message := decoder.pull()) is None:
            assert other.read(decoder, None) > 0
        assert message == payload
        assert writing.result()
    assert ways in ({False, True}, {None})


def test_masked_messages_of_several_threads(fd: ModuleType) -> None:
    """Who is held up in the midst of a large message has nothing that the others need."""
    ends = [tcp_pair() for _ in range(3)]
    streams = [[fd.stream.open_stream(sock) for sock in pair] for pair in ends]
    payloads = [random.Random(seed).randbytes(30_000_000 >> seed * 4) for seed in range(3)]
    writings = []
    for (one, _), (_, sock), payload in zip(streams, ends, payloads, strict=True):
        writings.append(Background(one.write_masked, *masked(fd, payload), None))
        assert select.select([sock], [], [], 60)[0]  # it is in the midst of its message
    held, *others = writings
    for writing, (_, other), payload in zip(
        (*others, held), (*streams[1:], streams[0]), (*payloads[1:], payloads[0]), strict=True
    ):
        decoder = fd.codec.Decoder(masked=True, max_message=None)
        while (message := decoder.pull()) is None:
            assert other.read(decoder, None) > 0
        assert message == payload
        assert writing.result()
    for pair in streams:
        for stream in pair:
            stream.close()


@pytest.mark.parametrize("method", ["read", "recv_into"])
def test_deadline_of_reading(fd: ModuleType, pair: Any, method: str) -> None:
    stream = pair[0]
    target = fd.codec.Decoder(masked=False) if method == "read" else memoryview(bytearray(10))
    begin = time.monotonic()
    assert getattr(stream, method)(target, 0.0) == -1
    assert getattr(stream, method)(target, begin - 1) == -1
    assert time.monotonic() - begin < 5
    begin = time.monotonic()
    assert getattr(stream, method)(target, begin + SOON) == -1
    assert time.monotonic() - begin >= SOON
    pair[1].write(b"abc", None)
    assert getattr(stream, method)(target, 0.0) == 3


def test_waiting_reader_gets_what_comes(pair: Any) -> None:
    for deadline in (None, time.monotonic() + 20):
        buffer = bytearray(10)
        reading = Background(pair[0].recv_into, memoryview(buffer), deadline)
        pair[1].write(b"abc", None)
        assert reading.result() == 3
        assert buffer[:3] == b"abc"


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("I")]
)
@pytest.mark.parametrize("deadline", [None, 60])
def test_r20_what_is_written_is_counted_in_bytes(
    pair: Any, kind: Any, deadline: float | None
) -> None:
    if deadline is not None:
        deadline += time.monotonic()
    data = random.Random(1).randbytes(400)
    assert pair[0].write(kind(data), deadline)
    assert pair[0].write_large(b"head", kind(data), deadline)
    assert read_exactly(pair[1], 804) == data + b"head" + data
    assert not pair[0].torn


@pytest.mark.parametrize("size", [0, 1, 1000, 5_000_000])
@pytest.mark.parametrize("deadline", [None, 60])
def test_writing_both_ways_at_once(pair: Any, size: int, deadline: float | None) -> None:
    if deadline is not None:
        deadline += time.monotonic()
    data = [random.Random(seed).randbytes(size) for seed in range(2)]
    writing = [Background(pair[i].write_large, b"head", data[i], deadline) for i in range(2)]
    reading = [Background(read_exactly, pair[1 - i], size + 4, deadline) for i in range(2)]
    for i in range(2):
        assert writing[i].result()
        assert reading[i].result() == b"head" + data[i]
        assert not pair[i].torn


@pytest.mark.parametrize("method", ["write", "write_large", "write_masked"])
@pytest.mark.parametrize("size", [20_000_000, 131_072])
def test_deadline_of_writing(fd: ModuleType, pair: Any, method: str, size: int) -> None:
    """Nothing is torn if nothing went out; a write that was given up in the midst is."""
    stream = pair[0]
    stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    args = arguments(fd, method, b"a" * size)
    begin = time.monotonic()
    assert not getattr(stream, method)(*args, begin + SOON)
    assert time.monotonic() - begin >= SOON
    assert stream.torn


@pytest.mark.parametrize("method", ["write", "write_large", "write_masked"])
@pytest.mark.parametrize("size", [3, 200_000])
@pytest.mark.parametrize("deadline", [lambda: 0.0, soon], ids=["now", "soon"])
def test_deadline_before_the_first_byte(
    fd: ModuleType, pair: Any, method: str, size: int, deadline: Any
) -> None:
    stream = pair[0]
    fill(stream)
    args = arguments(fd, method, b"a" * size)
    assert not getattr(stream, method)(*args, deadline())
    assert not stream.torn
    assert not stream.unsent()


def test_backlog_goes_first(fd: ModuleType, pair: Any) -> None:
    stream, peer = pair
    written = fill(stream)
    assert not stream.try_write(b"one")
    assert not stream.try_write(b"two")
    assert stream.unsent()
    assert stream.backlog == b"onetwo"
    assert not stream.flush(0.0)
    assert not stream.flush(soon())
    assert not stream.write(b"x", soon())
    assert not stream.write_large(b"x", b"x", soon())
    assert not stream.write_masked(*masked(fd, b"x"), soon())
    assert not stream.torn
    assert read_exactly(peer, len(written)) == written
    assert stream.write(b"three", None)
    assert not stream.unsent()
    assert stream.try_write(b"four")
    assert stream.flush(0.0)
    assert read_exactly(peer, 15) == b"onetwothreefour"


def test_backlog_of_a_large_write(pair: Any) -> None:
    stream, peer = pair
    data = random.Random(1).randbytes(3_000_000)
    assert not stream.try_write(data)
    reading = Background(read_exactly, peer, 3_000_010)
    assert stream.write_large(b"12345", b"67890", None)
    assert reading.result() == data + b"1234567890"


@pytest.mark.parametrize("deadline", [None, 60])
def test_abort_wakes_a_reader(pair: Any, deadline: float | None) -> None:
    if deadline is not None:
        deadline += time.monotonic()
    reading = Background(pair[0].recv_into, memoryview(bytearray(1)), deadline)
    time.sleep(0.01)  # whether it waits already or not, it has to come back
    pair[0].abort()
    assert reading.result() == 0
    assert pair[0].aborted
    pair[0].abort()


@pytest.mark.parametrize("method", ["write", "write_large", "write_masked", "flush"])
@pytest.mark.parametrize("deadline", [None, 60])
def test_abort_wakes_a_writer(
    fd: ModuleType, pair: Any, method: str, deadline: float | None
) -> None:
    if deadline is not None:
        deadline += time.monotonic()
    stream = pair[0]
    fill(stream)
    args = () if method == "flush" else arguments(fd, method, b"a")
    if method == "flush":
        stream.try_write(b"abc")
    writing = Background(getattr(stream, method), *args, deadline)
    time.sleep(0.01)
    stream.abort()
    with pytest.raises(OSError):
        writing.result()


def test_abort_wakes_reader_and_writer_at_once(pair: Any) -> None:
    fill(pair[0])
    reading = Background(pair[0].recv_into, memoryview(bytearray(1)), None)
    writing = Background(pair[0].write, b"a" * 1_000_000, None)
    time.sleep(0.01)
    pair[0].abort()
    assert reading.result() == 0
    with pytest.raises(OSError):
        writing.result()


def test_waiting_on_an_aborted_stream(pair: Any) -> None:
    pair[0].abort()
    with pytest.raises(BrokenPipeError):
        pair[0].wait_writable(None)
    assert pair[0].recv_into(memoryview(bytearray(1)), None) == 0


def test_end_of_writing(pair: Any) -> None:
    one, other = pair
    one.shutdown_write()
    assert other.recv_into(memoryview(bytearray(1)), None) == 0
    assert other.write(b"still", None)
    assert read_exactly(one, 5) == b"still"
    one.shutdown_write()
    other.close()
    one.shutdown_write()


def test_close(pair: Any) -> None:
    stream = pair[0]
    number = stream.fileno()
    assert number >= 0
    stream.try_write(b"x" * 10_000_000)
    stream.close()
    assert stream.fileno() == -1
    assert not stream.unsent()
    stream.close()
    stream.abort()
    with pytest.raises(OSError):
        os.fstat(number)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_by_the_peer(fd: ModuleType, kind: str) -> None:
    one, other = tcp_pair()
    stream = getattr(fd.stream, kind)(one)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.close()
    with pytest.raises(ConnectionResetError):
        stream.recv_into(memoryview(bytearray(1)), None)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            stream.write(b"a", None)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        stream.write_large(b"a", b"b", None)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        stream.write_masked(*masked(fd, b"b" * 200_000), None)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        stream.try_write(b"a")
    stream.shutdown_write()
    stream.abort()
    stream.close()


# Sockets that misbehave


@pytest.mark.parametrize("seed", range(10))
def test_faulty_sockets_lose_nothing(fd: ModuleType, seed: int) -> None:
    """Short writes and reads, refusals and interruptions at every point."""
    one, other = socket.socketpair()
    streams = [fd.stream.open_stream(Faulty(sock, seed + i)) for i, sock in enumerate((one, other))]
    rng = random.Random(seed)
    deadline = time.monotonic() + 30
    sent: list[list[bytes]] = [[], []]

    def write(index: int) -> None:
        for _ in range(30):
            data = rng.randbytes(rng.choice([0, 1, 10, 5000, 200_000]))
            kind = rng.randrange(3)
            sent[index].append(data if kind != 1 else b"head" + data)
            if kind == 0:
                assert streams[index].write(data, deadline)
            elif kind == 1:
                assert streams[index].write_large(b"head", data, deadline)
            else:
                streams[index].try_write(data)
        assert streams[index].flush(deadline)
        streams[index].shutdown_write()

    writing = [Background(write, index) for index in range(2)]
    reading = [
        Background(read_exactly, streams[1 - index], 1 << 40, deadline) for index in range(2)
    ]
    for index in range(2):
        writing[index].result(40)
        assert reading[index].result(40) == b"".join(sent[index])
        assert not streams[index].torn
    for stream in streams:
        stream.close()


def test_failing_socket(fd: ModuleType) -> None:
    """An error is passed on, and what was not written stays."""

    class Failing(Bare):
        def __init__(self, sock: socket.socket) -> None:
            super().__init__(sock)
            self.fail = True
            self.send = self._send
            self.close = self._close

        def _send(self, data: Any) -> int:
            if self.fail:
                raise OSError(5, "failed")
            return self.sock.send(data)

        def _close(self) -> None:
            self.sock.close()
            raise OSError(5, "failed")

    one, other = socket.socketpair()
    sock = Failing(one)
    stream = fd.stream.open_stream(sock)
    with pytest.raises(OSError, match="failed"):
        stream.write(b"a", None)
    with pytest.raises(OSError, match="failed"):
        stream.try_write(b"abc")
    assert stream.backlog == b"abc"
    sock.fail = False
    assert stream.flush(None)
    assert other.recv(10) == b"abc"
    stream.close()
    other.close()


def test_socket_without_a_descriptor(fd: ModuleType) -> None:
    """It is used in blocking mode: a thread waits in it."""
    one, other = socket.socketpair()
    stream, peer = fd.stream.open_stream(Bare(one)), fd.stream.open_stream(other)
    assert stream.blocking
    assert (stream.fileno(), stream.pending()) == (-1, False)
    data = random.Random(1).randbytes(2_000_000)
    writing = Background(stream.write_large, b"head", data, None)
    assert read_exactly(peer, 2_000_004) == b"head" + data
    assert writing.result()
    peer.write(b"abc", None)
    assert read_exactly(stream, 3) == b"abc"
    stream.shutdown_write()
    stream.abort()
    stream.close()
    peer.close()


def test_wait_without_poll(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("select.poll", raising=False)
    one, other = socket.socketpair()
    stream, peer = (fd.stream.SocketStream(sock) for sock in (one, other))
    assert stream.recv_into(memoryview(bytearray(1)), soon()) == -1
    fill(stream)
    assert not stream.wait_writable(soon())
    peer.write(b"a", None)
    assert stream.recv_into(memoryview(bytearray(1)), None) == 1
    stream.close()
    peer.close()


def test_waits_are_sliced_where_shutdown_wakes_nobody(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket whose shutdown() is not noticed by poll(): the flag is looked at now and then."""
    if fd.IMPLEMENTATION == "compiled":
        pytest.skip("the constant is compiled in")
    monkeypatch.setattr(fd.stream, "WAIT_SLICE", 0.01)
    one, other = socket.socketpair()
    sock = Faulty(one, 1)
    sock.shutdown = lambda how: None  # type: ignore[method-assign]
    stream = fd.stream.open_stream(sock)
    reading = Background(stream.recv_into, memoryview(bytearray(1)), None)
    until(reading.thread.is_alive)
    stream.abort()
    assert reading.result() == 0
    stream.close()
    other.close()


@pytest.mark.parametrize("kind", ["open_stream", "SocketStream"])
def test_what_the_compressor_began_stays_torn(fd: ModuleType, kind: str) -> None:
    """Even if not a byte of it goes out: the peer would miss what later messages refer to."""
    one, other = (getattr(fd.stream, kind)(sock) for sock in socket.socketpair())
    fill(one)
    one.torn = True
    assert not one.write_large(b"head", b"x" * 1_000_000, soon())
    assert one.torn
    one.close()
    other.close()
