"""recv_streaming(): one message, fragment by fragment."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest

from .links import BINARY, CLOSE, CONT, PING, PONG, TEXT, Background, eventually, link


@pytest.fixture(params=[False, True], ids=["plain", "deflate"])
def extensions(request: pytest.FixtureRequest, fd: ModuleType) -> list[Any]:
    """None, or permessage-deflate, with a peer that does not compress."""
    deflate = fd.extensions.permessage_deflate.PerMessageDeflate
    return [deflate(True, True, 15, 15)] if request.param else []


def test_each_fragment_comes_as_soon_as_it_is_here(fd: ModuleType, extensions: list[Any]) -> None:
    with link(fd, extensions=extensions) as (connection, peer):
        fragments = connection.recv_streaming()
        peer.send(TEXT, b"one", fin=False)
        assert next(fragments) == "one"
        peer.send(CONT, b"two", fin=False)
        assert next(fragments) == "two"
        peer.send(PING, b"between")
        peer.send(CONT, b"")
        assert next(fragments) == ""
        with pytest.raises(StopIteration):
            next(fragments)
        peer.expect(PONG, b"between")
        peer.send(TEXT, b"next")
        assert connection.recv() == "next"


def test_binary_and_whole_messages(fd: ModuleType, extensions: list[Any]) -> None:
    with link(fd, extensions=extensions) as (connection, peer):
        peer.send(BINARY, b"whole")
        peer.send(BINARY, b"1", fin=False)
        peer.send(CONT, b"2")
        peer.send(TEXT, b"text")
        assert list(connection.recv_streaming()) == [b"whole"]
        assert list(connection.recv_streaming()) == [b"1", b"2"]
        assert list(connection.recv_streaming(decode=False)) == [b"text"]
        peer.send(BINARY, b"text")
        assert list(connection.recv_streaming(decode=True)) == ["text"]


def test_nothing_happens_before_iteration(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        never = connection.recv_streaming()
        peer.send(TEXT, b"message")
        assert connection.recv() == "message"
        never.close()
        peer.send(TEXT, b"another")
        assert connection.recv() == "another"


def test_a_split_character_comes_with_the_later_fragment(
    fd: ModuleType, extensions: list[Any]
) -> None:
    euro = "€".encode()
    with link(fd, extensions=extensions) as (connection, peer):
        fragments = connection.recv_streaming()
        peer.send(TEXT, b"a" + euro[:1], fin=False)
        assert next(fragments) == "a"
        peer.send(CONT, euro[1:2], fin=False)
        assert next(fragments) == ""
        peer.send(CONT, euro[2:] + b"b")
        assert list(fragments) == ["€b"]


def test_what_was_read_ahead_keeps_its_fragments(fd: ModuleType, extensions: list[Any]) -> None:
    with link(fd, extensions=extensions) as (connection, peer):
        peer.send(TEXT, b"one", fin=False)
        peer.send(CONT, b"two", fin=False)
        peer.send(CONT, b"")
        eventually(lambda: len(connection._inbox) == 1)
        assert list(connection.recv_streaming()) == ["one", "two", ""]


def test_what_is_read_ahead_meanwhile_stays_in_order(fd: ModuleType, extensions: list[Any]) -> None:
    """The rest of the message and the next ones arrive while nobody reads."""
    with link(fd, extensions=extensions) as (connection, peer):
        fragments = connection.recv_streaming()
        peer.send(TEXT, b"one", fin=False)
        assert next(fragments) == "one"
        peer.send(CONT, b"two", fin=False)
        peer.send(CONT, b"three")
        peer.send(BINARY, b"next")
        peer.send(BINARY, b"next but one")
        eventually(lambda: len(connection._inbox) == 2)
        with pytest.raises(fd.exceptions.ConcurrencyError):
            connection.recv()
        assert list(fragments) == ["two", "three"]
        assert connection.recv() == b"next"
        assert list(connection.recv_streaming()) == [b"next but one"]


def test_half_a_message_was_read_ahead(fd: ModuleType, extensions: list[Any]) -> None:
    """The service thread has begun to put a message together when streaming begins."""
    with link(fd, extensions=extensions) as (connection, peer):
        peer.send(TEXT, b"one", fin=False)
        peer.send(PING, b"read?")
        peer.expect(PONG, b"read?")
        fragments = connection.recv_streaming()
        assert next(fragments) == "one"
        peer.send(CONT, b"two", fin=False)
        assert next(fragments) == "two"
        peer.send(CONT, b"three")
        assert list(fragments) == ["three"]


def test_abandoned_half_way_others_get_errors(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        fragments = connection.recv_streaming()
        peer.send(TEXT, b"one", fin=False)
        assert next(fragments) == "one"
        fragments.close()
        peer.send(CONT, b"two")
        peer.send(TEXT, b"three")
        eventually(lambda: connection._inbox)
        for function in (
            connection.recv,
            lambda: connection.recv(timeout=0),
            lambda: next(connection.recv_streaming()),
            lambda: connection.recv_into(bytearray(10)),
        ):
            with pytest.raises(fd.exceptions.ConcurrencyError):
                function()
        peer.close()


@pytest.mark.parametrize("how", ["abandoned", "suspended"])
def test_a_message_that_was_read_ahead_is_streamed_to_its_end(fd: ModuleType, how: str) -> None:
    """Whether or not it is here already: others must wait until it is consumed."""
    with link(fd) as (connection, peer):
        peer.send(TEXT, b"one", fin=False)
        peer.send(CONT, b"two", fin=False)
        peer.send(CONT, b"three")
        peer.send(TEXT, b"next")
        eventually(lambda: len(connection._inbox) == 2)
        fragments = connection.recv_streaming()
        assert next(fragments) == "one"
        if how == "abandoned":
            fragments.close()
        for function in (
            lambda: connection.recv(timeout=0),
            lambda: next(connection.recv_streaming()),
            lambda: connection.recv_into(bytearray(10)),
        ):
            with pytest.raises(fd.exceptions.ConcurrencyError):
                function()
        if how == "suspended":
            assert fd.wait([connection], 0) == [connection]
            assert list(fragments) == ["two", "three"]
            assert connection.recv() == "next"


def test_a_timeout_loses_nothing_before_streaming(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send(TEXT, b"one", fin=False)
        with pytest.raises(TimeoutError):
            connection.recv(timeout=0)
        peer.send(CONT, b"two")
        assert "".join(connection.recv_streaming()) == "onetwo"


def test_the_end_in_the_midst_of_a_message(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        fragments = connection.recv_streaming()
        peer.send(TEXT, b"one", fin=False)
        assert next(fragments) == "one"
        peer.close()
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            next(fragments)
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            connection.recv()


def test_a_close_frame_between_fragments_is_legal(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        fragments = connection.recv_streaming()
        peer.send(TEXT, b"one", fin=False)
        assert next(fragments) == "one"
        peer.send_close(1000)
        with (
            Background(lambda: (peer.expect_close(1000), peer.close())),
            pytest.raises(fd.exceptions.ConnectionClosedOK),
        ):
            next(fragments)


@pytest.mark.parametrize("ahead", [False, True])
def test_bad_utf8_in_a_later_fragment(fd: ModuleType, ahead: bool, extensions: list[Any]) -> None:
    with link(fd, extensions=extensions) as (connection, peer):
        fragments = connection.recv_streaming()
        peer.send(TEXT, b"one", fin=False)
        assert next(fragments) == "one"
        peer.send(CONT, b"two", fin=False)
        if not ahead:
            assert next(fragments) == "two"
        peer.send(CONT, b"\xff", fin=False)
        if ahead:
            assert next(fragments) == "two"
        with (
            Background(lambda: (peer.expect_close(1007), peer.close())),
            pytest.raises(fd.exceptions.ConnectionClosedError) as caught,
        ):
            next(fragments)
        assert caught.value.sent.code == 1007


def test_an_incomplete_character_at_the_end(fd: ModuleType, extensions: list[Any]) -> None:
    with link(fd, extensions=extensions) as (connection, peer):
        peer.send(TEXT, b"one", fin=False)
        peer.send(CONT, b"\xe2\x82")
        with (
            Background(lambda: (peer.expect_close(1007), peer.close())),
            pytest.raises(fd.exceptions.ConnectionClosedError),
        ):
            list(connection.recv_streaming())


def test_binary_streamed_as_str_is_checked(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send(BINARY, b"one", fin=False)
        peer.send(CONT, b"\xff")
        fragments = connection.recv_streaming(decode=True)
        assert next(fragments) == "one"
        with (
            Background(lambda: (peer.expect_close(1007), peer.close())),
            pytest.raises(fd.exceptions.ConnectionClosedError),
        ):
            next(fragments)


def test_close_wakes_streaming(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        fragments = connection.recv_streaming()
        peer.send(TEXT, b"one", fin=False)
        assert next(fragments) == "one"
        with Background(lambda: next(fragments)) as receiver:
            eventually(lambda: connection._reader.owner == 1)
            with Background(peer.answer_close):
                connection.close()
            with pytest.raises(fd.exceptions.ConnectionClosedOK):
                receiver.result()


def test_r3_a_message_of_very_many_fragments_is_whole(
    fd: ModuleType, extensions: list[Any]
) -> None:
    """Beyond some number of fragments their borders are forgotten: they cost no memory."""
    with link(fd, extensions=extensions) as (connection, peer):
        count = 3000
        data = peer.frame(TEXT, b"a", fin=False)
        data += peer.frame(CONT, b"b", fin=False) * count + peer.frame(CONT, b"c")
        with Background(lambda: peer.sock.sendall(data)):
            eventually(lambda: len(connection._inbox) == 1)
            fragments = list(connection.recv_streaming())
        assert "".join(fragments) == "a" + "b" * count + "c"
        assert 1000 < len(fragments) < count


def test_the_limit_of_a_message_holds_while_it_is_streamed(
    fd: ModuleType, extensions: list[Any]
) -> None:
    with link(fd, max_size=10, extensions=extensions) as (connection, peer):
        fragments = connection.recv_streaming()
        peer.send(BINARY, b"123456", fin=False)
        assert next(fragments) == b"123456"
        peer.send(CONT, b"12345")
        with (
            Background(lambda: (peer.expect_close(1009), peer.close())),
            pytest.raises(fd.exceptions.ConnectionClosedError),
        ):
            next(fragments)


def test_r3_reading_ahead_while_streaming_is_bounded(fd: ModuleType) -> None:
    with link(fd, max_size=None) as (connection, peer):
        fragments = connection.recv_streaming()
        peer.send(BINARY, b"begin", fin=False)
        assert next(fragments) == b"begin"
        piece = bytes(65536)
        total = 100

        def flood() -> None:
            for _ in range(total):
                peer.send(CONT, piece, fin=False)
            peer.send(CONT, b"end")

        with Background(flood):
            eventually(lambda: connection._inbox_full())
            assert connection._inbox_bytes < 4 * 2**20
            received = b"".join(fragments)
        assert len(received) == total * len(piece) + 3
        with Background(peer.answer_close):
            connection.close()
        with pytest.raises(fd.exceptions.ConnectionClosedOK):
            next(connection.recv_streaming())


def test_close_code_after_streaming(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        peer.send(TEXT, b"all")
        peer.send_close(1001, "bye")
        peer.expect(CLOSE)
        assert list(connection.recv_streaming()) == ["all"]
        peer.close()
        with pytest.raises(fd.exceptions.ConnectionClosedOK):
            next(connection.recv_streaming())
        assert (connection.close_code, connection.close_reason) == (1001, "bye")


def test_other_calls_do_not_disturb_who_streams(fd: ModuleType) -> None:
    """Neither one that comes while the role is free between fragments, nor one that has just taken it."""
    with link(fd) as (connection, peer):
        peer.send(TEXT, b"one", fin=False)
        stream = connection.recv_streaming()
        assert next(stream) == "one"
        for call in (connection.recv, lambda: connection.recv_into(bytearray(9))):
            with pytest.raises(fd.exceptions.ConcurrencyError, match="recv_streaming"):
                call()
        with pytest.raises(fd.exceptions.ConcurrencyError, match="recv_streaming"):
            next(connection.recv_streaming())
        assert (
            connection._reader.try_acquire(1) == 0
        )  # as one that is about to find that it must not be
        leave = threading.Timer(0.02, connection._leave_reader)
        leave.start()
        peer.send(CONT, b"two")
        assert "".join(stream) == "two"
        leave.join()


def test_nothing_is_left_of_a_message_that_cannot_be_decoded(fd: ModuleType) -> None:
    with link(fd, close_timeout=0.05) as (connection, peer):
        peer.send(BINARY, b"\xff", fin=False)
        peer.send(CONT, b"one", fin=False)
        peer.send(CONT, b"two")
        eventually(lambda: len(connection._inbox) == 1)
        for _ in range(2):
            with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
                list(connection.recv_streaming(decode=True))
            assert caught.value.sent.code == 1007
        assert connection._inbox_bytes == 0
