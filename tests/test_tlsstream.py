"""TLS straight into the codec's memory: any cuts between records, what is not data, what is not TLS."""

from __future__ import annotations

import gc
import random
import socket
import ssl
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import trustme

from .streams import SOON, Background, Faulty, tls_contexts, tls_pair

BINARY = 0x82
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def contexts(request: pytest.FixtureRequest) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's and a server's, for each version of TLS."""
    both = tls_contexts()
    for context in both:
        context.maximum_version = request.param
    return both


@pytest.fixture(params=["direct", "portable"])
def pair(
    request: pytest.FixtureRequest, fd: ModuleType, contexts: Any
) -> Iterator[tuple[Any, Any]]:
    raw = tuple(fd.stream.open_stream(sock) for sock in socket.socketpair())
    streams = tls_pair(fd, raw, *contexts, portable=request.param == "portable")  # type: ignore[arg-type]
    yield streams
    for stream in streams:
        stream.close()


def frame(fd: ModuleType, payload: bytes) -> bytes:
    return bytes(fd.codec.Encoder(masked=False).frame(BINARY, payload))


def intercept(writer: Any, reader: Any, data: bytes) -> bytes:
    """Write through TLS and take the ciphertext off the network."""
    assert writer.write(data, None)
    return bytes(reader.sock.recv(1 << 20))


def settle(fd: ModuleType, stream: Any) -> None:
    """Read what comes behind a handshake: session tickets of TLS 1.3."""
    assert stream.read(fd.codec.Decoder(masked=False), 0.0) == -1


def undecrypted(stream: Any) -> int:
    """Bytes that OpenSSL was not asked about yet, or has still to send."""
    return sum(bio.pending for bio in gc.get_referents(stream) if isinstance(bio, ssl.MemoryBIO))


def test_compiled_codec_is_read_into_directly(fd: ModuleType, contexts: Any) -> None:
    one, other = socket.socketpair()
    stream = fd.stream.open_tls_stream(fd.stream.open_stream(one), contexts[1], server_side=True)
    assert isinstance(stream, fd.stream.TLSStream)
    assert (type(stream) is fd.stream.TLSStream) == (fd.IMPLEMENTATION == "pure")
    stream.close()
    other.close()


def test_records_cut_anywhere(fd: ModuleType, pair: Any) -> None:
    """Half a record gives nothing, and the rest of it all, wherever the network cuts."""
    one, other = pair
    settle(fd, other)
    decoder = fd.codec.Decoder(masked=False)
    length = len(intercept(one, other, frame(fd, b"")))
    # The records are numbered: that one is lost for ever, so from here on all are delivered.
    one, other = pair[1], pair[0]
    settle(fd, other)
    for cut in range(2 * length):
        payload = b"%d" % cut
        sent = intercept(one, other, frame(fd, payload)) + intercept(one, other, frame(fd, b"2nd"))
        one.sock.sendall(sent[:cut])
        messages = []
        for expected in (0, 1):
            while other.read(decoder, 0.0) > 0:
                while (message := decoder.pull()) is not None:
                    messages.append(message)
            if expected == 0:
                one.sock.sendall(sent[cut:])
        assert messages == [payload, b"2nd"]
        assert not other.pending()


def test_openssl_is_not_asked_in_vain(fd: ModuleType, contexts: Any) -> None:
    """It would take the bytes that came of a record, say so with an exception, and ask for more."""
    if fd.IMPLEMENTATION == "pure":
        pytest.skip("the portable stream asks")
    raw = tuple(fd.stream.open_stream(sock) for sock in socket.socketpair())
    client, server = tls_pair(fd, raw, *contexts)  # type: ignore[arg-type]
    settle(fd, client)
    decoder = fd.codec.Decoder(masked=False)
    sent = intercept(server, client, frame(fd, b"a" * 100))
    for cut in (3, 5, 20):
        server.sock.sendall(sent[:cut])
        sent = sent[cut:]
        before = undecrypted(client)
        assert client.read(decoder, 0.0) == -1
        assert undecrypted(client) == before + cut
    server.sock.sendall(sent)
    assert client.read(decoder, 0.0) == 102
    assert undecrypted(client) == 0
    client.close()
    server.close()


def test_several_records_at_once(fd: ModuleType, pair: Any) -> None:
    """A record to a read; the socket need not become readable for those that were received with it."""
    one, other = pair
    decoder = fd.codec.Decoder(masked=False)
    for number in range(20):
        assert one.write(frame(fd, b"%d" % number), None)
    for number in range(20):
        assert other.read(decoder, 0.0) > 0
        assert decoder.pull() == b"%d" % number
        assert other.pending() == (number < 19)
    assert other.read(decoder, 0.0) == -1


@pytest.mark.parametrize("size", [16_000, 16_384, 100_000, 3_000_000])
def test_large_messages(fd: ModuleType, pair: Any, size: int) -> None:
    one, other = pair
    payloads = [random.Random(seed).randbytes(size) for seed in range(3)]

    def write() -> None:
        for payload in payloads:
            header = fd.codec.Encoder(masked=False).header(BINARY, size)
            assert one.write_large(header, payload, None)

    writing = Background(write)
    decoder = fd.codec.Decoder(masked=False, max_message=None)
    for payload in payloads:
        while (message := decoder.pull()) is None:
            assert other.read(decoder, time.monotonic() + 20) > 0
        assert message == payload
    writing.result()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_faulty_sockets(fd: ModuleType, contexts: Any, layers: int, seed: int) -> None:
    """Any pieces of any size, over any number of layers, both ways at once."""
    rng = random.Random(seed)
    streams: Any = tuple(
        fd.stream.open_stream(Faulty(sock, seed + i)) for i, sock in enumerate(socket.socketpair())
    )
    for _ in range(layers):
        streams = tls_pair(fd, streams, *contexts)
    payloads = [rng.randbytes(rng.choice([0, 1, 100, 5000, 40_000])) for _ in range(100)]
    deadline = time.monotonic() + 40

    def write(stream: Any) -> None:
        for payload in payloads:
            assert stream.write(frame(fd, payload), deadline)

    def read(stream: Any) -> None:
        decoder = fd.codec.Decoder(masked=False)
        for payload in payloads:
            while (message := decoder.pull()) is None:
                assert stream.read(decoder, deadline) > 0
            assert message == payload

    threads = [Background(call, stream) for call in (write, read) for stream in streams]
    for thread in threads:
        thread.result(50)
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("method", ["read", "recv_into"])
@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x17\x03\x03\xff\xff",
        b"\x17\x03\x03\x00\x20" + b"x" * 32,
    ],
    ids=["no TLS", "too long", "corrupted"],
)
def test_what_is_not_tls(fd: ModuleType, pair: Any, said: bytes, method: str) -> None:
    """It fails at once, without waiting for the rest of a record that will never come."""
    settle(fd, pair[0])
    pair[1].raw.write(said, None)
    target: Any = fd.codec.Decoder(masked=False)
    if method == "recv_into":
        target = memoryview(bytearray(100))
    with pytest.raises(ssl.SSLError):
        getattr(pair[0], method)(target, time.monotonic() + 20)


def test_orderly_end(fd: ModuleType, pair: Any) -> None:
    decoder = fd.codec.Decoder(masked=False)
    assert pair[0].write(frame(fd, b"last"), None)
    pair[0].shutdown_write()
    assert pair[1].read(decoder, None) == 6
    assert pair[1].read(decoder, None) == 0
    assert pair[1].read(decoder, None) == 0


def test_end_in_the_midst_of_a_record(fd: ModuleType, pair: Any) -> None:
    one, other = pair[1], pair[0]
    settle(fd, other)
    one.sock.sendall(intercept(one, other, frame(fd, b"a" * 100))[:50])
    one.raw.shutdown_write()
    assert other.read(fd.codec.Decoder(masked=False), time.monotonic() + 20) == 0


def test_reading_here_and_there(fd: ModuleType, pair: Any) -> None:
    """Into the codec, and elsewhere what it shall not see."""
    one, other = pair
    decoder = fd.codec.Decoder(masked=False)
    view = memoryview(bytearray(10))
    for _ in range(3):
        assert one.write(frame(fd, b"abc"), None)
        assert one.write(frame(fd, b"x" * 18), None)
        assert other.read(decoder, None) == 5
        assert decoder.pull() == b"abc"
        assert [other.recv_into(view, 0.0) for _ in range(3)] == [10, 10, -1]
        assert not other.pending()


def test_question_alone_is_no_data(fd: ModuleType) -> None:
    """A certificate that is asked for later: the reader waits on, and there is something to send."""
    client_context, server_context = tls_contexts()
    ca = trustme.CA()
    ca.configure_trust(server_context)
    ca.issue_cert("client").configure_cert(client_context)
    server_context.post_handshake_auth = client_context.post_handshake_auth = True
    server_context.verify_mode = ssl.CERT_OPTIONAL
    raw = tuple(fd.stream.open_stream(sock) for sock in socket.socketpair())
    client, server = tls_pair(fd, raw, client_context, server_context)  # type: ignore[arg-type]
    settle(fd, client)
    server.ssl_object.verify_client_post_handshake()
    sent = intercept(server, client, frame(fd, b"a"))  # two records, the question first
    end = 5 + int.from_bytes(sent[3:5], "big")
    assert end < len(sent)
    server.sock.sendall(sent[:end])
    assert not client.unsent()
    settle(fd, client)
    assert client.unsent()
    server.sock.sendall(sent[end:])
    assert client.read(fd.codec.Decoder(masked=False), None) == 3
    assert client.write(frame(fd, b"a"), None)
    assert server.read(fd.codec.Decoder(masked=False), None) == 3
    assert server.ssl_object.getpeercert()
    client.close()
    server.close()


class ByRecord:
    """A socket that gives a record at a time without ever waiting, so that no wait looks at the clock.

    After so many bytes of each, if ``step`` is given; and it takes ``seconds``.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.step = self.seconds = 0.0
        self.pieces: list[bytes] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def begin(self, step: int = 0, seconds: float = 0.0) -> None:
        data = self.sock.recv(1 << 20)
        self.pieces, self.seconds = [], seconds
        while data:
            end = step or 5 + int.from_bytes(data[3:5], "big")
            self.pieces.append(data[:end])
            data = data[end:]

    def recv_into(self, view: memoryview) -> int:
        if not self.pieces:
            return self.sock.recv_into(view)
        time.sleep(self.seconds)
        piece = self.pieces.pop(0)
        view[: len(piece)] = piece
        return len(piece)


