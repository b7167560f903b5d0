"""Sequences of frames in random chunks, compared with a model that knows nothing of bytes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .codec.wire import BINARY, CLOSE, CONT, KEY, PING, PONG, TEXT, frame
from .test_protocol import make, sent_frames

LIMIT = 50
SETTINGS = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])

# A frame of the model: opcode, payload, fin.
ModelFrame = tuple[int, bytes, bool]

CLOSES = st.sampled_from(
    [b"", b"\x03\xe8", b"\x03\xe9bye", b"\x0f\xa0", b"\x03\xef\xff", b"\x03\xed", b"\x03"]
)
TEXTS = st.one_of(
    st.text(max_size=8).map(str.encode), st.sampled_from([b"\xe2", b"\x82\xac", b"\xff", b"a" * 30])
)


@st.composite
def model_frames(draw: Callable[..., Any]) -> ModelFrame:
    opcode = draw(st.sampled_from([TEXT, TEXT, BINARY, CONT, CONT, CONT, PING, PONG, CLOSE, 3]))
    if opcode == CLOSE:
        return opcode, draw(CLOSES), True
    if opcode in (PING, PONG):
        return opcode, draw(st.binary(max_size=5)), True
    return opcode, draw(TEXTS), draw(st.booleans())


class Model:
    """What RFC 6455 says that a receiver makes of frames, in the plainest words."""

    def __init__(self) -> None:
        self.events: list[ModelFrame] = []
        self.answers: list[tuple[int, bytes]] = []
        self.message: list[bytes] | None = None
        self.text = False
        self.over = False
        self.code: int | None = None

    def receive(self, opcode: int, payload: bytes, fin: bool) -> None:
        if self.over:
            return
        if opcode == 3 or ((opcode == CONT) != (self.message is not None) and opcode < CLOSE):
            self.fail(1002)
            return
        if opcode == PING:
            self.answers.append((0x8A, payload))
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big")
            if payload and code not in (1000, 1001, 1007, 4000):
                self.fail(1002)
                return
            if b"\xff" in payload[2:]:
                self.fail(1007)
                return
            self.answers.append((0x88, payload))
            self.over = True
        elif opcode != PONG:
            if opcode != CONT:
                self.message, self.text = [], opcode == TEXT
            assert self.message is not None
            if sum(map(len, self.message)) + len(payload) > LIMIT:
                self.fail(1009)
                return
            self.message.append(payload)
            if self.text and not self.good(b"".join(self.message), fin):
                self.fail(1007)
                return
            if fin:
                self.message = None
        self.events.append((opcode, payload, fin))

    def good(self, data: bytes, whole: bool) -> bool:
        """Tell whether data is UTF-8, or can still become so."""
        try:
            data.decode()
        except UnicodeDecodeError as exc:
            return not whole and exc.end == len(data) and exc.reason == "unexpected end of data"
        return True

    def fail(self, code: int) -> None:
        self.code = code
        self.over = True


@SETTINGS
@given(
    st.lists(model_frames(), max_size=15),
    st.lists(st.integers(1, 60), min_size=1, max_size=10),
    st.sampled_from(["CLIENT", "SERVER"]),
)
def test_protocol_does_what_the_model_says(
    fd: ModuleType, frames: list[ModelFrame], sizes: list[int], side: str
) -> None:
    model = Model()
    key = KEY if side == "SERVER" else None
    data = b""
    for opcode, payload, fin in frames:
        model.receive(opcode, payload, fin)
        data += frame(opcode, payload, fin=fin, key=key)
    protocol = make(fd, side, max_size=LIMIT)
    number = 0
    while data:
        size = sizes[number % len(sizes)]
        protocol.receive_data(data[:size])
        data = data[size:]
        number += 1
    found = [(event.opcode, bytes(event.data), event.fin) for event in protocol.events_received()]
    assert found == model.events
    answers = sent_frames(protocol)
    if answers and answers[-1] == (-1, b""):
        assert side == "SERVER" and model.over
        answers.pop()
    if model.code is not None:
        head, payload = answers.pop()
        assert (head, payload[:2]) == (0x88, model.code.to_bytes(2, "big"))
        assert protocol.parser_exc is not None
    else:
        assert protocol.parser_exc is None
    assert answers == model.answers
    assert protocol.state.name == ("CLOSING" if model.over else "OPEN")
    protocol.receive_eof()
    assert protocol.state.name == "CLOSED"
    clean = (
        model.over
        and model.code is None
        and model.answers[-1][1][:2] in (b"", b"\x03\xe8", b"\x03\xe9")
    )
    assert (type(protocol.close_exc) is fd.exceptions.ConnectionClosedOK) is clean


@SETTINGS
@given(
    st.lists(model_frames(), max_size=15),
    st.lists(st.integers(1, 60), min_size=1, max_size=10),
    st.sampled_from(["pull", "pull_fragment"]),
)
def test_messages_are_what_the_model_says(
    fd: ModuleType, frames: list[ModelFrame], sizes: list[int], mode: str
) -> None:
    """The same by pulling: whole messages, or fragments with the opcode of their message."""
    model = Model()
    expected: list[Any] = []
    parts: list[bytes] = []
    kind = 0
    data = b""
    for opcode, payload, fin in frames:
        model.receive(opcode, payload, fin)
        data += frame(opcode, payload, fin=fin)
    for opcode, payload, fin in model.events:
        if opcode >= CLOSE:
            expected.append((opcode, payload))
            continue
        kind = opcode or kind
        parts = [payload] if opcode else [*parts, payload]
        if mode == "pull_fragment":
            expected.append((kind, payload, fin))
        elif fin:
            whole = b"".join(parts)
            expected.append((kind, whole.decode() if kind == TEXT else whole))
    protocol = make(fd, max_size=LIMIT)
    protocol.pulling = True
    found: list[Any] = []
    number, failed = 0, False
    while data and not protocol.discarding:
        size = sizes[number % len(sizes)]
        protocol.decoder.feed(data[:size])
        data = data[size:]
        number += 1
        try:
            while not protocol.discarding and (item := getattr(protocol, mode)()) is not None:
                if protocol.opcode >= CLOSE:
                    protocol.receive_control(protocol.opcode, item)
                    found.append((protocol.opcode, item))
                elif mode == "pull":
                    found.append((protocol.opcode, item))
                else:
                    found.append((protocol.opcode, item, protocol.fin))
        except (fd.exceptions.WebSocketException, UnicodeDecodeError) as exc:
            code, _ = fd.protocol.error_close(exc)
            assert code == model.code
            failed = True
            break
    assert failed is (model.code is not None)
    assert found == expected
