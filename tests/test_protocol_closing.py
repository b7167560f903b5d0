"""The state machine: every move from every state, and every way in which a connection ends."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import pytest

from .codec.wire import BINARY, CLOSE, PING, TEXT, frame
from .test_protocol import events, incoming, make, sent_frames


@pytest.fixture(params=["CLIENT", "SERVER"])
def side(request: pytest.FixtureRequest) -> str:
    return request.param  # type: ignore[no-any-return]


def in_state(fd: ModuleType, side: str, state: str) -> Any:
    """Make a protocol that came to a state in the usual way."""
    protocol = make(
        fd,
        side,
        state=fd.protocol.State.CONNECTING if state == "CONNECTING" else fd.protocol.State.OPEN,
    )
    if state in ("CLOSING", "CLOSED"):
        protocol.send_close(1000)
    if state == "CLOSED":
        protocol.receive_data(incoming(side, CLOSE, b"\x03\xe8"))
        protocol.receive_eof()
    protocol.data_to_send()
    protocol.events_received()
    assert protocol.state.name == state
    return protocol


ACTIONS = {
    "send_text": lambda protocol: protocol.send_text(b"a"),
    "send_binary": lambda protocol: protocol.send_binary(b"a"),
    "send_ping": lambda protocol: protocol.send_ping(b"a"),
    "send_pong": lambda protocol: protocol.send_pong(b"a"),
    "send_close": lambda protocol: protocol.send_close(1000),
}
LEGAL = {
    "CONNECTING": set(),
    "OPEN": set(ACTIONS),
    "CLOSING": {"send_ping", "send_pong"},
    "CLOSED": set(),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", LEGAL)
def test_what_may_be_sent_when(fd: ModuleType, side: str, state: str, action: str) -> None:
    protocol = in_state(fd, side, state)
    if action in LEGAL[state]:
        ACTIONS[action](protocol)
        assert len(sent_frames(protocol)) == 1
    else:
        with pytest.raises(fd.exceptions.InvalidState, match=state):
            ACTIONS[action](protocol)
        assert protocol.data_to_send() == []
        assert protocol.state.name == state


def test_order_of_fragments_is_checked_before_the_state(fd: ModuleType) -> None:
    protocol = make(fd)
    protocol.send_text(b"a", fin=False)
    protocol.send_close()
    with pytest.raises(fd.exceptions.ProtocolError):
        protocol.send_text(b"b")
    with pytest.raises(fd.exceptions.InvalidState):
        protocol.send_continuation(b"b", fin=True)


# Each: what happens, in order. "send" and "close": a Close frame from us, from the peer; "eof": end of the stream.
# Then the states behind each, what is to be sent by a client and by a server, the code and reason, the exception.
FRAME, EOF = (0x88, b"\x03\xe8ok"), (-1, b"")
ENDS = [
    (
        "send close eof",
        "CLOSING CLOSING CLOSED",
        [FRAME, EOF],
        [FRAME, EOF],
        (1000, "ok"),
        "OK",
        False,
    ),
    ("close eof", "CLOSING CLOSED", [FRAME, EOF], [FRAME, EOF], (1000, "ok"), "OK", True),
    ("send eof", "CLOSING CLOSED", [FRAME, EOF], [FRAME, EOF], (1006, ""), "Error", None),
    ("eof", "CLOSED", [EOF], [EOF], (1006, ""), "Error", None),
    ("eof eof", "CLOSED CLOSED", [EOF], [EOF], (1006, ""), "Error", None),
    ("close", "CLOSING", [FRAME], [FRAME, EOF], (None, None), None, True),
    ("send", "CLOSING", [FRAME], [FRAME], (None, None), None, None),
    ("send close", "CLOSING CLOSING", [FRAME], [FRAME, EOF], (None, None), None, False),
]


@pytest.mark.parametrize(("happens", "states", "client", "server", "ended", "kind", "first"), ENDS)
def test_closing_handshake(
    fd: ModuleType,
    side: str,
    happens: str,
    states: str,
    client: list[Any],
    server: list[Any],
    ended: Any,
    kind: str | None,
    first: bool | None,
) -> None:
    protocol = make(fd, side)
    for what, state in zip(happens.split(), states.split(), strict=True):
        if what == "send":
            protocol.send_close(1000, "ok")
        elif what == "close":
            protocol.receive_data(incoming(side, CLOSE, b"\x03\xe8ok"))
            assert events(fd, protocol) == [(CLOSE, b"\x03\xe8ok", True)]
        else:
            protocol.receive_eof()
        assert protocol.state.name == state
        assert protocol.close_expected() is (state == "CLOSING")
    assert sent_frames(protocol) == (client if side == "CLIENT" else server)
    assert (protocol.close_code, protocol.close_reason) == ended
    assert protocol.close_rcvd_then_sent is first
    if kind is None:
        with pytest.raises(AssertionError):
            _ = protocol.close_exc
    else:
        exc = protocol.close_exc
        assert type(exc) is getattr(fd.exceptions, f"ConnectionClosed{kind}")
        assert (exc.rcvd, exc.sent) == (protocol.close_rcvd, protocol.close_sent)
        assert exc.rcvd_then_sent is first
        assert protocol.close_exc is not exc


def exchange(fd: ModuleType, client: Any, server: Any) -> None:
    """Deliver what each has to send to the other, until there is nothing left."""
    while True:
        from_client, from_server = client.data_to_send(), server.data_to_send()
        if not from_client and not from_server:
            return
        for target, pieces in ((server, from_client), (client, from_server)):
            for data in pieces:
                target.receive_data(data) if data else target.receive_eof()


@pytest.mark.parametrize("first", ["client", "server", "both"])
def test_both_ends_of_a_closing_handshake(fd: ModuleType, first: str) -> None:
    """Whoever begins, also both at once: two Close frames, the server ends TCP, all are CLOSED."""
    client, server = make(fd, "CLIENT"), make(fd, "SERVER")
    if first != "server":
        client.send_close(1000, "client")
    if first != "client":
        server.send_close(1001, "server")
    exchange(fd, client, server)
    assert client.state is server.state is fd.protocol.State.CLOSED
    assert client.eof_sent and server.eof_sent
    assert type(client.close_exc) is type(server.close_exc) is fd.exceptions.ConnectionClosedOK
    if first == "both":
        assert (client.close_code, server.close_code) == (1001, 1000)
        assert client.close_rcvd_then_sent is server.close_rcvd_then_sent is False
    else:
        assert (client.close_reason, server.close_reason) == (first, first)
        assert client.close_rcvd_then_sent is (first == "server")
    with pytest.raises(EOFError):
        client.receive_data(b"")


@pytest.mark.parametrize("ours", [None, 1000, 1001, 1002, 1011, 3000, 4999])
@pytest.mark.parametrize("theirs", [None, 1000, 1001, 1002, 1011, 3000, 4999])
def test_which_codes_are_a_clean_end(fd: ModuleType, ours: int | None, theirs: int | None) -> None:
    protocol = make(fd)
    protocol.send_close(ours)
    protocol.receive_data(frame(CLOSE, b"" if theirs is None else theirs.to_bytes(2, "big")))
    protocol.receive_eof()
    clean = ours in (None, 1000, 1001) and theirs in (None, 1000, 1001)
    assert type(protocol.close_exc) is getattr(
        fd.exceptions, f"ConnectionClosed{'OK' if clean else 'Error'}"
    )
    assert protocol.close_code == (theirs or 1005)


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x0f\xa0bye"])
def test_close_is_echoed_with_the_same_payload(fd: ModuleType, side: str, payload: bytes) -> None:
    protocol = make(fd, side)
    protocol.receive_data(incoming(side, CLOSE, payload))
    assert sent_frames(protocol)[0] == (0x88, payload)


@pytest.mark.parametrize(
    ("code", "reason", "text"),
    [
        (None, "why", "reason without a code"),
        (999, "", "invalid status code: 999"),
        (1004, "", "invalid status code"),
        (1005, "", "invalid status code"),
        (1006, "", "invalid status code"),
        (1015, "", "invalid status code"),
        (2999, "", "invalid status code"),
        (5000, "", "invalid status code"),
        (1000, "a" * 124, "close reason too long: 124 bytes, at most 123"),
        (1000, "é" * 62, "close reason too long: 124 bytes"),
    ],
)
def test_close_frames_that_may_not_be_sent(
    fd: ModuleType, side: str, code: Any, reason: str, text: str
) -> None:
    protocol = make(fd, side)
    with pytest.raises(fd.exceptions.ProtocolError, match=text):
        protocol.send_close(code, reason)
    assert protocol.state is fd.protocol.State.OPEN
    assert protocol.data_to_send() == []
    protocol.send_close(1000, "a" * 123)
    assert sent_frames(protocol) == [(0x88, b"\x03\xe8" + b"a" * 123)]


def test_nothing_counts_behind_a_close_frame(fd: ModuleType, side: str) -> None:
    """Not even what would be a violation (RFC 6455 §5.5.1)."""
    protocol = make(fd, side)
    behind = (
        incoming(side, PING, b"p")
        + incoming(side, TEXT, b"t")
        + incoming(side, 3)
        + incoming(side, CLOSE)
    )
    protocol.receive_data(incoming(side, CLOSE, b"\x03\xe8") + behind)
    protocol.receive_data(behind)
    assert events(fd, protocol) == [(CLOSE, b"\x03\xe8", True)]
    assert [head for head, _ in sent_frames(protocol) if head > 0] == [0x88]
    assert protocol.parser_exc is None


def test_data_counts_until_the_close_frame_comes(fd: ModuleType, side: str) -> None:
    """After our own Close frame, messages are still received and pings answered."""
    protocol = make(fd, side)
    protocol.send_close(1000)
    protocol.data_to_send()
    protocol.receive_data(incoming(side, BINARY, b"late") + incoming(side, PING, b"p"))
    assert events(fd, protocol) == [(BINARY, b"late", True), (PING, b"p", True)]
    assert sent_frames(protocol) == [(0x8A, b"p")]


def test_violation_while_closing(fd: ModuleType, side: str) -> None:
    """There is no second Close frame; a server ends the stream."""
    protocol = make(fd, side)
    protocol.send_close(1000)
    protocol.data_to_send()
    protocol.receive_data(incoming(side, 3) + incoming(side, CLOSE, b"\x03\xe8"))
    assert protocol.events_received() == []
    assert sent_frames(protocol) == ([(-1, b"")] if side == "SERVER" else [])
    assert protocol.close_rcvd is None
    protocol.receive_eof()
    assert str(protocol.close_exc) == "sent 1000 (OK); no close frame received"
    assert isinstance(protocol.close_exc.__cause__, fd.exceptions.ProtocolError)


def test_close_between_fragments_begins_the_handshake(fd: ModuleType, side: str) -> None:
    """RFC 6455 §5.4, §5.5: a control frame, also this one, may stand between fragments."""
    protocol = make(fd, side)
    protocol.receive_data(
        incoming(side, TEXT, b"a", fin=False) + incoming(side, CLOSE, b"\x03\xe8")
    )
    assert protocol.parser_exc is None
    assert sent_frames(protocol)[0] == (0x88, b"\x03\xe8")


WHOLE = (
    frame(TEXT, b"abc") + frame(BINARY, b"a" * 200, fin=False) + frame(PING, b"p") + frame(0, b"b")
)


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_eof_at_every_point(fd: ModuleType, cut: int) -> None:
    protocol = make(fd)
    protocol.receive_data(WHOLE[:cut])
    protocol.data_to_send()
    protocol.receive_eof()
    assert protocol.state is fd.protocol.State.CLOSED
    assert sent_frames(protocol) == [(-1, b"")]
    assert isinstance(protocol.parser_exc, EOFError)
    assert str(protocol.close_exc) == "no close frame received or sent"
    assert protocol.close_exc.__cause__ is protocol.parser_exc
    assert (protocol.close_code, protocol.close_reason) == (1006, "")
    protocol.receive_eof()
    assert protocol.data_to_send() == []
    with pytest.raises(EOFError):
        protocol.receive_data(b"a")


def test_half_closed_tcp(fd: ModuleType) -> None:
    """A peer that ended its stream behind its Close frame can still get ours."""
    protocol = make(fd, "SERVER")
    protocol.receive_data(incoming("SERVER", CLOSE, b"\x03\xe8"))
    protocol.receive_eof()
    assert sent_frames(protocol) == [(0x88, b"\x03\xe8"), (-1, b"")]
    assert type(protocol.close_exc) is fd.exceptions.ConnectionClosedOK


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1011, 4000])
def test_fail(fd: ModuleType, side: str, code: int) -> None:
    protocol = make(fd, side)
    protocol.fail(code, "why")
    expected = [(0x88, code.to_bytes(2, "big") + b"why")]
    assert sent_frames(protocol) == expected + ([(-1, b"")] if side == "SERVER" else [])
    assert protocol.state is fd.protocol.State.CLOSING
    protocol.receive_data(incoming(side, TEXT, b"ignored") + incoming(side, CLOSE, b"\x03\xe8"))
    assert protocol.events_received() == []
    protocol.receive_eof()
    assert str(protocol.close_exc).endswith("why; no close frame received")


def test_fail_without_a_frame(fd: ModuleType, side: str) -> None:
    protocol = make(fd, side)
    protocol.fail(1006)
    assert sent_frames(protocol) == [(-1, b"")]
    assert protocol.close_sent is None
    protocol.fail(1011)
    assert protocol.data_to_send() == []
    protocol.receive_eof()
    assert str(protocol.close_exc) == "no close frame received or sent"


def test_fail_once_closed(fd: ModuleType, side: str) -> None:
    protocol = in_state(fd, side, "CLOSED")
    protocol.fail(1011)
    assert protocol.state is fd.protocol.State.CLOSED
    assert protocol.data_to_send() == []


@pytest.mark.parametrize("reason", ["a" * 200, "é" * 100, "a" + "é" * 100, "€" * 60, "a\ud800"])
def test_reason_of_a_failure_is_cut_to_fit(fd: ModuleType, reason: str) -> None:
    protocol = make(fd)
    protocol.fail(1011, reason)
    [(_, payload)] = sent_frames(protocol)
    assert len(payload) <= 125
    text = payload[2:].decode()
    assert text == reason[: len(text)] or "\ud800" in reason


def test_codes_for_errors(fd: ModuleType) -> None:
    exceptions = fd.exceptions
    cases = [
        (exceptions.ProtocolError("why"), (1002, "why")),
        (UnicodeDecodeError("utf-8", b"", 0, 0, "where"), (1007, "where")),
        (exceptions.PayloadTooBig(8, 4), (1009, "frame with 8 bytes exceeds limit of 4 bytes")),
        (exceptions.TooManyFragments(4), (1009, str(exceptions.TooManyFragments(4)))),
        (ValueError("secret"), (1011, "")),
        (MemoryError(), (1011, "")),
    ]
    for exc, expected in cases:
        assert fd.protocol.error_close(exc) == expected


def test_message_read_after_the_end(fd: ModuleType) -> None:
    """A connection may read a Close frame after TCP ended: a full inbox kept it waiting."""
    protocol = make(fd)
    protocol.pulling = True
    protocol.receive_eof()
    protocol.receive_control(CLOSE, b"\x03\xe8")
    assert protocol.state is fd.protocol.State.CLOSED
    assert protocol.close_code == 1000


def test_a_connection_is_told_what_to_write(fd: ModuleType, side: str) -> None:
    """While pulling, nothing is written behind the writer's back."""
    protocol = make(fd, side)
    protocol.pulling = True
    protocol.receive_control(CLOSE, b"\x03\xe8")
    assert protocol.data_to_send() == []
    assert protocol.end_wanted is (side == "SERVER")
    protocol._write(protocol.take_control())
    assert sent_frames(protocol) == [(0x88, b"\x03\xe8")]


def test_failed_handshake(fd: ModuleType, side: str) -> None:
    protocol = make(fd, side, state=fd.protocol.State.CONNECTING)
    assert protocol.close_expected() is False
    error = fd.exceptions.InvalidMessage("why")
    protocol._fail_handshake(error)
    assert protocol.handshake_exc is error
    assert protocol.state is fd.protocol.State.CONNECTING
    assert protocol.close_expected() is True
    assert protocol.data_to_send() == [b""]
    protocol.receive_data(b"ignored")
    protocol.receive_eof()
    assert protocol.events_received() == protocol.data_to_send() == []


@pytest.mark.parametrize(
    ("state", "event"), list(itertools.product(range(4), ["open", "end of stream", "nonsense"]))
)
def test_moves_are_those_of_the_table(fd: ModuleType, state: int, event: str) -> None:
    protocol = make(fd, state=fd.protocol.State(state))
    target = fd.states.MOVES.get((fd.protocol.State(state), event))
    if target is None:
        with pytest.raises(fd.exceptions.InvalidState, match=f"cannot {event}"):
            protocol._move(event)
        assert protocol.state == state
    else:
        protocol._move(event)
        assert protocol.state is target
