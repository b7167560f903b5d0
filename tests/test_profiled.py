"""Profile-guided builds: the compiler is the right one, the training runs, its counts are used."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "ext" / "pgo"
GCC_12 = "#define __GNUC__ 12\n#define __GNUC_MINOR__ 2\n#define __x86_64__ 1\n"

if not FOLDER.exists():
    pytest.skip("the sources are not here", allow_module_level=True)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="GCC on Linux only")


def load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


profiled = load_file(FOLDER / "profiled.py")


def compiler_with(macros: str) -> list[str]:
    """A program that takes a compiler's arguments, and has these macros."""
    return [sys.executable, "-c", f"print({macros!r})"]


def test_flags_of_both_compiles_name_the_same_folder() -> None:
    cflags, ldflags = profiled.counting_flags(Path("/counts"))
    generate = f"-fprofile-generate={Path('/counts')}"
    assert generate in cflags and "-fprofile-update=prefer-atomic" in cflags
    assert ldflags == [generate]
    second = profiled.profiled_flags(Path("/counts"))
    assert f"-fprofile-use={Path('/counts')}" in second
    assert "-fprofile-partial-training" in second


@on_linux
def test_gcc_will_do() -> None:
    profiled.check_compiler(compiler_with(GCC_12))


@on_linux
@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        (compiler_with("#define __GNUC__ 9\n"), "is GCC 9"),
        (compiler_with(GCC_12 + "#define __clang__ 1\n"), "another compiler"),
        (compiler_with(""), "is GCC 0"),
        (["/nowhere/cc"], "/nowhere/cc"),
        ([sys.executable, "-c", "raise SystemExit(1)"], "exit status 1"),
    ],
    ids=["old", "clang", "silent", "missing", "broken"],
)
def test_other_compilers_are_refused(compiler: list[str], reason: str) -> None:
    with pytest.raises(profiled.ProfileError, match=reason):
        profiled.check_compiler(compiler)


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiled.sys, "platform", "plan9")
    with pytest.raises(profiled.ProfileError, match="on Linux"):
        profiled.check_compiler(compiler_with(GCC_12))


def test_training_sees_the_folder_and_no_switches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FULLDUPLEX_PURE_PYTHON", "1")
    monkeypatch.setenv("GCOV_PREFIX", "elsewhere")
    (tmp_path / "module_of_the_build.py").touch()
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, module_of_the_build\n"
        "sys.exit(any(n.startswith(('FULLDUPLEX_', 'GCOV_')) for n in os.environ))\n"
    )
    profiled.train(script, tmp_path)


def test_training_that_fails_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise LookupError('what went wrong')")
    with pytest.raises(profiled.ProfileError, match="what went wrong"):
        profiled.train(script, tmp_path)


def test_training_that_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiled, "TRAINING_TIMEOUT", 0.1)
    script = tmp_path / "script.py"
    script.write_text("import threading; threading.Event().wait()")
    with pytest.raises(profiled.ProfileError, match="did not end"):
        profiled.train(script, tmp_path)


@on_linux
@pytest.mark.parametrize("folders", [True, False], ids=["folders", "mangled"])
def test_every_object_file_needs_counts(tmp_path: Path, folders: bool) -> None:
    objects, counts = tmp_path / "objects", tmp_path / "counts"
    for folder in (objects, counts):
        folder.mkdir()
    with pytest.raises(profiled.ProfileError, match="no counts for anything"):
        profiled.check_profiles(counts, objects)
    for name in ("one", "two"):
        (objects / f"{name}.o").touch()
        with pytest.raises(profiled.ProfileError, match=rf"no counts for {name}\.o$"):
            profiled.check_profiles(counts, objects)
        path = str(objects / f"{name}.gcda")
        written = counts / (path.lstrip("/") if folders else path.replace("/", "#"))
        written.parent.mkdir(parents=True, exist_ok=True)
        written.touch()
        profiled.check_profiles(counts, objects)


TINY = """
#include <Python.h>

static PyObject *work(PyObject *self, PyObject *number) {
    return PyLong_AsLong(number) % 2 ? PyLong_FromLong(1) : Py_NewRef(Py_None);
}
static PyMethodDef methods[] = {{"work", work, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_hot", NULL, -1, methods};
PyMODINIT_FUNC PyInit__hot(void) { return PyModule_Create(&module); }
"""


