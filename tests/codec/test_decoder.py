"""The decoder: whole messages, fragments and frames out of bytes in any pieces (RFC 6455 §5)."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from .wire import (
    BINARY,
    CLOSE,
    CONT,
    KEY,
    PING,
    PONG,
    TEXT,
    error_of,
    frame,
    header,
    pull_all,
    put,
    receive,
)

MODES = ["pull", "pull_fragment", "pull_frame"]
PIECES = [1, 2, 3, 7, 1000, 5000, 1 << 30]


def feed(decoder: Any, data: bytes) -> None:
    decoder.feed(data)


@pytest.fixture(params=[feed, receive], ids=["feed", "get_buffer"])
def way(request: pytest.FixtureRequest) -> Callable[[Any, bytes], None]:
    """The two ways of putting bytes in."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[None, KEY], ids=["unmasked", "masked"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "size", [0, 1, 125, 126, 127, 4095, 4096, 5000, 65535, 65536, 70_000, 300_000]
)
@pytest.mark.parametrize("piece", PIECES[3:])
def test_binary_of_every_length_form(
    fd: ModuleType, way: Any, key: bytes | None, size: int, piece: int
) -> None:
    decoder = fd.codec.Decoder(masked=key is not None)
    payload = random.Random(size).randbytes(size)
    data = header(BINARY, size, key=key) + (
        payload if key is None else fd.codec.apply_mask(payload, key)
    )
    for start in range(0, len(data), piece):
        assert decoder.pull() is None
        way(decoder, data[start : start + piece])
    assert decoder.pull() == payload
    assert (decoder.opcode, decoder.fin, decoder.rsv, decoder.frames, decoder.bounds) == (
        BINARY,
        True,
        0,
        1,
        None,
    )
    assert (decoder.frames_received, decoder.messages_received, decoder.payload_received) == (
        1,
        1,
        size,
    )
    assert decoder.pull() is None
    assert not decoder.mid_message


