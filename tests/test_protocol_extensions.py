"""The protocol with extensions: permessage-deflate, and such as users write."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from .codec.wire import BINARY, CLOSE, CONT, PING, TEXT, frame
from .test_protocol import events, make, sent_frames


def deflate(fd: ModuleType) -> Any:
    return fd.extensions.permessage_deflate.PerMessageDeflate(False, False, 15, 15)


def compressed(fd: ModuleType, *messages: Any, threshold: int = 0) -> bytes:
    """Build what a server with permessage-deflate sends; a message is bytes, or a list of fragments."""
    server = make(fd, "SERVER")
    server.extensions = [deflate(fd)]
    for message in messages:
        fragments = message if isinstance(message, list) else [message]
        for number, data in enumerate(fragments):
            fin = number == len(fragments) - 1
            opcode = fd.frames.Opcode.CONT if number else fd.frames.Opcode.TEXT
            head, payload = server.encode_data(opcode, data, fin, True if not number else None)
            server._write(server.encoder.frame(head, payload))
    return b"".join(server.data_to_send())


class Reverse:
    """Turns payloads round and sets RSV2; without a base class, as duck typing allows."""

    name = "x-reverse"

    def __init__(self, kind: Any = bytes) -> None:
        self.kind = kind
        self.limits: list[Any] = []

    def encode(self, frame: Any) -> Any:
        frame.data = self.kind(bytes(frame.data)[::-1])
        frame.rsv2 = True
        return frame

    def decode(self, frame: Any, **kwargs: Any) -> Any:
        self.limits.append(kwargs.get("max_size", "none given"))
        frame.data = self.kind(bytes(frame.data)[::-1])
        frame.rsv2 = False
        return frame


class Suffix:
    """Adds a letter to data frames, and gives a new frame instead of changing the old one."""

    def __init__(self, fd: ModuleType, letter: bytes) -> None:
        self.name = f"x-suffix-{letter.decode()}"
        self.letter = letter
        self.fd = fd

    def encode(self, frame: Any) -> Any:
        if frame.opcode >= CLOSE:
            return frame
        return self.fd.frames.Frame(frame.opcode, frame.data + self.letter, frame.fin)

    def decode(self, frame: Any, *, max_size: int | None = None) -> Any:
        if frame.opcode >= CLOSE:
            return frame
        assert frame.data.endswith(self.letter)
        return self.fd.frames.Frame(frame.opcode, frame.data[:-1], frame.fin)


def with_extensions(fd: ModuleType, *extensions: Any, side: str = "CLIENT", **kwargs: Any) -> Any:
    protocol = make(fd, side, **kwargs)
    protocol.extensions = list(extensions)
    return protocol


def test_reserved_bits_follow_the_extensions(fd: ModuleType) -> None:
    protocol = make(fd)
    for extensions, allowed in (
        ([deflate(fd)], 4),
        ([Reverse()], 7),
        ([deflate(fd), Reverse()], 7),
        ([], 0),
    ):
        protocol.extensions = extensions
        assert protocol.extensions == extensions
        assert protocol.decoder.rsv_allowed == allowed


@pytest.mark.parametrize("piece", [1, 50, 1 << 20])
def test_deflated_messages_become_events(fd: ModuleType, piece: int) -> None:
    data = compressed(fd, b"abc" * 100, [b"one", b"", b"two"], "né".encode() * 50)
    protocol = with_extensions(fd, deflate(fd))
    for start in range(0, len(data), piece):
        protocol.receive_data(data[start : start + piece])
    assert protocol.parser_exc is None
    found = events(fd, protocol)
    assert (
        b"".join(payload for _, payload, _ in found)
        == b"abc" * 100 + b"onetwo" + "né".encode() * 50
    )
    assert [fin for _, _, fin in found] == [True, False, False, True, True]


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("piece", [1, 50, 1 << 20])
def test_deflated_messages_are_pulled(fd: ModuleType, piece: int, as_bytes: bool) -> None:
    messages = ["abc" * 100, "one€two", "né" * 50]
    euro = "€".encode()
    data = compressed(
        fd, messages[0].encode(), [b"one" + euro[:1], b"", euro[1:] + b"two"], messages[2].encode()
    )
    protocol = with_extensions(fd, deflate(fd))
    protocol.pulling = True
    found, bounds = [], []
    for start in range(0, len(data), piece):
        protocol.receive_data = None  # a connection does not come by there
        protocol.decoder.feed(data[start : start + piece])
        while (message := protocol.pull(as_bytes)) is not None:
            assert protocol.opcode == TEXT
            found.append(message)
            bounds.append(protocol.decoder.bounds)
    assert found == ([message.encode() for message in messages] if as_bytes else messages)
    assert bounds == [None, (4, 4, 9), None]


def test_deflated_fragments_are_pulled(fd: ModuleType) -> None:
    data = (
        compressed(fd, [b"one", b"", b"two"], b"whole")
        + frame(PING, b"p")
        + frame(BINARY, b"plain")
    )
    protocol = with_extensions(fd, deflate(fd))
    protocol.decoder.feed(data)
    found = []
    while (fragment := protocol.pull_fragment()) is not None:
        found.append((protocol.opcode, fragment, protocol.fin))
    assert [entry for entry in found if entry[0] == PING] == [(PING, b"p", True)]
    text = [entry for entry in found if entry[0] == TEXT]
    assert b"".join(fragment for _, fragment, _ in text) == b"onetwowhole"
    assert [fin for _, _, fin in text] == [False, False, True, True]
    assert found[-1] == (BINARY, b"plain", True)


def test_binary_messages_are_pulled(fd: ModuleType) -> None:
    protocol = with_extensions(fd, deflate(fd))
    protocol.decoder.feed(
        frame(BINARY, b"\xff", fin=False) + frame(CONT, b"\xfe") + frame(BINARY, b"\xff")
    )
    assert (protocol.pull(), protocol.opcode) == (b"\xff\xfe", BINARY)
    assert (protocol.pull(), protocol.opcode) == (b"\xff", BINARY)
    assert protocol.pull() is None


def test_message_that_was_begun_whole_goes_on_as_fragments(fd: ModuleType) -> None:
    data = compressed(fd, [b"one", b"two", b"three"])
    protocol = with_extensions(fd, deflate(fd))
    protocol.decoder.feed(data[:-4])
    assert protocol.pull() is None
    protocol.decoder.feed(data[-4:])
    fragments = []
    while (fragment := protocol.pull_fragment()) is not None:
        fragments.append((fragment, protocol.fin))
    assert b"".join(fragment for fragment, _ in fragments) == b"onetwothree"
    assert [fin for _, fin in fragments] == [False] * (len(fragments) - 1) + [True]


def test_control_frames_between_deflated_fragments(fd: ModuleType) -> None:
    one = compressed(fd, [b"one", b"two"])
    size = 2 + one[1]
    protocol = with_extensions(fd, deflate(fd))
    protocol.decoder.feed(one[:size] + frame(PING, b"p") + one[size:])
    assert (protocol.pull(), protocol.opcode) == (b"p", PING)
    assert (protocol.pull(), protocol.opcode) == ("onetwo", TEXT)


@pytest.mark.parametrize("pull", ["pull", "pull_fragment"])
@pytest.mark.parametrize("fragments", [[b"ab\xff"], [b"ab", b"\xff"], [b"ab", b"", b"\xc3"]])
def test_r6_bad_text_behind_an_extension_is_final(
    fd: ModuleType, pull: str, fragments: list[bytes]
) -> None:
    protocol = with_extensions(fd, deflate(fd))
    protocol.decoder.feed(compressed(fd, fragments) + frame(BINARY, b"behind"))
    with pytest.raises(UnicodeDecodeError) as first:
        while getattr(protocol, pull)() is not None:
            pass
    for again in (protocol.pull, protocol.pull_fragment, protocol.pull):
        with pytest.raises(UnicodeDecodeError) as later:
            again()
        assert later.value is first.value


@pytest.mark.parametrize("piece", [100, 1 << 20])
def test_r2_what_was_inflated_counts(fd: ModuleType, piece: int) -> None:
    """The sum over fragments, by one byte too much."""
    for size, fits in ((600, True), (601, False)):
        data = compressed(fd, [b"a" * 400, b"b" * size])
        protocol = with_extensions(fd, deflate(fd), max_size=1000)
        for start in range(0, len(data), piece):
            protocol.receive_data(data[start : start + piece])
        assert (protocol.parser_exc is None) is fits
        if not fits:
            assert isinstance(protocol.parser_exc, fd.exceptions.PayloadTooBig)
            assert "after reading 400 bytes exceeds limit of 1000" in str(protocol.parser_exc)
            assert sent_frames(protocol)[0][1][:2] == b"\x03\xf1"


@pytest.mark.parametrize(
    ("max_size", "expected"),
    [
        (None, [None, None, None]),
        (10, [10, 6, 10]),
        ((10, 5), [5, 5, 5]),
        ((None, 5), [5, 5, 5]),
        ((10, 100), [10, 6, 10]),
        (4, [4, 0]),
    ],
)
def test_what_is_left_for_an_extension(fd: ModuleType, max_size: Any, expected: list[Any]) -> None:
    """R1, R2: nothing left is 0, never None."""
    extension = Reverse()
    protocol = with_extensions(fd, extension, max_size=max_size)
    rsv = {"rsv": 2}
    protocol.receive_data(frame(BINARY, b"abcd", fin=False, **rsv))
    protocol.receive_data(frame(CONT, b"" if max_size == 4 else b"ef", **rsv))
    if max_size != 4:
        protocol.receive_data(frame(BINARY, b"gh", **rsv))
    assert extension.limits == expected
    assert protocol.parser_exc is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_extension_of_a_user(fd: ModuleType, kind: Any) -> None:
    """It sees control frames too, and its payloads may be of any type."""
    protocol = with_extensions(fd, Reverse(kind))
    protocol.send_text(b"abc")
    protocol.send_ping(b"12")
    assert sent_frames(protocol) == [(0xA1, b"cba"), (0xA9, b"21")]
    protocol.receive_data(
        frame(TEXT, b"cba", rsv=2) + frame(PING, b"21", rsv=2) + frame(CLOSE, b"\xe8\x03", rsv=2)
    )
    assert events(fd, protocol) == [
        (TEXT, b"abc", True),
        (PING, b"12", True),
        (CLOSE, b"\x03\xe8", True),
    ]
    assert sent_frames(protocol) == [(0xAA, b"21"), (0xA8, b"\xe8\x03")]


def test_order_of_extensions(fd: ModuleType) -> None:
    """Out through the first and then the second, in the other way round."""
    protocol = with_extensions(fd, Suffix(fd, b"1"), Suffix(fd, b"2"))
    protocol.send_binary(b"x")
    assert sent_frames(protocol) == [(0x82, b"x12")]
    protocol.receive_data(frame(BINARY, b"y12"))
    assert events(fd, protocol) == [(BINARY, b"y", True)]


def test_extension_that_leaves_reserved_bits(fd: ModuleType) -> None:
    protocol = with_extensions(fd, Suffix(fd, b"1"), deflate(fd))
    protocol.receive_data(frame(PING, b"", rsv=1))
    assert sent_frames(protocol) == [(0x88, b"\x03\xeareserved bits must be 0")]


@pytest.mark.parametrize("first", [0xC0, 0xC8, 0xC9, 0xCA])
def test_r5_header_alone_decides_on_rsv1(fd: ModuleType, first: int) -> None:
    """With permessage-deflate: no byte of the payload has come."""
    protocol = with_extensions(fd, deflate(fd))
    if first == 0xC0:
        protocol.receive_data(frame(TEXT, b"a", fin=False))
    protocol.receive_data(bytes([first, 100]))
    assert sent_frames(protocol) == [(0x88, b"\x03\xeareserved bits must be 0")]


def test_extension_with_an_error_of_its_own(fd: ModuleType) -> None:
    class Broken(Reverse):
        def decode(self, frame: Any, **kwargs: Any) -> Any:
            raise ValueError("broken")

    protocol = with_extensions(fd, Broken())
    protocol.receive_data(frame(TEXT, b"abc"))
    assert sent_frames(protocol) == [(0xA8, b"\xf3\x03")]
    assert isinstance(protocol.parser_exc, ValueError)


def test_extension_that_cannot_encode(fd: ModuleType) -> None:
    class Broken(Reverse):
        def encode(self, frame: Any) -> Any:
            raise ValueError("broken")

    protocol = with_extensions(fd, Broken())
    with pytest.raises(ValueError, match="broken"):
        protocol.send_text(b"a", fin=False)
    assert protocol.data_to_send() == []
    protocol.extensions = []
    protocol.send_text(b"a")
    assert len(sent_frames(protocol)) == 1


def test_choice_to_compress(fd: ModuleType) -> None:
    """Only permessage-deflate is asked."""
    protocol = with_extensions(fd, deflate(fd), Suffix(fd, b"1"), side="SERVER")
    text = fd.frames.Opcode.TEXT
    assert protocol.encode_data(text, b"abc" * 50, True, False) == (0x81, b"abc" * 50 + b"1")
    head, payload = protocol.encode_data(text, b"abc" * 50, True, True)
    assert head == 0x81  # the second extension made a new frame
    assert len(payload) < 50


def test_debug_log_shows_frames_as_they_go_over_the_wire(
    fd: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "fullduplex.client")
    protocol = with_extensions(fd, Reverse())
    protocol.send_text(b"abc")
    protocol.receive_data(frame(TEXT, b"cba", rsv=2))
    assert "> TEXT 'cba' [3 bytes, rsv2]" in caplog.text
    assert "< TEXT 'cba' [3 bytes, rsv2]" in caplog.text
