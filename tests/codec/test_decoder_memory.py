"""The decoder's memory: who may hold views of it, and what a peer can make it hold."""

from __future__ import annotations

import gc
import tracemalloc
from types import ModuleType
from typing import Any

import pytest

from .wire import BINARY, CONT, KEY, TEXT, frame, header, pull_all, put


@pytest.fixture(params=["small", "direct"])
def offering(request: pytest.FixtureRequest, fd: ModuleType) -> Any:
    """A decoder that would receive frames, and one that would receive a large message in place."""
    decoder = fd.codec.Decoder(masked=False)
    if request.param == "direct":
        decoder.feed(frame(TEXT, b"first", fin=False) + header(CONT, 100_000))
        assert decoder.pull() is None
    return decoder


def test_r19_view_forbids_what_could_free_it(offering: Any) -> None:
    with offering.get_buffer() as view:
        for call in (
            offering.get_buffer,
            lambda: offering.feed(b"a"),
            lambda: offering.buffer_updated(1),
            offering.pull,
            offering.pull_fragment,
            offering.pull_frame,
        ):
            with pytest.raises(BufferError, match="still in use"):
                call()
        view[:1] = b"a"
    offering.buffer_updated(1)


def test_slices_of_the_view_count(offering: Any) -> None:
    with offering.get_buffer() as view:
        part = view[2:5]
    with pytest.raises(BufferError):
        offering.feed(b"a")
    part.release()
    offering.feed(b"a")


def test_more_than_was_offered(offering: Any) -> None:
    with offering.get_buffer() as view:
        size = len(view)
    with pytest.raises(ValueError, match="do not fit"):
        offering.buffer_updated(size + 1)
    with pytest.raises(ValueError, match="not negative"):
        offering.buffer_updated(-1)
    offering.buffer_updated(size)
    with pytest.raises(ValueError, match="do not fit"):
        offering.buffer_updated(1)


@pytest.mark.parametrize("mode", ["pull", "pull_fragment", "pull_frame"])
def test_r19_offer_ends_with_the_next_pull(offering: Any, mode: str) -> None:
    offering.get_buffer().release()
    getattr(offering, mode)()
    with pytest.raises(ValueError, match="do not fit"):
        offering.buffer_updated(1)


def test_compiled_decoder_gives_no_view_without_an_offer() -> None:
    codec = pytest.importorskip("fullduplex.codec._compiled")
    decoder = codec.Decoder(masked=False)
    with pytest.raises(BufferError, match="no space on offer"):
        memoryview(decoder)


def test_r19_view_keeps_the_decoder_alive(fd: ModuleType) -> None:
    decoder = fd.codec.Decoder(masked=False)
    view = decoder.get_buffer()
    del decoder
    gc.collect()
    view[:] = b"x" * len(view)
    assert bytes(view[:3]) == b"xxx"


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("key", [None, KEY])
def test_r3_memory_does_not_grow_with_a_claimed_length(
    fd: ModuleType, opcode: int, key: bytes | None
) -> None:
    """A header that announces a gigabyte, with a few bytes behind it, costs a few kilobytes."""
    decoder = fd.codec.Decoder(masked=key is not None)
    tracemalloc.start()
    try:
        decoder.feed(header(opcode, 1 << 30, key=key))
        assert decoder.pull() is None
        for _ in range(10):
            with decoder.get_buffer() as view:
                assert len(view) <= 262_144
            put(decoder, b"a" * 100 if key is None else bytes(100))
            if opcode == BINARY:
                assert decoder.pull() is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 600_000


def fill(decoder: Any, stream: bytes) -> tuple[int, bytes]:
    """Receive what there is room for, and pull: how much room there was, and the rest of the stream."""
    with decoder.get_buffer() as view:
        room = len(view)
        count = min(room, len(stream))
        view[:count] = stream[:count]
    decoder.buffer_updated(count)
    pull_all(decoder)
    return room, stream[count:]


