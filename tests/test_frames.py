"""Frames and Close frames as objects."""

from __future__ import annotations

import array
import copy
import dataclasses
import os
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

EXPLANATIONS = {
    1000: "OK",
    1001: "going away",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "no status received [internal]",
    1006: "abnormal closure [internal]",
    1007: "invalid frame payload data",
    1008: "policy violation",
    1009: "message too big",
    1010: "mandatory extension",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
    1015: "TLS handshake failure [internal]",
}
WIRE_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


class Source:
    """A stream for Frame.parse: bytes come in the given pieces, one piece each time it yields."""

    def __init__(self, pieces):
        self.pieces = list(pieces)
        self.buffer = b""
        self.consumed = 0

    def read_exact(self, count):
        while len(self.buffer) < count:
            if not self.pieces:
                raise EOFError("stream ends")
            yield
            self.buffer += self.pieces.pop(0)
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        self.consumed += count
        return data


def parse(fd, *pieces, source=None, **options):
    source = source or Source(pieces)
    parser = fd.frames.Frame.parse(source.read_exact, **options)
    while True:
        try:
            next(parser)
        except StopIteration as exc:
            return exc.value


def frame(fd, opcode, data=b"", **fields):
    return fd.frames.Frame(fd.frames.Opcode(opcode), data, **fields)


# Enumerations and constants


def test_opcodes(fd):
    assert {opcode.name: opcode.value for opcode in fd.frames.Opcode} == {
        "CONT": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }
    for opcode in fd.frames.Opcode:
        assert getattr(fd.frames, opcode.name) is opcode
    assert {0, 1, 2} == fd.frames.DATA_OPCODES
    assert {8, 9, 10} == fd.frames.CTRL_OPCODES


def test_close_codes(fd):
    assert {code.name: code.value for code in fd.frames.CloseCode} == {
        "NORMAL_CLOSURE": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "UNSUPPORTED_DATA": 1003,
        "NO_STATUS_RCVD": 1005,
        "ABNORMAL_CLOSURE": 1006,
        "INVALID_DATA": 1007,
        "POLICY_VIOLATION": 1008,
        "MESSAGE_TOO_BIG": 1009,
        "MANDATORY_EXTENSION": 1010,
        "INTERNAL_ERROR": 1011,
        "SERVICE_RESTART": 1012,
        "TRY_AGAIN_LATER": 1013,
        "BAD_GATEWAY": 1014,
        "TLS_HANDSHAKE": 1015,
    }
    assert {1000, 1001, 1005} == fd.frames.OK_CLOSE_CODES
    assert EXPLANATIONS == fd.frames.CLOSE_CODE_EXPLANATIONS


def test_all_is_there(fd):
    for name in fd.frames.__all__:
        assert hasattr(fd.frames, name)


# Close


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        *((code, "", f"{code} ({text})") for code, text in EXPLANATIONS.items()),
        (1001, "Bye!", "1001 (going away) Bye!"),
        (2999, "", "2999 (unknown)"),
        (3000, "", "3000 (registered)"),
        (3999, "", "3999 (registered)"),
        (4000, "", "4000 (private use)"),
        (4999, "", "4999 (private use)"),
        (5000, "", "5000 (unknown)"),
        (1004, "", "1004 (unknown)"),
        (0, "", "0 (unknown)"),
    ],
)
def test_close_str(fd, code, reason, text):
    assert str(fd.frames.Close(code, reason)) == text


def test_close_str_with_an_enumerated_code(fd):
    assert str(fd.frames.Close(fd.frames.CloseCode.GOING_AWAY, "")) == "1001 (going away)"


@pytest.mark.parametrize("code", [0, 999, *range(1000, 1017), 2999, 3000, 4999, 5000, 65535, 65536])
def test_close_codes_on_the_wire(fd, code):
    close = fd.frames.Close(code, "")
    if code in WIRE_CODES:
        close.check()
        assert fd.frames.Close.parse(close.serialize()) == close
        return
    with pytest.raises(fd.exceptions.ProtocolError, match=f"invalid status code: {code}"):
        close.check()
    with pytest.raises(fd.exceptions.ProtocolError):
        close.serialize()
    if code < 65536:
        with pytest.raises(fd.exceptions.ProtocolError):
            fd.frames.Close.parse(code.to_bytes(2, "big"))


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_close_parse_takes_anything_bytes_like(fd, make):
    close = fd.frames.Close.parse(make(b"\x03\xe9Bye \xe2\x82\xac"))
    assert close == fd.frames.Close(1001, "Bye €")


def test_close_parse_empty(fd):
    assert fd.frames.Close.parse(b"") == fd.frames.Close(1005, "")


def test_close_parse_one_byte(fd):
    with pytest.raises(fd.exceptions.ProtocolError, match="close frame too short"):
        fd.frames.Close.parse(b"\x03")


