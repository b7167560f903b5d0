"""What the messages contain. The same bytes for every peer and every run."""

from __future__ import annotations

import json
import random

KINDS = ("binary", "ascii", "mixed", "json")

# Two- and three-byte characters with some ASCII between: the text of most of the world.
_MIXED = "Grüße, Привет мир, καλημέρα κόσμε, こんにちは世界, 안녕하세요 세계, नमस्ते दुनिया. "


def payload(kind: str, size: int) -> str | bytes:
    """Return a message of exactly ``size`` bytes (of UTF-8, where it is text)."""
    rng = random.Random(f"{kind}:{size}")
    if kind == "binary":
        return rng.randbytes(size)
    if kind == "ascii":
        words = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz     ,.", k=size))
        return words[:size]
    if kind == "mixed":
        text = _MIXED * (size // len(_MIXED.encode()) + 1)
        cut = text.encode()[:size].decode(errors="ignore")
        return cut + "." * (size - len(cut.encode()))
    if kind == "json":
        return _json(rng, size)
    raise ValueError(f"unknown kind of payload {kind!r}")


def _json(rng: random.Random, size: int) -> str:
    """A list of records as an application would push them, padded to ``size``."""
    records = []
    length = 0
    while length < size:
        record = {
            "id": rng.randrange(10**9),
            "symbol": rng.choice(["BTC-USD", "ETH-USD", "SOL-EUR", "ADA-GBP"]),
            "side": rng.choice(["buy", "sell"]),
            "price": round(rng.uniform(1, 70_000), 2),
            "amount": round(rng.expovariate(1), 6),
            "time": f"2026-11-{rng.randrange(1, 29):02}T12:{rng.randrange(60):02}:00Z",
        }
        records.append(record)
        length += len(json.dumps(record)) + 2
    return json.dumps(records).ljust(size)[:size]


def encoded(message: str | bytes) -> bytes:
    """The bytes that travel."""
    return message.encode() if isinstance(message, str) else message
