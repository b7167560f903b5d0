"""permessage-deflate: frames in, frames out (RFC 7692 §6, §7.2)."""

from __future__ import annotations

import random
import threading
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .deflate_helpers import (
    BINARY,
    CLOSE,
    CONT,
    HELLO,
    PING,
    PONG,
    TAIL,
    TEXT,
    extension,
    frame,
    payloads,
    per_backend,
    words,
)

# The examples of RFC 7692 §7.2.3

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