@pytest.mark.parametrize("text", ["", "a", "é", "a€", "😀b", "\x00", "a" * 50 + "é"])
@pytest.mark.parametrize("times", [1, 100, 20_000])
@pytest.mark.parametrize("piece", [3, 1000, 1 << 30])
def test_text(
    fd: ModuleType, way: Any, key: bytes | None, text: str, times: int, piece: int
) -> None:
    decoder = fd.codec.Decoder(masked=key is not None)
    data = (text * times).encode()
    encoded = header(TEXT, len(data), key=key) + (
        data if key is None else fd.codec.apply_mask(data, key)
    )
    piece = max(piece, len(encoded) // 1000)
    for as_bytes in (False, True):
        for start in range(0, len(encoded), piece):
            way(decoder, encoded[start : start + piece])
            if start + piece < len(encoded):
                assert decoder.pull(as_bytes) is None
        assert decoder.pull(as_bytes) == (data if as_bytes else text * times)
        assert decoder.opcode == TEXT


@pytest.mark.parametrize("before", [0, 10, 65_535, 65_536, 65_537, 140_000])
@pytest.mark.parametrize("mode", MODES)
def test_large_text_is_received_in_place(
    fd: ModuleType, key: bytes | None, mode: str, before: int
) -> None:
    """Its storage changes where the first byte comes that is not ASCII: nothing behind it is lost."""
    data = b"a" * before + ("é€😀" * 20_000).encode()
    encoded = data if key is None else fd.codec.apply_mask(data, key)
    decoder = fd.codec.Decoder(masked=key is not None)
    for _ in range(2):  # the second time there is room for all of it at once
        decoder.feed(header(TEXT, len(data), key=key))
        rest = encoded
        while rest:
            assert getattr(decoder, mode)() is None
            rest = rest[put(decoder, rest) :]
        assert getattr(decoder, mode)() == (data.decode() if mode == "pull" else data)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("mode", MODES)
def test_control_frames_between_fragments(fd: ModuleType, way: Any, mode: str, piece: int) -> None:
    data = (
        frame(TEXT, b"\xe2\x82", fin=False)
        + frame(PING, b"p")
        + frame(CONT, b"", fin=False)
        + frame(PONG)
        + frame(CONT, b"\xac!")
        + frame(CLOSE, b"\x03\xe8")
    )
    decoder = fd.codec.Decoder(masked=False)
    found = []
    for start in range(0, len(data), piece):
        way(decoder, data[start : start + piece])
        found += pull_all(decoder, mode)
    control = [(PING, True, b"p"), (PONG, True, b""), (CLOSE, True, b"\x03\xe8")]
    if mode == "pull":
        assert found == [control[0], control[1], (TEXT, True, "€!"), control[2]]
        assert decoder.frames == 3
        assert decoder.bounds == (2, 2, 4)
    else:
        kinds = [TEXT] * 3 if mode == "pull_fragment" else [TEXT, CONT, CONT]
        assert found == [
            (kinds[0], False, b"\xe2\x82"),
            control[0],
            (kinds[1], False, b""),
            control[1],
            (kinds[2], True, b"\xac!"),
            control[2],
        ]
    assert decoder.frames_received == 6
    assert decoder.messages_received == 1
    assert decoder.payload_received == 4


def test_many_frames_of_one_read(fd: ModuleType, way: Any) -> None:
    decoder = fd.codec.Decoder(masked=False)
    messages = [os.urandom(size % 200) for size in range(500)]
    way(decoder, b"".join(frame(BINARY, message) for message in messages))
    assert [data for _, _, data in pull_all(decoder)] == messages


def test_idle_decoders_have_nothing_to_give(fd: ModuleType, way: Any, key: bytes | None) -> None:
    """Idle is between messages and between fragments; never with a byte, within a frame or behind an error."""
    decoder = fd.codec.Decoder(masked=key is not None)
    assert decoder.idle()
    data = frame(TEXT, b"first", fin=False, key=key) + frame(CONT, bytes(9000), key=key)
    idle = []
    for index in range(len(data)):
        way(decoder, data[index : index + 1])
        message = decoder.pull()
        assert not (decoder.idle() and decoder.pending)
        if decoder.idle():
            idle.append(index)
            assert decoder.pull() is None
    assert message == "first" + 9000 * "\0"
    assert idle == [len(frame(TEXT, b"first", key=key)) - 1, len(data) - 1]
    way(decoder, b"\xff\xff")
    assert not decoder.idle()
    for _ in range(2):
        with pytest.raises(fd.exceptions.ProtocolError):
            decoder.pull()
        assert not decoder.idle()


def test_message_goes_on_as_fragments(fd: ModuleType, way: Any) -> None:
    """A message that was begun as a whole may be finished fragment by fragment."""
    decoder = fd.codec.Decoder(masked=False)
    way(decoder, frame(TEXT, b"abc", fin=False) + frame(CONT, b"de", fin=False))
    assert decoder.pull() is None
    assert decoder.mid_message
    way(decoder, frame(CONT, b"f") + frame(TEXT, b"next"))
    assert pull_all(decoder, "pull_fragment") == [
        (TEXT, False, b"abc"),
        (TEXT, False, b"de"),
        (TEXT, True, b"f"),
        (TEXT, True, b"next"),
    ]


def test_borders_of_many_fragments_are_joined(fd: ModuleType) -> None:
    decoder = fd.codec.Decoder(masked=False)
    decoder.feed(frame(BINARY, b"a", fin=False))
    decoder.feed(b"".join(frame(CONT, b"b", fin=False) for _ in range(2000)))
    decoder.feed(frame(CONT, b"c"))
    assert decoder.pull() == b"a" + b"b" * 2000 + b"c"
    assert decoder.frames == 2002
    assert len(decoder.bounds) == 1024
    assert decoder.bounds[-1] == 2002


@pytest.mark.parametrize("mode", MODES)
def test_r5_header_alone_decides(fd: ModuleType, mode: str) -> None:
    """Every rule about the first two bytes is applied before anything behind them has come."""
    cases = [
        (bytes([0xC2, 0x80]), "reserved bits must be 0"),
        (bytes([0xA2, 0x80]), "reserved bits must be 0"),
        (bytes([0x92, 0x80]), "reserved bits must be 0"),
        *(
            (bytes([0x80 | opcode, 0x80]), f"invalid opcode: {opcode:#04x}")
            for opcode in (3, 4, 5, 6, 7)
        ),
        *(
            (bytes([0x80 | opcode, 0x80]), f"invalid opcode: {opcode:#04x}")
            for opcode in (11, 12, 13, 14, 15)
        ),
        (bytes([0x82, 0x00]), "incorrect masking"),
        (bytes([0x88, 0xFE]), "control frame too long"),
        (bytes([0x89, 0xFE]), "control frame too long"),
        (bytes([0x8A, 0xFF]), "control frame too long"),
        (bytes([0x08, 0x80]), "fragmented control frame"),
        (bytes([0x09, 0xFD]), "fragmented control frame"),
        (bytes([0x80, 0x80]), "unexpected continuation frame"),
        (bytes([0x00, 0xFF]), "unexpected continuation frame"),
    ]
    for data, text in cases:
        decoder = fd.codec.Decoder(masked=True)
        decoder.feed(data[:1])
        assert pull_all(decoder, mode) == []
        decoder.feed(data[1:])
        assert error_of(fd, decoder, mode) == ("ProtocolError", text)


@pytest.mark.parametrize("allowed", [4, 7])
@pytest.mark.parametrize("opcode", [CONT, TEXT, BINARY, CLOSE, PING, PONG])
def test_r5_header_alone_decides_where_reserved_bits_may_be(
    fd: ModuleType, opcode: int, allowed: int
) -> None:
    """RSV1 marks messages, by their first frame (RFC 7692 §6); all three bits are left to extensions."""
    decoder = fd.codec.Decoder(masked=True)
    decoder.rsv_allowed = allowed
    before = frame(BINARY, fin=False, rsv=4, key=KEY) if opcode == CONT else b""
    decoder.feed(before + bytes([0xC0 | opcode, 0x80 | 5]))
    if before:
        assert decoder.pull_frame() == b""
    if allowed == 7 or opcode in (TEXT, BINARY):
        assert decoder.pull_frame() is None
        decoder.feed(bytes(4) + b"hello")
        assert (decoder.pull_frame(), decoder.rsv) == (b"hello", 4)
    else:
        assert error_of(fd, decoder, "pull_frame") == ("ProtocolError", "reserved bits must be 0")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_new_message_within_a_message(fd: ModuleType, mode: str, opcode: int) -> None:
    decoder = fd.codec.Decoder(masked=False)
    decoder.feed(frame(TEXT, b"a", fin=False) + header(opcode, 1))
    assert error_of(fd, decoder, mode) == ("ProtocolError", "expected a continuation frame")


def test_unmasked_frames_on_the_masked_side_and_back(fd: ModuleType) -> None:
    decoder = fd.codec.Decoder(masked=False)
    decoder.feed(frame(BINARY, b"a", key=KEY))
    assert error_of(fd, decoder) == ("ProtocolError", "incorrect masking")


@pytest.mark.parametrize(
    "length",
    [b"\x7e\x00\x00", b"\x7e\x00\x7d", b"\x7f" + bytes(8), b"\x7f" + (65535).to_bytes(8, "big")],
)
def test_length_must_be_in_its_shortest_form(fd: ModuleType, length: bytes) -> None:
    decoder = fd.codec.Decoder(masked=False)
    decoder.feed(b"\x82" + length[:-1])
    assert decoder.pull() is None
    decoder.feed(length[-1:])
    assert error_of(fd, decoder) == ("ProtocolError", "payload length is not in its shortest form")


@pytest.mark.parametrize("limit", [None, 2**20])
def test_r4_top_bit_of_a_length_is_refused(fd: ModuleType, limit: int | None) -> None:
    for size in (1 << 63, (1 << 63) + 5, (1 << 64) - 1):
        decoder = fd.codec.Decoder(masked=False, max_message=limit)
        decoder.feed(b"\x82\x7f" + size.to_bytes(8, "big"))
        assert error_of(fd, decoder) == ("ProtocolError", "payload length has its highest bit set")


@pytest.mark.parametrize("allowed", [0, 4])
def test_r4_limit_is_compared_without_overflow(fd: ModuleType, allowed: int) -> None:
    """A fragment of 10 bytes and then one of 2**63 - 1: their sum has no place in 64 bits."""
    decoder = fd.codec.Decoder(masked=False, max_message=2**40)
    decoder.rsv_allowed = allowed
    decoder.feed(frame(BINARY, b"a" * 10, fin=False) + b"\x80\x7f" + (2**63 - 1).to_bytes(8, "big"))
    with pytest.raises(fd.exceptions.PayloadTooBig) as caught:
        decoder.pull()
    assert str(caught.value) == (
        f"frame with {2**63 - 1} bytes after reading 10 bytes exceeds limit of {2**40} bytes"
    )


def test_limit_beyond_every_length(fd: ModuleType) -> None:
    decoder = fd.codec.Decoder(
        masked=False, max_message=2**70, max_fragment=2**80, max_fragments=2**90
    )
    decoder.feed(frame(BINARY, b"abc"))
    assert decoder.pull() == b"abc"
    assert decoder.max_message == 2**70


@pytest.mark.parametrize("mode", MODES[:2])
def test_r2_whole_message_counts(fd: ModuleType, mode: str) -> None:
    decoder = fd.codec.Decoder(masked=False, max_message=10)
    decoder.feed(
        frame(BINARY, b"a" * 4, fin=False) + frame(CONT, b"b" * 6) + frame(BINARY, b"c" * 10)
    )
    assert b"".join(data for _, _, data in pull_all(decoder, mode)) == b"aaaabbbbbb" + b"c" * 10
    decoder.feed(
        frame(BINARY, b"a" * 4, fin=False) + frame(CONT, b"b" * 4, fin=False) + header(CONT, 3)
    )
    text = "frame with 3 bytes after reading 8 bytes exceeds limit of 10 bytes"
    assert error_of(fd, decoder, mode) == ("PayloadTooBig", text)


@pytest.mark.parametrize("piece", [1, 100, 1000, 7000, 1 << 30])
def test_r2_frames_leave_counting_to_their_owner(fd: ModuleType, way: Any, piece: int) -> None:
    """`pull_frame` does not count, however a frame came: its owner knows the decoded size."""
    decoder = fd.codec.Decoder(masked=False, max_message=20_000)
    data = frame(BINARY, b"a" * 12_000, fin=False) + frame(CONT, b"b" * 8000)
    for start in range(0, len(data), piece):
        way(decoder, data[start : start + piece])
        for _, _, payload in pull_all(decoder, "pull_frame"):
            decoder.message_size += len(payload)
    assert decoder.message_size == 20_000


@pytest.mark.parametrize("key", [None, KEY])
def test_limit_is_judged_on_the_header(fd: ModuleType, key: bytes | None) -> None:
    decoder = fd.codec.Decoder(masked=key is not None, max_message=1000)
    decoder.feed(header(BINARY, 1001, key=key)[: None if key is None else -4])
    text = "frame with 1001 bytes exceeds limit of 1000 bytes"
    assert error_of(fd, decoder) == ("PayloadTooBig", text)


def test_limit_of_a_fragment(fd: ModuleType) -> None:
    decoder = fd.codec.Decoder(masked=False, max_fragment=5)
    decoder.feed(frame(BINARY, b"a" * 5, fin=False) + frame(CONT, b"b" * 5) + header(BINARY, 6))
    assert decoder.pull() == b"aaaaabbbbb"
    assert error_of(fd, decoder) == ("PayloadTooBig", "frame with 6 bytes exceeds limit of 5 bytes")


def test_limits_do_not_touch_control_frames(fd: ModuleType) -> None:
    decoder = fd.codec.Decoder(masked=False, max_message=0, max_fragment=0)
    decoder.feed(frame(PING, b"a" * 125) + frame(BINARY))
    assert pull_all(decoder) == [(PING, True, b"a" * 125), (BINARY, True, b"")]


@pytest.mark.parametrize("limits", [{"max_message": 800}, {"max_fragment": 800}])
def test_compressed_frames_may_be_a_little_longer(fd: ModuleType, limits: dict[str, int]) -> None:
    """Incompressible data within the limit is longer than the limit once deflated."""
    decoder = fd.codec.Decoder(masked=False, **limits)
    decoder.rsv_allowed = 4
    decoder.feed(frame(BINARY, b"a" * 1924, rsv=4))
    assert decoder.pull_frame() == b"a" * 1924
    assert decoder.rsv == 4
    decoder.feed(header(BINARY, 1925, rsv=4))
    assert error_of(fd, decoder, "pull_frame")[0] == "PayloadTooBig"


def test_number_of_fragments(fd: ModuleType) -> None:
    decoder = fd.codec.Decoder(masked=False, max_fragments=2)
    decoder.feed(
        frame(BINARY, fin=False) + frame(CONT) + frame(BINARY, fin=False) + frame(CONT, fin=False)
    )
    assert decoder.pull() == b""
    decoder.feed(header(CONT, 0))
    assert error_of(fd, decoder) == ("TooManyFragments", str(fd.exceptions.TooManyFragments(2)))


@pytest.mark.parametrize("allowed", [1, 2, 4])
def test_reserved_bits_that_an_extension_uses(fd: ModuleType, allowed: int) -> None:
    decoder = fd.codec.Decoder(masked=False)
    decoder.rsv_allowed = allowed
    decoder.feed(frame(BINARY, b"a", rsv=allowed) + frame(BINARY, b"b", rsv=7 & ~allowed))
    assert decoder.pull_frame() == b"a"
    assert decoder.rsv == allowed
    assert error_of(fd, decoder, "pull_frame") == ("ProtocolError", "reserved bits must be 0")


@pytest.mark.parametrize("mode", MODES)
def test_r6_first_error_is_terminal(fd: ModuleType, way: Any, mode: str) -> None:
    decoder = fd.codec.Decoder(masked=False)
    way(decoder, frame(BINARY, b"before") + frame(3) + frame(BINARY, b"behind"))
    getattr(decoder, mode)()
    with pytest.raises(fd.exceptions.ProtocolError) as first:
        getattr(decoder, mode)()
    pending = decoder.pending
    for _ in range(3):
        way(decoder, frame(BINARY, b"later") * 100)
        for again in MODES:
            with pytest.raises(fd.exceptions.ProtocolError) as later:
                getattr(decoder, again)()
            assert later.value is first.value
    assert decoder.pending == pending


def test_r6_bad_text_is_terminal(fd: ModuleType, way: Any) -> None:
    decoder = fd.codec.Decoder(masked=False)
    way(decoder, frame(TEXT, b"ab\xff") + frame(BINARY, b"behind"))
    for _ in range(3):
        with pytest.raises(UnicodeDecodeError, match="invalid byte at offset 2"):
            decoder.pull()


@pytest.mark.parametrize("mode", MODES[:2])
@pytest.mark.parametrize("size", [100, 10_000, 200_000])
def test_bad_text_fails_as_it_arrives(
    fd: ModuleType, way: Any, key: bytes | None, mode: str, size: int
) -> None:
    decoder = fd.codec.Decoder(masked=key is not None)
    way(decoder, header(TEXT, size, key=key))
    payload = b"a" * 31 + b"\xed\xa0"
    way(decoder, payload if key is None else fd.codec.apply_mask(payload, key))
    assert error_of(fd, decoder, mode)[1].endswith("invalid byte at offset 32")


def test_text_that_ends_within_a_character(fd: ModuleType, way: Any) -> None:
    for data in (
        frame(TEXT, b"a\xe2\x82"),
        frame(TEXT, b"a\xe2", fin=False) + frame(CONT, b"\x82"),
        frame(TEXT, b"a\xe2\x82", fin=False) + frame(CONT),
    ):
        decoder = fd.codec.Decoder(masked=False)
        way(decoder, data)
        assert error_of(fd, decoder)[1].endswith("unexpected end of text at offset 3")


def test_bytes_of_binary_are_not_text(fd: ModuleType, way: Any) -> None:
    decoder = fd.codec.Decoder(masked=False)
    way(decoder, frame(BINARY, b"\xff", fin=False) + frame(CONT, b"\xfe") + frame(TEXT, b"\xff"))
    assert decoder.pull() == b"\xff\xfe"
    assert decoder.pull_frame() == b"\xff"  # frames are not looked into


def test_counters_and_state_between_calls(fd: ModuleType) -> None:
    decoder = fd.codec.Decoder(masked=False)
    assert (decoder.masked, decoder.pending, decoder.mid_message) == (False, 0, False)
    put(decoder, frame(BINARY, b"abc", fin=False)[:3])
    assert decoder.pending == 3
    assert decoder.pull() is None
    assert decoder.mid_message
    assert decoder.message_size == 1


@pytest.mark.parametrize("ascii_start", [0, 70_000, 140_000])
def test_text_behind_its_header_on_a_connection_that_had_a_large_message(
    fd: ModuleType, way: Any, key: bytes | None, ascii_start: int
) -> None:
    # Large pieces are offered to it, and are checked by smaller ones: the first other character
    # comes in the midst of what has been received.
    decoder = fd.codec.Decoder(masked=key is not None)
    decoder.feed(frame(BINARY, bytes(1_000_000), key=bytes(4) if key else None))
    assert pull_all(decoder) == [(BINARY, True, bytes(1_000_000))]
    text = "a" * ascii_start + "Grüße, 世界! 🎉" * 20_000
    payload = text.encode()
    decoder.feed(header(TEXT, len(payload), key=key))
    assert decoder.pull() is None
    way(decoder, payload if key is None else fd.codec.apply_mask(payload, key))
    assert decoder.pull() == text
