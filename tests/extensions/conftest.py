"""Fixtures of the compression tests."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(params=["zlib", "zlib-ng", "isal"])
def backend(request: pytest.FixtureRequest, fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each implementation of DEFLATE that is installed, in use by `fd`; zlib always is."""
    try:
        backend = fd.extensions._zlib.load(request.param)
    except ImportError:
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setattr(fd.extensions._zlib, "BACKEND", backend)
    return backend


@pytest.fixture
def stdlib(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The zlib of the standard library, in use by `fd`, for tests that know its exact output."""
    backend = fd.extensions._zlib.load("zlib")
    monkeypatch.setattr(fd.extensions._zlib, "BACKEND", backend)
    return backend
