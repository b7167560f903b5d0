"""The interface of extensions."""

from __future__ import annotations

import inspect

import pytest


def test_importable_from_the_package_too(fd):
    for name in ("Extension", "ClientExtensionFactory", "ServerExtensionFactory"):
        assert getattr(fd.extensions, name) is getattr(fd.extensions.base, name)
        assert name in fd.extensions.__all__
        assert name in fd.extensions.base.__all__


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("Extension", lambda x, frame: x.decode(frame)),
        ("Extension", lambda x, frame: x.decode(frame, max_size=1)),
        ("Extension", lambda x, frame: x.encode(frame)),
        ("ClientExtensionFactory", lambda x, frame: x.get_request_params()),
        ("ClientExtensionFactory", lambda x, frame: x.process_response_params([], [])),
        ("ServerExtensionFactory", lambda x, frame: x.process_request_params([], [])),
    ],
)
def test_methods_are_for_subclasses(fd, name, call):
    frame = fd.frames.Frame(fd.frames.Opcode.TEXT, b"")
    with pytest.raises(NotImplementedError):
        call(getattr(fd.extensions, name)(), frame)


def test_max_size_of_decode_is_a_keyword(fd):
    parameter = inspect.signature(fd.extensions.Extension.decode).parameters["max_size"]
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    assert parameter.default is None


def test_names_are_declared(fd):
    for name in fd.extensions.__all__:
        if name in fd.extensions.base.__all__:
            assert "name" in getattr(fd.extensions, name).__annotations__
