"""Calls that a signal's handler interrupts by an exception, and calls within such a handler."""

from __future__ import annotations

import collections
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from ..interrupting import interrupted_at
from .links import BINARY, CLOSE, PING, TEXT, TIMEOUT, Background, eventually, link, pair, reading

needs_signals = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")


@contextmanager
def alarm(exc: BaseException, when: Callable[[], object]) -> Iterator[None]:
    """Have a handler raise an exception in the main thread when something has come true."""
    done = threading.Event()

    def handler(number: int, stack: Any) -> None:
        if not done.is_set():
            done.set()
            raise exc

    def strike() -> None:
        eventually(when)
        while not done.is_set():  # one that comes before the call blocks is seen by nobody
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            time.sleep(0.05)

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        with Background(strike):
            yield
    finally:
        signal.signal(signal.SIGUSR1, old)


@needs_signals
@pytest.mark.parametrize("call", ["recv", "recv_streaming", "iterate"])
def test_a_handler_may_raise_what_a_network_may_raise(fd: ModuleType, call: str) -> None:
    """As those of SIGALRM do, that are to bound the time of a call."""
    with link(fd) as (connection, peer):
        error = TimeoutError("mine")
        calls = {
            "recv": connection.recv,
            "recv_streaming": lambda: next(connection.recv_streaming()),
            "iterate": lambda: next(iter(connection)),
        }
        with alarm(error, lambda: reading(connection)), pytest.raises(TimeoutError) as caught:
            calls[call]()
        assert caught.value is error
        peer.send(TEXT, b"and on it goes")
        assert connection.recv(TIMEOUT) == "and on it goes"


@needs_signals
def test_a_handler_interrupts_the_opening(fd: ModuleType) -> None:
    error = TimeoutError("mine")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = threading.Event()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1000)
                asked.set()
                sock.recv(1000)  # the client goes away

        with Background(serve), alarm(error, asked.is_set), pytest.raises(TimeoutError) as caught:
            fd.sync.client.connect(f"ws://127.0.0.1:{listener.getsockname()[1]}")
    assert caught.value is error


class Interrupting:
    """An extension whose work is interrupted once, when it is nearly done."""

    name = "permessage-deflate"

    def __init__(self, extension: Any, which: str) -> None:
        self.extension, self.which = extension, which
        self.armed = False

    def strike(self, which: str) -> None:
        if self.armed and which == self.which:
            self.armed = False
            raise KeyboardInterrupt

    def encode(self, frame: Any, **kwargs: Any) -> Any:
        frame = self.extension.encode(frame, **kwargs)
        self.strike("encode")
        return frame

    def decode(self, frame: Any, **kwargs: Any) -> Any:
        frame = self.extension.decode(frame, **kwargs)
        self.strike("decode")
        return frame


class Resetting(Interrupting):
    def reset(self) -> None:
        self.extension.reset()


def deflate(fd: ModuleType) -> Any:
    return fd.extensions.permessage_deflate.PerMessageDeflate(False, False, 15, 15)


@pytest.mark.parametrize("resets", [False, True])
def test_an_interrupted_compressor(fd: ModuleType, resets: bool) -> None:
    """It has moved on by a message that the peer never sees: nothing may refer to that."""
    extension = (Resetting if resets else Interrupting)(deflate(fd), "encode")
    with pair(fd) as (client, server):
        client.protocol.extensions, server.protocol.extensions = [extension], [deflate(fd)]
        client.send("the first message, and the window begins with it")
        extension.armed = True
        with pytest.raises(KeyboardInterrupt):
            client.send("a message that nobody is ever to see, nor any part of it")
        if resets:
            client.send("a message that nobody had seen before, nor any part of it")
            assert server.recv(TIMEOUT).startswith("the first")
            assert server.recv(TIMEOUT).startswith("a message that nobody had")
        else:
            with pytest.raises(fd.exceptions.ConnectionClosedError):
                client.send("what was interrupted is not known")


@pytest.mark.parametrize("streaming", [False, True])
def test_an_interrupted_decompressor(fd: ModuleType, streaming: bool) -> None:
    """A message is lost, and with it the window that the next refers to."""
    extension = Interrupting(deflate(fd), "decode")
    with pair(fd) as (client, server):
        client.protocol.extensions, server.protocol.extensions = [extension], [deflate(fd)]
        assert client._reader.try_acquire() == fd.roles.FREE  # the service is not to read it
        server.send("lost")
        server.send("lost")
        client._reader.release()
        extension.armed = True
        receive = (lambda: list(client.recv_streaming())) if streaming else client.recv
        try:
            for _ in range(2):
                receive()
        except KeyboardInterrupt:
            with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
                client.recv(TIMEOUT)
        except fd.exceptions.ConnectionClosedError as exc:  # the service had begun to read
            caught = exc  # type: ignore[assignment]
        cause = getattr(caught, "value", caught).__cause__
        assert isinstance(cause, ConnectionAbortedError)


