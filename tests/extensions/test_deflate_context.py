"""permessage-deflate: what later messages may refer to (RFC 7692 §7.1, §7.2.3.2)."""

from __future__ import annotations

import threading
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .deflate_helpers import (
    BINARY,
    CONT,
    PING,
    TAIL,
    TEXT,
    extension,
    frame,
    payloads,
    per_backend,
    records,
    words,
)
from .reference_inflate import inflate

# Context takeover, windows and memory


def test_no_context_takeover_on_this_side(fd, backend):
    sender = extension(fd, False, True, 15, 15)
    frames = [sender.encode(frame(fd, TEXT, b"Hello Hello")) for _ in range(3)]
    assert frames[0] == frames[1] == frames[2]


def test_no_context_takeover_on_the_other_side(fd, backend):
    sender, receiver = extension(fd), extension(fd, True, False, 15, 15)
    first, second = (sender.encode(frame(fd, TEXT, words(40))) for _ in range(2))
    receiver.decode(first)
    with pytest.raises(fd.exceptions.ProtocolError, match="decompression failed"):
        receiver.decode(second)


def test_context_takeover_shrinks_repeated_messages(fd, backend):
    sender = extension(fd)
    data = words(40)
    first, second = (sender.encode(frame(fd, TEXT, data)) for _ in range(2))
    assert len(second.data) < len(first.data) / 5


def test_compressor_and_decompressor_are_made_when_needed(fd, stdlib, monkeypatch):
    """A compressor can be 256 KiB: only connections that compress have one."""
    made = []
    for name in ("compressor", "decompressor"):
        original = getattr(stdlib, name)

        def record(*arguments, original=original, name=name):
            made.append((name, arguments[0]))
            return original(*arguments)

        monkeypatch.setattr(stdlib, name, record)
    both = extension(fd, False, False, 11, 10, threshold=10)
    both.encode(frame(fd, TEXT, b"small"))
    both.encode(frame(fd, PING, b""))
    both.decode(frame(fd, TEXT, b"plain"))
    assert made == []
    sent = both.encode(frame(fd, TEXT, b"large enough"))
    assert made == [("compressor", 10)]
    both.decode(sent)
    assert made == [("compressor", 10), ("decompressor", 11)]
    for _ in range(3):
        both.decode(both.encode(frame(fd, TEXT, b"large enough")))
    assert len(made) == 2


def test_without_context_takeover_connections_keep_nothing(fd, stdlib):
    one, other = (extension(fd, True, True, 15, 13) for _ in range(2))
    for index in range(4):
        sender, receiver = (one, other) if index % 2 else (other, one)
        assert receiver.decode(sender.encode(frame(fd, TEXT, b"Hello" * 9))).data == b"Hello" * 9
        assert sender._compressor is None
        assert receiver._inflater._decompressor is None
    # They used one compressor in turn.
    assert [len(idle) for idle in stdlib._idle.values()] == [1]


@pytest.mark.parametrize("no_context", [False, True])
@pytest.mark.parametrize("bits", range(9, 16))
def test_references_stay_within_the_window(fd, backend, bits, no_context):
    """The peer may have no more window than was agreed, and none without context takeover."""
    sender = extension(fd, False, no_context, 15, bits, {"memLevel": 9})
    data = words(6000)[: 3 << bits]
    size = 3000 if bits > 9 else 700
    state = None
    reached = 0
    for start in range(0, len(data), size):
        message = data[start : start + size]
        state = inflate(sender.encode(frame(fd, BINARY, message)).data + TAIL, state)
        assert state.data.endswith(message)
        assert state.distance <= 1 << bits
        if no_context:
            assert state.outside <= 0
        reached = max(reached, state.distance)
    assert reached > min(1 << bits, size) / 5  # or it would not be a test
    assert state.data == data


@pytest.mark.parametrize("bits", range(8, 16))
def test_any_window_of_the_peer_is_inflated(fd, backend, bits):
    compressor = zlib.compressobj(wbits=-max(bits, 9))
    receiver = extension(fd, False, False, bits, 15)
    for seed in range(5):
        data = words(2000, seed)
        payload = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        received = receiver.decode(frame(fd, BINARY, payload[:-4], rsv1=True), max_size=len(data))
        assert received.data == data