@on_linux
@pytest.mark.parametrize("ends", ["well", "badly"])
def test_the_second_compile_finds_the_counts(
    ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    setuptools = pytest.importorskip("setuptools")
    from setuptools.command.build_ext import build_ext

    monkeypatch.chdir(tmp_path)
    source = tmp_path / "src" / "tiny"
    source.mkdir(parents=True)
    (source / "__init__.py").write_text("from ._hot import work as work\n")
    (source / "_hot.c").write_text(TINY)
    script = tmp_path / "script.py"
    # A process that is gone at once leaves no counts behind.
    end = "" if ends == "well" else "os._exit(0)"
    script.write_text(f"import os, tiny\nfor n in range(1000): tiny.work(n)\n{end}\n")
    flags = []

    class Command(build_ext):
        def build_extensions(self) -> None:
            try:
                profiled.check_compiler(self.compiler.compiler_so)
            except profiled.ProfileError as exc:
                pytest.skip(str(exc))
            profiled.build(self, self.compile_all, source, script)

        def compile_all(self) -> None:
            flags.append(self.extensions[0].extra_compile_args)
            super().build_extensions()

    extension = setuptools.Extension("tiny._hot", ["src/tiny/_hot.c"], extra_compile_args=["-O2"])
    command = Command(setuptools.Distribution({"name": "tiny", "ext_modules": [extension]}))
    command.ensure_finalized()
    folders = (command.build_lib, command.build_temp)
    if ends == "badly":
        with pytest.raises(profiled.ProfileError, match=r"no counts for _hot\.o"):
            command.run()
    else:
        command.run()
        assert len(flags) == 2
        assert list(Path(command.build_lib).rglob("_hot.*"))
        assert "missing-profile" not in capfd.readouterr().err
    assert (command.build_lib, command.build_temp) == folders
    assert extension.extra_compile_args == ["-O2"] and extension.extra_link_args == []


@pytest.fixture
def load_setup(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What gives all that `setup.py` defines, with some switches, and without a build."""
    setuptools = pytest.importorskip("setuptools")
    cython = pytest.importorskip("Cython.Build")
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.setattr(cython, "cythonize", lambda *_, **__: [])
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load(**switches: str) -> Any:
        for name in ("NO_EXT", "PGO", "REQUIRE_EXT", "SANITIZE", "WERROR"):
            monkeypatch.setenv(f"FULLDUPLEX_{name}", switches.get(name, "0"))
        return load_file(ROOT / "setup.py")

    return load


@pytest.mark.parametrize("required", [True, False])
def test_without_a_profile_the_build_is_plain_or_fails(
    load_setup: Callable[..., Any], required: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext
    from setuptools.errors import CompileError

    def build(*_: object) -> None:
        raise profiled.ProfileError("the reason")

    compiled = []
    warnings = []
    setup_file = load_setup(PGO="1", REQUIRE_EXT="01"[required])
    monkeypatch.setattr(setup_file.profiled, "build", build)
    monkeypatch.setattr(build_ext, "build_extensions", lambda self: compiled.append(self))
    command = setup_file.BuildExt(Distribution())
    command.extensions = [Extension("tiny", ["tiny.c"])]
    monkeypatch.setattr(command, "warn", warnings.append)
    if required:
        with pytest.raises(CompileError, match="FULLDUPLEX_PGO: the reason"):
            command.build_extensions()
        assert compiled == []
    else:
        command.build_extensions()
        assert compiled == [command]
        assert warnings == ["FULLDUPLEX_PGO: the reason; compiling without a profile"]


@pytest.mark.parametrize(
    ("value", "required", "expected"),
    [
        ("", "1", (False, False)),
        ("0", "1", (False, False)),
        ("1", "0", (True, False)),
        ("1", "1", (True, True)),
        ("try", "1", (True, False)),
    ],
)
def test_values_of_the_switch(
    load_setup: Callable[..., Any], value: str, required: str, expected: tuple[bool, bool]
) -> None:
    setup_file = load_setup(PGO=value, REQUIRE_EXT=required)
    assert expected == (setup_file.PGO, setup_file.REQUIRE_PGO)


def test_sanitizers_and_profiles_exclude_each_other(load_setup: Callable[..., Any]) -> None:
    with pytest.raises(SystemExit, match="FULLDUPLEX_SANITIZE and FULLDUPLEX_PGO exclude"):
        load_setup(PGO="1", SANITIZE="1")


def test_the_sdist_has_the_training(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", tmp_path],
        cwd=ROOT,
        env={**os.environ, "FULLDUPLEX_NO_EXT": "1", "FULLDUPLEX_REQUIRE_EXT": "0"},
        check=True,
        timeout=60,
    )
    (listed,) = tmp_path.rglob("SOURCES.txt")
    files = listed.read_text(encoding="utf-8").split()
    assert {"ext/pgo/profiled.py", "ext/pgo/training.py"} <= set(files)


def test_training_ends_well_without_dependencies(fd: ModuleType) -> None:
    program = (
        "import runpy, sys\n"
        "sys.modules['h11'] = None\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')\n"
    )
    pure = "1" if fd.IMPLEMENTATION == "pure" else "0"
    result = subprocess.run(
        [sys.executable, "-c", program, FOLDER / "training.py"],
        env={**os.environ, "FULLDUPLEX_PURE_PYTHON": pure},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
