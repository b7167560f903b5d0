"""The package from its sources, past the compiled modules beside them."""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


def source_only(fd: ModuleType) -> ModuleType:
    return importlib.import_module(fd.__name__ + "._source_only")


@pytest.fixture
def package(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A package with a module in two forms; the compiled one is no real one."""
    name = "source_only_example"
    root = tmp_path / name
    (root / "inner").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "both.py").write_text("FORM = 'source'\n")
    (root / f"both{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"not a shared object")
    (root / f"only{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"not a shared object")
    (root / "inner" / "__init__.py").write_text("")
    (root / "inner" / "deep.py").write_text("FORM = 'source'\n")
    sys.path.insert(0, str(tmp_path))
    finders = list(sys.meta_path)
    yield name, tmp_path
    sys.meta_path[:] = finders
    sys.path.remove(str(tmp_path))
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def test_compiled_form_is_found_otherwise(package: tuple[str, Path]) -> None:
    with pytest.raises(ImportError):
        importlib.import_module(package[0] + ".both")


def test_source_is_found(fd: ModuleType, package: tuple[str, Path]) -> None:
    name = package[0]
    source_only(fd).install(name)
    assert importlib.import_module(name + ".both").FORM == "source"
    assert importlib.import_module(name + ".inner.deep").FORM == "source"


def test_what_is_only_compiled_does_not_exist(fd: ModuleType, package: tuple[str, Path]) -> None:
    name = package[0]
    source_only(fd).install(name)
    with pytest.raises(
        ModuleNotFoundError, match=rf"No module named '{name}\.only' in pure Python"
    ) as caught:
        importlib.import_module(name + ".only")
    assert caught.value.name == name + ".only"


def test_install_is_idempotent(fd: ModuleType, package: tuple[str, Path]) -> None:
    before = len(sys.meta_path)
    for _ in range(3):
        source_only(fd).install(package[0])
    assert len(sys.meta_path) == before + 1


def test_other_packages_are_left_alone(fd: ModuleType, package: tuple[str, Path]) -> None:
    finder = source_only(fd).SourceOnlyFinder(package[0])
    path = [str(package[1] / package[0])]
    assert finder.find_spec("json.decoder", path) is None
    assert finder.find_spec(package[0], None) is None
    assert finder.find_spec(package[0] + "_other.both", path) is None


def test_package_in_an_archive_is_left_alone(fd: ModuleType, package: tuple[str, Path]) -> None:
    """There is nothing compiled to step past, and source loaders do not reach in."""
    finder = source_only(fd).SourceOnlyFinder(package[0])
    assert finder.find_spec(package[0] + ".both", ["/archive.zip/package"]) is None


def test_suite_has_two_implementations(fd: ModuleType) -> None:
    """The two packages of this suite share no module, and only one has compiled ones."""
    modules = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == fd.__name__ and module is not None
    }
    files = [
        module.__file__ or "" for module in modules.values() if getattr(module, "__file__", None)
    ]
    compiled = [file for file in files if file.endswith((".so", ".pyd"))]
    assert bool(compiled) is (fd.IMPLEMENTATION == "compiled")
    assert fd.machine.Decoder is fd.codec.Decoder
    assert fd.codec.IMPLEMENTATION == fd.IMPLEMENTATION


@pytest.mark.parametrize("value", ["", "0", "1"])
def test_environment_selects_pure_python(fd: ModuleType, value: str) -> None:
    code = (
        "import sys, fullduplex, fullduplex.sync.connection, fullduplex.stream;"
        "print(fullduplex.IMPLEMENTATION, sum('fullduplex' in name and"
        " (getattr(module, '__file__', None) or '').endswith(('.so', '.pyd'))"
        " for name, module in sys.modules.items()))"
    )
    env = {**os.environ, "FULLDUPLEX_PURE_PYTHON": value, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    implementation, count = result.stdout.split()
    if value == "1":
        assert (implementation, count) == ("pure", "0")
    elif fd.IMPLEMENTATION == "compiled":
        assert implementation == "compiled"
        assert int(count) > 3
