"""Profile-guided builds: compile, watch the compiled code at work, compile again.

The first compile counts how often each branch is taken, `training.py` makes the code run, and with
the counts the second compile puts what is hot close together and what is cold out of the way.
``setup.py`` does this with ``FULLDUPLEX_PGO=1``. GCC only: clang keeps its profiles in another way.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TRAINING = Path(__file__).with_name("training.py")
#: Seconds for the training, which takes a few; it gives up by itself before.
TRAINING_TIMEOUT = 240
#: The first with ``-fprofile-partial-training``.
OLDEST_GCC = 10


class ProfileError(Exception):
    """There is no profile to build with."""


def counting_flags(profile: Path) -> tuple[list[str], list[str]]:
    """Return the flags of the first compile, and those of its linker."""
    generate = f"-fprofile-generate={profile}"
    # Threads count at the same time; without atomic counters, branches would not add up.
    return [generate, "-fprofile-update=prefer-atomic"], [generate]


def profiled_flags(profile: Path) -> list[str]:
    """Return the flags of the second compile."""
    return [
        f"-fprofile-use={profile}",
        # What the training does not run is compiled as it is without a profile, not for size.
        "-fprofile-partial-training",
        # The counts are written while the service thread may still run.
        "-fprofile-correction",
        # Counts that are not found would be a loss that nobody notices; GCC tells it, no more.
        "-Wmissing-profile",
        "-Wno-error=missing-profile",
        # What GCC tells of that depends on what it moves around, and here it errs; a plain build
        # is where it is looked at.
        "-Wno-maybe-uninitialized",
    ]


def check_compiler(command: list[str]) -> None:
    """Raise `ProfileError` unless a compiler, with its arguments, is a GCC that can do it."""
    wanted = f"needs GCC {OLDEST_GCC} or later on Linux"
    if sys.platform != "linux":
        raise ProfileError(wanted)
    try:
        text = subprocess.run(
            [*command, "-dM", "-E", "-x", "c", "-"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        raise ProfileError(f"{wanted}: {exc}") from exc
    lines = (line.split(maxsplit=2) for line in text.splitlines())
    macros = {line[1]: line[2] for line in lines if len(line) == 3}
    # Others pretend to be some GCC.
    if "__clang__" in macros or "__INTEL_COMPILER" in macros:
        raise ProfileError(f"{wanted}, and this is another compiler: {command[0]}")
    version = macros.get("__GNUC__", "0")
    if int(version) < OLDEST_GCC:
        raise ProfileError(f"{wanted}, and {command[0]} is GCC {version}")


@contextlib.contextmanager
def changed(thing: object, **attributes: object) -> Iterator[None]:
    """Change attributes of an object for a while."""
    before = {name: getattr(thing, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(thing, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(thing, name, value)


@contextlib.contextmanager
def more_flags(extensions: list[Any], cflags: list[str], ldflags: list[str]) -> Iterator[None]:
    """Have extensions compiled with more flags for a while."""
    with contextlib.ExitStack() as stack:
        for ext in extensions:
            flags = {
                "extra_compile_args": [*ext.extra_compile_args, *cflags],
                "extra_link_args": [*ext.extra_link_args, *ldflags],
            }
            stack.enter_context(changed(ext, **flags))
        yield


def train(script: Path, lib: Path) -> None:
    """Run a script with the packages of a folder, and see to it that it ends well.

    GCC's counters are written when the process exits in the normal way, and only then.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        # Ours would choose another implementation, or other limits; GCC's where profiles go.
        # Warnings of Python are no errors here.
        if not name.startswith(("FULLDUPLEX_", "GCOV_", "PYTHONWARNINGS"))
    }
    paths = [str(lib), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    try:
        result = subprocess.run(
            [sys.executable, "-P", script],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TRAINING_TIMEOUT,
        )
    except subprocess.TimeoutExpired as exc:
        raise ProfileError(f"the training did not end within {TRAINING_TIMEOUT} s") from exc
    if result.returncode:
        raise ProfileError(f"the training failed ({result.returncode}):\n{result.stdout}")


def check_profiles(profile: Path, objects: Path) -> None:
    """Raise `ProfileError` unless there are counts for each object file in a folder.

    GCC names a file of counts after the whole path of the object file, in folders or with # for /.
    """
    found = [path.relative_to(profile).as_posix() for path in profile.rglob("*.gcda")]
    names = ["#" + name.replace("/", "#") for name in found]
    missing = [
        path.name
        for path in sorted(objects.rglob("*.o"))
        if not any(
            name.endswith(f"{path.with_suffix('.gcda')}".replace("/", "#")) for name in names
        )
    ]
    if missing or not found:
        raise ProfileError(f"the training left no counts for {', '.join(missing) or 'anything'}")


def build(
    command: Any, compile_all: Callable[[], None], package: Path, script: Path = TRAINING
) -> None:
    """Compile the extensions of a ``build_ext`` command with a profile.

    Args:
        command: the command, with its compiler ready.
        compile_all: compiles all its extensions.
        package: the Python sources of the package that the extensions are part of.
        script: the program to learn from; it imports the package and exits with 0.

    Raises:
        ProfileError: if the compiler cannot do it, or the training fails.
    """
    check_compiler(command.compiler.compiler_so)
    with tempfile.TemporaryDirectory(prefix="fullduplex-pgo-") as folder:
        lib, temp, profile = (Path(folder, name) for name in ("lib", "temp", "profile"))
        # Both compiles write the same object files, since that is how GCC finds the counts again.
        # With absolute paths their names do not grow with the path of the project.
        with changed(command, build_temp=str(temp), force=True):
            with (
                changed(command, build_lib=str(lib)),
                more_flags(command.extensions, *counting_flags(profile)),
            ):
                compile_all()
            shutil.copytree(
                package,
                lib / package.name,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("*.so", "__pycache__"),
            )
            train(script, lib)
            check_profiles(profile, temp)
            with more_flags(command.extensions, profiled_flags(profile), []):
                compile_all()
