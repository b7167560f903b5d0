"""The distribution says what it is, once, and its files stay readable in one sitting."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 600
#: Statements of a function may be spread over at most so many lines, docstring aside.
MAX_FUNCTION_LINES = 120

in_checkout = pytest.mark.skipif(
    not (ROOT / "setup.py").exists(), reason="the sources are not here"
)


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, object] = tomllib.load(file)["project"]
    return table


def test_version_is_the_same_everywhere(fd: ModuleType) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+|\.dev\d+)?", fd.__version__)
    assert importlib.metadata.version("fullduplex") == fd.__version__


def test_version_is_stated_once(project: dict[str, object]) -> None:
    assert "version" not in project
    assert project["dynamic"] == ["version"]


def test_metadata() -> None:
    metadata = importlib.metadata.metadata("fullduplex")
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata.get_all("Provides-Extra") == ["speed", "socks", "cli", "router"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def test_h11_is_the_only_hard_dependency() -> None:
    requirements = importlib.metadata.requires("fullduplex") or []
    hard = [line for line in requirements if "extra ==" not in line]
    assert [re.match(r"[\w-]+", line)[0] for line in hard] == ["h11"]  # type: ignore[index]


def test_package_is_typed(fd: ModuleType) -> None:
    assert (Path(fd.__file__ or "").parent / "py.typed").exists()


def test_every_listed_name_exists(fd: ModuleType) -> None:
    missing = [name for name in fd.__all__ if not hasattr(fd, name)]
    assert missing == []


def test_program_is_installed() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="fullduplex")
    assert entry.value == "fullduplex.cli:main"
    assert callable(entry.load())


@pytest.mark.parametrize("pure", ["0", "1"], ids=["compiled", "pure"])
def test_environment_selects_the_implementation(pure: str) -> None:
    root = importlib.import_module("fullduplex")
    if pure == "0" and root.IMPLEMENTATION != "compiled":
        assert os.environ.get("FULLDUPLEX_REQUIRE_EXT") != "1", "the extension is not built"
        pytest.skip("the compiled extension is not built")
    program = (
        "import sys, fullduplex, fullduplex.protocol as p, fullduplex.codec as c\n"
        "own = [m for n, m in sys.modules.items() if n.startswith('fullduplex')]\n"
        "native = sorted(m.__name__ for m in own if not m.__file__.endswith('.py'))\n"
        "print(fullduplex.IMPLEMENTATION, c.Decoder.__module__, bool(native))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "FULLDUPLEX_PURE_PYTHON": pure},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    expected = {
        "0": ["compiled", "fullduplex.codec._compiled", "True"],
        "1": ["pure", "fullduplex.codec.pure", "False"],
    }
    assert result.stdout.split() == expected[pure]


SUBINTERPRETER = """
import fullduplex.protocol
assert fullduplex.IMPLEMENTATION == "compiled", fullduplex.IMPLEMENTATION
client = fullduplex.protocol.Protocol(fullduplex.protocol.Side.CLIENT)
server = fullduplex.protocol.Protocol(fullduplex.protocol.Side.SERVER)
client.send_text("héllo".encode())
for data in client.data_to_send():
    server.receive_data(data)
(frame,) = server.events_received()
assert bytes(frame.data) == "héllo".encode(), frame
"""

THREADS_OF_INTERPRETERS = """
import sys, threading
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
code = sys.argv[1]
failures = []

def work():
    for _ in range(3):
        # Isolated, which is the default before 3.13: with a lock of its own.
        new = interpreters.create(*["isolated"] * (sys.version_info >= (3, 13)))
        try:
            if error := interpreters.run_string(new, code):
                failures.append(error)
        finally:
            interpreters.destroy(new)

exec(code)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
exec(code)
print("failures:", failures)
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 gave interpreters own locks")
def test_subinterpreters_import_the_extension() -> None:
    root = importlib.import_module("fullduplex")
    if root.IMPLEMENTATION != "compiled":
        assert os.environ.get("FULLDUPLEX_REQUIRE_EXT") != "1", "the extension is not built"
        pytest.skip("the compiled extension is not built")
    result = subprocess.run(
        [sys.executable, "-c", THREADS_OF_INTERPRETERS, SUBINTERPRETER],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "failures: []\n", "")


def sources() -> list[Path]:
    folders = ("benchmarks", "docs", "examples", "ext", "src", "tests")
    found = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in {".py", ".pyx", ".pxd", ".h", ".c"} and "node_modules" not in path.parts
    ]
    assert found
    return found


@in_checkout
def test_no_file_is_too_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources()
    }
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def function_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function's body without its docstring and the functions inside it."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    inner = [node for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return (function.end_lineno or 0) - body[0].lineno + 1 - sum(map(function_lines, inner))


@in_checkout
def test_no_function_is_too_long() -> None:
    too_long = {}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = function_lines(node)
                if lines > MAX_FUNCTION_LINES:
                    too_long[f"{path.relative_to(ROOT)}:{node.name}"] = lines
    assert too_long == {}


@in_checkout
def test_actions_are_pinned_by_hash() -> None:
    found = []
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        found += re.findall(r"uses:\s*(\S+)(.*)", path.read_text(encoding="utf-8"))
    assert found
    for action, comment in found:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action} needs a version comment"


@in_checkout
def test_compiled_modules_have_a_python_source_or_none() -> None:
    """A .pxd beside nothing would be a misspelt name, and silently compile nothing."""
    orphans = []
    for path in (ROOT / "ext").rglob("*.pxd"):
        relative = path.relative_to(ROOT / "ext")
        python = (ROOT / "src" / relative).with_suffix(".py")
        if not python.exists() and not path.with_suffix(".pyx").exists():
            orphans.append(str(relative))
    assert orphans == []
