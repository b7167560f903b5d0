"""TLS over memory: both ways at once, what is torn, ends, hand-shakes that fail, TLS in TLS."""

from __future__ import annotations

import random
import socket
import ssl
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import trustme

from .streams import SOON, Background, Faulty, fill, read_exactly, soon, tls_contexts, tls_pair

LAYERS = ["tls", "portable", "tls-in-tls", "SSLSocket"]


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return tls_contexts()


@pytest.fixture
def raw(fd: ModuleType) -> Iterator[tuple[Any, Any]]:
    one, other = socket.socketpair()
    streams = fd.stream.open_stream(one), fd.stream.open_stream(other)
    yield streams
    for stream in streams:
        stream.close()


@pytest.fixture
def pair(fd: ModuleType, raw: Any, contexts: Any) -> tuple[Any, Any]:
    return tls_pair(fd, raw, *contexts)


@pytest.fixture(params=LAYERS)
def any_pair(
    request: pytest.FixtureRequest, fd: ModuleType, contexts: Any
) -> Iterator[tuple[Any, Any]]:
    """Every way to have TLS: our own, one in the other, and a socket that brings it."""
    one, other = socket.socketpair()
    if request.param == "SSLSocket":
        other_end = Background(lambda: contexts[1].wrap_socket(other, server_side=True))
        client_socket = contexts[0].wrap_socket(one, server_hostname="localhost")
        streams = tuple(fd.stream.open_stream(sock) for sock in (client_socket, other_end.result()))
    else:
        raw = fd.stream.open_stream(one), fd.stream.open_stream(other)
        streams = tls_pair(fd, raw, *contexts, portable=request.param == "portable")
        if request.param == "tls-in-tls":
            streams = tls_pair(fd, streams, *contexts)
    yield streams  # type: ignore[misc]
    for stream in streams:
        stream.close()


def test_handshake(pair: Any) -> None:
    client, server = pair
    assert client.ssl_object.version() == server.ssl_object.version()
    assert client.fileno() == client.raw.fileno() >= 0
    assert client.ssl_object.getpeercert()["subject"]


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 262_144, 262_145, 1_048_576, 3_000_000])
@pytest.mark.parametrize("deadline", [None, 60])
def test_writing_both_ways_at_once(any_pair: Any, size: int, deadline: float | None) -> None:
    if deadline is not None:
        deadline += time.monotonic()
    data = [random.Random(seed).randbytes(size) for seed in range(2)]

    def write(index: int) -> bool:
        stream = any_pair[index]
        large = stream.write_large(b"head", data[index], deadline)
        return bool(large and stream.write(data[index], deadline))

    writing = [Background(write, i) for i in range(2)]
    reading = [Background(read_exactly, any_pair[1 - i], 2 * size + 4, deadline) for i in range(2)]
    for i in range(2):
        assert writing[i].result(50)
        assert reading[i].result(50) == b"head" + data[i] + data[i]
        assert not any_pair[i].torn and not any_pair[i].unsent()


def test_many_small_writes_both_ways(any_pair: Any) -> None:
    def write(index: int) -> None:
        for number in range(2000):
            assert any_pair[index].write(b"%06d" % number, None)

    expected = b"".join(b"%06d" % number for number in range(2000))
    writing = [Background(write, i) for i in range(2)]
    reading = [Background(read_exactly, any_pair[1 - i], len(expected)) for i in range(2)]
    for i in range(2):
        writing[i].result()
        assert reading[i].result() == expected


def test_deadline_of_reading(any_pair: Any) -> None:
    view = memoryview(bytearray(10))
    begin = time.monotonic()
    assert any_pair[0].recv_into(view, 0.0) == -1
    assert any_pair[0].recv_into(view, begin + SOON) == -1
    assert time.monotonic() - begin >= SOON
    assert any_pair[1].write(b"abc", None)
    assert any_pair[0].recv_into(view, time.monotonic() + 20) == 3


def test_what_is_decrypted_is_pending(any_pair: Any) -> None:
    """The socket has nothing more to say, but there is something to read."""
    one, other = any_pair
    assert one.write(b"abcdef", None)
    assert read_exactly(other, 2) == b"ab"
    assert other.pending()
    assert other.recv_into(memoryview(bytearray(100)), 0.0) == 4
    assert other.recv_into(memoryview(bytearray(100)), 0.0) == -1
    assert not other.pending()


