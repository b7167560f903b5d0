"""Receiving, and what a connection tells of itself."""

from __future__ import annotations

import logging
import socket
import time
import uuid
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
    wait_reading,
)


def test_text_is_str_and_binary_is_bytes(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send(TEXT, "café".encode())
        peer.send(BINARY, b"\x00\xff")
        assert connection.recv() == "café"
        data = connection.recv()
        assert data == b"\x00\xff"
        assert type(data) is bytes


@pytest.mark.parametrize("side", ["CLIENT", "SERVER"])
def test_both_sides_mask_as_they_must(fd: ModuleType, side: str) -> None:
    with link(fd, side=side) as (connection, peer):
        peer.send(TEXT, b"question")
        assert connection.recv() == "question"
        connection.send("answer")  # the peer looks at the mask
        peer.expect(TEXT, b"answer")


def test_decode_false_gives_bytes_and_decode_true_gives_str(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        for opcode, payload in ((TEXT, "é"), (BINARY, "é"), (TEXT, "e"), (BINARY, "e")):
            peer.send(opcode, payload.encode())
        assert connection.recv(decode=False) == "é".encode()
        assert connection.recv(decode=True) == "é"
        assert connection.recv(decode=True) == "e"
        assert connection.recv(decode=False) == b"e"


@pytest.mark.parametrize(("opcode", "decode"), [(TEXT, False), (TEXT, None), (BINARY, True)])
def test_bad_utf8_closes_with_1007(fd: ModuleType, opcode: int, decode: bool | None) -> None:
    with link(fd) as (connection, peer):
        peer.send(opcode, b"\xff")
        with (
            Background(lambda: (peer.expect_close(1007), peer.close())),
            pytest.raises(fd.exceptions.ConnectionClosedError) as caught,
        ):
            connection.recv(decode=decode)
        assert caught.value.sent.code == 1007
        assert caught.value.rcvd is None
        assert isinstance(caught.value.__cause__, UnicodeDecodeError)


def test_fragments_are_reassembled_with_control_frames_between(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send(TEXT, b"one " + "€".encode()[:1], fin=False)
        peer.send(PING, b"hello")
        peer.send(CONT, "€".encode()[1:], fin=False)
        peer.send(PONG, b"nobody asked")
        peer.send(CONT, b" three")
        assert connection.recv() == "one € three"
        peer.expect(PONG, b"hello")


def test_empty_messages(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send(TEXT)
        peer.send(BINARY)
        assert connection.recv() == ""
        assert connection.recv() == b""


def test_recv_waits_until_a_message_comes(fd: ModuleType) -> None:
    with link(fd) as (connection, peer), Background(connection.recv) as receiver:
        wait_reading(connection)
        peer.send(TEXT, b"late")
        assert receiver.result() == "late"


@pytest.mark.parametrize("timeout", [0, -1, 0.0])
def test_recv_with_no_time_takes_only_what_is_here(fd: ModuleType, timeout: float) -> None:
    with link(fd) as (connection, peer):
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            connection.recv(timeout=timeout)
        assert time.monotonic() - begin < 5
        peer.send(TEXT, b"here")
        assert connection.recv(timeout=timeout) == "here"


def test_a_second_reader_gets_an_error_and_the_first_is_not_disturbed(fd: ModuleType) -> None:
    with link(fd) as (connection, peer), Background(connection.recv) as receiver:
        wait_reading(connection)
        for function in (
            connection.recv,
            lambda: next(connection.recv_streaming()),
            lambda: connection.recv_into(bytearray(10)),
            lambda: next(iter(connection)),
            lambda: connection.recv(timeout=0),
        ):
            with pytest.raises(fd.exceptions.ConcurrencyError, match="another thread"):
                function()
        assert issubclass(fd.exceptions.ConcurrencyError, RuntimeError)
        peer.send(TEXT, b"for the first")
        assert receiver.result() == "for the first"


def test_iteration_gives_messages_until_a_normal_closure(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send(TEXT, b"one")
        peer.send(BINARY, b"two")
        peer.send_close(1001)
        with Background(lambda: (peer.expect(CLOSE), peer.close())):
            assert list(connection) == ["one", b"two"]
        assert list(connection) == []


def test_iteration_raises_after_an_error(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send(TEXT, b"one")
        peer.close()
        iterator = iter(connection)
        assert next(iterator) == "one"
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            next(iterator)


def test_messages_of_all_sizes_of_header(fd: ModuleType) -> None:
    sizes = [0, 1, 125, 126, 127, 65535, 65536, 70000, 300_000]
    with link(fd) as (connection, peer):
        with Background(lambda: [peer.send(BINARY, bytes([n % 251]) * n) for n in sizes]):
            for size in sizes:
                assert connection.recv() == bytes([size % 251]) * size
        with Background(lambda: [connection.send(bytes([n % 251]) * n) for n in sizes]):
            for size in sizes:
                peer.expect(BINARY, bytes([size % 251]) * size)


# recv_into


def test_recv_into_a_buffer(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send(BINARY, b"binary")
        peer.send(TEXT, "café".encode())
        buffer = bytearray(b"." * 8)
        assert connection.recv_into(buffer) == 6
        assert buffer == b"binary.."
        assert connection.recv_into(memoryview(buffer)[1:]) == 5
        assert buffer == b"b" + "café".encode() + b".."


def test_recv_into_measures_the_buffer_in_bytes(fd: ModuleType) -> None:
    """R20: the size of a buffer is its number of bytes, not of its items."""
    with link(fd) as (connection, peer):
        peer.send(BINARY, b"12345678")
        buffer = memoryview(bytearray(8)).cast("I")
        assert len(buffer) == 2
        assert connection.recv_into(buffer) == 8
        assert buffer.tobytes() == b"12345678"


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_recv_into_a_buffer_too_small_keeps_the_message(
    fd: ModuleType, waiting: bool, compressed: bool
) -> None:
    deflate = fd.extensions.permessage_deflate.PerMessageDeflate
    extensions = [deflate(True, True, 15, 15)] if compressed else []
    with link(fd, extensions=extensions) as (connection, peer):
        peer.send(TEXT, b"tex", fin=False)
        peer.send(CONT, b"t")
        peer.send(BINARY, b"binary")
        if waiting:
            eventually(lambda: len(connection._inbox) == 2)
        for expected in ("text", b"binary"):
            for room in (2, 3):
                with pytest.raises(BufferError):
                    connection.recv_into(bytearray(room))
            assert connection.recv() == expected
        peer.send(TEXT, b"again")
        with pytest.raises(BufferError):
            connection.recv_into(bytearray(4))
        buffer = bytearray(5)
        assert connection.recv_into(buffer) == 5
        assert buffer == b"again"


def test_recv_into_raises_what_recv_raises(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        with pytest.raises(TimeoutError):
            connection.recv_into(bytearray(1), timeout=0)
        with pytest.raises(TypeError):
            connection.recv_into(b"read only")
        peer.close()
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            connection.recv_into(bytearray(1))


# Errors of the peer and of the network


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x83\x00", 1002),  # reserved opcode
        (b"\xc1\x00", 1002),  # reserved bit
        (b"\x80\x00", 1002),  # continuation of nothing
        (b"\x81\x80abcd", 1002),  # masked by a server
        (b"\x09\x00", 1002),  # fragmented ping
        (b"\x88\x01a", 1002),  # half a close code
        (b"\x88\x02\x03\xed", 1002),  # 1005 over the wire
        (b"\x81\x01\xff", 1007),
        (b"\x82\x7f\x00\x00\x00\x00\x7f\xff\xff\xff", 1009),
        (b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", 1002),
    ],
)
@pytest.mark.parametrize("in_recv", [True, False])
def test_r6_the_first_error_is_terminal(
    fd: ModuleType, data: bytes, code: int, in_recv: bool
) -> None:
    """Nothing that comes behind an error is delivered, or answered."""
    with link(fd) as (connection, peer):
        if in_recv:
            with Background(connection.recv) as receiver:
                wait_reading(connection)
                peer.sock.sendall(data + peer.frame(TEXT, b"behind") + peer.frame(PING, b"x"))
                peer.expect_close(code)
                peer.send(TEXT, b"much later")
                peer.close()
                with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
                    receiver.result()
        else:
            peer.sock.sendall(peer.frame(TEXT, b"before") + data + peer.frame(TEXT, b"behind"))
            assert connection.recv() == "before"
            with (
                Background(lambda: (peer.expect_close(code), peer.close())),
                pytest.raises(fd.exceptions.ConnectionClosedError) as caught,
            ):
                connection.recv()
        assert caught.value.sent.code == code
        assert caught.value.rcvd is None
        assert caught.value.__cause__ is not None
        assert connection.close_code == 1006


def test_r6_the_first_error_is_terminal_with_compression(fd: ModuleType) -> None:
    """The frame behind one that cannot be inflated is not delivered."""
    deflate = fd.extensions.permessage_deflate.PerMessageDeflate(False, False, 15, 15)
    with link(fd, extensions=[deflate]) as (connection, peer):
        bad = fd.codec.build_frame(BINARY, b"\xff\xff\xff\xff no deflate", rsv1=True)
        peer.sock.sendall(peer.frame(TEXT, b"before") + bad + peer.frame(TEXT, b"behind"))
        eventually(lambda: connection._violation is not None)  # the service thread found it
        assert connection.recv() == "before"
        with (
            Background(lambda: (peer.expect(CLOSE), peer.close())),
            pytest.raises(fd.exceptions.ConnectionClosedError),
        ):
            connection.recv()
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            connection.recv()


def test_a_message_before_a_violation_may_be_answered(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.sock.sendall(peer.frame(TEXT, b"question") + b"\x83\x00")
        assert connection.recv() == "question"
        connection.send("answer")
        peer.expect(TEXT, b"answer")
        peer.expect_close(1002)


def test_a_violation_is_answered_also_if_nobody_receives(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.sock.sendall(b"\x83\x00")
        peer.expect_close(1002)
        peer.close()
        assert connection.wait_closed(TIMEOUT)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_message_that_is_too_big(fd: ModuleType, compressed: bool) -> None:
    deflate = fd.extensions.permessage_deflate.PerMessageDeflate
    extensions = [deflate(True, True, 15, 15)] if compressed else []
    with link(fd, max_size=10, extensions=extensions) as (connection, peer):
        peer.send(BINARY, b"0123456789")
        assert connection.recv() == b"0123456789"
        peer.send(BINARY, b"01234567890")
        with (
            Background(lambda: (peer.expect_close(1009), peer.close())),
            pytest.raises(fd.exceptions.ConnectionClosedError) as caught,
        ):
            connection.recv()
        assert "11 bytes" in str(caught.value.__cause__)


def faulty_socket(into: list[FaultySocket]) -> Any:
    def wrap(sock: socket.socket) -> FaultySocket:
        into.append(FaultySocket(sock))
        return into[0]

    return wrap


def test_an_error_of_the_network_is_the_cause(fd: ModuleType) -> None:
    faulty: list[FaultySocket] = []
    with link(fd, wrap=faulty_socket(faulty)) as (connection, peer):
        error = ConnectionResetError("reset")
        with Background(connection.recv) as receiver:
            wait_reading(connection)
            faulty[0].faults["recv_into"] = error
            peer.sock.sendall(b"\x81")  # half a header: whoever took it reads again
            with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
                receiver.result()
        assert caught.value.__cause__ is error
        assert str(caught.value) == "no close frame received or sent"


def test_a_bug_in_the_service_thread_ends_its_connection_only(
    fd: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    faulty: list[FaultySocket] = []
    with (
        link(fd) as (_, other_peer),
        link(fd, wrap=faulty_socket(faulty)) as (connection, peer),
    ):
        error = RuntimeError("a socket-like object with a bug")
        faulty[0].faults["recv_into"] = error
        peer.send(TEXT, b"wake")
        assert connection.wait_closed(TIMEOUT)
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.recv()
        assert caught.value.__cause__ is error
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        other_peer.send(PING, b"still served?")
        other_peer.expect(PONG, b"still served?")


def test_a_socket_without_a_descriptor_works_and_holds_up_nobody(fd: ModuleType) -> None:
    class NoDescriptor(FaultySocket):
        def fileno(self) -> int:
            return -1

    with link(fd, wrap=NoDescriptor) as (connection, peer), link(fd) as (_, other_peer):
        other_peer.send(PING, b"hello")
        other_peer.expect(PONG, b"hello")
        with pytest.raises(TimeoutError):
            connection.recv(timeout=0)
        peer.send(TEXT, b"message")
        assert connection.recv() == "message"
        connection.send("answer", timeout=5)
        peer.expect(TEXT, b"answer")


# What a connection tells of itself


def test_attributes(fd: ModuleType) -> None:
    with link(fd) as (connection, _):
        assert isinstance(connection.id, uuid.UUID)
        assert connection.state is fd.protocol.State.OPEN
        for name in ("request", "response", "subprotocol", "close_code", "close_reason"):
            assert getattr(connection, name) is None
        assert connection.latency == 0
        connection.anything = 1
        assert connection.anything == 1
        assert len({connection, connection}) == 1


def test_subclasses_and_keywords(fd: ModuleType) -> None:
    class Mine(fd.sync.connection.Connection):  # type: ignore[name-defined,misc]
        def recv(self, *args: Any, **kwargs: Any) -> Any:
            return "mine: " + super().recv(*args, **kwargs)

    ours, theirs = socket.socketpair()
    with theirs:
        connection = Mine(sock=ours, protocol=fd.protocol.Protocol(fd.protocol.Side.CLIENT))
        theirs.sendall(b"\x81\x02hi")
        assert connection.recv() == "mine: hi"
        theirs.close()
        connection.close()
    with pytest.raises(TypeError):
        Mine(protocol=fd.protocol.Protocol(fd.protocol.Side.CLIENT))
    with socket.socket() as sock, pytest.raises(TypeError):
        Mine(sock)


def test_addresses_also_after_closing(fd: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, address = listener.accept()
        protocol = fd.protocol.Protocol(fd.protocol.Side.CLIENT)
        connection = fd.sync.connection.Connection(ours, protocol)
        for _ in range(2):
            assert connection.local_address == address
            assert connection.remote_address == listener.getsockname()
            theirs.close()
            connection.close()


def test_counters(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        assert connection.counters["messages_received"] == 0
        peer.send(TEXT, b"12", fin=False)
        peer.send(CONT, b"345")
        peer.send(BINARY, b"6")
        connection.recv()
        connection.recv()
        connection.send(b"1234")
        connection.send("5")
        assert connection.counters == {
            "messages_received": 2,
            "frames_received": 3,
            "payload_received": 6,
            "frames_sent": 2,
            "payload_sent": 5,
            "compressed_ratio": 1.0,
        }


def test_log_records_carry_the_connection(fd: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="fullduplex.client")
    with link(fd) as (connection, peer):
        peer.send(TEXT, b"logged")
        assert connection.recv() == "logged"
        connection.send("answer")
        connection.logger.warning("mine")
        texts = [record.getMessage() for record in caplog.records]
        assert any("logged" in text and text.startswith("<") for text in texts)
        assert any("answer" in text and text.startswith(">") for text in texts)
        assert all(vars(record)["websocket"] is connection for record in caplog.records)
        caplog.clear()


@pytest.mark.parametrize("name", ["ping", "pong"])
def test_a_control_frame_that_finds_the_network_gone_says_so(fd: ModuleType, name: str) -> None:
    with link(fd) as (connection, _peer):
        connection.socket.shutdown(socket.SHUT_WR)
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            getattr(connection, name)()
        assert isinstance(caught.value.__cause__, BrokenPipeError)
        assert connection.state is fd.protocol.State.CLOSED


@pytest.mark.parametrize("name", ["ping", "pong"])
def test_a_control_frame_that_finds_the_network_gone_ends_recv(fd: ModuleType, name: str) -> None:
    with link(fd) as (connection, _peer), Background(connection.recv) as receiver:
        wait_reading(connection)
        connection.socket.shutdown(socket.SHUT_WR)
        for call in (getattr(connection, name), receiver.result):
            with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
                call()
            assert isinstance(caught.value.__cause__, BrokenPipeError)