def test_close_parse_reason_not_utf8(fd):
    with pytest.raises(UnicodeDecodeError):
        fd.frames.Close.parse(b"\x03\xe8\xff")


def test_close_parse_the_first_error_counts(fd):
    with pytest.raises(fd.exceptions.ProtocolError):
        fd.frames.Close.parse(b"\x00\x00\xff")


@given(st.sampled_from(sorted(WIRE_CODES)), st.text(max_size=30))
def test_close_round_trip(fd, code, reason):
    close = fd.frames.Close(code, reason)
    assert fd.frames.Close.parse(close.serialize()) == close


# Frame: fields


def test_frame_defaults_and_positions(fd):
    made = fd.frames.Frame(fd.frames.Opcode.TEXT, b"x")
    assert dataclasses.astuple(made) == (1, b"x", True, False, False, False)
    assert fd.frames.Frame(1, b"x", False, True, True, True) == fd.frames.Frame(
        fd.frames.Opcode.TEXT, b"x", fin=False, rsv1=True, rsv2=True, rsv3=True
    )


@pytest.mark.parametrize(
    "change",
    [
        {"opcode": 2},
        {"data": b"y"},
        {"fin": False},
        {"rsv1": True},
        {"rsv2": True},
        {"rsv3": True},
    ],
)
def test_frame_equality_goes_by_all_fields(fd, change):
    made = frame(fd, 1, b"x")
    assert made == frame(fd, 1, b"x")
    assert dataclasses.replace(made, **change) != made


def test_frame_has_no_other_attributes(fd):
    with pytest.raises(AttributeError):
        frame(fd, 1).mask = True


@pytest.mark.parametrize("duplicate", [copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_frame_copies(fd, duplicate):
    made = frame(fd, 2, b"x", rsv1=True)
    assert duplicate(made) == made


# Frame: text for logs


@pytest.mark.parametrize(
    ("opcode", "data", "fields", "text"),
    [
        (1, b"", {}, "TEXT '' [0 bytes]"),
        (1, b"x", {}, "TEXT 'x' [1 byte]"),
        (1, "café".encode(), {}, "TEXT 'café' [5 bytes]"),
        (1, bytearray(b"hi"), {}, "TEXT 'hi' [2 bytes]"),
        (1, memoryview(b"hi"), {"fin": False}, "TEXT 'hi' [2 bytes, to be continued]"),
        (1, b"a\r\nb\x1b", {}, r"TEXT 'a\r\nb\x1b' [5 bytes]"),
        (1, b"\xff", {}, "TEXT '\ufffd' [1 byte]"),
        (1, b"\x01\x02", {"rsv1": True}, "TEXT 01 02 [2 bytes, rsv1]"),
        (1, b"hi", {"rsv2": True, "rsv3": True}, "TEXT 'hi' [2 bytes, rsv2, rsv3]"),
        (2, b"hi", {}, "BINARY 68 69 [2 bytes]"),
        (2, b"", {}, "BINARY '' [0 bytes]"),
        (0, b"and so on", {}, "CONT 'and so on' [9 bytes]"),
        (0, b"\x00\xff", {}, "CONT 00 ff [2 bytes]"),
        (0, b"\x00", {}, "CONT 00 [1 byte]"),
        (0, b"\xe2\x82", {}, "CONT '\ufffd' [2 bytes]"),
        (8, b"", {}, "CLOSE 1005 (no status received [internal]) [0 bytes]"),
        (8, b"\x03\xe8", {}, "CLOSE 1000 (OK) [2 bytes]"),
        (8, b"\x03\xe9Bye\n", {}, r"CLOSE 1001 (going away) Bye\n [6 bytes]"),
        (8, b"\x03", {}, "CLOSE 03 [1 byte]"),
        (8, b"\x03\xe8\xff", {}, "CLOSE 03 e8 ff [3 bytes]"),
        (9, b"", {}, "PING '' [0 bytes]"),
        (9, b"abc", {}, "PING 'abc' [3 bytes]"),
        (10, b"\xaa\xbb\xcc\xdd", {}, "PONG aa bb cc dd [4 bytes]"),
    ],
)
def test_frame_str(fd, opcode, data, fields, text):
    assert str(frame(fd, opcode, data, **fields)) == text


def test_frame_str_with_a_plain_int(fd):
    assert str(fd.frames.Frame(2, b"\x01")) == "BINARY 01 [1 byte]"


def test_frame_str_counts_bytes_not_items(fd):
    data = memoryview(array.array("I", [0x01010101, 0x01010101]))
    assert str(frame(fd, 2, data)) == "BINARY 01 01 01 01 01 01 01 01 [8 bytes]"


@pytest.mark.parametrize("char", ["a", "é", "€", "😀"])
def test_frame_str_of_long_text_shows_both_ends(fd, char):
    data = ("<" + char * 100_000 + ">").encode()
    text = str(frame(fd, 1, data))
    shown = text.removeprefix("TEXT ").removesuffix(f" [{len(data)} bytes]")
    assert len(shown) == 75
    head, _, tail = shown.partition("…")
    assert head == "'<" + char * (len(head) - 2)
    assert tail == char * (len(tail) - 2) + ">'"


def test_frame_str_of_long_binary_shows_both_ends(fd):
    data = b"\x01" + bytes(100_000) + b"\x02"
    text = str(frame(fd, 2, data))
    shown = text.removeprefix("BINARY ").removesuffix(" [100002 bytes]")
    assert len(shown) == 75
    assert shown.startswith("01 00 ")
    assert shown.endswith(" 00 02")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 10, 76])