def test_several_records_of_one_read(any_pair: Any) -> None:
    one, other = any_pair
    for number in range(20):
        assert one.write(b"%02d" % number, None)
    read = b""
    view = memoryview(bytearray(100))
    while len(read) < 40:
        count = other.recv_into(view, time.monotonic() + 20)
        read += view[:count]
        assert len(read) == 40 or other.pending() or count > 0
    assert read == b"".join(b"%02d" % number for number in range(20))


def test_deadline_of_writing_tears(any_pair: Any) -> None:
    begin = time.monotonic()
    assert not any_pair[0].write_large(b"head", b"a" * 20_000_000, begin + SOON)
    assert time.monotonic() - begin >= SOON
    assert any_pair[0].torn


def test_small_write_that_does_not_fit_tears(pair: Any) -> None:
    """Once encrypted, it cannot be taken back."""
    fill(pair[0].raw)
    assert not pair[0].write(b"abc", soon())
    assert pair[0].torn


def test_backlog(any_pair: Any) -> None:
    stream, peer = any_pair
    block = bytes(range(256)) * 4096
    expected = b""
    while True:
        expected += block
        if not stream.try_write(block):
            break
    assert stream.unsent()
    assert not stream.try_write(b"one")
    assert not stream.flush(0.0)
    assert not stream.flush(soon())
    reading = Background(read_exactly, peer, len(expected) + 8)
    assert stream.write(b"two", None)
    assert stream.try_write(b"") or stream.flush(None)
    assert not stream.unsent()
    assert stream.write_large(b"3", b"4", None)
    assert reading.result() == expected + b"onetwo34"


def test_backlog_goes_out_by_flushing_alone(any_pair: Any) -> None:
    """Nothing is written after it; `unsent` tells until the kernel has it, through all layers."""
    stream, peer = any_pair
    data = random.Random(1).randbytes(3_000_000)
    assert not stream.try_write(data)
    reading = Background(read_exactly, peer, len(data))
    while stream.unsent():
        stream.flush(time.monotonic() + 20)
    assert reading.result() == data


def test_abort_wakes_reader_and_writer(any_pair: Any) -> None:
    reading = Background(any_pair[0].recv_into, memoryview(bytearray(1)), None)
    writing = Background(any_pair[0].write, b"a" * 20_000_000, None)
    time.sleep(0.01)
    any_pair[0].abort()
    assert reading.result() == 0
    with pytest.raises(OSError):
        writing.result()
    assert any_pair[0].aborted


def test_orderly_end(any_pair: Any) -> None:
    one, other = any_pair
    assert one.write(b"last", None)
    one.shutdown_write()
    assert read_exactly(other, 100) == b"last"
    assert other.recv_into(memoryview(bytearray(1)), None) == 0


def test_answer_to_the_end(pair: Any) -> None:
    """close_notify ends one direction; the other still works."""
    one, other = pair
    one.shutdown_write()
    assert other.recv_into(memoryview(bytearray(1)), None) == 0
    assert other.write(b"still", None)
    assert read_exactly(one, 5) == b"still"


def test_end_without_a_word(any_pair: Any) -> None:
    """Cut off in TLS's eyes; WebSocket has Close frames against truncation."""
    raw = any_pair[0]
    while hasattr(raw, "raw"):
        raw = raw.raw
    socket.socket.shutdown(raw.sock, socket.SHUT_WR)
    assert any_pair[1].recv_into(memoryview(bytearray(1)), None) == 0


def test_end_on_a_broken_stream(pair: Any) -> None:
    pair[1].close()
    pair[0].shutdown_write()
    pair[0].shutdown_write()
    pair[0].close()
    pair[0].abort()
    assert pair[0].fileno() == -1


def test_reading_on_after_the_end(pair: Any) -> None:
    view = memoryview(bytearray(1))
    for stream in pair:
        stream.shutdown_write()
    for stream in (*pair, *pair):
        assert stream.recv_into(view, time.monotonic() + 20) == 0


