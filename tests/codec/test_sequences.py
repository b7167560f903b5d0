"""Messages of all sizes one after the other, in any pieces: what one leaves behind meets the next."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest

from .wire import BINARY, CONT, PING, TEXT, header

SIZES = (0, 10, 4096, 5000, 65536, 140_000, 300_000)
ALPHABETS = ("a", "aé", "a😀", "é€😀")


def random_message(rng: random.Random) -> str | bytes:
    size = rng.choice(SIZES) + rng.randrange(5)
    if rng.random() < 0.4:
        return rng.randbytes(size)
    block = "".join(rng.choices(rng.choice(ALPHABETS), k=97))
    return "a" * rng.choice([0, size // 2, size]) + (block * (size // 97 + 1))[:size]


def pieces_of(
    rng: random.Random, fd: ModuleType, message: str | bytes, masked: bool
) -> list[bytes]:
    """Give headers and payloads of a message in fragments, with pings between them."""
    data = message.encode() if isinstance(message, str) else message
    opcode = TEXT if isinstance(message, str) else BINARY
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 0, 1, 4])))
    pieces: list[bytes] = []

    def add(opcode: int, payload: bytes, fin: bool) -> None:
        key = rng.randbytes(4) if masked else None
        pieces.append(header(opcode, len(payload), fin=fin, key=key))
        pieces.append(payload if key is None else fd.codec.apply_mask(payload, key))

    for index, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(data)], strict=True)):
        if rng.random() < 0.2:
            add(PING, b"ping", True)
        add(CONT if index else opcode, data[start:end], index == len(cuts))
    return pieces


def received(rng: random.Random, decoder: Any, pieces: list[bytes]) -> list[str | bytes]:
    """Receive in pieces that end anywhere, often where a header or a payload does."""
    stream = memoryview(b"".join(pieces))
    borders = [0]
    for piece in pieces:
        borders.append(borders[-1] + len(piece))
    messages: list[str | bytes] = []
    position = 0
    while position < len(stream):
        here = position
        size = rng.choice([len(stream), rng.randrange(1, 20), rng.randrange(1, 300_000)])
        border = next(place for place in borders if place > here)
        end = rng.choice([border, min(position + size, len(stream))])
        while position < end:
            with decoder.get_buffer() as view:
                count = min(len(view), end - position)
                view[:count] = stream[position : position + count]
            decoder.buffer_updated(count)
            position += count
            while (message := decoder.pull()) is not None:
                if decoder.opcode != PING:
                    messages.append(message)
    return messages


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_sequence(fd: ModuleType, seed: int, masked: bool) -> None:
    rng = random.Random(seed)
    decoder = fd.codec.Decoder(masked=masked)
    messages = [random_message(rng) for _ in range(10)]
    pieces = [piece for message in messages for piece in pieces_of(rng, fd, message, masked)]
    # Not compared by assert, which would print megabytes.
    if received(rng, decoder, pieces) != messages:
        raise AssertionError(f"not what was sent, with seed {seed}")


def test_a_sequence_stays_open_between_fragments_that_were_given(fd: ModuleType) -> None:
    """Also where a long piece of ASCII comes in its midst, which is not looked at byte by byte."""
    decoder = fd.codec.Decoder(masked=False)
    decoder.feed(fd.codec.build_frame(1, b"\xe2\x82", fin=False))
    assert decoder.pull() is None
    assert decoder.pull_fragment() == b"\xe2\x82"
    assert decoder.pull_fragment() is None
    decoder.feed(fd.codec.build_frame(0, 40_000 * b"x", fin=False))
    with pytest.raises(UnicodeDecodeError):
        decoder.pull_fragment()
