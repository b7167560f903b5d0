"""The seam between the extension and the implementations of DEFLATE."""

from __future__ import annotations

import sys
import zlib
from types import ModuleType

import pytest

TAIL = b"\x00\x00\xff\xff"


class Broken(Exception):
    pass


@pytest.fixture
def pretend(monkeypatch):
    """Make modules of zlib-ng and ISA-L appear, or be missing; they record what they are asked."""
    calls = []

    def install(*, zlib_ng, isal):
        for present, package, name in (
            (zlib_ng, "zlib_ng", "zlib_ng"),
            (isal, "isal", "isal_zlib"),
        ):
            if not present:
                monkeypatch.setitem(sys.modules, package, None)
                continue
            module = ModuleType(f"{package}.{name}")
            module.error = Broken
            for function in ("compressobj", "decompressobj"):

                def record(*args, package=package, function=function, **kwargs):
                    calls.append((package, function, args, kwargs))
                    return object()

                setattr(module, function, record)
            parent = ModuleType(package)
            setattr(parent, name, module)
            monkeypatch.setitem(sys.modules, package, parent)
        return calls

    return install


@pytest.mark.parametrize(
    ("zlib_ng", "isal", "name"),
    [
        (True, True, "zlib-ng"),
        (True, False, "zlib-ng"),
        (False, True, "isal"),
        (False, False, "zlib"),
    ],
)
def test_the_best_that_is_installed_is_used(fd, pretend, zlib_ng, isal, name):
    pretend(zlib_ng=zlib_ng, isal=isal)
    assert fd.extensions._zlib.select({}).name == name
    assert fd.extensions._zlib.select({"FULLDUPLEX_ZLIB": ""}).name == name


@pytest.mark.parametrize("name", ["zlib-ng", "isal", "zlib"])
def test_the_environment_chooses(fd, pretend, name):
    pretend(zlib_ng=True, isal=True)
    backend = fd.extensions._zlib.select({"FULLDUPLEX_ZLIB": name})
    assert backend.name == name
    assert backend.error is (zlib.error if name == "zlib" else Broken)


def test_a_choice_that_cannot_be_is_an_error(fd, pretend):
    pretend(zlib_ng=False, isal=False)
    for name in ("zlib-ng", "isal"):
        with pytest.raises(ImportError):
            fd.extensions._zlib.select({"FULLDUPLEX_ZLIB": name})
    with pytest.raises(ValueError, match="unknown implementation of zlib: zopfli"):
        fd.extensions._zlib.select({"FULLDUPLEX_ZLIB": "zopfli"})


def test_one_is_in_use(fd):
    assert fd.extensions._zlib.BACKEND.name in fd.extensions._zlib.PREFERENCE


def test_zlib_ng_takes_settings_as_they_are(fd, pretend):
    calls = pretend(zlib_ng=True, isal=False)
    backend = fd.extensions._zlib.load("zlib-ng")
    backend.compressor(12, (("level", 3), ("memLevel", 5)))
    backend.decompressor(8)
    assert calls == [
        ("zlib_ng", "compressobj", (), {"wbits": -12, "level": 3, "memLevel": 5}),
        ("zlib_ng", "decompressobj", (), {"wbits": -8}),
    ]


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ((), 2),
        ((("level", -1),), 2),
        ((("level", 1),), 1),
        ((("level", 2),), 2),
        ((("level", 9),), 2),
    ],
)
def test_levels_are_translated_for_isal(fd, pretend, settings, level):
    calls = pretend(zlib_ng=False, isal=True)
    backend = fd.extensions._zlib.load("isal")
    backend.compressor(12, (*settings, ("memLevel", 5)))
    assert calls == [("isal", "compressobj", (level,), {"wbits": -12, "memLevel": 5})]


@pytest.mark.parametrize("settings", [(("level", 0),), (("strategy", 2),)])
def test_zlib_does_what_isal_cannot(fd, pretend, settings):
    calls = pretend(zlib_ng=False, isal=True)
    compressor = fd.extensions._zlib.load("isal").compressor(12, settings)
    assert calls == []
    output = compressor.compress(b"abc") + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert zlib.decompressobj(wbits=-12).decompress(output) == b"abc"


# What the extension relies on, of each implementation


