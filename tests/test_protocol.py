"""The Sans-I/O core in the OPEN state: frames in and out, control frames, extensions, limits, logs."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

import pytest

from .codec.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, frame, header, xor


def make(fd: ModuleType, side: str = "CLIENT", **kwargs: Any) -> Any:
    return fd.protocol.Protocol(getattr(fd.protocol.Side, side), **kwargs)


def incoming(side: str, *args: Any, **kwargs: Any) -> bytes:
    """Build a frame as the peer of `side` sends it."""
    return frame(*args, key=KEY if side == "SERVER" else None, **kwargs)


def sent_frames(protocol: Any) -> list[tuple[int, bytes]]:
    """Take apart what is to be sent: first bytes and payloads, ``(-1, b"")`` for the end of the stream."""
    found = []
    for data in protocol.data_to_send():
        if not data:
            found.append((-1, b""))
        while data:
            masked, size = data[1] & 0x80, data[1] & 0x7F
            assert bool(masked) is (protocol.side.name == "CLIENT")
            start = 2
            if size > 125:
                width = 2 if size == 126 else 8
                size = int.from_bytes(data[2 : 2 + width], "big")
                start += width
            key = data[start : start + 4] if masked else bytes(4)
            start += 4 if masked else 0
            found.append((data[0], xor(data[start : start + size], key)))
            data = data[start + size :]
    return found


def events(fd: ModuleType, protocol: Any) -> list[tuple[int, bytes, bool]]:
    found = protocol.events_received()
    assert all(isinstance(event, fd.frames.Frame) for event in found)
    return [(event.opcode, bytes(event.data), event.fin) for event in found]


@pytest.fixture(params=["CLIENT", "SERVER"])
def side(request: pytest.FixtureRequest) -> str:
    return request.param  # type: ignore[no-any-return]


def test_names_and_values(fd: ModuleType) -> None:
    protocol = fd.protocol
    assert [(s.name, s.value) for s in protocol.Side] == [("SERVER", 0), ("CLIENT", 1)]
    assert [s.name for s in protocol.State] == ["CONNECTING", "OPEN", "CLOSING", "CLOSED"]
    assert [s.value for s in protocol.State] == [0, 1, 2, 3]
    assert protocol.SEND_EOF == b""
    assert (protocol.CLIENT, protocol.SERVER) == (protocol.Side.CLIENT, protocol.Side.SERVER)
    states = protocol.CONNECTING, protocol.OPEN, protocol.CLOSING, protocol.CLOSED
    assert states == tuple(protocol.State)


def test_new_protocol(fd: ModuleType, side: str) -> None:
    protocol = make(fd, side)
    assert protocol.side is fd.protocol.Side[side]
    assert protocol.state is fd.protocol.State.OPEN
    assert protocol.logger is logging.getLogger(f"fullduplex.{side.lower()}")
    assert protocol.id is protocol.id
    assert protocol.id != make(fd, side).id
    assert (protocol.close_code, protocol.close_reason) == (None, None)
    assert (protocol.handshake_exc, protocol.parser_exc) == (None, None)
    assert (protocol.extensions, protocol.subprotocol, protocol.origin) == ([], None, None)
    assert protocol.events_received() == protocol.data_to_send() == []
    assert protocol.close_expected() is False
    with pytest.raises(AssertionError):
        _ = protocol.close_exc
    assert (protocol.decoder.masked, protocol.encoder.masked) == (
        side == "SERVER",
        side == "CLIENT",
    )


@pytest.mark.parametrize("method", ["_receive_handshake", "_receive_handshake_eof"])
def test_base_class_has_no_handshake(fd: ModuleType, method: str) -> None:
    protocol = make(fd, state=fd.protocol.State.CONNECTING)
    with pytest.raises(NotImplementedError):
        if method == "_receive_handshake":
            protocol.receive_data(b"GET")
        else:
            protocol.receive_eof()


@pytest.mark.parametrize(
    ("opcode", "payload"),
    [(TEXT, "né".encode()), (BINARY, b"\xff"), (PONG, b""), (TEXT, b""), (BINARY, b"a" * 70_000)],
)
def test_frame_becomes_an_event(fd: ModuleType, side: str, opcode: int, payload: bytes) -> None:
    protocol = make(fd, side)
    protocol.receive_data(incoming(side, opcode, payload))
    assert events(fd, protocol) == [(opcode, payload, True)]
    assert protocol.data_to_send() == []
    assert protocol.events_received() == []


@pytest.mark.parametrize("piece", [1, 5, 1 << 20])
def test_fragments_and_control_frames_in_pieces(fd: ModuleType, side: str, piece: int) -> None:
    protocol = make(fd, side)
    sequence: list[tuple[int, bytes, bool]] = [
        (TEXT, b"\xe2\x82", False),
        (PONG, b"x", True),
        (CONT, b"", False),
        (CONT, b"\xac", True),
        (BINARY, b"\xe2", True),
    ]
    data = b"".join(incoming(side, opcode, payload, fin=fin) for opcode, payload, fin in sequence)
    for start in range(0, len(data), piece):
        protocol.receive_data(data[start : start + piece])
    assert events(fd, protocol) == sequence
    assert protocol.parser_exc is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_receive_data_takes_any_bytes(fd: ModuleType, kind: Any) -> None:
    protocol = make(fd)
    protocol.receive_data(kind(frame(TEXT, b"abc")))
    assert events(fd, protocol) == [(TEXT, b"abc", True)]


def test_pings_are_answered_in_order(fd: ModuleType, side: str) -> None:
    protocol = make(fd, side)
    protocol.receive_data(incoming(side, PING, b"one") + incoming(side, PING, b"two"))
    assert events(fd, protocol) == [(PING, b"one", True), (PING, b"two", True)]
    assert sent_frames(protocol) == [(0x8A, b"one"), (0x8A, b"two")]


def test_pings_of_a_connection_coalesce(fd: ModuleType, side: str) -> None:
    """Only the newest ping needs an answer: a flood of them costs no memory."""
    protocol = make(fd, side)
    protocol.pulling = True
    protocol.queue_control(PING, b"ours")
    for number in range(1000):
        protocol.receive_control(PING, b"%d" % number)
    assert len(protocol.control) == 2
    protocol._write(protocol.take_control())
    assert sent_frames(protocol) == [(0x89, b"ours"), (0x8A, b"999")]
    assert protocol.take_control() == b""


def test_an_answer_does_not_replace_the_pong_of_the_application(fd: ModuleType, side: str) -> None:
    protocol = make(fd, side)
    protocol.pulling = True
    protocol.queue_control(PONG, b"heartbeat")
    for number in range(3):
        protocol.receive_control(PING, b"%d" % number)
    protocol.queue_control(PONG, b"another")
    protocol._write(protocol.take_control())
    assert sent_frames(protocol) == [(0x8A, b"heartbeat"), (0x8A, b"2"), (0x8A, b"another")]


def test_pongs_are_only_events(fd: ModuleType, side: str) -> None:
    protocol = make(fd, side)
    protocol.receive_data(incoming(side, PONG, b"unasked"))
    assert events(fd, protocol) == [(PONG, b"unasked", True)]
    assert protocol.data_to_send() == []


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_sending(fd: ModuleType, side: str, kind: Any) -> None:
    protocol = make(fd, side)
    protocol.send_text(kind("né".encode()))
    protocol.send_binary(kind(b"\xff"))
    protocol.send_ping(kind(b"i"))
    protocol.send_pong(kind(b"o"))
    expected = [(0x81, "né".encode()), (0x82, b"\xff"), (0x89, b"i"), (0x8A, b"o")]
    assert sent_frames(protocol) == expected
    assert protocol.data_to_send() == []


def test_sending_fragments(fd: ModuleType, side: str) -> None:
    protocol = make(fd, side)
    protocol.send_text(b"a", fin=False)
    protocol.send_ping(b"between")
    protocol.send_continuation(b"b", fin=False)
    protocol.send_continuation(b"c", fin=True)
    protocol.send_binary(b"d", fin=False)
    protocol.send_continuation(b"", fin=True)
    assert [head for head, _ in sent_frames(protocol)] == [0x01, 0x89, 0x00, 0x80, 0x02, 0x80]


@pytest.mark.parametrize(
    ("before", "method", "args", "text"),
    [
        ([], "send_continuation", (b"", True), "unexpected continuation frame"),
        ([], "send_continuation", (b"", False), "unexpected continuation frame"),
        ([("send_text", b"", False)], "send_text", (b"",), "expected a continuation frame"),
        ([("send_text", b"", False)], "send_binary", (b"",), "expected a continuation frame"),
        (
            [("send_binary", b"", False), ("send_continuation", b"", False)],
            "send_text",
            (b"",),
            "expected a cont",
        ),
        (
            [("send_binary", b"", False), ("send_continuation", b"", True)],
            "send_continuation",
            (b"", True),
            "unexp",
        ),
    ],
)
def test_wrong_order_of_sending(
    fd: ModuleType, before: Any, method: str, args: Any, text: str
) -> None:
    protocol = make(fd)
    for name, data, fin in before:
        getattr(protocol, name)(data, fin)
    protocol.data_to_send()
    with pytest.raises(fd.exceptions.ProtocolError, match=text):
        getattr(protocol, method)(*args)
    assert protocol.data_to_send() == []


@pytest.mark.parametrize("method", ["send_ping", "send_pong"])
def test_control_frames_have_125_bytes_at_most(fd: ModuleType, side: str, method: str) -> None:
    protocol = make(fd, side)
    getattr(protocol, method)(b"a" * 125)
    assert len(sent_frames(protocol)) == 1
    with pytest.raises(fd.exceptions.ProtocolError, match="control frame too long: 126 bytes"):
        getattr(protocol, method)(b"a" * 126)
    assert protocol.data_to_send() == []


@pytest.mark.parametrize("data", [5, None, "text", [1]])
def test_r20_control_frames_are_made_of_bytes(fd: ModuleType, data: Any) -> None:
    protocol = make(fd)
    for method in (protocol.send_ping, protocol.send_pong):
        with pytest.raises(TypeError):
            method(data)
    assert protocol.data_to_send() == []


def test_a_send_that_fails_begins_no_message(fd: ModuleType) -> None:
    protocol = make(fd)
    with pytest.raises(TypeError):
        protocol.send_binary(5, fin=False)
    protocol.send_binary(b"ok")
    assert sent_frames(protocol) == [(0x82, b"ok")]


# Violations: what came, close code, close reason

VIOLATIONS = [
    (frame(TEXT, b"a", rsv=4), 1002, "reserved bits must be 0"),
    (frame(3), 1002, "invalid opcode: 0x03"),
    (frame(11), 1002, "invalid opcode: 0x0b"),
    (frame(CONT, b"a"), 1002, "unexpected continuation frame"),
    (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002, "expected a continuation frame"),
    (frame(PING, b"", fin=False), 1002, "fragmented control frame"),
    (frame(PING, b"a" * 126), 1002, "control frame too long"),
    (frame(TEXT, b"a", key=KEY), 1002, "incorrect masking"),
    (b"\x82\x7e\x00\x01a", 1002, "payload length is not in its shortest form"),
    (b"\x82\x7f" + b"\xff" * 8, 1002, "payload length has its highest bit set"),
    (frame(CLOSE, b"\x03"), 1002, "close frame too short"),
    (frame(CLOSE, b"\x03\xed"), 1002, "invalid status code: 1005"),
    (frame(CLOSE, b"\x03\xe8\xff"), 1007, "invalid start byte"),
    (frame(TEXT, b"a\xff"), 1007, "invalid byte at offset 1"),
    (frame(TEXT, b"a\xc3"), 1007, "unexpected end of text at offset 2"),
    (frame(TEXT, b"\xc3", fin=False) + frame(CONT, b"\xc3"), 1007, "invalid byte at offset 1"),
    (header(BINARY, 2**20 + 1), 1009, "frame with 1048577 bytes exceeds limit of 1048576 bytes"),
    (
        frame(BINARY, b"a" * 4, fin=False) + header(CONT, 2**20),
        1009,
        "frame with 1048576 bytes after reading 4 bytes exceeds limit of 1048576 bytes",
    ),
]


@pytest.mark.parametrize("piece", [1, 1 << 20])
@pytest.mark.parametrize(("data", "code", "reason"), VIOLATIONS)
def test_violation_fails_the_connection(
    fd: ModuleType, data: bytes, code: int, reason: str, piece: int
) -> None:
    """A Close frame with the right code goes out, and R6: nothing behind the error counts."""
    protocol = make(fd)
    protocol.receive_data(frame(PONG, b"before"))
    for start in range(0, len(data), piece):
        protocol.receive_data(data[start : start + piece])
    if piece == 1 << 20:
        protocol.receive_data(frame(TEXT, b"behind") + frame(PING, b"behind"))
    found = events(fd, protocol)
    assert found[0] == (PONG, b"before", True)
    assert all(payload != b"behind" for _, payload, _ in found)
    assert sent_frames(protocol) == [(0x88, code.to_bytes(2, "big") + reason.encode())]
    assert protocol.state is fd.protocol.State.CLOSING
    assert protocol.parser_exc is not None
    assert protocol.close_expected() is True
    protocol.receive_eof()
    assert sent_frames(protocol) == [(-1, b"")]
    exc = protocol.close_exc
    assert type(exc) is fd.exceptions.ConnectionClosedError
    assert (exc.rcvd, exc.sent.code, exc.sent.reason) == (None, code, reason)
    assert exc.__cause__ is protocol.parser_exc
    assert (protocol.close_code, protocol.close_reason) == (1006, "")


def test_violation_ends_the_stream_of_a_server(fd: ModuleType) -> None:
    protocol = make(fd, "SERVER")
    protocol.receive_data(frame(TEXT, b"unmasked"))
    assert sent_frames(protocol) == [(0x88, b"\x03\xeaincorrect masking"), (-1, b"")]


@pytest.mark.parametrize(
    ("max_size", "limits"),
    [
        (None, (None, None)),
        (100, (100, None)),
        ((100, 10), (100, 10)),
        ((None, 10), (None, 10)),
        ((9, None), (9, None)),
    ],
)
def test_limits(fd: ModuleType, max_size: Any, limits: Any) -> None:
    decoder = make(fd, max_size=max_size).decoder
    assert (decoder.max_message, decoder.max_fragment) == limits


@pytest.mark.parametrize("piece", [7000, 1 << 20])
def test_r2_frames_that_come_in_pieces_count_once(fd: ModuleType, side: str, piece: int) -> None:
    protocol = make(fd, side, max_size=100_000)
    data = incoming(side, BINARY, b"a" * 60_000, fin=False) + incoming(side, CONT, b"b" * 40_000)
    for start in range(0, len(data), piece):
        protocol.receive_data(data[start : start + piece])
    assert protocol.parser_exc is None
    assert [len(data) for _, data, _ in events(fd, protocol)] == [60_000, 40_000]


def test_max_size_and_fragments_by_default_are_finite(fd: ModuleType) -> None:
    """R2: a protocol made without limits has one for messages, in memory and on the wire."""
    assert make(fd).decoder.max_message == 2**20


def test_r4_sum_of_lengths_does_not_overflow(fd: ModuleType) -> None:
    protocol = make(fd)
    protocol.receive_data(
        frame(BINARY, b"a", fin=False) + b"\x80\x7f" + (2**63 - 1).to_bytes(8, "big")
    )
    assert isinstance(protocol.parser_exc, fd.exceptions.PayloadTooBig)
    assert sent_frames(protocol)[0][1][:2] == b"\x03\xf1"


# Pulling


@pytest.mark.parametrize("as_bytes", [False, True])
def test_pull(fd: ModuleType, as_bytes: bool) -> None:
    protocol = make(fd)
    protocol.pulling = True
    protocol.decoder.feed(
        frame(TEXT, b"a", fin=False) + frame(PING, b"p") + frame(CONT, b"b") + frame(BINARY, b"c")
    )
    assert (protocol.pull(as_bytes), protocol.opcode) == (b"p", PING)
    assert (protocol.pull(as_bytes), protocol.opcode) == (b"ab" if as_bytes else "ab", TEXT)
    assert (protocol.pull(as_bytes), protocol.opcode) == (b"c", BINARY)
    assert protocol.pull(as_bytes) is None


def test_pull_fragment(fd: ModuleType) -> None:
    protocol = make(fd)
    protocol.decoder.feed(
        frame(TEXT, b"a", fin=False) + frame(PING, b"p") + frame(CONT, b"b") + frame(BINARY, b"c")
    )
    found = []
    while (data := protocol.pull_fragment()) is not None:
        found.append((protocol.opcode, data, protocol.fin))
    assert found == [
        (TEXT, b"a", False),
        (PING, b"p", True),
        (TEXT, b"b", True),
        (BINARY, b"c", True),
    ]


def test_leftover_of_the_handshake(fd: ModuleType) -> None:
    for pulling in (False, True):
        protocol = make(fd, state=fd.protocol.State.CONNECTING)
        protocol.pulling = pulling
        protocol._open(frame(TEXT, b"early"))
        assert protocol.state is fd.protocol.State.OPEN
        if pulling:
            assert protocol.events_received() == []
            assert protocol.pull() == "early"
        else:
            assert events(fd, protocol) == [(TEXT, b"early", True)]
    protocol = make(fd, state=fd.protocol.State.CONNECTING)
    protocol._open(b"")
    assert protocol.events_received() == []
    with pytest.raises(fd.exceptions.InvalidState):
        protocol._open(b"")


# Logs


@pytest.fixture
def logged(fd: ModuleType, caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG, "fullduplex.client")
    return lambda: [record.getMessage() for record in caplog.records]


def test_debug_log_of_frames(fd: ModuleType, logged: Any) -> None:
    protocol = make(fd)
    protocol.receive_data(frame(TEXT, b"hello") + frame(PING, b"p"))
    protocol.send_binary(b"\x01\x02")
    protocol.send_close(1000, "bye")
    protocol.receive_data(frame(CLOSE, b"\x03\xe8bye"))
    protocol.receive_eof()
    assert logged() == [
        "< TEXT 'hello' [5 bytes]",
        "< PING 'p' [1 byte]",
        "> PONG 'p' [1 byte]",
        "> BINARY 01 02 [2 bytes]",
        "= connection is CLOSING",
        "> CLOSE 1000 (OK) bye [5 bytes]",
        "< CLOSE 1000 (OK) bye [5 bytes]",
        "= connection is CLOSED",
    ]


def test_debug_log_of_pulled_messages(fd: ModuleType, logged: Any) -> None:
    protocol = make(fd)
    protocol.decoder.feed(frame(TEXT, b"whole") + frame(BINARY, b"part"))
    protocol.pull()
    protocol.pull_fragment()
    assert logged() == ["< TEXT 'whole' [5 bytes]", "< BINARY 70 61 72 74 [4 bytes]"]


def test_no_log_without_debug(fd: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fullduplex.client")
    protocol = make(fd)
    protocol.receive_data(frame(TEXT, b"hello"))
    protocol.send_text(b"hello")
    assert not protocol.debug
    assert caplog.records == []


def test_logger_of_the_caller(fd: ModuleType) -> None:
    logger = logging.getLogger("tests.own")
    assert make(fd, logger=logger).logger is logger


def test_control_frames_wait_if_one_cannot_be_encoded(fd: ModuleType) -> None:
    class Failing:
        """An extension that has no memory for the second frame, once."""

        name = "x-failing"
        rsv_allowed = 0
        left = 2

        def encode(self, frame: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise MemoryError
            return frame

    protocol = make(fd, "SERVER")
    protocol.pulling = True
    protocol.extensions = [Failing()]
    for data in (b"one", b"two"):
        protocol.send_ping(data)
    with pytest.raises(MemoryError):
        protocol.take_control()
    assert protocol.take_control() == b"\x89\x03one\x89\x03two"
    assert protocol.take_control() == b""


def test_counter_of_payload_does_not_overflow(fd: ModuleType) -> None:
    """Each announced length has 63 bits, and there may be no limit."""
    decoder = fd.codec.Decoder(masked=False)
    decoder.feed(b"\x02\x03abc" + b"\x80\x7f\x7f" + b"\xff" * 7)
    assert decoder.pull() is None
    assert decoder.payload_received >= (1 << 63) - 1


@pytest.mark.parametrize("max_size", [-1, (None, -1), (-5, 5)])
def test_negative_limits_are_refused(fd: ModuleType, max_size: Any) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        fd.protocol.Protocol(fd.protocol.Side.CLIENT, max_size=max_size)


@pytest.mark.parametrize("deflate", [False, True])
def test_control_frames_queued_while_others_are_encoded(fd: ModuleType, deflate: bool) -> None:
    """A signal's handler may do so in the midst of it, and raise."""
    Opcode = fd.frames.Opcode
    protocol = fd.protocol.Protocol(fd.protocol.Side.SERVER)
    protocol.pulling = True
    failing = True

    class Handler:
        name = "test"

        def encode(self, frame: Any) -> Any:
            nonlocal failing
            if frame.data == b"1":
                protocol.receive_control(Opcode.PING, b"meanwhile")
                if failing:
                    failing = False
                    raise KeyboardInterrupt
            return frame

    class Logger(logging.Logger):
        def debug(self, msg: Any, *args: Any, **kwargs: Any) -> None:
            Handler().encode(args[0])

    protocol.queue_control(Opcode.PING, b"1")
    protocol.queue_control(Opcode.PONG, b"2")
    if deflate:
        protocol.extensions = [Handler()]
    else:
        protocol.logger, protocol.debug = Logger("test"), True
    with pytest.raises(KeyboardInterrupt):
        protocol.take_control()
    assert protocol.take_control() == b"\x89\x011\x8a\x012\x8a\x09meanwhile"
    assert protocol.take_control() == b"\x8a\x09meanwhile"
    assert protocol.take_control() == b""


@pytest.mark.parametrize("side", ["CLIENT", "SERVER"])
@pytest.mark.parametrize(
    "data", [memoryview(b"abcd")[::2], memoryview(b"abcd").cast("H"), memoryview(bytearray(b"ac"))]
)
def test_views_of_all_shapes_are_sent(fd: ModuleType, side: str, data: memoryview) -> None:
    sender, receiver = (
        fd.protocol.Protocol(one) for one in (fd.Side[side], fd.Side(1 - fd.Side[side]))
    )
    sender.send_binary(data)
    receiver.receive_data(b"".join(sender.data_to_send()))
    (frame,) = receiver.events_received()
    assert frame.data == data.tobytes()