@pytest.mark.parametrize("method", ["pull", "pull_fragment", "pull_frame"])
def test_an_interrupted_pure_decoder(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    if fd.IMPLEMENTATION != "pure":
        pytest.skip("the compiled one runs no handlers")
    decoder = fd.codec.Decoder(masked=False)
    frame = fd.codec.build_frame(BINARY, b"message")

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "_parse_header", interrupt)
        with pytest.raises(KeyboardInterrupt):
            getattr(decoder, method)()
    assert getattr(decoder, method)() is None  # there was nothing to lose
    with decoder.get_buffer() as space:
        space[: len(frame)] = frame
    decoder.buffer_updated(len(frame))
    with monkeypatch.context() as patch:
        patch.setattr(decoder, "_parse_header", interrupt)
        with pytest.raises(KeyboardInterrupt):
            getattr(decoder, method)()
    with pytest.raises(ConnectionAbortedError):
        getattr(decoder, method)()


def test_an_iterable_that_ends_with_another_connection(fd: ModuleType) -> None:
    """It fails, as any does: with 1011, and not with the other's end."""
    with link(fd) as (source, source_peer), link(fd) as (sink, sink_peer):
        source_peer.send(TEXT, b"one")
        source_peer.send_close(1008)
        source_peer.close()
        with (
            Background(
                lambda: (sink_peer.receive(), sink_peer.expect_close(1011), sink_peer.close())
            ),
            pytest.raises(fd.exceptions.ConnectionClosedError) as caught,
        ):
            sink.send(source)
        assert caught.value.rcvd.code == 1008
        assert sink.state is fd.protocol.State.CLOSED


def test_close_in_a_handler_that_interrupts_send(fd: ModuleType) -> None:
    """The message goes out, and the Close frame behind it."""
    with link(fd, close_timeout=TIMEOUT) as (connection, peer):
        assert connection._writer.try_acquire(fd.roles.SEND) == fd.roles.FREE
        connection.close()  # does not wait for what it has interrupted
        assert connection.state is fd.protocol.State.CLOSING
        peer.send(PING, b"")  # whose pong does not go out either
        connection._leave_writer()
        peer.expect_close(1000)


def test_recv_in_a_handler_that_interrupts_close(fd: ModuleType) -> None:
    with link(fd) as (connection, _):
        assert connection._reader.try_acquire(fd.roles.CLOSE) == fd.roles.FREE
        with pytest.raises(fd.exceptions.ConcurrencyError, match="within close"):
            connection.recv()
        connection._leave_reader()


def test_close_frames_are_not_due_twice(fd: ModuleType) -> None:
    with link(fd, close_timeout=TIMEOUT) as (connection, peer):
        assert connection._writer.try_acquire(fd.roles.SEND) == fd.roles.FREE
        connection.close()
        connection.close(1001)
        connection._leave_writer()
        peer.expect(CLOSE)
        peer.close()
        assert connection.wait_closed(TIMEOUT)


def test_a_handler_interrupts_a_pull(fd: ModuleType) -> None:
    """Its time-out is what the call raises, and the message is known to be lost."""
    error = TimeoutError("mine")

    class Alarmed(Interrupting):
        def strike(self, which: str) -> None:
            if self.armed and which == self.which:
                self.armed = False
                raise error

    extension = Alarmed(deflate(fd), "decode")
    with link(fd, extensions=[extension], close_timeout=0.1) as (connection, peer):
        assert connection._reader.try_acquire(fd.roles.WAIT) == fd.roles.FREE
        data = deflate(fd).encode(fd.frames.Frame(fd.frames.Opcode.TEXT, b"lost")).data
        peer.sock.sendall(fd.codec.build_frame(TEXT, data, rsv1=True))
        extension.armed = True
        with pytest.raises(TimeoutError) as caught:
            connection._read_ahead(None)
        assert caught.value is error
        connection._leave_reader()
        with pytest.raises(fd.exceptions.ConnectionClosedError) as closed:
            connection.recv()
        assert isinstance(closed.value.__cause__, ConnectionAbortedError)