TICKETS = 20


@pytest.fixture(params=["direct", "portable"])
def by_record(
    request: pytest.FixtureRequest, fd: ModuleType
) -> Iterator[tuple[ByRecord, Any, Any]]:
    """A client that was sent many session tickets, which are records without data, and its server."""
    contexts = tls_contexts()
    contexts[1].num_tickets = TICKETS
    one, other = socket.socketpair()
    sock = ByRecord(one)
    raw = fd.stream.open_stream(sock), fd.stream.open_stream(other)
    client, server = tls_pair(fd, raw, *contexts, portable=request.param == "portable")
    yield sock, client, server
    client.close()
    server.close()


@pytest.mark.parametrize("method", ["read", "recv_into"])
def test_records_without_data_do_not_outlast_the_deadline(
    fd: ModuleType, by_record: tuple[ByRecord, Any, Any], method: str
) -> None:
    """Without a pause between them nobody waits, and it is in waiting that streams look at the clock."""
    sock, client, server = by_record
    sock.begin(seconds=SOON)
    assert sock.pieces is not None and len(sock.pieces) == TICKETS
    target: Any = fd.codec.Decoder(masked=False)
    if method == "recv_into":
        target = memoryview(bytearray(100))
    for deadline in (0.0, time.monotonic()):
        before = len(sock.pieces)
        assert getattr(client, method)(target, deadline) == -1
        assert len(sock.pieces) == before - 1
        assert not client.pending()  # what is left a watch sees
    assert getattr(client, method)(target, time.monotonic() + 2.5 * SOON) == -1
    assert 0 < len(sock.pieces) <= TICKETS - 3
    sock.seconds = 0
    assert server.write(frame(fd, b"data"), None)
    assert getattr(client, method)(target, time.monotonic() + 20) == 6
    assert sock.pieces == []


