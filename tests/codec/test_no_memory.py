"""The compiled codec when memory runs out at any point: an error, never a message with a hole."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from ..conftest import load
from .wire import BINARY, CONT, KEY, TEXT, header

testcapi = pytest.importorskip("_testcapi")

TEXTS = ["a" * 300_000, "a" * 70_000 + "é" * 60_000, "é€😀" * 20_000, "short", "short é"]


@pytest.fixture(scope="module")
def codec() -> Any:
    return load("compiled").codec


def receive(decoder: Any, data: bytes, mode: str, at: int) -> tuple[list[Any], bool]:
    """Receive while the allocation with the number `at` fails; go on then, as if nothing had been.

    Returns:
        What came, and whether a call failed.
    """
    found: list[Any] = [None] * 8  # room beforehand: what fails should be the decoder
    came = failures = 0
    pull = getattr(decoder, mode)
    start = filled = 0
    gc.disable()
    testcapi.set_nomemory(at, at + 1)
    try:
        while failures < 3:
            try:
                if start == len(data):
                    break
                if not filled:
                    with decoder.get_buffer() as view:
                        size = min(len(view), len(data) - start)
                        view[:size] = data[start : start + size]
                    filled = size
                try:
                    decoder.buffer_updated(filled)
                except ValueError:  # it took them in spite of its failure
                    pass
                start += filled
                filled = 0
                while (item := pull()) is not None:
                    found[came] = item
                    came += 1
            except MemoryError:
                failures += 1
    finally:
        testcapi.remove_mem_hooks()
        gc.enable()
    while 0 < failures < 3:
        try:
            while (item := pull()) is not None:
                found[came] = item
                came += 1
            break
        except MemoryError:
            failures += 1
    return found[:came], failures > 0


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("mode", ["pull", "pull_fragment", "pull_frame"])
@pytest.mark.parametrize("number", range(len(TEXTS)))
@pytest.mark.parametrize("fragments", [1, 2])
def test_nothing_is_delivered_with_a_hole(
    codec: Any, mode: str, number: int, key: bytes | None, fragments: int
) -> None:
    text = TEXTS[number].encode()
    half = len(text) // 2 if fragments == 2 else len(text)
    pieces = [(TEXT, text[:half], fragments == 1), (CONT, text[half:], True)][:fragments]
    data = b""
    for opcode, payload, fin in [*pieces, (BINARY, b"behind", True)]:
        body = payload if key is None else codec.apply_mask(payload, key)
        data += header(opcode, len(payload), fin=fin, key=key) + body
    messages: list[Any] = (
        [text.decode()] if mode == "pull" else [payload for _, payload, _ in pieces]
    )
    messages.append(b"behind")
    failures = 0
    for at in range(1, 300):
        found, failed = receive(codec.Decoder(masked=key is not None), data, mode, at)
        failures += failed
        assert found == messages[: len(found)]
        assert failed or len(found) == len(messages)
    assert failures > 3


def test_control_frame_is_not_parsed_again(codec: Any) -> None:
    """After a failure, what looks like frames in a ping's payload is still its payload."""
    inner = header(BINARY, 100) + b"I" * 100
    data = header(0x9, len(inner)) + inner + header(TEXT, 2) + b"ok"
    failures = 0
    for at in range(1, 50):
        found, failed = receive(codec.Decoder(masked=False), data, "pull", at)
        failures += failed
        assert found == [inner, "ok"][: len(found)]
        assert failed or len(found) == 2
    assert failures > 3


@pytest.mark.parametrize("step", ["append", "finish"])
def test_pure_decoder_ends_with_it(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """As the compiled one, whose errors are final: nothing is joined, and no bytes vanish."""
    pure = load("pure").codec.pure

    def fail(*args: Any) -> None:
        raise MemoryError

    decoder = pure.Decoder(masked=False)
    decoder.feed(b"\x01\x03abc")
    assert decoder.pull() is None
    with monkeypatch.context() as patch:
        patch.setattr(pure.Assembler, step, fail)
        decoder.feed(b"\x80\x03def")
        with pytest.raises(MemoryError):
            decoder.pull()
    decoder.feed(b"\x81\x03ghi")
    with pytest.raises(MemoryError):
        decoder.pull()


def test_pure_decoder_ends_when_it_loses_what_came() -> None:
    """However often it is told again."""

    class Full(bytearray):
        def __iadd__(self, more: Any) -> Any:
            raise MemoryError

    decoder = load("pure").codec.pure.Decoder(masked=False)
    decoder._input = Full()
    with decoder.get_buffer() as view:
        view[:5] = b"\x81\x03abc"
    with pytest.raises(MemoryError):
        decoder.buffer_updated(5)
    decoder.buffer_updated(5)
    decoder.feed(b"\x81\x03def")
    for _ in range(2):
        with pytest.raises(MemoryError):
            decoder.pull()
