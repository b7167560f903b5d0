"""What the compression tests make messages and damage from."""

from __future__ import annotations

import functools
import json
import random
import tracemalloc
import zlib

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TAIL = b"\x00\x00\xff\xff"
MIB = 1 << 20
HELLO = bytes.fromhex("f248cdc9c90700")  # "Hello" (RFC 7692 §7.2.3.1)
# The fixture sets what is the same for all examples.
per_backend = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def extension(fd, *arguments, **settings):
    arguments = arguments or (False, False, 15, 15)
    return fd.extensions.permessage_deflate.PerMessageDeflate(*arguments, **settings)


def frame(fd, opcode, data, fin=True, rsv1=False, **others):
    return fd.frames.Frame(fd.frames.Opcode(opcode), data, fin, rsv1, **others)


def deflated(data, wbits=15, **settings):
    compressor = zlib.compressobj(wbits=-wbits, **settings)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@functools.lru_cache
def bomb(size):
    """Return a payload that inflates to `size` zeros."""
    compressor = zlib.compressobj(9, wbits=-15)
    block = bytes(MIB)
    parts = [compressor.compress(block) for _ in range(size // MIB)]
    parts.append(compressor.compress(bytes(size % MIB)))
    return b"".join([*parts, compressor.flush(zlib.Z_SYNC_FLUSH)])[:-4]


def peak_of(call):
    """Return how much memory a call takes at most, in bytes, and what it raises."""
    tracemalloc.start()
    try:
        call()
    except Exception as exc:
        raised = exc
    else:
        raised = None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, raised


@functools.lru_cache(64)
def words(count, seed=0):
    rnd = random.Random(seed)
    vocabulary = [rnd.randbytes(rnd.randint(3, 12)) for _ in range(300)]
    return b"".join(rnd.choice(vocabulary) for _ in range(count))


def records(count, seed=0):
    rnd = random.Random(seed)
    return json.dumps(
        [{"id": rnd.randrange(10**9), "side": rnd.choice(["buy", "sell"])} for _ in range(count)]
    ).encode()


payloads = st.one_of(
    st.binary(max_size=200),
    st.builds(words, st.integers(0, 300), st.integers(0, 3)),
    st.builds(lambda size: bytes(size), st.sampled_from([65535, 65536, 65537, 300_000])),
    st.builds(lambda seed: random.Random(seed).randbytes(70_000), st.integers(0, 3)),
)
