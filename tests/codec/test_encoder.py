"""The encoder: headers, masking with keys of its own, payloads of every kind."""

from __future__ import annotations

import array
import os
import sys
from types import ModuleType
from typing import Any

import pytest

from .wire import BINARY, CONT, KEY, PING, TEXT, frame, header, xor

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 100_000]


def unmask(data: bytes, size: int) -> tuple[bytes, bytes]:
    """Take a masked frame apart: its key and its payload."""
    start = len(header(BINARY, size, key=KEY))
    key = data[start - 4 : start]
    return key, xor(data[start:], key)


@pytest.mark.parametrize("size", SIZES)
def test_unmasked_frame(fd: ModuleType, size: int) -> None:
    payload = os.urandom(size)
    encoder = fd.codec.Encoder(masked=False)
    assert encoder.frame(0x82, payload) == frame(BINARY, payload)
    assert encoder.header(0x02, size) == header(BINARY, size, fin=False)
    assert (encoder.frames_sent, encoder.payload_sent) == (2, 2 * size)


@pytest.mark.parametrize("size", SIZES)
def test_masked_frame(fd: ModuleType, size: int) -> None:
    payload = os.urandom(size)
    encoder = fd.codec.Encoder(masked=True)
    data = encoder.frame(0xC1, payload)
    key, unmasked = unmask(data, size)
    assert unmasked == payload
    assert data.startswith(header(TEXT, size, rsv=4, key=key))


@pytest.mark.parametrize("text", ["", "ascii", "é", "€" * 100, "😀", "a" * 70_000])
def test_text_becomes_utf8(fd: ModuleType, text: str) -> None:
    assert fd.codec.Encoder(masked=False).frame(0x81, text) == frame(TEXT, text.encode())
    data = fd.codec.Encoder(masked=True).frame(0x81, text)
    assert unmask(data, len(text.encode()))[1] == text.encode()


@pytest.mark.parametrize("text", ["", "ascii", "é", "€" * 100, "😀", "a" * 70_000])
def test_octets_of_a_text(fd: ModuleType, text: str) -> None:
    octets = fd.codec.Encoder(masked=False).octets(text)
    assert bytes(octets) == text.encode()
    view = memoryview(octets)
    assert len(octets) == view.nbytes == len(text.encode())
    assert view.readonly
    assert (view.format, view.contiguous) == ("B", True)
    del octets, text
    assert bytes(view) is not view


@pytest.mark.parametrize("wrong", [b"bytes", None])
def test_octets_of_what_is_no_text(fd: ModuleType, wrong: Any) -> None:
    with pytest.raises(AttributeError):
        fd.codec.Encoder(masked=False).octets(wrong)


def test_octets_of_a_subclass_of_str(fd: ModuleType) -> None:
    class Text(str):
        pass

    assert bytes(fd.codec.Encoder(masked=False).octets(Text("abc"))) == b"abc"


def test_lone_surrogates_have_no_utf8(fd: ModuleType) -> None:
    encoder = fd.codec.Encoder(masked=False)
    with pytest.raises(UnicodeEncodeError):
        encoder.octets("\ud800")
    with pytest.raises(UnicodeEncodeError):
        encoder.frame(0x81, "\ud800")
    assert encoder.frames_sent == 0


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: array.array("H", data)])
def test_r20_payload_is_counted_in_bytes(fd: ModuleType, kind: Any) -> None:
    data = bytes(range(200))
    encoder = fd.codec.Encoder(masked=False)
    assert encoder.frame(0x82, kind(data)) == frame(BINARY, data)
    assert encoder.payload_sent == 200
    masked = fd.codec.Encoder(masked=True).frame(0x82, kind(data))
    assert unmask(masked, 200)[1] == data


@pytest.mark.parametrize("payload", [5, None, 1.5, [1, 2], {"a": 1}])
def test_r20_numbers_are_no_sizes(fd: ModuleType, payload: Any) -> None:
    """bytes(5) would be five bytes of something."""
    encoder = fd.codec.Encoder(masked=False)
    with pytest.raises(TypeError):
        encoder.frame(0x82, payload)
    assert (encoder.frames_sent, encoder.payload_sent) == (0, 0)


def test_r16_every_frame_has_a_fresh_key(fd: ModuleType) -> None:
    """Also behind the block of keys that is drawn at once."""
    encoder = fd.codec.Encoder(masked=True)
    keys = [encoder.frame(0x82, b"")[2:6] for _ in range(1000)]
    keys += [encoder.header(0x82, 0)[2:6] for _ in range(1000)]
    # Two of 2,000 random keys are the same in one run of 2,000; three pairs never are.
    assert len(set(keys)) >= 1998
    counts = [sum(key[index] for key in keys) / len(keys) for index in range(4)]
    assert all(110 < mean < 145 for mean in counts)