def test_ragged_end_of_an_ssl_socket(fd: ModuleType, contexts: Any) -> None:
    """Also where the caller asked for the difference to be an error: WebSocket tells by itself."""
    one, other = socket.socketpair()
    other_end = Background(lambda: contexts[1].wrap_socket(other, server_side=True))
    client = contexts[0].wrap_socket(one, server_hostname="localhost", suppress_ragged_eofs=False)
    other_end.result().close()
    stream = fd.stream.open_stream(client)
    assert stream.recv_into(memoryview(bytearray(1)), time.monotonic() + 20) == 0
    stream.close()


def test_what_reading_makes_tls_say_is_unsent(fd: ModuleType, raw: Any) -> None:
    """A certificate that is asked for later: the reader gets the question, the writer sends the answer."""
    ca = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(server_context)
    ca.configure_trust(server_context)
    server_context.post_handshake_auth = True
    server_context.verify_mode = ssl.CERT_OPTIONAL
    client_context = ssl.create_default_context()
    ca.configure_trust(client_context)
    ca.issue_cert("client").configure_cert(client_context)
    client_context.post_handshake_auth = True
    client, server = tls_pair(fd, raw, client_context, server_context)
    view = memoryview(bytearray(10))
    # Nothing is said with the end of the handshake yet, for the client that did not read on.
    assert not server.ssl_object.getpeercert()
    server.ssl_object.verify_client_post_handshake()
    assert server.write(b"a", None)
    assert not client.unsent()
    assert client.recv_into(view, time.monotonic() + 20) == 1
    assert client.unsent()
    assert client.flush(time.monotonic() + 20)
    assert not client.unsent()
    assert client.write(b"b", None)
    assert server.recv_into(view, time.monotonic() + 20) == 1
    assert server.ssl_object.getpeercert()


def test_corrupted_ciphertext(pair: Any) -> None:
    pair[0].raw.write(b"\x17\x03\x03\x00\x20" + b"x" * 32, None)
    with pytest.raises(ssl.SSLError):
        pair[1].recv_into(memoryview(bytearray(1)), None)


def test_usable_after_a_fork(any_pair: Any) -> None:
    any_pair[0].after_fork()
    assert any_pair[0].write(b"abc", None)
    assert read_exactly(any_pair[1], 3) == b"abc"


# Hand-shakes that fail


def test_untrusted_certificate(fd: ModuleType, raw: Any, contexts: Any) -> None:
    client = fd.stream.open_tls_stream(
        raw[0], ssl.create_default_context(), server_hostname="localhost"
    )
    server = fd.stream.open_tls_stream(raw[1], contexts[1], server_side=True)
    other = Background(server.handshake, time.monotonic() + 20)
    with pytest.raises(ssl.SSLCertVerificationError):
        client.handshake(time.monotonic() + 20)
    with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):  # it was told why
        other.result()
        read_exactly(server, 1, time.monotonic() + 20)


def test_wrong_name(fd: ModuleType, raw: Any, contexts: Any) -> None:
    client = fd.stream.open_tls_stream(raw[0], contexts[0], server_hostname="example.com")
    server = fd.stream.open_tls_stream(raw[1], contexts[1], server_side=True)
    other = Background(server.handshake, time.monotonic() + 20)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"example\.com"):
        client.handshake(time.monotonic() + 20)
    raw[0].close()
    with pytest.raises((ssl.SSLError, OSError)):
        other.result()
        read_exactly(server, 1, time.monotonic() + 20)


@pytest.mark.parametrize("deadline", [lambda: 0.0, soon], ids=["now", "soon"])
def test_silent_peer(fd: ModuleType, raw: Any, contexts: Any, deadline: Any) -> None:
    client = fd.stream.open_tls_stream(raw[0], contexts[0], server_hostname="localhost")
    with pytest.raises(TimeoutError, match="TLS handshake"):
        client.handshake(deadline())


def test_peer_that_does_not_read(fd: ModuleType, raw: Any, contexts: Any) -> None:
    fill(raw[0])
    client = fd.stream.open_tls_stream(raw[0], contexts[0], server_hostname="localhost")
    with pytest.raises(TimeoutError, match="TLS handshake"):
        client.handshake(soon())