@pytest.mark.parametrize("method", ["read", "recv_into"])
def test_record_that_comes_byte_by_byte_does_not_outlast_the_deadline(
    fd: ModuleType, by_record: tuple[ByRecord, Any, Any], method: str
) -> None:
    sock, client, server = by_record
    settle(fd, client)
    assert server.write(frame(fd, b"data"), None)
    sock.begin(step=1)
    assert sock.pieces is not None
    target: Any = fd.codec.Decoder(masked=False)
    if method == "recv_into":
        target = memoryview(bytearray(100))
    for left in range(len(sock.pieces) - 1, 0, -1):
        assert getattr(client, method)(target, 0.0) == -1
        assert len(sock.pieces) == left
    assert getattr(client, method)(target, 0.0) == 6


def test_deadline_does_not_keep_what_an_inner_layer_has_decrypted(
    fd: ModuleType, contexts: Any
) -> None:
    """With TLS in TLS a record may need several of the outer ones, which are in memory already."""
    streams: Any = tuple(fd.stream.open_stream(sock) for sock in socket.socketpair())
    for _ in range(2):
        streams = tls_pair(fd, streams, *contexts)
    client, server = streams
    settle(fd, client)
    assert server.write(frame(fd, b"a" * 16_380), None)
    decoder = fd.codec.Decoder(masked=False)
    while (message := decoder.pull()) is None:
        assert client.read(decoder, 0.0) > 0
    assert message == b"a" * 16_380
    client.close()
    server.close()


