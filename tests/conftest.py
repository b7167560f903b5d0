"""The suite runs over both implementations at once: `fd` is the package, compiled or from source."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import signal
import sys
from types import ModuleType

import pytest

IMPLEMENTATIONS = ["compiled", "pure"]

# A shell starts what runs in the background with SIGINT ignored, and so would be the programs that tests
# start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def load_source_only(name: str) -> ModuleType:
    """Load a second copy of the package, under another name, from its Python sources only."""
    if name in sys.modules:
        return sys.modules[name]
    root = importlib.import_module("fullduplex")
    source_only = importlib.import_module("fullduplex._source_only")
    source_only.install(name)
    spec = importlib.util.spec_from_file_location(
        name, root.__file__, submodule_search_locations=list(root.__path__)
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def import_all(root: ModuleType) -> ModuleType:
    """Import the public submodules, so that tests reach them as attributes of the root."""
    for info in pkgutil.walk_packages(root.__path__, root.__name__ + "."):
        if not info.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(info.name)
    return root


def load(implementation: str) -> ModuleType:
    """Give the package in one implementation; a missing extension fails where it is required."""
    if implementation == "pure":
        return import_all(load_source_only("fullduplex_pure"))
    root = importlib.import_module("fullduplex")
    if root.IMPLEMENTATION != "compiled":
        message = "the compiled extension is not built"
        if os.environ.get("FULLDUPLEX_REQUIRE_EXT") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return import_all(root)


@pytest.fixture(params=IMPLEMENTATIONS, scope="session")
def fd(request: pytest.FixtureRequest) -> ModuleType:
    """The root package, in each implementation."""
    module = load(request.param)
    assert request.param == module.IMPLEMENTATION
    return module