@pytest.mark.parametrize(
    "chosen",
    [
        {"level": 0},
        {"level": 1},
        {"level": 9},
        {"memLevel": 1},
        {"memLevel": 9, "level": 3, "method": 8},
        *({"strategy": strategy} for strategy in range(5)),
    ],
    ids=str,
)
def test_compress_settings(fd, backend, chosen):
    sender, receiver = extension(fd, False, False, 15, 12, chosen), extension(fd)
    data = records(300)
    for _ in range(3):
        sent = sender.encode(frame(fd, TEXT, data))
        assert receiver.decode(sent, max_size=len(data)).data == data
        # Huffman coding alone saves a quarter of this; level 0 stores.
        assert (len(sent.data) > len(data)) is (chosen.get("level") == 0)


def test_level_0_stores(fd, backend):
    sender = extension(fd, False, False, 15, 15, {"level": 0})
    assert (
        sender.encode(frame(fd, TEXT, b"caf\xc3\xa9")).data
        == b"\x00\x05\x00\xfa\xffcaf\xc3\xa9\x00"
    )


# Losing a message


def test_reset(fd, backend):
    """A message that was compressed but not sent must not be referred to."""
    sender, receiver = extension(fd), extension(fd)
    data = words(50)
    for seed in range(3):
        assert receiver.decode(sender.encode(frame(fd, BINARY, data))).data == data
        lost = words(50, seed)
        sender.encode(frame(fd, BINARY, lost))
        sender.reset()
        assert receiver.decode(sender.encode(frame(fd, BINARY, lost))).data == lost


def test_reset_between_fragments(fd, backend):
    sender, receiver = extension(fd), extension(fd)
    first = sender.encode(frame(fd, TEXT, b"Hello ", fin=False))
    sender.encode(frame(fd, CONT, b"lost", fin=False))
    sender.reset()
    last = sender.encode(frame(fd, CONT, b"Hello lost"))
    assert receiver.decode(first).data + receiver.decode(last).data == b"Hello Hello lost"
    assert receiver.decode(sender.encode(frame(fd, TEXT, b"Hello lost"))).data == b"Hello lost"


@pytest.mark.parametrize("method", ["compress", "flush"])
@pytest.mark.parametrize("no_context", [False, True])
def test_an_interrupted_message_is_forgotten(fd, stdlib, monkeypatch, method, no_context):
    """Ctrl-C within encode() leaves no half-taken message behind, here or for other connections."""

    class Interrupted:
        def __init__(self, compressor):
            self.compress = compressor.compress
            self.flush = compressor.flush
            setattr(self, method, self.interrupt)

        def interrupt(self, *arguments):
            raise KeyboardInterrupt

    sender, receiver = extension(fd, False, no_context, 15, 15), extension(fd)
    with monkeypatch.context() as patch:
        borrow = stdlib.borrow
        patch.setattr(stdlib, "borrow", lambda *arguments: Interrupted(borrow(*arguments)))
        with pytest.raises(KeyboardInterrupt):
            sender.encode(frame(fd, TEXT, b"Hello"))
    assert receiver.decode(sender.encode(frame(fd, TEXT, b"Hello"))).data == b"Hello"


# Shared payloads


def test_shared_payload(fd, backend):
    deflate = fd.extensions.permessage_deflate
    sender, receiver = extension(fd), extension(fd)
    data, other = words(60), words(70)
    key = sender.broadcast_key()
    for opcode in (TEXT, BINARY):
        assert receiver.decode(sender.encode(frame(fd, opcode, other))).data == other
        shared = deflate.encode_shared(key, frame(fd, opcode, data))
        assert (shared.opcode, shared.fin, shared.rsv1) == (opcode, True, True)
        assert inflate(shared.data + TAIL).outside <= 0
        sender.note_shared(len(data), len(shared.data))
        assert receiver.decode(shared).data == data


