"""Frames as bytes, built by hand: independent of the code under test."""

from __future__ import annotations

import struct
from types import ModuleType
from typing import Any

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = bytes.fromhex("37fa213d")  # the key of the examples in RFC 6455 §5.7


def xor(data: bytes, key: bytes, phase: int = 0) -> bytes:
    return bytes(byte ^ key[(phase + i) % 4] for i, byte in enumerate(data))


def header(
    opcode: int, size: int, *, fin: bool = True, rsv: int = 0, key: bytes | None = None
) -> bytes:
    """Build a header with the shortest form of the length."""
    first = fin << 7 | rsv << 4 | opcode
    bit = 0x80 if key is not None else 0
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    return head + (key or b"")


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, key: bytes | None = None
) -> bytes:
    body = payload if key is None else xor(payload, key)
    return header(opcode, len(payload), fin=fin, rsv=rsv, key=key) + body


def pull_all(decoder: Any, mode: str = "pull") -> list[tuple[int, bool, Any]]:
    """Pull until there is nothing: opcode, fin and what came."""
    found: list[tuple[int, bool, Any]] = []
    while (data := getattr(decoder, mode)()) is not None:
        found.append((decoder.opcode, decoder.fin, data))
    return found


def put(decoder: Any, data: bytes) -> int:
    """Put what fits into the space on offer; returns how many bytes that was."""
    with decoder.get_buffer() as view:
        count = min(len(view), len(data))
        view[:count] = data[:count]
    decoder.buffer_updated(count)
    return count


def receive(decoder: Any, data: bytes) -> None:
    """Put all of the data in, as a reader of a socket does."""
    while data:
        data = data[put(decoder, data) :]


def error_of(fd: ModuleType, decoder: Any, mode: str = "pull") -> tuple[str, str]:
    """Pull until the error; returns its type and text."""
    try:
        pull_all(decoder, mode)
    except (fd.exceptions.WebSocketException, UnicodeDecodeError) as exc:
        return type(exc).__name__, str(exc)
    raise AssertionError("no error")