def test_handshake_that_comes_byte_by_byte(fd: ModuleType, contexts: Any) -> None:
    """Without a pause nobody waits, and it is in waiting that streams look at the clock."""
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        contexts[0].wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
    left = list(hello.read())

    class Dripping:
        def __getattr__(self, name: str) -> Any:
            return getattr(ours, name)

        def recv_into(self, view: memoryview) -> int:
            view[0] = left.pop(0)
            return 1

    ours, theirs = socket.socketpair()
    server = fd.stream.open_tls_stream(
        fd.stream.open_stream(Dripping()), contexts[1], server_side=True
    )
    size = len(left)
    with pytest.raises(TimeoutError, match="TLS handshake"):
        server.handshake(time.monotonic())
    assert len(left) == size - 1
    server.close()
    theirs.close()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x03"])
def test_peer_that_hangs_up(fd: ModuleType, raw: Any, contexts: Any, said: bytes) -> None:
    client = fd.stream.open_tls_stream(raw[0], contexts[0], server_hostname="localhost")
    raw[1].write(said, None)
    raw[1].shutdown_write()
    with pytest.raises(ssl.SSLError):
        client.handshake(time.monotonic() + 20)


def test_peer_that_speaks_http(fd: ModuleType, raw: Any, contexts: Any) -> None:
    client = fd.stream.open_tls_stream(raw[0], contexts[0], server_hostname="localhost")
    raw[1].write(b"HTTP/1.1 400 Bad Request\r\n\r\n", None)
    with pytest.raises(ssl.SSLError, match=r"(?i)wrong.version"):
        client.handshake(time.monotonic() + 20)


def test_deadline_of_an_ssl_socket_that_gets_no_data(fd: ModuleType, contexts: Any) -> None:
    """Its socket becomes ready again and again, by records without data."""
    one, other = socket.socketpair()
    other_end = Background(lambda: contexts[1].wrap_socket(other, server_side=True))
    client = contexts[0].wrap_socket(one, server_hostname="localhost")
    calls = 0

    def recv_into(view: Any) -> int:
        nonlocal calls
        calls += 1
        raise ssl.SSLWantReadError if calls < 1000 else OSError("it does not end")

    client.recv_into = recv_into
    other_end.result().sendall(b"a")  # the socket is ready, and stays so
    stream = fd.stream.open_stream(client)
    assert stream.recv_into(memoryview(bytearray(1)), time.monotonic() - 1) == -1
    assert calls == 1
    stream.close()
    other_end.result().close()


# Faults below


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("layers", [1, 2])
def test_faulty_sockets_lose_nothing(fd: ModuleType, contexts: Any, seed: int, layers: int) -> None:
    sockets = socket.socketpair()
    streams: Any = tuple(
        fd.stream.open_stream(Faulty(sock, seed + i)) for i, sock in enumerate(sockets)
    )
    for _ in range(layers):
        streams = tls_pair(fd, streams, *contexts)
    deadline = time.monotonic() + 40
    data = [random.Random(seed + i).randbytes(200_000) for i in range(2)]

    def write(index: int) -> None:
        stream, rng = streams[index], random.Random(seed)
        start = 0
        while start < len(data[index]):
            size = rng.choice([1, 100, 5000, 30_000])
            part = data[index][start : start + size]
            start += size
            if rng.random() < 0.3:
                stream.try_write(part)
            elif rng.random() < 0.5:
                assert stream.write_large(part[:1], part[1:], deadline)
            else:
                assert stream.write(part, deadline)
        assert stream.flush(deadline)

    writing = [Background(write, i) for i in range(2)]
    reading = [Background(read_exactly, streams[1 - i], 200_000, deadline) for i in range(2)]
    for i in range(2):
        writing[i].result(50)
        assert reading[i].result(50) == data[i]
    for stream in streams:
        assert not stream.torn and not stream.unsent()
        stream.close()


def test_answers_that_nobody_takes_are_bounded(fd: ModuleType, pair: Any) -> None:
    """A peer may ask TLS for an answer with each of its records."""
    stream = pair[0]
    fill(stream.raw)
    with pytest.raises(ConnectionAbortedError):
        for _ in range(1000):
            stream._outgoing.write(bytes(10_000))
            stream.flush(0.0)
    assert len(stream.raw.backlog) < 3_000_000
    stream._outgoing.write(bytes(3_000_000))
    with pytest.raises(ConnectionAbortedError):
        stream._is_late(None)
