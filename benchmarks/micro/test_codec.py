"""The codec: masking, UTF-8, decoding, parsing, building. Compiled against pure.

Each call goes through Python, whose own cost (some 30 to 60 ns) is most of it for short data. The
C alone is measured by ``make -C tests/csrc bench``.
"""

from __future__ import annotations

import mmap
from types import ModuleType
from typing import Any

import pytest

from ..payloads import encoded, payload
from .conftest import Speed

SIZES = [16, 1024, 65536, 1 << 20]
FRAMES = 500


@pytest.mark.parametrize("size", SIZES)
def test_memcpy(benchmark: Any, record: Speed, size: int) -> None:
    """What masking is measured against."""
    # Page-aligned: at unlucky distances between the two, some processors copy at a tenth of this.
    source, target = (memoryview(mmap.mmap(-1, size))[:size] for _ in range(2))
    benchmark(target.__setitem__, slice(None), source)
    record("GB/s", size)


@pytest.mark.parametrize("size", SIZES)
def test_mask_into(benchmark: Any, record: Speed, fd: ModuleType, size: int) -> None:
    """Masking from a message into a buffer, as a client's large send does."""
    encoder = fd.codec.Encoder(masked=True)
    encoder.header(0x82, size)
    source, target = bytes(payload("binary", size)), bytearray(size)  # type: ignore[arg-type]
    assert benchmark(encoder.mask_into, target, source, 0) == size
    record("GB/s", size)


@pytest.mark.parametrize("size", SIZES)
def test_mask_in_place(benchmark: Any, record: Speed, fd: ModuleType, size: int) -> None:
    """Masking where the bytes are, as all that arrives at a server is unmasked."""
    encoder = fd.codec.Encoder(masked=True)
    encoder.header(0x82, size)
    target = bytearray(payload("binary", size))  # type: ignore[arg-type]
    assert benchmark(encoder.mask_into, target, target, 0) == size
    record("GB/s", size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["ascii", "mixed"])
def test_validate(benchmark: Any, record: Speed, fd: ModuleType, kind: str, size: int) -> None:
    data = encoded(payload(kind, size))
    feed = fd.codec.Utf8Validator().feed
    benchmark(feed, data)
    record("GB/s", size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["ascii", "mixed"])
def test_decode_text(benchmark: Any, record: Speed, fd: ModuleType, kind: str, size: int) -> None:
    text = payload(kind, size)
    assert benchmark(fd.codec.decode_text, encoded(text)) == text
    record("GB/s", size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["ascii", "mixed"])
def test_cpython_decode(benchmark: Any, record: Speed, kind: str, size: int) -> None:
    """What decoding is measured against."""
    data = encoded(payload(kind, size))
    benchmark(str, data, "utf-8")
    record("GB/s", size)


@pytest.mark.parametrize("masked", [False, True], ids=["to-client", "to-server"])
@pytest.mark.parametrize("kind", ["binary", "ascii"])
def test_parse(benchmark: Any, record: Speed, fd: ModuleType, kind: str, masked: bool) -> None:
    """Frames of 100 bytes in, messages out: feeding included, in batches of 500."""
    message = payload(kind, 100)
    encoder = fd.codec.Encoder(masked=masked)
    head = 0x81 if isinstance(message, str) else 0x82
    wire = b"".join(encoder.frame(head, message) for _ in range(FRAMES))
    decoder = fd.codec.Decoder(masked=masked)
    pull = decoder.pull

    def parse() -> Any:
        decoder.feed(wire)
        last = None
        for _ in range(FRAMES):
            last = pull()
        return last

    assert benchmark(parse) == message
    assert decoder.pending == 0
    record("ns/frame", FRAMES)


@pytest.mark.parametrize("masked", [False, True], ids=["to-client", "to-server"])
def test_build(benchmark: Any, record: Speed, fd: ModuleType, masked: bool) -> None:
    """A frame of 100 bytes, built."""
    message = payload("binary", 100)
    frame = fd.codec.Encoder(masked=masked).frame
    assert len(benchmark(frame, 0x82, message)) == 102 + 4 * masked
    record("ns/frame", 1)