class Wrapper:
    """Somebody's own SSL object, which does not know our buffers, or a context that makes it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> Any:
        return Wrapper(self.inner.wrap_bio(*args, **kwargs))

    def read(self, size: int, buffer: Any) -> int:
        self.reads += 1
        data = self.inner.read(size)
        buffer[: len(data)] = data
        return len(data)


def test_foreign_ssl_object(fd: ModuleType, contexts: Any) -> None:
    raw = tuple(fd.stream.open_stream(sock) for sock in socket.socketpair())
    client, server = tls_pair(fd, raw, *map(Wrapper, contexts))  # type: ignore[arg-type]
    decoder = fd.codec.Decoder(masked=False)
    assert client.write(frame(fd, b"abc"), None)
    assert server.read(decoder, None) == 5
    assert decoder.pull() == b"abc"
    assert server.ssl_object.reads
    client.close()
    server.close()


class Counting:
    """A socket that counts how often it is written to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sends = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def send(self, data: Any) -> int:
        self.sends += 1
        return self.sock.send(data)


def test_header_goes_out_with_its_payload(fd: ModuleType, contexts: Any) -> None:
    one, other = socket.socketpair()
    counting = Counting(one)
    raw = fd.stream.open_stream(counting), fd.stream.open_stream(other)
    streams = tls_pair(fd, raw, *contexts)
    before = counting.sends
    assert streams[0].write_large(frame(fd, b"a" * 20_000)[:4], b"a" * 20_000, None)
    assert counting.sends == before + 1
    decoder = fd.codec.Decoder(masked=False)
    while (message := decoder.pull()) is None:
        assert streams[1].read(decoder, None) > 0
    assert message == b"a" * 20_000
    for stream in streams:
        stream.close()


def test_after_a_fork_the_mutex_is_new(fd: ModuleType, pair: Any) -> None:
    for stream in pair:
        stream.after_fork()
    assert pair[0].write(frame(fd, b"abc"), None)
    assert pair[1].read(fd.codec.Decoder(masked=False), None) == 5


class Interrupt(BaseException):
    """What a signal's handler raises."""


class Interrupted:
    """A context whose SSL objects have one call interrupted when it is done, once ``armed``."""

    def __init__(self, context: ssl.SSLContext, method: str) -> None:
        self.context = context
        self.method = method
        self.armed = False
        self.handler: Any = None  # what runs then, in place of an exception

    def wrap_bio(self, *args: Any, **kwargs: Any) -> Any:
        inner = self.context.wrap_bio(*args, **kwargs)
        owner = self

        class Obj:
            left = 1

            def __getattr__(self, name: str) -> Any:
                call = getattr(inner, name)
                if name != owner.method:
                    return call

                def interrupted(*args: Any) -> Any:
                    result = call(*args)
                    if owner.armed and Obj.left:
                        Obj.left = 0
                        if owner.handler is None:
                            raise Interrupt
                        owner.handler()
                    return result

                return interrupted

        return Obj()


