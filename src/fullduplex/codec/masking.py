"""Masking in pure Python."""

from __future__ import annotations

from ..typing import BytesLike


def apply_mask(data: BytesLike, key: BytesLike, phase: int = 0) -> bytes:
    """XOR ``data`` with the four-byte masking ``key``, from the key's byte ``phase`` on (RFC 6455 §5.3)."""
    if len(key) != 4:
        raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
    view = memoryview(data).cast("B")
    size = view.nbytes
    shift = phase & 3
    rotated = bytes(key[shift:]) + bytes(key[:shift])
    repeated = (rotated * (size // 4 + 1))[:size]
    return (int.from_bytes(view, "little") ^ int.from_bytes(repeated, "little")).to_bytes(
        size, "little"
    )