@pytest.mark.parametrize("size", [100, 5_000, 8_192, 20_000])
def test_a_stream_gets_more_room_as_long_as_it_fills_it(fd: ModuleType, size: int) -> None:
    if fd.IMPLEMENTATION == "pure":
        pytest.skip("the room is always the same")
    decoder = fd.codec.Decoder(masked=False)
    stream = frame(BINARY, bytes(size)) * (1_000_000 // size)
    rooms = []
    while len(stream) > 100_000:
        room, stream = fill(decoder, stream)
        rooms.append(room)
    assert rooms[0] == 2_048
    assert max(rooms) == 65_536
    # The end of the stream does not fill the room: who waits for more keeps less.
    while stream:
        _, stream = fill(decoder, stream)
    fill(decoder, frame(BINARY, b"end"))
    assert fill(decoder, b"")[0] == 16_384


@pytest.mark.parametrize("size", [70_000, 100_000, 1_000_000])
def test_large_messages_are_not_read_into_more_room(fd: ModuleType, size: int) -> None:
    """What would be copied there goes into the messages themselves."""
    if fd.IMPLEMENTATION == "pure":
        pytest.skip("the room is always the same")
    decoder = fd.codec.Decoder(masked=False)
    stream = frame(BINARY, bytes(8_192)) * 40
    while stream:
        room, stream = fill(decoder, stream)
    assert room == 65_536
    rooms = []
    for _ in range(3):
        room, stream = fill(decoder, frame(BINARY, bytes(size)))
        rooms.append(room)
        while stream:
            _, stream = fill(decoder, stream)
    assert rooms[1:] == [16_384, 16_384]


def test_memory_grows_with_what_came(fd: ModuleType) -> None:
    """At any time the decoder holds a small multiple of what came."""
    decoder = fd.codec.Decoder(masked=False)
    decoder.feed(header(BINARY, 1 << 30))
    assert decoder.pull() is None
    tracemalloc.start()
    try:
        came = 0
        while came < 3_000_000:
            with decoder.get_buffer() as view:
                count = min(len(view), 50_000)
                view[:count] = bytes(count)
            decoder.buffer_updated(count)
            assert decoder.pull() is None
            came += count
            assert tracemalloc.get_traced_memory()[0] < 2 * came + 600_000
    finally:
        tracemalloc.stop()


def test_r3_fragments_cost_no_memory_of_their_own(fd: ModuleType) -> None:
    decoder = fd.codec.Decoder(masked=False)
    decoder.feed(frame(BINARY, b"", fin=False))
    decoder.pull()
    tiny = frame(CONT, b"", fin=False) * 1000 + frame(CONT, b"a", fin=False)
    tracemalloc.start()
    try:
        for _ in range(100):
            decoder.feed(tiny)
            assert decoder.pull() is None
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 200_000
    decoder.feed(frame(CONT))
    assert decoder.pull() == b"a" * 100


def test_trust_in_large_messages_is_only_room_not_content(fd: ModuleType) -> None:
    """After a large message the next one gets room at once; its content is still what came."""
    decoder = fd.codec.Decoder(masked=False)
    decoder.feed(frame(BINARY, b"\xaa" * 1_000_000))
    assert len(decoder.pull()) == 1_000_000
    decoder.feed(header(BINARY, 500_000))
    assert decoder.pull() is None
    decoder.feed(b"\xbb" * 500_000)
    assert decoder.pull() == b"\xbb" * 500_000


def test_nothing_is_held_after_a_message(fd: ModuleType) -> None:
    decoder = fd.codec.Decoder(masked=False)
    tracemalloc.start()
    try:
        for _ in range(3):
            decoder.feed(frame(BINARY, b"a" * 2_000_000))
            assert len(decoder.pull()) == 2_000_000
        decoder.feed(b"\x82")
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()
    decoder.feed(b"\x00")
    assert pull_all(decoder) == [(BINARY, True, b"")]
