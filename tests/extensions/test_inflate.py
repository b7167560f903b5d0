"""permessage-deflate: inflating within limits, and damaged input (RFC 7692 §7.2.2)."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .deflate_helpers import (
    BINARY,
    CONT,
    HELLO,
    MIB,
    TAIL,
    TEXT,
    bomb,
    deflated,
    extension,
    frame,
    payloads,
    peak_of,
    per_backend,
    words,
)

# Limits


@pytest.mark.parametrize("size", [0, 1, 2, 100, 65535, 65536, 65537, 131072, 200_000, 3 * MIB])
@pytest.mark.parametrize("kind", ["zeros", "words", "random"])
def test_r1_the_limit_is_exact(fd, backend, size, kind):
    """R1: a message of exactly max_size passes, one more byte does not; 0 is not "no limit"."""
    data = {
        "zeros": lambda: bytes(size),
        "words": lambda: words(size // 7 + 9)[:size],
        "random": lambda: random.Random(1).randbytes(size),
    }[kind]()
    payload = deflated(data)
    for limit in (None, size, size + 1, 10 * MIB):
        received = extension(fd).decode(frame(fd, BINARY, payload, rsv1=True), max_size=limit)
        assert received.data == data
    for limit in {size - 1, size // 2, 0} - {size, -1}:
        with pytest.raises(fd.exceptions.PayloadTooBig) as raised:
            extension(fd).decode(frame(fd, BINARY, payload, rsv1=True), max_size=limit)
        assert (raised.value.size, raised.value.max_size) == (None, limit)


def test_r1_nothing_left_for_a_fragment(fd, backend):
    """R1: the budget of a message that is used up allows empty fragments only."""
    compressor = zlib.compressobj(wbits=-15)
    parts = [
        compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        for data in (b"a" * 1000, b"", b"a")
    ]
    receiver = extension(fd)
    receiver.decode(frame(fd, TEXT, parts[0], fin=False, rsv1=True), max_size=1000)
    assert receiver.decode(frame(fd, CONT, parts[1], fin=False), max_size=0).data == b""
    with pytest.raises(fd.exceptions.PayloadTooBig):
        receiver.decode(frame(fd, CONT, parts[2], fin=False), max_size=0)


@pytest.mark.parametrize("size", [8 * MIB, 128 * MIB])
@pytest.mark.parametrize("limit", [0, 1000, MIB])
def test_r1_a_bomb_takes_no_more_memory_than_the_limit(fd, backend, size, limit):
    payload = bomb(size)
    receiver = extension(fd)
    received = frame(fd, BINARY, payload, rsv1=True)
    peak, raised = peak_of(lambda: receiver.decode(received, max_size=limit))
    assert isinstance(raised, fd.exceptions.PayloadTooBig)
    # An eighth more is how BytesIO grows; the constant is for pieces and bites.
    assert peak < limit * 9 / 8 + 300_000


def test_r1_a_bomb_in_fragments(fd, backend):
    payload = bomb(64 * MIB)
    receiver = extension(fd)
    left = MIB

    def receive():
        nonlocal left
        for start in range(0, len(payload), 100):
            part = payload[start : start + 100]
            received = frame(fd, CONT if start else BINARY, part, fin=False, rsv1=not start)
            left -= len(receiver.decode(received, max_size=left).data)

    peak, raised = peak_of(receive)
    assert isinstance(raised, fd.exceptions.PayloadTooBig)
    assert 0 <= left < 110_000  # one of the parts
    assert peak < 1_000_000  # it kept nothing


def test_a_large_message_is_not_held_twice(fd, backend):
    data = words(1000) * 600
    received = frame(fd, BINARY, deflated(data), rsv1=True)
    peak, raised = peak_of(lambda: extension(fd).decode(received, max_size=len(data)))
    assert raised is None
    assert peak < len(data) * 9 / 8 + 300_000


@pytest.mark.parametrize("level", [0, 1, 6])
@pytest.mark.parametrize("size", [0, 1, 100, 10_000, 200_000])
@pytest.mark.parametrize(
    "chosen",
    [{}, {"memLevel": 1}, {"strategy": 4}, {"strategy": 2}, {"strategy": 4, "memLevel": 9}],
)
def test_incompressible_messages_pass(fd, backend, level, size, chosen):
    """What deflate makes longer is within wire_limit(), and accepted at its size before."""
    # Nine bits each in the fixed code.
    data = bytes(144 + byte % 112 for byte in random.Random(5).randbytes(size))
    sender = extension(fd, False, False, 15, 15, {"level": level, **chosen})
    sent = sender.encode(frame(fd, BINARY, data))
    limit = fd.extensions.permessage_deflate.wire_limit(len(data))
    assert len(sent.data) <= limit
    assert extension(fd).decode(sent, max_size=len(data)).data == data


def test_wire_limit(fd):
    wire_limit = fd.extensions.permessage_deflate.wire_limit
    assert wire_limit(None) is None
    assert wire_limit(0) == 1024
    assert wire_limit(MIB) == MIB + MIB // 8 + 1024


# Damaged and unusual input


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",  # no such block type
        b"\x07",
        bytes.fromhex("000500faaa48656c6c6f00"),  # length and its complement differ
        bytes.fromhex("f200110000"),  # refers to what never came
        deflated(bytes(20_000), level=0) + TAIL + b"\xff" * 20_000,  # long, the end wrong
    ],
)
@pytest.mark.parametrize("fin", [False, True])
def test_damaged_data(fd, backend, payload, fin):
    received = frame(fd, TEXT, payload, fin=fin, rsv1=True)
    with pytest.raises(fd.exceptions.ProtocolError, match="decompression failed") as raised:
        extension(fd).decode(received, max_size=MIB)
    assert isinstance(raised.value.__cause__, backend.error)


@pytest.mark.parametrize("size", [0, 5, 5000, 65536, 200_000])
@pytest.mark.parametrize("extra", [b"", b"\x00"])
def test_r9_a_stream_may_end_in_any_message(fd, backend, size, extra):
    """R9: BFINAL ends a stream, not the connection; the next one begins afresh."""
    receiver = extension(fd)
    for seed in range(3):
        data = words(size // 7 + 9, seed)[:size]
        compressor = zlib.compressobj(wbits=-15)
        payload = compressor.compress(data) + compressor.flush(zlib.Z_FINISH) + extra
        received = frame(fd, BINARY, payload, rsv1=True)
        assert receiver.decode(received, max_size=size).data == data
    # also by a peer that goes over to the usual way
    assert receiver.decode(frame(fd, TEXT, HELLO, rsv1=True)).data == b"Hello"
    assert receiver.decode(frame(fd, TEXT, bytes.fromhex("f200110000"), rsv1=True)).data == b"Hello"


@pytest.mark.parametrize("cut", [1, 3, 7, 8, 9, 20])
def test_r9_streams_end_within_messages_and_fragments(fd, backend, cut):
    final = bytes.fromhex("f348cdc9c90700")
    payload = final * 3 + HELLO
    receiver = extension(fd)
    for _ in range(2):
        first = receiver.decode(frame(fd, TEXT, payload[:cut], fin=False, rsv1=True))
        assert receiver.decode(frame(fd, CONT, b"", fin=False)).data == b""
        second = receiver.decode(frame(fd, CONT, payload[cut:]))
        assert first.data + second.data == b"Hello" * 4


def test_r9_a_stream_ends_in_the_last_stored_block(fd, backend):
    """The block that the four bytes complete can be a final one."""
    receiver = extension(fd)
    payload = HELLO[:-1] + b"\x04"
    for _ in range(3):
        assert receiver.decode(frame(fd, TEXT, payload, rsv1=True)).data == b"Hello"


EMPTY = b"\x03\x00"
"""A whole stream of nothing"""
LONG = b"\x00\x00\x00\xff\xff" * 102 + EMPTY
"""The same, as long as a stream may be whatever their number: 512 bytes"""


def test_r9_many_streams_in_one_message(fd, backend):
    """R3: no object is kept for each; R1: nor does their number get around the limit."""
    final = zlib.compressobj(wbits=-15)
    final = LONG[:-2] + final.compress(b"a") + final.flush(zlib.Z_FINISH)
    count = 10_000
    received = frame(fd, BINARY, final * count + b"\x00", rsv1=True)
    decoded = []
    peak, raised = peak_of(lambda: decoded.append(extension(fd).decode(received, max_size=count)))
    assert raised is None
    assert decoded[0].data == b"a" * count
    assert peak < 350_000  # 50 bytes for each would be more
    with pytest.raises(fd.exceptions.PayloadTooBig):
        extension(fd).decode(received, max_size=count - 1)


def test_r9_many_streams_are_not_copied_again_and_again(fd, stdlib, monkeypatch):
    """The end of a stream makes Python copy what is left of the input: there must be little."""
    fed = 0

    class Counting:
        def __init__(self, decompressor):
            self.decompressor = decompressor

        def __getattr__(self, name):
            return getattr(self.decompressor, name)

        def decompress(self, data, max_length):
            nonlocal fed
            fed += len(data)
            return self.decompressor.decompress(data, max_length)

    make = stdlib.decompressor
    monkeypatch.setattr(stdlib, "decompressor", lambda wbits: Counting(make(wbits)))
    count = 2000
    payload = LONG * count + b"\x00"
    assert extension(fd).decode(frame(fd, BINARY, payload, rsv1=True)).data == b""
    assert len(payload) <= fed <= 1024 * count + 16 * 1024


def fragments(fd, parts):
    """Return the frames of a compressed message."""
    last = len(parts) - 1
    return [
        frame(fd, CONT if index else BINARY, part, index == last, not index)
        for index, part in enumerate(parts)
    ]


@pytest.mark.parametrize("no_context_takeover", [False, True])
@pytest.mark.parametrize("stream", [EMPTY, b"\x01\x00\x00\xff\xff"])
@pytest.mark.parametrize("size", [100, 10_000, 1_000_000])
@pytest.mark.parametrize("cut", [None, 2, 1000, 20_000])
def test_r9_a_flood_of_streams_is_refused_early(
    fd, backend, monkeypatch, no_context_takeover, stream, size, cut
):
    """Streams that end give no output that max_size could limit, and each takes a decompressor."""
    made = 0
    make = backend.decompressor

    def count(wbits):
        nonlocal made
        made += 1
        return make(wbits)

    monkeypatch.setattr(backend, "decompressor", count)
    payload = stream * (size // len(stream))
    cut = cut or size
    parts = [payload[start : start + cut] for start in range(0, len(payload), cut)]
    receiver = extension(fd, no_context_takeover, False, 15, 15)
    with pytest.raises(fd.exceptions.ProtocolError, match="too many DEFLATE streams in a message"):
        for part in fragments(fd, parts):
            receiver.decode(part, max_size=MIB)
    assert made <= 17 + size // 512


@pytest.mark.parametrize("no_context_takeover", [False, True])
@pytest.mark.parametrize("cut", [1, 2, 7, 10_000])
def test_r9_streams_that_may_end(fd, backend, no_context_takeover, cut):
    """§7.2.3.4 allows them: 16 in any message, then one for 512 bytes; each message begins anew."""
    receiver = extension(fd, no_context_takeover, False, 15, 15)
    for filler in (b"", LONG, LONG * 5, b""):
        payload = filler + EMPTY * 16
        parts = [payload[start : start + cut] for start in range(0, len(payload), cut)]
        # the last frame may be empty, and begins no stream then
        for message in (parts, [*parts, b""]):
            for part in fragments(fd, message):
                assert receiver.decode(part, max_size=0).data == b""
    with pytest.raises(fd.exceptions.ProtocolError, match="too many DEFLATE streams"):
        receiver.decode(frame(fd, TEXT, LONG + EMPTY * 17, rsv1=True))


def test_r9_streams_with_content(fd, backend):
    """A sender that ends a stream with every write of some length."""
    words_ = [words(150, seed) for seed in range(40)]
    payload = b"".join(deflated_stream(data) for data in words_)
    received = frame(fd, BINARY, payload, rsv1=True)
    assert extension(fd).decode(received, max_size=MIB).data == b"".join(words_)


def deflated_stream(data):
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush(zlib.Z_FINISH)


# Properties


@per_backend
@given(
    st.lists(st.tuples(payloads, st.booleans()), min_size=1, max_size=4),
    st.lists(st.integers(0, 400), max_size=30),
    st.integers(0, 9),
    st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH, None]),
)
def test_any_fragmentation_by_the_peer(fd, backend, sequence, cuts, level, between):
    """The peer may cut a compressed message anywhere (§6.1), and flush wherever it likes."""
    receiver = extension(fd)
    compressor = zlib.compressobj(level, wbits=-15)
    for data, final in sequence:
        half = len(data) // 2
        payload = compressor.compress(data[:half])
        if between is not None:
            payload += compressor.flush(between)
        payload += compressor.compress(data[half:])
        if final:
            payload += compressor.flush(zlib.Z_FINISH)
            compressor = zlib.compressobj(level, wbits=-15)
        else:
            payload = (payload + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        left = len(data)
        received = b""
        parts = []
        for cut in cuts:
            parts.append(payload[:cut])
            payload = payload[cut:]
        for index, part in enumerate([*parts, payload]):
            fragment = frame(fd, CONT if index else TEXT, part, index == len(parts), not index)
            received += receiver.decode(fragment, max_size=left).data
            left = len(data) - len(received)
        assert received == data


@per_backend
@given(st.binary(max_size=300), st.booleans(), st.sampled_from([0, 1, 100, 100_000]))
def test_arbitrary_input_raises_only_what_is_documented(fd, backend, payload, fin, limit):
    receiver = extension(fd)
    for _ in range(2):
        try:
            received = receiver.decode(frame(fd, TEXT, payload, fin, True), max_size=limit)
        except (fd.exceptions.ProtocolError, fd.exceptions.PayloadTooBig):
            break
        assert len(received.data) <= limit