def interrupted_pair(fd: ModuleType, contexts: Any, method: str) -> tuple[Any, Any, Interrupted]:
    """Give a pair whose first stream is interrupted in a method of its SSL object, once that is armed."""
    trap = Interrupted(contexts[0], method)
    raw = tuple(fd.stream.open_stream(sock) for sock in socket.socketpair())
    one, other = tls_pair(fd, raw, trap, contexts[1])  # type: ignore[arg-type]
    return one, other, trap


def test_interrupt_while_decrypting_ends_the_stream(fd: ModuleType, contexts: Any) -> None:
    """OpenSSL has given the bytes, and nobody knows how many: what follows must not be taken for a frame."""
    one, other, trap = interrupted_pair(fd, contexts, "read")
    settle(fd, one)
    decoder = fd.codec.Decoder(masked=False)
    trap.armed = True
    assert other.write(frame(fd, b"lost"), None)
    with pytest.raises(Interrupt):
        one.read(decoder, None)
    assert one.pending()
    assert other.write(frame(fd, b"next"), None)
    for _ in range(2):
        with pytest.raises(ConnectionAbortedError, match="interrupted"):
            one.read(decoder, 0.0)
    assert decoder.pull() is None
    for stream in (one, other):
        stream.close()


@pytest.mark.parametrize("size", [5, 40_000])
@pytest.mark.parametrize("method", ["write", "write_large"])
def test_interrupt_while_encrypting_tears(
    fd: ModuleType, contexts: Any, method: str, size: int
) -> None:
    one, other, trap = interrupted_pair(fd, contexts, "write")
    trap.armed = True
    args = (b"a" * size,) if method == "write" else (b"head", b"a" * size)
    with pytest.raises(Interrupt):
        getattr(one, method)(*args, None)
    assert one.torn
    for stream in (one, other):
        stream.close()


@pytest.mark.parametrize("size", [5, 15_000])
def test_interrupt_while_the_network_takes_no_more_tears(
    fd: ModuleType, contexts: Any, size: int
) -> None:
    """A signal's handler raises in a write that waits: part of a record has gone out, perhaps."""
    ours, theirs = socket.socketpair()

    class Full:
        """A socket that is interrupted in the midst of its next write."""

        armed = False

        def __getattr__(self, name: str) -> Any:
            return getattr(ours, name)

        def send(self, data: Any) -> int:
            if self.armed:
                raise Interrupt
            return ours.send(data)

    full = Full()
    raw = fd.stream.open_stream(full), fd.stream.open_stream(theirs)
    one, other = tls_pair(fd, raw, *contexts)
    full.armed = True
    with pytest.raises(Interrupt):
        one.write(b"a" * size, None)
    assert one.torn
    for stream in (one, other):
        stream.close()


def test_no_room_in_the_decoder_loses_nothing(fd: ModuleType, pair: Any) -> None:
    """What came is still there, and pending, if the decoder fails to make room for it."""
    one, other = pair
    settle(fd, one)
    decoder = fd.codec.Decoder(masked=False)
    assert other.write(frame(fd, b"hello"), None)
    with decoder.get_buffer(), pytest.raises(BufferError):
        one.read(decoder, None)
    assert one.read(decoder, 1 + time.monotonic()) == 7
    assert decoder.pull() == b"hello"


def test_signal_handler_that_writes_while_its_thread_decrypts(
    fd: ModuleType, contexts: Any
) -> None:
    """It runs in the midst of OpenSSL's work, as far as Python can tell, under the same mutex."""
    one, other, trap = interrupted_pair(fd, contexts, "read")
    settle(fd, one)
    settle(fd, other)
    trap.handler = lambda: one.try_write(frame(fd, b"from the handler"))
    trap.armed = True
    decoder = fd.codec.Decoder(masked=False)
    assert other.write(frame(fd, b"hello"), None)
    assert one.read(decoder, None) == 7
    assert decoder.pull() == b"hello"
    assert other.read(decoder, None) > 0
    assert decoder.pull() == b"from the handler"
    for stream in (one, other):
        stream.close()
