"""Builds the compiled part of Fullduplex; pyproject.toml holds everything else.

What is compiled:

- ``ext/**/*.pyx``: modules that exist in Cython only (the codec, raw file descriptors);
- every ``src/**/X.py`` that has an ``ext/**/X.pxd`` beside it: the plain Python module, compiled
  as it is, with the attribute types that the ``.pxd`` adds. The one source serves both
  implementations.

The build is all or nothing. If any extension fails to compile, the package is installed without
any, and runs in pure Python, so that no mixture of the two implementations can come about.

Environment variables (each is off when empty or "0"):

- ``FULLDUPLEX_REQUIRE_EXT``: a failed compile is an error (wheels, CI);
- ``FULLDUPLEX_NO_EXT``: compile nothing; the wheel is ``py3-none-any``;
- ``FULLDUPLEX_WERROR``: warnings of Cython and of the C compiler are errors;
- ``FULLDUPLEX_SANITIZE``: build with AddressSanitizer and UndefinedBehaviorSanitizer;
- ``FULLDUPLEX_PGO``: compile twice, the second time with a profile of the first at work
  (``ext/pgo``); "try" does so where it is possible, whatever ``FULLDUPLEX_REQUIRE_EXT`` says;
- ``FULLDUPLEX_MODULE_STATE``: "0" keeps module state in C globals, which is faster, and gives up
  subinterpreters.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# A front end runs this file without any folder of ours on the path.
sys.path.insert(0, str(Path(__file__).parent / "ext" / "pgo"))

import profiled

ROOT = Path(__file__).parent
SRC = Path("src")
EXT = Path("ext")

#: Modules that need POSIX system calls.
POSIX_ONLY = {"fullduplex._fdstream"}


def flag(name: str, default: str = "") -> bool:
    """Tell whether an environment variable switches something on."""
    return os.environ.get(name, default) not in ("", "0")


REQUIRE_EXT = flag("FULLDUPLEX_REQUIRE_EXT")
NO_EXT = flag("FULLDUPLEX_NO_EXT")
WERROR = flag("FULLDUPLEX_WERROR")
SANITIZE = flag("FULLDUPLEX_SANITIZE")
PGO = flag("FULLDUPLEX_PGO")
REQUIRE_PGO = PGO and REQUIRE_EXT and os.environ["FULLDUPLEX_PGO"] != "try"
MODULE_STATE = flag("FULLDUPLEX_MODULE_STATE", "1")

if NO_EXT and REQUIRE_EXT:
    sys.exit("FULLDUPLEX_NO_EXT and FULLDUPLEX_REQUIRE_EXT exclude each other")
if SANITIZE and PGO:
    sys.exit("FULLDUPLEX_SANITIZE and FULLDUPLEX_PGO exclude each other")

COMPILER_DIRECTIVES = {
    "language_level": 3,
    "freethreading_compatible": True,
    # Honest only with per-module state, see MACROS.
    "subinterpreters_compatible": "own_gil" if MODULE_STATE else "no",
    # Lets pickle see the class as Python defines it, instead of a generated __reduce__.
    "auto_pickle": False,
    # Annotations are for readers and mypy; C types come from the .pxd files alone.
    "annotation_typing": False,
}

MACROS = [
    # Heap types and constants that belong to the module object: what an interpreter with its own
    # lock needs. Static types would be shared between interpreters.
    ("CYTHON_USE_MODULE_STATE", "1"),
    ("CYTHON_USE_TYPE_SPECS", "1"),
]

#: What is replaced in generated files where Cython keeps the state of modules.
STATE_CHANGES = [
    (
        r"#define __pyx_mstate_global \(__Pyx_PyModule_GetState\(__Pyx_State_FindModule.*\n",
        '#include "module_state.h"\n',
    ),
    (r"(?<== )__Pyx_State_AddModule(?=\(__pyx_t_1, &__pyx_moduledef\))", "fdx_add_module"),
    (r"(?<=  )__Pyx_State_RemoveModule(?=\((?:NULL|&__pyx_moduledef)\);)", "fdx_remove_module"),
]


def find_sources() -> dict[str, Path]:
    """Map the name of each module that is to be compiled to its source, relative to ROOT."""
    sources: dict[str, Path] = {}
    for path in sorted([*(ROOT / EXT).rglob("*.pyx"), *(ROOT / EXT).rglob("*.pxd")]):
        relative = path.relative_to(ROOT / EXT)
        name = ".".join(relative.with_suffix("").parts)
        if os.name != "posix" and name in POSIX_ONLY:
            continue
        if path.suffix == ".pyx":
            sources[name] = EXT / relative
        elif (ROOT / SRC / relative.with_suffix(".py")).exists() and path.stem != "__init__":
            sources[name] = SRC / relative.with_suffix(".py")
    return sources


def compile_flags() -> tuple[list[str], list[str]]:
    """Return the flags for the C compiler and for the linker."""
    if sys.platform == "win32":
        return ["/O2", "/W3"] + (["/WX"] if WERROR else []), []
    cflags = ["-O3", "-g0", "-Wall", "-Wextra", "-fvisibility=hidden"]
    # What Cython generates is not free of these; the headers of our own are held to all of
    # -Wall -Wextra -Wconversion by tests/csrc.
    cflags += [
        "-Wno-unused-parameter",
        "-Wno-missing-field-initializers",
        "-Wno-cast-function-type",
    ]
    if WERROR:
        cflags.append("-Werror")
    ldflags: list[str] = []
    if SANITIZE:
        ldflags = ["-fsanitize=address,undefined"]
        cflags += ["-g", "-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]
        cflags += ldflags
    return cflags, ldflags


def merge_member_tables(path: Path) -> None:
    """Work around a fault of Cython 3.3 in classes with both ``__dict__`` and ``__weakref__``.

    As a heap type, such a class gets two tables of members, one with the offset of each, which
    Python 3.12 refuses; 3.11 takes the last one. Here the second moves into the first.
    """
    text = merged = path.read_text(encoding="utf-8")
    table = re.compile(
        r"static PyMemberDef (\w+)_members\[\] = \{\n(.*?)  \{0, 0, 0, 0, 0\}\n\};\n", re.S
    )
    for second in table.finditer(text):
        name, entries = second.groups()
        slots = re.search(rf"static PyType_Slot {name}_slots\[\] = \{{.*?\n\}};\n", text, re.S)
        first = re.search(r"\{Py_tp_members, \(void \*\)(\w+)\},", slots[0]) if slots else None
        if slots is None or first is None:
            continue
        slot = f"  {{Py_tp_members, (void*){name}_members}},\n"
        merged = merged.replace(second[0], "").replace(slot, "")
        merged = re.sub(
            rf"(static struct PyMemberDef {first[1]}\[\] = \{{\n)", rf"\g<1>{entries}", merged
        )
    if merged != text:
        path.write_text(merged, encoding="utf-8")


def release_items_once(path: Path) -> None:
    """Work around a fault of Cython 3.3 in list comprehensions.

    An item that there is no memory to append is released by the helper, and again by the code that
    handles the error. Here the variable is cleared before the helper is called.
    """
    text = path.read_text(encoding="utf-8")
    call = r"if \(unlikely\(__Pyx_ListComp_AppendAndDecref\("
    mended, count = re.subn(
        rf"{call}(\w+), (?!__pyx_item\b)(\w+)\)\)\) (__PYX_ERR\([^;\n]*\))\n",
        r"{ PyObject *const __pyx_item = \2; \2 = 0;\n"
        r"        if (unlikely(__Pyx_ListComp_AppendAndDecref(\1, __pyx_item))) \3 }\n",
        text,
    )
    if len(re.findall(call, mended)) != len(re.findall(rf"{call}\w+, __pyx_item\)", mended)):
        sys.exit(
            f"{path} has a list comprehension that this version of Cython is not known to generate"
        )
    if count:
        path.write_text(mended, encoding="utf-8")


def find_state_at_once(path: Path) -> None:
    """Have the module find its state in a pointer; ``module_state.h`` says when, and why."""
    text = path.read_text(encoding="utf-8")
    if '#include "module_state.h"' in text:
        return
    for old, new in STATE_CHANGES:
        text, found = re.subn(old, new, text)
        if not found:
            sys.exit(f"{path} is not what this version of Cython is known to generate: no {old}")
    path.write_text(text, encoding="utf-8")


def look_names_up_late(path: Path) -> None:
    """Have a call without keywords not look the names of its parameters up.

    That is a tenth of what `send()` and `recv()` do themselves.
    """
    text = path.read_text(encoding="utf-8")
    table = re.compile(
        r"PyObject \*\* const __pyx_pyargnames\[\] = \{((?:&__pyx_mstate_global->\w+,)+)0\};"
    )

    def late(found: re.Match[str]) -> str:
        names = re.findall(r"->(\w+),", found[1])
        fill = " ".join(f"__pyx_pyargnames[{i}] = &__pyx_names->{n};" for i, n in enumerate(names))
        return (
            f"PyObject **__pyx_pyargnames[{len(names) + 1}] = {{0}};\n"
            "    if (__pyx_kwds) {\n"
            f"      __pyx_mstatetype *const __pyx_names = __pyx_mstate_global; {fill}\n"
            "    }"
        )

    changed = table.sub(late, text)
    if changed != text:
        path.write_text(changed, encoding="utf-8")


def out_of_date(build_dir: Path) -> bool:
    """Tell whether a declaration changed since the last translation: all modules share their layout."""
    declared = max(path.stat().st_mtime for path in (ROOT / EXT).rglob("*.pxd"))
    return any(path.stat().st_mtime < declared for path in build_dir.rglob("*.c"))


def extensions() -> list[Extension]:
    """Translate all sources to C and describe the extension modules."""
    sources = {} if NO_EXT else find_sources()
    if not sources:
        return []
    from Cython.Build import cythonize
    from Cython.Compiler import Options

    Options.warning_errors = WERROR
    cflags, ldflags = compile_flags()
    headers = [str(path.relative_to(ROOT)) for path in sorted((ROOT / EXT).rglob("*.h"))]
    # The directives are not part of what Cython looks at to tell that a file is out of date.
    build_dir = Path("build") / f"cython-{'module' if MODULE_STATE else 'global'}-state"
    modules = cythonize(
        [
            Extension(
                name,
                [path.as_posix()],
                include_dirs=[
                    (EXT / "fullduplex" / "codec").as_posix(),
                    (EXT / "fullduplex").as_posix(),
                ],
                define_macros=MACROS if MODULE_STATE else [],
                extra_compile_args=cflags,
                extra_link_args=ldflags,
                depends=headers,
            )
            for name, path in sources.items()
        ],
        build_dir=build_dir.as_posix(),
        force=out_of_date(ROOT / build_dir),
        include_path=[EXT.as_posix(), SRC.as_posix()],
        compiler_directives=COMPILER_DIRECTIVES,
    )
    for module in modules:
        merge_member_tables(Path(module.sources[0]))
        release_items_once(Path(module.sources[0]))
        if MODULE_STATE:
            find_state_at_once(Path(module.sources[0]))
            look_names_up_late(Path(module.sources[0]))
    return modules


class BuildExt(build_ext):
    """Compiles two modules at a time, and all of them or none."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = min(2, os.cpu_count() or 1)

    def build_extensions(self) -> None:
        try:
            if PGO and self.extensions:
                self.build_with_profile()
            else:
                super().build_extensions()
        except Exception as exc:
            # Whatever stands in the way of a compiler, each platform has its own exceptions.
            if REQUIRE_EXT:
                raise
            for ext in self.extensions:
                Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
            self.extensions = []
            self.warn(f"cannot compile ({exc}); installing fullduplex in pure Python")

    def build_with_profile(self) -> None:
        compile_all = super().build_extensions
        try:
            profiled.build(self, compile_all, ROOT / SRC / "fullduplex")
        except Exception as exc:
            if REQUIRE_PGO:
                raise CompileError(f"FULLDUPLEX_PGO: {exc}") from exc
            self.warn(f"FULLDUPLEX_PGO: {exc}; compiling without a profile")
            self.force = True  # none of what a second compile may have finished
            compile_all()


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
