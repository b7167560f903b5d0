"""Masking: an XOR that composes over chunks, at every size, alignment and phase."""

from __future__ import annotations

import os
import random
from types import ModuleType

import pytest

from .wire import KEY, xor

SIZES = [0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 300]


def test_example_of_the_rfc(fd: ModuleType) -> None:
    assert fd.codec.apply_mask(b"Hello", KEY) == bytes.fromhex("7f9f4d5158")


@pytest.mark.parametrize("size", SIZES)
def test_every_alignment_and_phase(fd: ModuleType, size: int) -> None:
    data = random.Random(size).randbytes(size + 64)
    for offset in range(0, 64, 1 if fd.IMPLEMENTATION == "compiled" else 16):
        for phase in range(4):
            view = memoryview(data)[offset : offset + size]
            assert fd.codec.apply_mask(view, KEY, phase) == xor(bytes(view), KEY, phase)


def test_every_size_to_300(fd: ModuleType) -> None:
    data = os.urandom(300)
    expected = xor(data, KEY)
    for size in range(301):
        assert fd.codec.apply_mask(data[:size], KEY) == expected[:size]


@pytest.mark.parametrize("size", [32767, 32768, 32769, 100_003])
def test_sizes_for_which_other_threads_run(fd: ModuleType, size: int) -> None:
    data = os.urandom(size)
    masked = fd.codec.apply_mask(data, KEY)
    assert masked == xor(data, KEY)
    assert fd.codec.apply_mask(masked, KEY) == data


def test_chunks_compose(fd: ModuleType) -> None:
    data = os.urandom(1000)
    rng = random.Random(1)
    phase, parts, rest = 0, [], data
    while rest:
        count = rng.randint(1, 40)
        parts.append(fd.codec.apply_mask(rest[:count], KEY, phase))
        phase = phase + len(rest[:count]) & 3
        rest = rest[count:]
    assert b"".join(parts) == xor(data, KEY)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_object(fd: ModuleType, kind: type) -> None:
    result = fd.codec.apply_mask(kind(b"Hello"), kind(KEY))
    assert type(result) is bytes
    assert result == bytes.fromhex("7f9f4d5158")


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde"])
def test_key_of_another_size(fd: ModuleType, key: bytes) -> None:
    with pytest.raises(ValueError, match=f"4 bytes, not {len(key)}"):
        fd.codec.apply_mask(b"Hello", key)


def test_mask_does_not_change_its_input(fd: ModuleType) -> None:
    data = bytearray(b"Hello")
    fd.codec.apply_mask(data, KEY)
    assert data == b"Hello"


def test_r20_size_is_counted_in_bytes(fd: ModuleType) -> None:
    wide = memoryview(bytes(range(40))).cast("I")
    assert len(wide) == 10
    assert fd.codec.apply_mask(wide, KEY) == xor(bytes(range(40)), KEY)
