"""Both codecs give the same frames, errors and close codes, however the bytes come in."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ..conftest import load
from .wire import BINARY, CONT, KEY, TEXT, header, put

MODES = ["pull", "pull_fragment", "pull_frame"]
SETTINGS = settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def both() -> tuple[ModuleType, ModuleType]:
    return load("compiled"), load("pure")


PAYLOADS = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
    st.sampled_from([b"", b"\xff", b"a\xed\xa0", "é€😀".encode(), b"\xe2\x82", b"\xac"]),
    st.sampled_from([125, 126, 127, 4000, 4096, 5000, 70_000]).map(lambda size: b"a" * size),
    st.sampled_from([1, 65_535, 65_536]).map(lambda size: b"a" * size + "é€".encode() * 20_000),
    st.sampled_from([3000, 40_000]).map(lambda size: "é€".encode() * (size // 5)),
)
# Mostly what is legal, so that sequences get far; among it everything else.
OPCODES = st.one_of(st.sampled_from([CONT, CONT, TEXT, BINARY, 8, 9, 10]), st.integers(0, 15))
RARELY = st.integers(0, 19).map(lambda number: number == 0)


@st.composite
def wire_frames(draw: Callable[..., Any], masked: bool) -> bytes:
    """Draw a frame; some break a rule."""
    opcode = draw(OPCODES)
    payload = draw(PAYLOADS)
    fin = draw(st.booleans())
    if opcode >= 8 and not draw(RARELY):
        fin, payload = True, payload[:125]
    key = draw(st.binary(min_size=4, max_size=4)) if masked is not draw(RARELY) else None
    rsv = draw(st.integers(0, 7)) if draw(RARELY) else 0
    body = payload if key is None else load("compiled").codec.apply_mask(payload, key)
    if draw(RARELY):  # a length in a form of its own
        form = draw(st.sampled_from([b"\x7e", b"\x7f"]))
        size = draw(
            st.sampled_from([0, 125, 126, 65535, 65536, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
        )
        length = (size % 65536).to_bytes(2, "big") if form == b"\x7e" else size.to_bytes(8, "big")
        bit = 0 if key is None else 0x80
        return bytes([fin << 7 | rsv << 4 | opcode, bit | form[0]]) + length + (key or b"") + body
    return header(opcode, len(payload), fin=fin, rsv=rsv, key=key) + body


@st.composite
def conversations(
    draw: Callable[..., Any],
) -> tuple[dict[str, Any], int, list[tuple[bool, bytes]], str, str]:
    """Draw limits, allowed bits, pieces of input with the way to put them in, and the way to pull."""
    masked = draw(st.booleans())
    limits = {
        "masked": masked,
        "max_message": draw(st.sampled_from([None, None, 10, 5000, 60_000])),
        "max_fragment": draw(st.sampled_from([None, None, None, 5, 5000])),
        "max_fragments": draw(st.sampled_from([None, None, None, 1, 3])),
    }
    data = b"".join(draw(st.lists(wire_frames(masked), min_size=1, max_size=12)))
    pieces = []
    sizes = st.one_of(st.integers(1, 10), st.integers(1, 10_000), st.just(1 << 20))
    while data:
        size = max(draw(sizes), len(data) // 100)
        pieces.append((draw(st.booleans()), data[:size]))
        data = data[size:]
    allowed = draw(st.sampled_from([0, 0, 4, 7]))
    mode = draw(st.sampled_from(MODES))
    return limits, allowed, pieces, mode, draw(st.sampled_from(["pull", "pull_fragment"]))


def run(root: ModuleType, conversation: Any) -> list[Any]:
    """Let a decoder have the conversation; note all that can be seen of it."""
    limits, allowed, pieces, mode, later = conversation
    decoder = root.codec.Decoder(**limits)
    decoder.rsv_allowed = allowed
    seen: list[Any] = []

    def pull() -> bool:
        while True:
            try:
                data = getattr(decoder, mode)()
            except Exception as exc:
                seen.append((type(exc).__name__, str(exc), root.protocol.error_close(exc)))
                with pytest.raises(type(exc)) as again:
                    getattr(decoder, mode)()
                assert again.value is exc  # noqa: PT017 (every later call gives the same one)
                return False
            if data is None:
                return True
            seen.append((decoder.opcode, decoder.fin, type(data), data))
            if mode == "pull_frame":
                seen.append(decoder.rsv)
                if decoder.opcode < 8:
                    decoder.message_size += len(data)
            elif decoder.opcode < 8 and decoder.fin:
                seen.append((decoder.frames, decoder.bounds if mode == "pull" else None))

    for by_feed, piece in pieces:
        if by_feed:
            decoder.feed(piece)
            if not pull():
                return seen
        while piece and not by_feed:
            piece = piece[put(decoder, piece) :]
            if not pull():
                return seen
        # A message that was begun as a whole may go on as fragments, not the other way round. Here, and not
        # after each put(): how much fits into the space is each implementation's own.
        if mode == "pull" and decoder.mid_message:
            mode = later
    seen.append((decoder.frames_received, decoder.messages_received, decoder.payload_received))
    seen.append((decoder.mid_message, decoder.message_size if mode != "pull_frame" else None))
    return seen


# Longer than the first space of the one, not of the other.
BEGUN = header(TEXT, 4000, fin=False, key=bytes(4)) + b"a" * 4000
NO_LIMITS = {"masked": True, "max_message": None, "max_fragment": None, "max_fragments": None}


@SETTINGS
@given(conversations())
@example((NO_LIMITS, 0, [(False, BEGUN)], "pull", "pull_fragment"))
def test_frames_errors_and_close_codes(
    both: tuple[ModuleType, ModuleType], conversation: Any
) -> None:
    compiled, pure = both
    assert run(compiled, conversation) == run(pure, conversation)


@SETTINGS
@given(conversations(), st.lists(st.integers(1, 500), min_size=1, max_size=20))
def test_chunking_makes_no_difference(fd: ModuleType, conversation: Any, sizes: list[int]) -> None:
    """The same bytes in other pieces give the same, down to the offset in an error's text."""
    limits, allowed, pieces, mode, _ = conversation
    data = b"".join(piece for _, piece in pieces)
    other: list[tuple[bool, bytes]] = []
    while data:
        size = max(sizes[len(other) % len(sizes)], len(data) // 50)
        other.append((len(other) % 2 == 0, data[:size]))
        data = data[size:]
    one = run(fd, (limits, allowed, pieces, mode, mode))
    assert run(fd, (limits, allowed, other, mode, mode)) == one


@SETTINGS
@given(st.lists(PAYLOADS, max_size=8), st.booleans())
def test_assemblers(both: tuple[ModuleType, ModuleType], pieces: list[bytes], text: bool) -> None:
    def assemble(root: ModuleType) -> Any:
        assembler = root.codec.Assembler()
        assembler.start(text)
        try:
            for piece in pieces:
                assembler.append(piece)
                assembler.end_fragment(piece is pieces[-1])
            return assembler.finish()
        except UnicodeDecodeError as exc:
            return exc.args

    assert assemble(both[0]) == assemble(both[1])


@SETTINGS
@given(st.lists(st.binary(max_size=40), max_size=6), st.booleans())
def test_utf8_errors(both: tuple[ModuleType, ModuleType], chunks: list[bytes], wild: bool) -> None:
    if not wild:  # nearly valid text gets further
        chunks = [chunk.decode(errors="replace").encode() for chunk in chunks] + chunks[:1]

    def check(root: ModuleType) -> Any:
        validator = root.codec.Utf8Validator()
        for number, chunk in enumerate(chunks):
            try:
                validator.feed(chunk)
            except UnicodeDecodeError as exc:
                return number, exc.args
        try:
            validator.finish()
        except UnicodeDecodeError as exc:
            return exc.args
        return None

    assert check(both[0]) == check(both[1])
    data = b"".join(chunks)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        assert check(both[0]) is not None
    else:
        assert check(both[0]) is None
        assert both[0].codec.decode_text(data) == both[1].codec.decode_text(data) == text


@SETTINGS
@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4), st.integers(0, 7))
def test_masks(both: tuple[ModuleType, ModuleType], data: bytes, key: bytes, phase: int) -> None:
    one, other = (root.codec.apply_mask(data, key, phase) for root in both)
    assert one == other


@SETTINGS
@given(st.integers(0, 255), PAYLOADS, st.booleans())
def test_encoders(
    both: tuple[ModuleType, ModuleType], head: int, payload: bytes, masked: bool
) -> None:
    frames = [root.codec.Encoder(masked=masked).frame(head, payload) for root in both]
    if masked:
        start = len(frames[0]) - len(payload)
        frames = [
            data[: start - 4] + both[1].codec.apply_mask(data[start:], data[start - 4 : start])
            for data in frames
        ]
    assert frames[0] == frames[1]
    built = [
        root.codec.build_frame(head & 15, payload, mask=KEY if masked else None) for root in both
    ]
    assert built[0] == built[1]
