"""Names of types."""

from __future__ import annotations

import logging
import os
import pathlib
import typing


def test_all_is_there(fd):
    assert set(fd.typing.__all__) == {
        "BytesLike",
        "Data",
        "DataLike",
        "ExtensionName",
        "ExtensionParameter",
        "LoggerLike",
        "Origin",
        "PathLike",
        "StatusLike",
        "Subprotocol",
    }
    for name in fd.typing.__all__:
        assert getattr(fd.typing, name) is not None


def test_unions(fd):
    assert set(typing.get_args(fd.typing.Data)) == {str, bytes}
    assert set(typing.get_args(fd.typing.BytesLike)) == {bytes, bytearray, memoryview}
    assert set(typing.get_args(fd.typing.DataLike)) == {str, bytes, bytearray, memoryview}
    assert logging.Logger in typing.get_args(fd.typing.LoggerLike)
    assert int in typing.get_args(fd.typing.StatusLike)


def test_paths(fd):
    accepted = tuple(typing.get_origin(t) or t for t in typing.get_args(fd.typing.PathLike))
    assert os.PathLike in accepted
    assert isinstance(pathlib.PurePath("a"), accepted)


def test_new_types_are_strings(fd):
    for name in ("Origin", "Subprotocol", "ExtensionName"):
        assert getattr(fd.typing, name)("x") == "x"
