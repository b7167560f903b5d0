"""Figures for docs/compression-measurements.md: what compression gains and costs.

    python benchmarks/compression.py gain       bytes saved and time, by message size
    python benchmarks/compression.py speed      time and ratio of each implementation
    python benchmarks/compression.py memory     bytes of a compressor and a decompressor

Needs zlib-ng and isal. Times are the best of several runs, in microseconds of one core.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from fullduplex.extensions import _zlib
from fullduplex.extensions.permessage_deflate import PerMessageDeflate
from fullduplex.frames import Frame, Opcode

TEXT = """
the of and to in is that for it as was with be by on not he his but at are this have from or
had an they which one you were all her she there would their we him been has when who will no
more if out so up said what its about than into them can only other time new some could these
two may first then do any like my now over such our man me even most made after also did many
off before must well back through years much where your way down should because long each just
state those people too message server channel please deploy release meeting tomorrow thanks
question answer
"""
WORDS = TEXT.split()
NAMES = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy"]


def feed(rnd: random.Random) -> dict[str, Any]:
    """A record of a market feed: the same fields each time, numbers that differ."""
    return {
        "type": rnd.choice(["trade", "quote", "book"]),
        "symbol": rnd.choice(["BTC-USD", "ETH-USD", "SOL-EUR", "XRP-USD"]),
        "price": round(rnd.uniform(1, 60000), 2),
        "size": round(rnd.expovariate(2), 6),
        "side": rnd.choice(["buy", "sell"]),
        "ts": 1790000000000 + rnd.randrange(10**9),
    }


def chat(rnd: random.Random) -> dict[str, Any]:
    """A message of a chat: mostly words."""
    return {
        "event": "message",
        "user": rnd.choice(NAMES),
        "room": rnd.randrange(100),
        "text": " ".join(rnd.choice(WORDS) for _ in range(rnd.randint(3, 15))),
    }


def corpus(make: Callable[[random.Random], Any], size: int, count: int) -> list[bytes]:
    """JSON messages of one size: short ones are cut off, long ones are lists."""
    rnd = random.Random(7)
    messages = []
    for _ in range(count):
        text = json.dumps(make(rnd))
        if len(text) < size:
            records = [make(rnd) for _ in range(size // len(text) + 2)]
            text = json.dumps(records)
            while len(text) < size:
                records.append(make(rnd))
                text = json.dumps(records)
        messages.append(text[:size].encode())
    return messages


def run(messages: list[bytes], arguments: tuple[Any, ...], repeats: int) -> tuple[float, ...]:
    """Send and receive messages; return microseconds for each way, and the ratio of sizes."""
    best_send = best_receive = float("inf")
    for _ in range(repeats):
        sender, receiver = PerMessageDeflate(*arguments), PerMessageDeflate(*arguments)
        frames = [Frame(Opcode.TEXT, data) for data in messages]
        start = time.perf_counter()
        sent = [sender.encode(frame) for frame in frames]
        middle = time.perf_counter()
        received = [receiver.decode(frame, max_size=1 << 24) for frame in sent]
        end = time.perf_counter()
        assert received == frames
        best_send = min(best_send, middle - start)
        best_receive = min(best_receive, end - middle)
    count = len(messages)
    ratio = sender.wire_bytes_sent / sender.plain_bytes_sent
    return best_send / count * 1e6, best_receive / count * 1e6, ratio


def gain() -> None:
    """Print what small messages gain, with the headers of IP, TCP and WebSocket counted in."""
    _zlib.BACKEND = _zlib.load(sys.argv[2] if len(sys.argv) > 2 else "zlib")
    for make in (feed, chat):
        for no_context in (False, True):
            print(f"\n{make.__name__}, {'no ' if no_context else ''}context takeover")
            print("| size | compressed | of the packet saved | send us | receive us |")
            for size in (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024):
                messages = corpus(make, size, 400)
                arguments = (no_context, no_context, 12, 12, {"memLevel": 5})
                send, receive, ratio = run(messages, arguments, 7)
                saved = size * (1 - ratio) / (size + 46)
                row = f"| {size} | {size * ratio:.0f} | {saved:.0%} | {send:.1f} | {receive:.1f} |"
                print(row)


def speed() -> None:
    """Print time and ratio of each implementation."""
    for no_context in (False, True):
        print(f"\n{'no ' if no_context else ''}context takeover, 12 bits, memLevel 5")
        for size in (128, 1024, 8192, 65536, 1 << 20):
            messages = corpus(feed, size, max(4, min(400, 500_000 // size)))
            row = [f"| {size}"]
            for name in ("zlib", "zlib-ng", "isal"):
                _zlib.BACKEND = _zlib.load(name)
                arguments = (no_context, no_context, 12, 12, {"memLevel": 5})
                send, receive, ratio = run(messages, arguments, 5)
                row.append(f"{send:.1f} + {receive:.1f}, {ratio:.2f}")
            print(" | ".join(row), "|")


def resident() -> int:
    """Return the resident set in bytes (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory() -> None:
    """Print what one compressor and one decompressor hold, in fresh processes."""
    if len(sys.argv) == 2:
        for name in ("zlib", "zlib-ng", "isal"):
            for bits, level in ((9, 1), (12, 5), (15, 5), (15, 8)):
                command = [sys.executable, __file__, "memory", name, str(bits), str(level)]
                subprocess.run(command, check=True)
        return
    name, bits, level = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    backend = _zlib.load(name)
    data = b"".join(corpus(feed, 65536, 1))
    count = 200
    before = resident()
    compressors = [backend.compressor(bits, (("memLevel", level),)) for _ in range(count)]
    for compressor in compressors:
        payload = compressor.compress(data) + compressor.flush(_zlib.SYNC_FLUSH)
    middle = resident()
    decompressors = [backend.decompressor(bits) for _ in range(count)]
    for decompressor in decompressors:
        decompressor.decompress(payload, 1 << 20)
    after = resident()
    start = time.perf_counter()
    for _ in range(count):
        backend.compressor(bits, (("memLevel", level),))
    made = (time.perf_counter() - start) / count * 1e6
    print(
        f"| {name} | {bits} | {level} | {(middle - before) / count / 1024:.0f}"
        f" | {(after - middle) / count / 1024:.0f} | {made:.1f} |"
    )


if __name__ == "__main__":
    {"gain": gain, "speed": speed, "memory": memory}[sys.argv[1]]()
