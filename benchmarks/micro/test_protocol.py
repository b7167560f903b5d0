"""The protocol without a socket: bytes in, messages out; messages in, bytes out."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from ..payloads import encoded, payload
from .conftest import Speed

MESSAGES = 500


@pytest.fixture(params=["client", "server"])
def side(request: pytest.FixtureRequest) -> str:
    side: str = request.param
    return side


def _open(fd: ModuleType, side: str) -> Any:
    return fd.protocol.Protocol(fd.protocol.Side[side.upper()], state=fd.protocol.State.OPEN)


def _wire(fd: ModuleType, side: str, message: str | bytes) -> bytes:
    """What the other side sends."""
    encoder = fd.codec.Encoder(masked=side == "server")
    head = 0x81 if isinstance(message, str) else 0x82
    return b"".join(encoder.frame(head, message) for _ in range(MESSAGES))


@pytest.mark.parametrize("kind", ["binary", "ascii"])
def test_messages_in(benchmark: Any, record: Speed, fd: ModuleType, side: str, kind: str) -> None:
    """As a connection does it: whole messages of 100 bytes."""
    message = payload(kind, 100)
    wire = _wire(fd, side, message)
    protocol = _open(fd, side)

    def take() -> Any:
        protocol.decoder.feed(wire)
        last = None
        for _ in range(MESSAGES):
            last = protocol.pull()
        return last

    assert benchmark(take) == message
    record("ns/message", MESSAGES)


def test_events_in(benchmark: Any, record: Speed, fd: ModuleType, side: str) -> None:
    """As a user of the Sans-I/O interface does it: frames of 100 bytes."""
    message = payload("binary", 100)
    wire = _wire(fd, side, message)
    protocol = _open(fd, side)

    def take() -> Any:
        protocol.receive_data(wire)
        return protocol.events_received()

    events = benchmark(take)
    assert len(events) == MESSAGES
    assert bytes(events[-1].data) == message
    record("ns/message", MESSAGES)


def test_messages_out(benchmark: Any, record: Speed, fd: ModuleType, side: str) -> None:
    message = encoded(payload("binary", 100))
    protocol = _open(fd, side)

    def put() -> Any:
        for _ in range(MESSAGES):
            protocol.send_binary(message)
        return protocol.data_to_send()

    sent = benchmark(put)
    assert sum(map(len, sent)) == MESSAGES * (106 if side == "client" else 102)
    record("ns/message", MESSAGES)
