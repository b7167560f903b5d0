"""Where DEFLATE comes from: zlib-ng, ISA-L, or the zlib of the standard library.

All three speak the same format and nearly the same Python interface. What differs is hidden here,
so that the extension is written once:

- *zlib-ng* takes every setting of zlib and compresses as well as zlib at the same level, faster. It
  is preferred. Its compressors are larger: about 160 KiB instead of 40 at 12 window bits.
- *ISA-L* is several times faster still on messages of many kilobytes, at output about a fifth
  larger; it is slower on small ones. It knows levels 1 to 3 instead of 1 to 9 and no strategies;
  a compressor with settings that it does not know comes from zlib.
- *zlib* is always there.

The best one that is installed is used. The environment variable ``FULLDUPLEX_ZLIB`` (``zlib-ng``,
``isal`` or ``zlib``), read at import, overrules that. docs/compression-measurements.md has the
figures.

Nobody offers ``deflateReset`` to Python. `Backend.borrow` and `Backend.give_back` make up for it: a
compressor that ended its message with a full flush has forgotten it (its next output refers to
nothing before the flush), so it serves whoever comes next, on any connection. Connections without
context takeover hence share a handful of compressors instead of owning one each.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from ..typing import BytesLike

__all__ = [
    "BACKEND",
    "FULL_FLUSH",
    "SYNC_FLUSH",
    "Backend",
    "Compressor",
    "Decompressor",
    "Settings",
    "load",
    "select",
]

SYNC_FLUSH: Final = zlib.Z_SYNC_FLUSH
"""Flush to a byte boundary and keep the window."""

FULL_FLUSH: Final = zlib.Z_FULL_FLUSH
"""Flush to a byte boundary and forget the window."""

Settings: TypeAlias = tuple[tuple[str, int], ...]
"""Keyword arguments of ``zlib.compressobj`` but ``wbits``, sorted, as a hashable value."""

PREFERENCE: Final = ("zlib-ng", "isal", "zlib")
"""Names for `load`, the best one first."""

# A compressor is at most 270 KiB. More than a few are in use at once only if as many threads
# compress at once, and few programs have more than one or two sets of parameters.
MAX_IDLE: Final = 4
MAX_IDLE_SETS: Final = 8


class Compressor(Protocol):
    """What the extension uses of a compression object."""

    def compress(self, data: BytesLike, /) -> bytes:
        """Take data in; return some of the output."""

    def flush(self, mode: int, /) -> bytes:
        """Return the rest of the output."""


class Decompressor(Protocol):
    """What the extension uses of a decompression object."""

    @property
    def unconsumed_tail(self) -> bytes:
        """Input that was left because the output had reached its limit."""

    @property
    def unused_data(self) -> bytes:
        """Input behind the end of the stream."""

    @property
    def eof(self) -> bool:
        """Whether the stream ended (a block with the BFINAL bit)."""

    def decompress(self, data: BytesLike, max_length: int, /) -> bytes:
        """Return at most `max_length` bytes of output; 0 means no limit and is never passed."""


class Backend:
    """One implementation of DEFLATE. Thread-safe.

    Attributes:
        name: A name from `PREFERENCE`.
        error: What decompressing raises when the data is damaged.
        reusable: Whether a full flush leaves a compressor as good as new.
    """

    def __init__(self, name: str, module: Any, error: Any, *, reusable: bool = True) -> None:
        self.name = name
        self.error: type[Exception] = error
        self.reusable = reusable
        self._compressobj: Callable[..., Compressor] = module.compressobj
        self._decompressobj: Callable[..., Decompressor] = module.decompressobj
        # Full-flushed compressors. No lock: append and pop are atomic, and one too many, or one
        # too few, does no harm.
        self._idle: dict[tuple[int, Settings], list[Compressor]] = {}

    def compressor(self, wbits: int, settings: Settings) -> Compressor:
        """Make a compressor for raw DEFLATE.

        Args:
            wbits: Base-2 logarithm of the window, 9 to 15.
            settings: Other arguments, within the ranges that zlib knows.
        """
        return self._compressobj(wbits=-wbits, **dict(settings))

    def decompressor(self, wbits: int) -> Decompressor:
        """Make a decompressor for raw DEFLATE; `wbits` is from 8 to 15."""
        return self._decompressobj(wbits=-wbits)

    def borrow(self, wbits: int, settings: Settings) -> Compressor:
        """Give a compressor that knows of no earlier data: an idle one or a new one."""
        idle = self._idle.get((wbits, settings))
        if idle:
            try:
                return idle.pop()
            except IndexError:  # another thread was faster
                pass
        return self.compressor(wbits, settings)

    def give_back(self, wbits: int, settings: Settings, compressor: Compressor) -> None:
        """Take back a compressor whose last call was a full flush."""
        if not self.reusable:
            return
        idle = self._idle.get((wbits, settings))
        if idle is None:
            if len(self._idle) >= MAX_IDLE_SETS:
                return
            idle = self._idle.setdefault((wbits, settings), [])
        if len(idle) < MAX_IDLE:
            idle.append(compressor)


_stdlib_compressor: Callable[..., Compressor] = zlib.compressobj


class _IsalBackend(Backend):
    """ISA-L: what it cannot do as asked, zlib does."""

    def __init__(self, module: Any, error: Any) -> None:
        # After a full flush at level 3 the next message comes out larger than from a new one.
        super().__init__("isal", module, error, reusable=False)

    def compressor(self, wbits: int, settings: Settings) -> Compressor:
        wanted = dict(settings)
        level = wanted.pop("level", zlib.Z_DEFAULT_COMPRESSION)
        if level == zlib.Z_NO_COMPRESSION or "strategy" in wanted:
            return _stdlib_compressor(wbits=-wbits, **dict(settings))
        # Level 0 there is not "stored" but the fastest way to compress, and adds 100 bytes and more
        # to small messages; 3 takes three times as long as 2 and gains nothing.
        return self._compressobj(1 if level == 1 else 2, wbits=-wbits, **wanted)


def load(name: str) -> Backend:
    """Load an implementation.

    Args:
        name: One of `PREFERENCE`.

    Raises:
        ImportError: If it is not installed.
        ValueError: If there is none of this name.
    """
    if name == "zlib":
        return Backend(name, zlib, zlib.error)
    if name == "zlib-ng":
        from zlib_ng import zlib_ng

        return Backend(name, zlib_ng, zlib_ng.error)
    if name == "isal":
        from isal import isal_zlib

        return _IsalBackend(isal_zlib, isal_zlib.error)
    raise ValueError(f"unknown implementation of zlib: {name}")


def select(environ: Mapping[str, str]) -> Backend:
    """Load the implementation that ``FULLDUPLEX_ZLIB`` names, or else the best one installed.

    Raises:
        ImportError: If the one that is named is not installed.
        ValueError: If there is none of this name.
    """
    name = environ.get("FULLDUPLEX_ZLIB")
    if name:
        return load(name)
    for name in PREFERENCE[:-1]:
        try:
            return load(name)
        except ImportError:
            continue
    return load(PREFERENCE[-1])


BACKEND: Final = select(os.environ)
"""The implementation in use."""