@pytest.mark.parametrize("opcode", [0, 1, 2])
def test_frame_str_follows_the_limit(fd, monkeypatch, opcode, size):
    monkeypatch.setattr(fd.frames, "MAX_LOG_SIZE", size)
    text = str(frame(fd, opcode, b"x" * 1000))
    shown = text.partition(" ")[2].removesuffix(" [1000 bytes]")
    assert "…" in shown
    assert len(shown) <= max(size, 3)


@given(st.sampled_from([0, 1, 2, 8, 9, 10]), st.binary(max_size=200), st.booleans())
def test_frame_str_is_one_printable_line(fd, opcode, data, rsv1):
    text = str(frame(fd, opcode, data, rsv1=rsv1))
    assert text.isprintable()
    assert len(text) < 120


def test_limit_of_logs_comes_from_the_environment(fd):
    code = "from fullduplex.frames import Frame, MAX_LOG_SIZE; print(MAX_LOG_SIZE)"
    env = dict(os.environ, FULLDUPLEX_MAX_LOG_SIZE="33")
    env["FULLDUPLEX_PURE_PYTHON"] = "1" if fd.IMPLEMENTATION == "pure" else ""
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert result.stdout == "33\n"


# Frame: check


@pytest.mark.parametrize(
    ("opcode", "data", "fields", "message"),
    [
        (1, b"", {"rsv1": True}, "reserved bits"),
        (1, b"", {"rsv2": True}, "reserved bits"),
        (9, b"", {"rsv3": True}, "reserved bits"),
        (8, bytes(126), {}, "control frame too long"),
        (9, bytes(126), {}, "control frame too long"),
        (10, memoryview(array.array("I", [0] * 32)), {}, "control frame too long"),
        (9, b"", {"fin": False}, "fragmented control frame"),
    ],
)
def test_check_refuses(fd, opcode, data, fields, message):
    bad = frame(fd, opcode, data, **fields)
    with pytest.raises(fd.exceptions.ProtocolError, match=message):
        bad.check()
    for mask in (False, True):
        with pytest.raises(fd.exceptions.ProtocolError, match=message):
            bad.serialize(mask)


@pytest.mark.parametrize(
    ("opcode", "data", "fields"),
    [(0, bytes(126), {"fin": False}), (1, b"", {}), (2, bytes(70_000), {}), (9, bytes(125), {})],
)
def test_check_accepts(fd, opcode, data, fields):
    assert frame(fd, opcode, data, **fields).check() is None


# Frame: serialize


@pytest.mark.parametrize(
    ("opcode", "data", "fields", "wire"),
    [
        (1, b"Spam", {}, b"\x81\x04Spam"),
        (1, b"Spam", {"fin": False}, b"\x01\x04Spam"),
        (0, b"", {}, b"\x80\x00"),
        (2, bytes(125), {}, b"\x82\x7d" + bytes(125)),
        (2, bytes(126), {}, b"\x82\x7e\x00\x7e" + bytes(126)),
        (2, bytes(65535), {}, b"\x82\x7e\xff\xff" + bytes(65535)),
        (2, bytes(65536), {}, b"\x82\x7f" + (65536).to_bytes(8, "big") + bytes(65536)),
        (8, b"\x03\xe8", {}, b"\x88\x02\x03\xe8"),
        (9, bytearray(b"ping"), {}, b"\x89\x04ping"),
        (10, memoryview(b"pong"), {}, b"\x8a\x04pong"),
    ],
)
def test_serialize_and_parse(fd, opcode, data, fields, wire):
    made = frame(fd, opcode, data, **fields)
    assert made.serialize(mask=False) == wire
    assert parse(fd, wire, mask=False) == made


def test_serialize_masks_with_a_new_key_each_time(fd):
    made = frame(fd, 2, bytes(8))
    wires = [made.serialize(mask=True) for _ in range(20)]
    keys = {wire[2:6] for wire in wires}
    assert len(keys) > 1
    for wire in wires:
        assert wire[:2] == b"\x82\x88"
        assert wire[6:] == wire[2:6] * 2