def test_a_message_whose_recv_is_interrupted_as_it_ends_is_not_lost(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler raises while the service is told that nobody reads any more."""
    with link(fd) as (connection, _):
        service = fd.sync.service.get_service()

        def interrupt(connection: Any) -> None:
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(service, "adopt", interrupt)
        connection._put_back("message")
        connection._watch = fd.sync.service.BLOCKED
        with pytest.raises(KeyboardInterrupt):
            connection.recv()
        assert connection.recv(TIMEOUT) == "message"


def only_pure(fd: ModuleType) -> None:
    if fd.IMPLEMENTATION != "pure":
        pytest.skip("the compiled one runs no handlers there")


def test_recv_interrupted_at_every_place(fd: ModuleType) -> None:
    """The message is still there, or has been given, or is known to be lost."""
    only_pure(fd)
    place = lost = 0
    interrupted = True
    while interrupted:
        with link(fd, close_timeout=0.05) as (connection, peer):
            peer.send(PING, b"first of all")
            peer.send(BINARY, b"first")
            interrupted = interrupted_at(place, connection.recv)
            peer.send(BINARY, b"second")
            try:
                if interrupted:
                    assert connection.recv(TIMEOUT) == b"first"
                assert connection.recv(TIMEOUT) == b"second"
            except fd.exceptions.ConnectionClosedError as exc:
                if not isinstance(exc.__cause__, ConnectionAbortedError):
                    raise
                lost += 1
            assert connection._reader.owner == connection._writer.owner == fd.roles.FREE
        place += 1
    assert place > 50
    assert lost < place


@pytest.mark.parametrize("size", [5, 200_000])
@pytest.mark.parametrize("side", ["CLIENT", "SERVER"])
def test_send_interrupted_at_every_place(fd: ModuleType, side: str, size: int) -> None:
    """The message has gone out whole, or not at all, or nothing can be sent any more."""
    only_pure(fd)

    def receive() -> bytes:
        try:
            return peer.receive()[2]
        except EOFError:
            return b"in part"

    place = torn = 0
    interrupted = True
    while interrupted:
        with (
            link(fd, side=side, close_timeout=0.05) as (connection, peer),
            Background(receive) as receiver,
        ):
            interrupted = interrupted_at(place, connection.send, bytes(size))
            try:
                connection.send(b"second", timeout=TIMEOUT)
            except fd.exceptions.ConnectionClosedError as exc:
                if not isinstance(exc.__cause__, ConnectionAbortedError):
                    raise
                torn += 1
            else:
                payload = receiver.result()
                if payload == bytes(size):
                    payload = peer.receive()[2]
                assert payload == b"second"
            assert connection._writer.owner == fd.roles.FREE
        place += 1
    assert place > 20
    assert torn < place


@pytest.mark.parametrize("failing", ["nothing came", "the end came", "no UTF-8"])
def test_calls_that_raise_interrupted_at_every_place(fd: ModuleType, failing: str) -> None:
    """A handler comes when the call has failed already; it leaves nothing locked for others."""
    only_pure(fd)

    def call(connection: Any) -> None:
        with contextlib.suppress(
            TimeoutError, fd.exceptions.ConnectionClosedError, UnicodeEncodeError
        ):
            if failing == "no UTF-8":
                connection.send("\ud800")
            else:
                connection.recv(0 if failing == "nothing came" else None)

    place = 0
    interrupted = True
    while interrupted:
        with link(fd, close_timeout=0.05) as (connection, peer):
            if failing == "the end came":
                peer.sock.shutdown(socket.SHUT_WR)
            interrupted = interrupted_at(place, call, connection)
            assert connection._reader.owner == connection._writer.owner == fd.roles.FREE
            if failing != "the end came":
                connection.send(b"question", timeout=TIMEOUT)
                assert peer.receive()[2] == b"question"
                peer.send(BINARY, b"answer")
                assert connection.recv(TIMEOUT) == b"answer"
        place += 1
    assert place > 10


def test_a_message_is_counted_before_it_is_put_back(fd: ModuleType) -> None:
    """Who looks for messages asks for the count, so a handler between the two must not find less than there is."""
    with link(fd) as (connection, _):

        class Inbox(collections.deque[Any]):
            def appendleft(self, item: Any) -> None:
                super().appendleft(item)
                raise KeyboardInterrupt

        connection._inbox = Inbox()
        with pytest.raises(KeyboardInterrupt):
            connection._put_back(b"message")
        assert connection.recv(TIMEOUT) == b"message"
        assert connection._inbox_frames == connection._inbox_bytes == 0


def test_a_violation_that_the_service_deals_with_meanwhile(fd: ModuleType) -> None:
    """It forgets the error as soon as recv() has seen it; the cause is told all the same."""
    only_pure(fd)
    error = fd.exceptions.ProtocolError("mine")
    with link(fd, close_timeout=0.05) as (connection, peer):
        looks = []

        def look(_: Any) -> Any:
            looks.append(1)
            return error if len(looks) == 1 else None

        violation = property(look, lambda _, value: None)
        connection.__class__ = type("Forgetting", (type(connection),), {"_violation": violation})
        peer.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.recv()
        assert caught.value.__cause__ is error


@pytest.mark.parametrize("name", ["ping", "pong"])
def test_control_frames_interrupted_at_every_place(fd: ModuleType, name: str) -> None:
    only_pure(fd)
    place = 0
    interrupted = True
    while interrupted:
        with link(fd) as (connection, peer):
            interrupted = interrupted_at(place, getattr(connection, name), b"first")
            connection.send(b"second", timeout=TIMEOUT)
            while (payload := peer.receive()[2]) != b"second":
                assert payload == b"first"
            peer.send(BINARY, b"answer")
            assert connection.recv(TIMEOUT) == b"answer"
        place += 1
    assert place > 20


def test_close_interrupted_at_every_place(fd: ModuleType) -> None:
    """Another close() ends it."""
    only_pure(fd)
    place = 0
    interrupted = True
    while interrupted:
        with link(fd, close_timeout=TIMEOUT) as (connection, peer):
            with Background(lambda: (peer.receive(), peer.send_close(1000), peer.close())):
                interrupted = interrupted_at(place, connection.close)
                connection.close()
            assert connection.state is fd.protocol.State.CLOSED
        place += 1
    assert place > 100
