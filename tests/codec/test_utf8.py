"""UTF-8: what is valid, where it stops being so, and how it becomes a str."""

from __future__ import annotations

import random
from types import ModuleType

import pytest

# Each: bytes, and the offset of the first byte that can no longer be right.
INVALID = [
    (b"\x80", 0),
    (b"\xbf", 0),
    (b"\xc0\xaf", 0),
    (b"\xc1\xbf", 0),
    (b"\xc2\x41", 1),
    (b"\xc3\xc3", 1),
    (b"\xe0\x9f\xbf", 1),
    (b"\xe0\xa0\x41", 2),
    (b"\xe1\x80\xc0", 2),
    (b"\xed\xa0\x80", 1),
    (b"\xed\xbf\xbf", 1),
    (b"\xf0\x8f\xbf\xbf", 1),
    (b"\xf0\x90\x41", 2),
    (b"\xf0\x90\x80\x41", 3),
    (b"\xf4\x90\x80\x80", 1),
    (b"\xf5\x80\x80\x80", 0),
    (b"\xff", 0),
    (b"\xfe", 0),
    (b"\xf8\x88\x80\x80\x80", 0),
]
UNFINISHED = [b"\xc2", b"\xe0\xa0", b"\xe1", b"\xed\x9f", b"\xf0\x90\x80", b"\xf4\x8f\xbf", b"\xf1"]
VALID = [
    "",
    "a",
    "é",
    "€",
    "😀",
    "\x00",
    "\x7f\x80",
    "\u07ff\u0800",
    "\ud7ff\ue000",
    "\uffff\U00010000\U0010ffff",
]


def position(fd: ModuleType, chunks: list[bytes]) -> tuple[str, bytes]:
    """Feed chunks until the error; returns its reason and its object."""
    validator = fd.codec.Utf8Validator()
    with pytest.raises(UnicodeDecodeError) as caught:
        for chunk in chunks:
            validator.feed(chunk)
        validator.finish()
    exc = caught.value
    assert (exc.encoding, exc.start, exc.end) == ("utf-8", 0, len(exc.object))
    return exc.reason, exc.object


@pytest.mark.parametrize("text", VALID)
def test_valid(fd: ModuleType, text: str) -> None:
    data = text.encode()
    assert fd.codec.decode_text(data) == text
    for cut in range(len(data) + 1):
        validator = fd.codec.Utf8Validator()
        validator.feed(data[:cut])
        validator.feed(data[cut:])
        validator.finish()


@pytest.mark.parametrize(("data", "offset"), INVALID)
@pytest.mark.parametrize("before", [0, 1, 13, 15, 16, 17, 29, 31, 32, 33, 61, 63, 64, 65, 127, 128])
def test_invalid_at_block_borders(fd: ModuleType, data: bytes, offset: int, before: int) -> None:
    whole = b"a" * before + data
    expected = f"invalid byte at offset {before + offset}", data[offset : offset + 1]
    assert position(fd, [whole]) == expected
    assert position(fd, [whole + b"b" * 70]) == expected
    assert position(fd, [bytes([byte]) for byte in whole]) == expected
    for cut in range(before, len(whole)):
        assert position(fd, [whole[:cut], whole[cut:]]) == expected


@pytest.mark.parametrize("data", UNFINISHED)
@pytest.mark.parametrize("before", [0, 1, 15, 16, 31, 63, 64])
def test_unfinished(fd: ModuleType, data: bytes, before: int) -> None:
    whole = b"a" * before + data
    expected = f"unexpected end of text at offset {len(whole)}", b""
    assert position(fd, [whole]) == expected
    assert position(fd, [bytes([byte]) for byte in whole]) == expected


@pytest.mark.parametrize("data", UNFINISHED)
def test_what_is_unfinished_may_go_on(fd: ModuleType, data: bytes) -> None:
    validator = fd.codec.Utf8Validator()
    validator.feed(data)
    with pytest.raises(UnicodeDecodeError, match=f"invalid byte at offset {len(data)}"):
        validator.feed(b"A")


def test_every_pair_of_bytes(fd: ModuleType) -> None:
    for first in range(0x80, 0x100):
        for second in range(0x100):
            data = bytes([first, second])
            try:
                expected = data.decode()
            except UnicodeDecodeError:
                with pytest.raises(UnicodeDecodeError):
                    fd.codec.decode_text(data)
            else:
                assert fd.codec.decode_text(data) == expected


@pytest.mark.parametrize("lead", range(0xE0, 0xF5))
def test_every_second_and_third_byte(fd: ModuleType, lead: int) -> None:
    tail = b"\x80" if lead >= 0xF0 else b""
    for second in (0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0):
        for third in (0x7F, 0x80, 0xBF, 0xC0, 0xFF):
            data = bytes([lead, second, third]) + tail
            try:
                data.decode()
            except UnicodeDecodeError:
                with pytest.raises(UnicodeDecodeError):
                    fd.codec.decode_text(b"x" * 30 + data)
            else:
                assert fd.codec.decode_text(b"x" * 30 + data) == "x" * 30 + data.decode()


@pytest.mark.parametrize(
    "alphabet", ["az", "aé", "a€", "é€", "a😀", "aé€😀", "\x80\xff", "\u0800\uffff"]
)
@pytest.mark.parametrize("size", [1, 7, 16, 63, 64, 65, 1000, 40_000])
def test_decoding_to_every_kind_of_str(fd: ModuleType, alphabet: str, size: int) -> None:
    rng = random.Random(size)
    text = "".join(rng.choices(alphabet, k=size))
    assert fd.codec.decode_text(text.encode()) == text


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000, 40_000])
def test_is_ascii(fd: ModuleType, size: int) -> None:
    data = bytearray(b"\x7f" * size)
    assert fd.codec.is_ascii(data) is True
    for index in {0, size // 2, size - 1} if size else set():
        data[index] = 0x80
        assert fd.codec.is_ascii(bytes(data)) is False
        data[index] = 0x00


@pytest.mark.parametrize("size", [32768, 100_000])
def test_long_chunks_that_let_other_threads_run(fd: ModuleType, size: int) -> None:
    good = ("é" * (size // 2)).encode()
    validator = fd.codec.Utf8Validator()
    validator.feed(good)
    with pytest.raises(UnicodeDecodeError, match=f"invalid byte at offset {2 * len(good)}"):
        validator.feed(good + b"\xff")


def test_only_bytes(fd: ModuleType) -> None:
    for call in (fd.codec.decode_text, fd.codec.is_ascii, fd.codec.Utf8Validator().feed):
        with pytest.raises(TypeError):
            call("text")