@pytest.mark.parametrize("bits", range(9, 16))
def test_flushes_end_with_an_empty_stored_block(fd, backend, bits):
    seam = fd.extensions._zlib
    compressor = backend.compressor(bits, (("memLevel", 5),))
    decompressor = zlib.decompressobj(wbits=-bits)
    for size in (0, 1, 5, 1000, 16_383, 16_384, 32_768, 70_000, 500_000):
        for mode in (seam.SYNC_FLUSH, seam.FULL_FLUSH):
            data = (bytes(range(251)) * 7 + b"x")[: max(size, 1)] * (size // 1758 + 1)
            data = data[:size]
            output = compressor.compress(data) + compressor.flush(mode)
            assert output.endswith(TAIL)
            assert decompressor.decompress(output) == data


@pytest.mark.parametrize("room", [1, 99, 100, 1000, 32_768])
def test_max_length_is_kept_and_nothing_is_lost(fd, backend, room):
    """A full piece may hide more output although no input is left."""
    compressor = zlib.compressobj(wbits=-15)
    data = b"a" * 4000 + bytes(range(256))
    source = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    decompressor = backend.decompressor(15)
    pieces = []
    while not pieces or len(pieces[-1]) == room:
        pieces.append(decompressor.decompress(source, room))
        assert len(pieces[-1]) <= room
        source = decompressor.unconsumed_tail
    assert b"".join(pieces) == data
    assert source == b""
    assert not decompressor.eof


def test_end_of_stream(fd, backend):
    decompressor = backend.decompressor(15)
    assert decompressor.decompress(bytes.fromhex("f348cdc9c90700") + b"more", 100) == b"Hello"
    assert decompressor.eof
    assert decompressor.unused_data == b"more"


def test_errors(fd, backend):
    with pytest.raises(backend.error):
        backend.decompressor(15).decompress(b"\xff\xff\xff", 100)


@pytest.mark.parametrize("level", [-1, *range(10)])
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_a_full_flush_leaves_a_compressor_as_good_as_new(fd, backend, level, bits):
    seam = fd.extensions._zlib
    used = backend.compressor(bits, (("level", level), ("memLevel", 5)))
    for message in (b"Hello" * 50, b"", bytes(100_000), b"Hello" * 50, b"Hello"):
        fresh = backend.compressor(bits, (("level", level), ("memLevel", 5)))
        output = used.compress(message) + used.flush(seam.FULL_FLUSH)
        assert zlib.decompressobj(wbits=-bits).decompress(output) == message
        if backend.reusable:
            assert output == fresh.compress(message) + fresh.flush(seam.SYNC_FLUSH)


# Compressors that nobody uses at the moment


def test_compressors_are_reused(fd):
    backend = fd.extensions._zlib.load("zlib")
    one = backend.borrow(12, ())
    assert backend.borrow(12, ()) is not one
    backend.give_back(12, (), one)
    assert backend.borrow(11, ()) is not one
    assert backend.borrow(12, (("level", 1),)) is not one
    assert backend.borrow(12, ()) is one
    assert backend.borrow(12, ()) is not one


def test_compressors_that_remember_are_not_reused(fd, pretend):
    pretend(zlib_ng=False, isal=True)
    backend = fd.extensions._zlib.load("isal")
    one = backend.borrow(12, ())
    backend.give_back(12, (), one)
    assert backend.borrow(12, ()) is not one


def test_few_compressors_are_kept(fd):
    seam = fd.extensions._zlib
    backend = seam.load("zlib")
    compressors = [backend.borrow(12, ()) for _ in range(seam.MAX_IDLE + 2)]
    for compressor in compressors:
        backend.give_back(12, (), compressor)
    assert len(backend._idle[12, ()]) == seam.MAX_IDLE
    for level in range(seam.MAX_IDLE_SETS + 1):
        backend.give_back(12, (("level", level),), compressors[0])
    assert len(backend._idle) == seam.MAX_IDLE_SETS


def test_another_thread_takes_the_last_compressor(fd):
    class Contended(list):
        def pop(self):
            super().clear()
            return super().pop()

    backend = fd.extensions._zlib.load("zlib")
    one = backend.borrow(12, ())
    backend._idle[12, ()] = Contended([one])
    other = backend.borrow(12, ())
    assert other is not one
    assert (other.compress(b"Hello") + other.flush(zlib.Z_SYNC_FLUSH)).endswith(TAIL)