def test_r16_keys_come_from_the_system(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: bytes(range(size & 0xFF or 255)) + b"\xff")
    encoder = fd.codec.Encoder(masked=True)
    assert encoder.frame(0x82, b"")[2:6] == bytes([0, 1, 2, 3])
    assert encoder.frame(0x82, b"")[2:6] == bytes([4, 5, 6, 7])


def test_r16_encoders_share_no_keys(fd: ModuleType) -> None:
    one, other = fd.codec.Encoder(masked=True), fd.codec.Encoder(masked=True)
    keys = [encoder.frame(0x82, b"") for _ in range(100) for encoder in (one, other)]
    assert len(set(keys)) >= 199


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_r16_keys_are_not_shared_over_a_fork(fd: ModuleType) -> None:
    encoder = fd.codec.Encoder(masked=True)
    encoder.frame(0x82, b"")  # draws a block
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(write, b"".join(encoder.frame(0x82, b"") for _ in range(20)))
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        theirs = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    ours = b"".join(encoder.frame(0x82, b"") for _ in range(20))
    assert len(theirs) == len(ours) == 120
    pairs = zip(
        (theirs[i : i + 6] for i in range(0, 120, 6)),
        (ours[i : i + 6] for i in range(0, 120, 6)),
        strict=True,
    )
    assert not any(one == other for one, other in pairs)


def test_r16_fork_makes_the_reference_draw_again(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the child of a fork does, without a fork."""
    drawn: list[int] = []
    monkeypatch.setattr(os, "urandom", lambda size: drawn.append(size) or bytes(size))
    pure = fd.codec.pure
    encoder = pure.Encoder(masked=True)
    encoder.frame(0x82, b"")
    encoder.frame(0x82, b"")
    assert len(drawn) == 1
    pure._forked()
    encoder.frame(0x82, b"")
    assert len(drawn) == 2


@pytest.mark.parametrize("size", [1, 10, 1000, 100_000])
@pytest.mark.parametrize("scratch", [1, 3, 64, 40_000])
def test_masking_through_a_scratch_buffer(fd: ModuleType, size: int, scratch: int) -> None:
    if size // scratch > 10_000:
        size = scratch * 1000 + 1
    payload = os.urandom(size)
    encoder = fd.codec.Encoder(masked=True)
    data = encoder.header(0x82, size)
    offset, target = 0, bytearray(scratch)
    while offset < size:
        count = encoder.mask_into(target, payload, offset)
        assert count == min(scratch, size - offset)
        data += bytes(target[:count])
        offset += count
    assert unmask(data, size)[1] == payload
    assert encoder.mask_into(target, payload, size) == 0


def test_masking_of_wide_elements_counts_bytes(fd: ModuleType) -> None:
    wide = memoryview(bytes(range(40))).cast("I")
    encoder = fd.codec.Encoder(masked=True)
    key = encoder.header(0x82, wide.nbytes)[2:6]
    target = bytearray(64)
    assert encoder.mask_into(target, wide, 0) == 40
    assert xor(bytes(target[:40]), key) == bytes(range(40))


@pytest.mark.parametrize("offset", [-1, 11])
def test_masking_outside_of_the_payload(fd: ModuleType, offset: int) -> None:
    encoder = fd.codec.Encoder(masked=True)
    encoder.header(0x82, 10)
    with pytest.raises(ValueError, match="outside of the payload's 10 bytes"):
        encoder.mask_into(bytearray(4), b"a" * 10, offset)


@pytest.mark.parametrize("bits", range(16))
def test_build_frame(fd: ModuleType, bits: int) -> None:
    flags = {
        "fin": bool(bits & 8),
        "rsv1": bool(bits & 4),
        "rsv2": bool(bits & 2),
        "rsv3": bool(bits & 1),
    }
    fin, rsv = flags["fin"], bits & 7
    assert fd.codec.build_frame(BINARY, b"abc", **flags) == frame(BINARY, b"abc", fin=fin, rsv=rsv)
    masked = fd.codec.build_frame(CONT, bytearray(b"abc"), mask=KEY, **flags)
    assert masked == frame(CONT, b"abc", fin=fin, rsv=rsv, key=KEY)


@pytest.mark.parametrize("size", SIZES)
def test_build_frame_of_every_size(fd: ModuleType, size: int) -> None:
    payload = os.urandom(size)
    assert fd.codec.build_frame(PING, payload, mask=KEY) == header(
        PING, size, key=KEY
    ) + fd.codec.apply_mask(payload, KEY)


def test_build_frame_with_another_key(fd: ModuleType) -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        fd.codec.build_frame(BINARY, b"abc", mask=b"12345")


def test_frame_does_not_hold_its_payload(fd: ModuleType) -> None:
    payload = bytearray(b"a" * 100)
    before = sys.getrefcount(payload)
    fd.codec.Encoder(masked=True).frame(0x82, payload)
    assert sys.getrefcount(payload) == before
    payload.append(0)  # no view is left either