def test_shared_payload_without_note_shared_would_be_wrong(fd, stdlib):
    """What note_shared() is for."""
    deflate = fd.extensions.permessage_deflate
    sender, receiver = extension(fd), extension(fd)
    data, other = words(60), words(60, 1)
    receiver.decode(sender.encode(frame(fd, BINARY, data)))
    receiver.decode(deflate.encode_shared(sender.broadcast_key(), frame(fd, BINARY, other)))
    assert receiver.decode(sender.encode(frame(fd, BINARY, data))).data != data


def test_small_shared_messages_and_control_frames_stay_plain(fd, backend):
    deflate = fd.extensions.permessage_deflate
    key = extension(fd).broadcast_key()
    assert key.threshold == 256  # that of messages without context
    for data, compress, expected in [
        (bytes(255), None, False),
        (bytes(256), None, True),
        (bytes(1000), False, False),
        (b"", True, True),
    ]:
        original = frame(fd, BINARY, data)
        shared = deflate.encode_shared(key, original, compress=compress)
        assert shared.rsv1 is expected
        assert (shared is original) is not expected
        assert extension(fd).decode(shared).data == data
    control = frame(fd, PING, bytes(100))
    assert deflate.encode_shared(key, control, compress=True) is control
    assert extension(fd, threshold=1000).broadcast_key().threshold == 1000


def test_broadcast_key(fd):
    """Equal keys, and nothing else, mean one payload."""
    key = extension(fd, False, False, 15, 12, {"level": 3, "memLevel": 5}).broadcast_key()
    same = [
        extension(fd, True, True, 9, 12, {"memLevel": 5, "level": 3}),
        extension(fd, False, False, 15, 12, {"level": 3, "memLevel": 5}, threshold=100),
    ]
    others = [
        extension(fd, False, False, 15, 11, {"level": 3, "memLevel": 5}),
        extension(fd, False, False, 15, 12, {"level": 4, "memLevel": 5}),
        extension(fd, False, False, 15, 12),
        extension(fd, False, False, 15, 12, {"level": 3, "memLevel": 5}, threshold=1000),
    ]
    assert {each.broadcast_key() for each in same} == {key}
    assert all(each.broadcast_key() != key for each in others)
    assert len({each.broadcast_key() for each in others}) == len(others)


# Properties

bits = st.integers(9, 15)
# Messages that have much in common, so that nearly all refer to earlier ones.
related = st.builds(lambda start, size: words(80)[start : start + size], *[st.integers(0, 300)] * 2)


@per_backend
@given(
    st.lists(
        st.tuples(st.sampled_from(["send", "plain", "shared", "lost"]), related | payloads),
        max_size=12,
    ),
    bits,
    st.booleans(),
)
def test_any_mixture_of_ways_to_send(fd, backend, sequence, wbits, no_context):
    deflate = fd.extensions.permessage_deflate
    sender = extension(fd, False, no_context, 15, wbits)
    receiver = extension(fd, no_context, False, wbits, 15)
    key = sender.broadcast_key()
    for way, data in sequence:
        original = frame(fd, BINARY, data)
        if way == "shared":
            sent = deflate.encode_shared(key, original, compress=True)
            sender.note_shared(len(data), len(sent.data))
        else:
            sent = sender.encode(original, compress=way != "plain")
        if way == "lost":
            sender.reset()
        else:
            assert receiver.decode(sent, max_size=len(data)) == original


def test_many_connections_compress_at_once_without_context(fd, backend):
    """Compressors that are passed around are never in two hands."""
    failures = []
    start = threading.Barrier(8)

    def talk(seed):
        sender, receiver = extension(fd, True, True, 15, 15), extension(fd, True, True, 15, 15)
        start.wait()
        for index in range(40):
            data = words(100, (seed + index) % 10)
            try:
                if receiver.decode(sender.encode(frame(fd, BINARY, data))).data != data:
                    failures.append(index)
            except Exception as exc:
                failures.append(exc)

    threads = [threading.Thread(target=talk, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
