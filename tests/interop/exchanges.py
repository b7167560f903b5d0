"""What is tried with every far end: an exchange is a function of an open connection of ours."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Protocol

import pytest

from .programs import TIMEOUT

CODES = (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999)
"""Every code that a close frame may carry (RFC 6455 §7.4), and both ends of the open ranges."""
LARGE = 10_000_000
SIZES = (0, 1, 125, 126, 65535, 65536, 1_000_001)
"""Bytes: both sides of where the header of a frame changes its form."""
TEXT = "Grüße, 世界! 🎉\0"


class FarEnd(Protocol):
    """A program to talk with."""

    fd: ModuleType
    """The implementation of ours that talks to it."""
    fragments: bool
    """It can send a message in fragments."""
    pings: bool
    """It can be told to send pings."""
    codes: tuple[int, ...]
    """What it can close with."""
    answers: int | None
    """The code that it answers all close frames with; `None` if with the one it got."""

    def open(self) -> AbstractContextManager[Any]:
        """Give a connection of ours to it."""

    def saw(self) -> dict[str, Any]:
        """Tell the close frame that it got on the connection that ended last."""


def bytes_of(size: int) -> bytes:
    """Give bytes of all values that do not compress to nothing, nor stay as they are."""
    block = bytes(range(256)) + b"fullduplex" * 10
    return (block * (size // len(block) + 1))[:size]


def echoed(connection: Any, message: str | bytes) -> None:
    """Send a message, and see that it comes back as it was, of its kind."""
    connection.send(message)
    reply = connection.recv(timeout=TIMEOUT)
    # Not compared by assert, which would print ten megabytes.
    if type(reply) is not type(message) or reply != message:
        raise AssertionError(f"sent {message[:50]!r} ({len(message)}), got {reply[:50]!r}")


def text(far: FarEnd) -> None:
    with far.open() as connection:
        for size in SIZES:
            echoed(connection, "x" * size)
        for size in (1, 20, 30_000):
            echoed(connection, TEXT * size)
    assert far.saw()["code"] == 1000


def binary(far: FarEnd) -> None:
    with far.open() as connection:
        for size in SIZES:
            echoed(connection, bytes_of(size))
    assert far.saw()["code"] == 1000


def large(far: FarEnd) -> None:
    with far.open() as connection:
        echoed(connection, bytes_of(LARGE))
        echoed(connection, TEXT * (LARGE // 100))
    assert far.saw()["code"] == 1000


def fragments(far: FarEnd) -> None:
    with far.open() as connection:
        connection.send(["", TEXT, "", "two", "x" * 70_000])
        assert connection.recv(timeout=TIMEOUT) == TEXT + "two" + "x" * 70_000
        connection.send(iter([b"\xff", bytes_of(1000)]))
        assert connection.recv(timeout=TIMEOUT) == b"\xff" + bytes_of(1000)
        if far.fragments:
            connection.send("do fragments one two three")
            assert "".join(connection.recv_streaming()) == "onetwothree"
            connection.send("do fragments one two three")
            assert connection.recv(timeout=TIMEOUT) == "onetwothree"
        echoed(connection, "end")
    assert far.saw()["code"] == 1000


def pings(far: FarEnd) -> None:
    with far.open() as connection:
        for payload in (None, b"", bytes(range(125))):
            assert connection.ping(payload).wait(TIMEOUT)
        if far.pings:
            connection.send("do ping hello")
            assert connection.recv(timeout=TIMEOUT) == "pong hello"
        # Pings between the fragments of a message.
        connection.send(piece for piece in with_ping(connection))
        assert connection.recv(timeout=TIMEOUT) == "aabb"
    assert far.saw()["code"] == 1000


def with_ping(connection: Any) -> Any:
    yield "aa"
    assert connection.ping(b"between").wait(TIMEOUT)
    yield "bb"


def closes_by_us(far: FarEnd) -> None:
    for code in CODES:
        with far.open() as connection:
            echoed(connection, "hello")
            connection.close(code, f"because-{code}-ü")
            assert connection.close_code == (far.answers or code)
        assert far.saw() == {"code": code, "reason": f"because-{code}-ü"}


def closes_by_them(far: FarEnd) -> None:
    for code in far.codes:
        with far.open() as connection:
            connection.send(f"do close {code} because-{code}")
            with pytest.raises(far.fd.exceptions.ConnectionClosed):
                connection.recv(timeout=TIMEOUT)
            assert connection.close_code == code
            assert connection.close_reason == ("" if code == 1005 else f"because-{code}")
        assert far.saw()["code"] == code


EXCHANGES: dict[str, Callable[[FarEnd], None]] = {
    "text": text,
    "binary": binary,
    "10 MB": large,
    "fragments": fragments,
    "pings": pings,
    "closes by us": closes_by_us,
    "closes by them": closes_by_them,
}
