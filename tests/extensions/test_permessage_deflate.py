"""permessage-deflate: frames in, frames out (RFC 7692 §6, §7.2)."""

from __future__ import annotations

import functools
import json
import random
import threading
import tracemalloc
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .reference_inflate import inflate

TAIL = b"\x00\x00\xff\xff"
MIB = 1 << 20
# The fixture sets what is the same for all examples.
per_backend = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def extension(fd, *arguments, **settings):
    arguments = arguments or (False, False, 15, 15)
    return fd.extensions.permessage_deflate.PerMessageDeflate(*arguments, **settings)


def frame(fd, opcode, data, fin=True, rsv1=False, **others):
    return fd.frames.Frame(fd.frames.Opcode(opcode), data, fin, rsv1, **others)


def deflated(data, wbits=15, **settings):
    compressor = zlib.compressobj(wbits=-wbits, **settings)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@functools.lru_cache
def bomb(size):
    """Return a payload that inflates to `size` zeros."""
    compressor = zlib.compressobj(9, wbits=-15)
    block = bytes(MIB)
    parts = [compressor.compress(block) for _ in range(size // MIB)]
    parts.append(compressor.compress(bytes(size % MIB)))
    return b"".join([*parts, compressor.flush(zlib.Z_SYNC_FLUSH)])[:-4]


def peak_of(call):
    """Return how much memory a call takes at most, in bytes, and what it raises."""
    tracemalloc.start()
    try:
        call()
    except Exception as exc:
        raised = exc
    else:
        raised = None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, raised


@functools.lru_cache(64)
def words(count, seed=0):
    rnd = random.Random(seed)
    vocabulary = [rnd.randbytes(rnd.randint(3, 12)) for _ in range(300)]
    return b"".join(rnd.choice(vocabulary) for _ in range(count))


def records(count, seed=0):
    rnd = random.Random(seed)
    return json.dumps(
        [{"id": rnd.randrange(10**9), "side": rnd.choice(["buy", "sell"])} for _ in range(count)]
    ).encode()


# The examples of RFC 7692 §7.2.3

HELLO = bytes.fromhex("f248cdc9c90700")
EXAMPLES = {
    "7.2.3.1 one block": HELLO,
    "7.2.3.3 no compression": bytes.fromhex("000500faff48656c6c6f00"),
    "7.2.3.4 BFINAL": bytes.fromhex("f348cdc9c9070000"),
    "7.2.3.4 BFINAL, without the last octet": bytes.fromhex("f348cdc9c90700"),
    "7.2.3.5 two blocks": bytes.fromhex("f248050000 00ffff cac9c90700"),
}


@pytest.mark.parametrize("payload", EXAMPLES.values(), ids=EXAMPLES)
def test_rfc_examples_are_inflated(fd, backend, payload):
    receiver = extension(fd)
    for _ in range(3):  # whatever a message ended with, the next one is understood
        decoded = receiver.decode(frame(fd, TEXT, payload, rsv1=True), max_size=5)
        assert decoded == frame(fd, TEXT, b"Hello")
        assert type(decoded.data) is bytes


def test_rfc_example_one_block(fd, stdlib):
    sent = extension(fd).encode(frame(fd, TEXT, b"Hello"))
    assert sent == frame(fd, TEXT, HELLO, rsv1=True)


def test_rfc_example_fragments(fd, backend):
    receiver = extension(fd)
    first = receiver.decode(frame(fd, TEXT, HELLO[:3], fin=False, rsv1=True))
    second = receiver.decode(frame(fd, CONT, HELLO[3:]))
    assert (first.fin, first.rsv1, second.fin, second.rsv1) == (False, False, True, False)
    assert first.data + second.data == b"Hello"


def test_rfc_example_sharing_the_window(fd, stdlib):
    """§7.2.3.2: with context takeover the second "Hello" is a reference to the first."""
    sender, receiver = extension(fd), extension(fd)
    frames = [sender.encode(frame(fd, TEXT, b"Hello")) for _ in range(2)]
    assert [sent.data for sent in frames] == [HELLO, bytes.fromhex("f200110000")]
    assert [receiver.decode(sent).data for sent in frames] == [b"Hello", b"Hello"]


def test_rfc_example_empty_fragment(fd, backend):
    """§7.2.3.6: a last fragment with nothing in it is the single octet 00."""
    receiver = extension(fd)
    receiver.decode(frame(fd, TEXT, HELLO + TAIL, fin=False, rsv1=True))
    assert receiver.decode(frame(fd, CONT, b"\x00")).data == b""
    sender = extension(fd)
    sender.encode(frame(fd, TEXT, b"Hello", fin=False))
    last = sender.encode(frame(fd, CONT, b""))
    assert receiver.decode(frame(fd, TEXT, last.data, rsv1=True)).data == b""


# Which frames are changed


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_control_frames_are_left_alone(fd, backend, opcode):
    sender, receiver = extension(fd), extension(fd)
    control = frame(fd, opcode, b"\x03\xe8 data")
    parts = [b"in the ", b"middle", b" of it"]
    received = []
    for index, part in enumerate(parts):
        opcode = TEXT if index == 0 else CONT
        sent = sender.encode(frame(fd, opcode, part, fin=index == 2))
        assert sender.encode(control) is control
        assert sender.encode(control, compress=True) is control
        received.append(receiver.decode(sent).data)
        assert receiver.decode(control, max_size=0) is control
    assert received == parts


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_data_frames(fd, backend, opcode):
    sender, receiver = extension(fd), extension(fd)
    sent = sender.encode(frame(fd, opcode, b"abc" * 9, rsv2=True, rsv3=True))
    assert (sent.opcode, sent.fin) == (opcode, True)
    assert (sent.rsv1, sent.rsv2, sent.rsv3) == (True, True, True)
    assert receiver.decode(sent) == frame(fd, opcode, b"abc" * 9, rsv2=True, rsv3=True)


def test_frames_are_not_changed_in_place(fd, backend):
    original = frame(fd, TEXT, b"abc")
    sent = extension(fd).encode(original)
    copy = frame(fd, TEXT, sent.data, rsv1=True)
    extension(fd).decode(sent)
    assert original == frame(fd, TEXT, b"abc")
    assert sent == copy


def test_rsv1_is_for_the_first_frame_only(fd, backend):
    sender = extension(fd)
    frames = [
        sender.encode(frame(fd, TEXT, b"a", fin=False)),
        sender.encode(frame(fd, CONT, b"b", fin=False)),
        sender.encode(frame(fd, CONT, b"c")),
        sender.encode(frame(fd, BINARY, b"d")),
    ]
    assert [sent.rsv1 for sent in frames] == [True, False, False, True]


@pytest.mark.parametrize("compressed", [False, True])
def test_rsv1_on_a_continuation_is_an_error(fd, backend, compressed):
    receiver = extension(fd)
    receiver.decode(frame(fd, TEXT, HELLO[:3], fin=False, rsv1=compressed))
    with pytest.raises(fd.exceptions.ProtocolError, match="RSV1"):
        receiver.decode(frame(fd, CONT, HELLO[3:], rsv1=True))


def test_uncompressed_messages_are_accepted(fd, backend):
    receiver = extension(fd)
    plain = [
        frame(fd, TEXT, b"Hello"),
        frame(fd, BINARY, b"Hel", fin=False),
        frame(fd, CONT, b"lo", fin=False),
        frame(fd, CONT, b""),
    ]
    for received in plain:
        assert receiver.decode(received, max_size=0) is received
    # and are not part of the window
    assert receiver.decode(frame(fd, TEXT, HELLO, rsv1=True)).data == b"Hello"
    for received in plain:
        assert receiver.decode(received) is received
    again = frame(fd, TEXT, bytes.fromhex("f200110000"), rsv1=True)
    assert receiver.decode(again).data == b"Hello"


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_bytes_like_payloads(fd, backend, make):
    sender, receiver = extension(fd), extension(fd)
    data = words(20000)
    sent = sender.encode(frame(fd, BINARY, make(data)))
    assert type(sent.data) is bytes
    sent.data = make(sent.data)
    assert receiver.decode(sent, max_size=len(data)).data == data
    fragment = sender.encode(frame(fd, BINARY, make(b"abc"), fin=False))
    fragment.data = make(fragment.data)
    assert receiver.decode(fragment).data == b"abc"


def test_r20_sizes_are_bytes_not_items(fd, backend):
    """R20: a memoryview of larger items is measured in bytes."""
    data = memoryview(bytes(4000)).cast("I")
    sender = extension(fd, threshold=4000)
    sent = sender.encode(frame(fd, BINARY, data))
    assert sent.rsv1
    assert sender.plain_bytes_sent == 4000
    assert extension(fd).decode(sent, max_size=4000).data == bytes(4000)


# What compresses a message


@pytest.mark.parametrize(
    ("threshold", "compress", "size", "expected"),
    [
        (0, None, 0, True),
        (64, None, 63, False),
        (64, None, 64, True),
        (64, True, 0, True),
        (64, False, 1000, False),
        (0, False, 1000, False),
    ],
)
def test_threshold(fd, backend, threshold, compress, size, expected):
    sender = extension(fd, threshold=threshold)
    original = frame(fd, TEXT, b"a" * size)
    sent = sender.encode(original, compress=compress)
    assert sent.rsv1 is expected
    assert (sent is original) is not expected
    assert extension(fd).decode(sent).data == original.data


def test_threshold_can_be_changed(fd, backend):
    sender = extension(fd)
    assert sender.encode(frame(fd, TEXT, b"abc")).rsv1
    sender.threshold = 4
    assert not sender.encode(frame(fd, TEXT, b"abc")).rsv1


@pytest.mark.parametrize("compress", [None, False, True])
def test_the_first_frame_decides_for_the_message(fd, backend, compress):
    sender, receiver = extension(fd, threshold=1000), extension(fd)
    for _ in range(2):
        first = frame(fd, TEXT, b"abc", fin=False)
        others = [frame(fd, CONT, b"def", fin=False), frame(fd, CONT, b"ghi")]
        sent = [sender.encode(first, compress=compress)]
        sent += [sender.encode(other, compress=not compress) for other in others]
        # A fragmented message has no known size: it is compressed unless told otherwise.
        assert sent[0].rsv1 is (compress is not False)
        assert (sent[1] is others[0]) is (compress is False)
        assert b"".join(receiver.decode(each).data for each in sent) == b"abcdefghi"
        # and that was it for this message
        last = frame(fd, TEXT, b"small")
        assert sender.encode(last) is last


def test_each_fragment_is_complete_on_the_wire(fd, backend):
    """R9: nothing of a fragment stays in the compressor."""
    sender, receiver = extension(fd), extension(fd)
    for index, part in enumerate([b"a", b"", b"bc" * 40000, random.Random(1).randbytes(70000)]):
        sent = sender.encode(frame(fd, CONT if index else TEXT, part, fin=False))
        assert sent.data.endswith(TAIL)
        assert receiver.decode(sent).data == part
    assert receiver.decode(sender.encode(frame(fd, CONT, b""))).data == b""


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
    final = EXAMPLES["7.2.3.4 BFINAL, without the last octet"]
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


def test_r9_many_streams_in_one_message(fd, backend):
    """R3: no object is kept for each; R1: nor does their number get around the limit."""
    final = zlib.compressobj(wbits=-15)
    final = final.compress(b"a") + final.flush(zlib.Z_FINISH)
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
    count = 5000
    payload = b"\x03\x00" * count + b"\x00"
    assert extension(fd).decode(frame(fd, BINARY, payload, rsv1=True)).data == b""
    assert len(payload) <= fed <= 1024 * count + 16 * 1024


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


# Counters


def test_counters(fd, backend):
    sender, receiver = extension(fd, threshold=10), extension(fd)
    data = words(100)
    sent = [
        sender.encode(frame(fd, TEXT, data)),
        sender.encode(frame(fd, TEXT, b"small")),
        sender.encode(frame(fd, TEXT, data, fin=False)),
        sender.encode(frame(fd, CONT, data)),
    ]
    for each in sent:
        receiver.decode(each)
    wire = sum(len(each.data) for each in sent if each.data != b"small")
    assert (sender.plain_bytes_sent, sender.wire_bytes_sent) == (3 * len(data), wire)
    assert (receiver.plain_bytes_received, receiver.wire_bytes_received) == (3 * len(data), wire)
    assert (sender.plain_bytes_received, receiver.wire_bytes_sent) == (0, 0)
    sender.note_shared(1000, 10)
    assert (sender.plain_bytes_sent, sender.wire_bytes_sent) == (3 * len(data) + 1000, wire + 10)
    sender.note_shared()
    assert (sender.plain_bytes_sent, sender.wire_bytes_sent) == (3 * len(data) + 1000, wire + 10)


# Properties

payloads = st.one_of(
    st.binary(max_size=200),
    st.builds(words, st.integers(0, 300), st.integers(0, 3)),
    st.builds(lambda size: bytes(size), st.sampled_from([65535, 65536, 65537, 300_000])),
    st.builds(lambda seed: random.Random(seed).randbytes(70_000), st.integers(0, 3)),
)
messages = st.lists(
    st.tuples(
        st.sampled_from([TEXT, BINARY]),
        st.lists(payloads, min_size=1, max_size=4),
        st.sampled_from([None, False, True]),
        st.booleans(),  # a control frame between the fragments
    ),
    max_size=6,
)
bits = st.integers(9, 15)


class Independent:
    """A receiver written from the RFC, without limits, that looks at whole messages only."""

    def __init__(self, wbits, no_context):
        self.wbits = wbits
        self.no_context = no_context
        self.decompressor = zlib.decompressobj(wbits=-wbits)

    def message(self, frames):
        payload = b"".join(bytes(each.data) for each in frames)
        if not frames[0].rsv1:
            return payload
        output = self.decompressor.decompress(payload + TAIL)
        assert self.decompressor.unused_data == b""
        if self.no_context:
            self.decompressor = zlib.decompressobj(wbits=-self.wbits)
        return output


@per_backend
@given(messages, bits, st.booleans(), st.booleans(), st.integers(1, 9))
def test_round_trips(fd, backend, sequence, wbits, no_context, knows, mem_level):
    chosen = {"memLevel": mem_level}
    sender = extension(fd, True, no_context, 8, wbits, chosen, threshold=50)
    # A sender may start each message afresh without having said so.
    receiver = extension(fd, no_context and knows, True, wbits, 15)
    independent = Independent(wbits, no_context and knows)
    for opcode, parts, compress, interrupted in sequence:
        sent = []
        for index, part in enumerate(parts):
            original = frame(fd, CONT if index else opcode, part, fin=index == len(parts) - 1)
            sent.append(sender.encode(original, compress=compress))
            assert receiver.decode(sent[-1], max_size=len(part)) == original
            if interrupted:
                control = frame(fd, PING, b"x")
                assert receiver.decode(sender.encode(control), max_size=0) is control
        assert independent.message(sent) == b"".join(parts)
        assert [each.rsv1 for each in sent[1:]] == [False] * (len(sent) - 1)


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


def test_one_thread_encodes_while_another_decodes(fd, backend):
    """The halves share nothing (aiohttp#7859 and its successors)."""
    ours, theirs = extension(fd), extension(fd)
    sequence = [words(200 + index, index) for index in range(100)]
    incoming = [theirs.encode(frame(fd, BINARY, data)) for data in sequence]
    outgoing, received = [], []
    start = threading.Barrier(2)

    def encode():
        start.wait()
        outgoing.extend(ours.encode(frame(fd, BINARY, data)) for data in sequence)

    def decode():
        start.wait()
        received.extend(ours.decode(each).data for each in incoming)

    threads = [threading.Thread(target=encode), threading.Thread(target=decode)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert received == sequence
    assert [theirs.decode(each).data for each in outgoing] == sequence


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