class Increment:
    """An extension that adds a number to every byte and says so in a reserved bit."""

    name = "x-increment"

    def __init__(self, amount):
        self.amount = amount
        self.max_sizes = []

    def encode(self, frame):
        data = bytes((byte + self.amount) % 256 for byte in frame.data)
        return dataclasses.replace(frame, data=data, rsv1=not frame.rsv1)

    def decode(self, frame, *, max_size=None):
        self.max_sizes.append(max_size)
        data = bytes((byte - self.amount) % 256 for byte in frame.data)
        return dataclasses.replace(frame, data=data, rsv1=not frame.rsv1)


class Double:
    """An extension whose order matters among others."""

    name = "x-double"

    def encode(self, frame):
        return dataclasses.replace(frame, data=bytes(byte * 2 for byte in frame.data))

    def decode(self, frame, *, max_size=None):
        return dataclasses.replace(frame, data=bytes(byte // 2 for byte in frame.data))


def test_extensions_run_in_order_and_back(fd):
    made = frame(fd, 2, b"\x01\x02")
    extensions = [Increment(3), Double()]
    wire = made.serialize(mask=False, extensions=extensions)
    assert wire == b"\xc2\x02\x08\x0a"
    assert parse(fd, wire, mask=False, max_size=9, extensions=extensions) == made
    assert extensions[0].max_sizes == [9]
    assert made == frame(fd, 2, b"\x01\x02")


def test_reserved_bit_that_no_extension_takes(fd):
    with pytest.raises(fd.exceptions.ProtocolError, match="reserved bits"):
        parse(fd, b"\xa2\x00", mask=False, extensions=[Double()])


# Frame: parse

MALFORMED = [
    *(
        (bytes([0x80 | opcode, 0]), False, "invalid opcode")
        for opcode in (*range(3, 8), *range(11, 16))
    ),
    (b"\xc1\x00", False, "reserved bits"),
    (b"\xa1\x00", False, "reserved bits"),
    (b"\x91\x00", False, "reserved bits"),
    (b"\x81\x80", False, "incorrect masking"),
    (b"\x81\x00", True, "incorrect masking"),
    (b"\x89\x7e", False, "control frame too long"),
    (b"\x88\xff", True, "control frame too long"),
    (b"\x09\x01", False, "fragmented control frame"),
    (b"\x82\x7e\x00\x7d", False, "shortest"),
    (b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", False, "shortest"),
    (b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", False, "63 bits"),
    (b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", False, "63 bits"),
]


@pytest.mark.parametrize(("header", "mask", "message"), MALFORMED)
def test_parse_decides_from_the_header_alone(fd, header, mask, message):
    with pytest.raises(fd.exceptions.ProtocolError, match=message):
        parse(fd, header, mask=mask)


def test_parse_fragmented_control_frame_also_with_extensions(fd):
    with pytest.raises(fd.exceptions.ProtocolError, match="fragmented control frame"):
        parse(fd, b"\x09\x01", mask=False, extensions=[Increment(1)])


def test_parse_decides_on_the_size_before_the_payload(fd):
    source = Source([b"\x82\x7e\x00\x7f", b"x" * 127])
    with pytest.raises(fd.exceptions.PayloadTooBig) as raised:
        parse(fd, source=source, mask=False, max_size=126)
    assert (raised.value.size, raised.value.max_size) == (127, 126)
    assert source.consumed == 4


def test_parse_up_to_the_limit(fd):
    wire = frame(fd, 2, b"x" * 126).serialize(mask=True)
    assert parse(fd, wire, mask=True, max_size=126).data == b"x" * 126
    assert parse(fd, b"\x82\x00", mask=False, max_size=0).data == b""


def test_parse_end_of_stream(fd):
    with pytest.raises(EOFError):
        parse(fd, b"\x82\x02", b"x", mask=False)


@given(
    opcode=st.sampled_from([0, 1, 2, 8, 9, 10]),
    data=st.one_of(
        st.binary(max_size=125),
        st.sampled_from([126, 65535, 65536, 65540]).map(lambda size: b"\x5a" * size),
    ),
    fin=st.booleans(),
    mask=st.booleans(),
    cut=st.integers(0, 20),
)
def test_round_trip(fd, opcode, data, fin, mask, cut):
    if opcode >= 8:
        data, fin = data[:125], True
    made = frame(fd, opcode, data, fin=fin)
    wire = made.serialize(mask)
    pieces = [wire[index : index + 1] for index in range(min(cut, len(wire)))] + [wire[cut:]]
    assert parse(fd, *pieces, mask=mask) == made
