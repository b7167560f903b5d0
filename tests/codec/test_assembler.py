"""The assembler: one message out of payload pieces, whole or by fragments."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest


def begun(fd: ModuleType, text: bool) -> Any:
    assembler = fd.codec.Assembler()
    assembler.start(text)
    return assembler


def test_states(fd: ModuleType) -> None:
    assembler = fd.codec.Assembler()
    assert (assembler.active, assembler.text, assembler.fragments) == (False, False, 0)
    assembler.start(True)
    assert (assembler.active, assembler.text, assembler.fragments) == (True, True, 0)
    assembler.append(b"a")
    assembler.end_fragment(False)
    assert assembler.fragments == 1
    assembler.reset()
    assert (assembler.active, assembler.text, assembler.fragments) == (False, False, 0)


@pytest.mark.parametrize("text", [False, True])
def test_empty_message(fd: ModuleType, text: bool) -> None:
    assembler = begun(fd, text)
    assembler.end_fragment(True)
    assert assembler.finish() == ("" if text else b"", None)
    assert not assembler.active


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("alphabet", ["ab", "aé", "a€", "a😀", "é€😀"])
@pytest.mark.parametrize("size", [1, 100, 70_000, 300_000])
def test_text_in_pieces(fd: ModuleType, alphabet: str, size: int, as_bytes: bool) -> None:
    rng = random.Random(size)
    text = "a" * (size // 2) + "".join(rng.choices(alphabet, k=size // 2))
    data = text.encode()
    assembler = begun(fd, True)
    start = 0
    while start < len(data):
        step = rng.choice([1, 10, 1000, 50_000])
        assembler.append(memoryview(data)[start : start + step])
        start += step
    assembler.end_fragment(True)
    assert assembler.finish(as_bytes) == (data if as_bytes else text, None)


def test_bounds(fd: ModuleType) -> None:
    assembler = begun(fd, False)
    for piece in (b"abc", b"", b"defg"):
        assembler.append(piece)
        assembler.end_fragment(piece == b"defg")
    assert assembler.finish() == (b"abcdefg", (3, 3, 7))


@pytest.mark.parametrize("taken", [0, 1, 500])
def test_too_many_bounds_are_joined(fd: ModuleType, taken: int) -> None:
    assembler = begun(fd, False)
    for number in range(3000):
        assembler.append(b"a")
        assembler.end_fragment(number == 2999)
        if number == 1023:
            assert [assembler.take_fragment() for _ in range(taken)] == [b"a"] * taken
    assert assembler.fragments == 1024
    left = [assembler.take_fragment() for _ in range(assembler.fragments)]
    assert b"".join(left) == b"a" * (3000 - taken)
    assert assembler.take_fragment() is None


@pytest.mark.parametrize("text", [False, True])
def test_fragments_are_taken_as_they_come(fd: ModuleType, text: bool) -> None:
    assembler = begun(fd, text)
    assert assembler.take_fragment() is None
    rng = random.Random(1)
    sent = [bytes(rng.choices(b"abc", k=rng.choice([0, 1, 50, 70_000]))) for _ in range(50)]
    waiting: list[bytes] = []
    for number, piece in enumerate(sent):
        assembler.append(piece[:10])
        assert assembler.fragments == len(waiting)
        assembler.append(piece[10:])
        assembler.end_fragment(number == len(sent) - 1)
        waiting.append(piece)
        while waiting and rng.random() < 0.5:
            assert assembler.take_fragment() == waiting.pop(0)
    assert [assembler.take_fragment() for _ in waiting] == waiting
    assert assembler.fragments == 0


def test_rest_after_some_fragments(fd: ModuleType) -> None:
    assembler = begun(fd, True)
    assembler.append("né".encode())
    assembler.end_fragment(False)
    assert assembler.take_fragment() == "né".encode()
    assembler.append("où".encode())
    assembler.end_fragment(True)
    assert assembler.finish()[0] == "où"


@pytest.mark.parametrize("before", [0, 10, 40_000])
def test_bad_text_in_any_piece(fd: ModuleType, before: int) -> None:
    assembler = begun(fd, True)
    assembler.append(b"a" * before)
    assembler.append(b"\xe2\x82")
    with pytest.raises(UnicodeDecodeError, match=f"invalid byte at offset {before + 2}"):
        assembler.append(b"a")


def test_text_may_be_split_within_a_character_but_not_end_there(fd: ModuleType) -> None:
    assembler = begun(fd, True)
    assembler.append(b"a\xe2")
    assembler.end_fragment(False)
    assembler.append(b"\x82")
    with pytest.raises(UnicodeDecodeError, match="unexpected end of text at offset 3"):
        assembler.end_fragment(True)


def test_binary_is_not_checked(fd: ModuleType) -> None:
    assembler = begun(fd, False)
    assembler.append(b"\xff")
    assembler.end_fragment(True)
    assert assembler.finish() == (b"\xff", None)


def test_start_forgets_the_message_before(fd: ModuleType) -> None:
    assembler = begun(fd, True)
    assembler.append(b"\xe2")
    assembler.start(True)
    assembler.append(b"ok")
    assembler.end_fragment(True)
    assert assembler.finish() == ("ok", None)


@pytest.mark.parametrize("data", ["text", 5, None])
def test_only_bytes(fd: ModuleType, data: Any) -> None:
    with pytest.raises(TypeError):
        begun(fd, False).append(data)


def test_message_is_its_own(fd: ModuleType) -> None:
    """What was handed out does not change with the next message."""
    assembler = begun(fd, False)
    assembler.append(b"a" * 100_000)
    assembler.end_fragment(True)
    first, _ = assembler.finish()
    assembler.start(False)
    assembler.append(b"b" * 100_000)
    assembler.end_fragment(True)
    second, _ = assembler.finish()
    assert (set(first), set(second)) == ({ord("a")}, {ord("b")})
