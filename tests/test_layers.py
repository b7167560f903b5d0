"""Imports point from the outer layers to the inner ones, never back."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

# Inner layers first. A module may import from its own layer and from those above it here. A name
# that ends in a dot stands for everything in that package.
LAYERS = {
    "vocabulary": ("_version", "environment", "exceptions", "typing", "datastructures"),
    "codec": ("codec", "codec."),
    "protocol": (
        "auth",
        "client",
        "extensions",
        "extensions.",
        "frames",
        "headers",
        "handshake",
        "machine",
        "http11",
        "http11_parser",
        "protocol",
        "server",
        "states",
        "uri",
    ),
    "stream": ("stream", "_fdstream", "_tlsstream"),
    "connection": (
        "conditions",
        "_roles",
        "roles",
        "sync.checks",
        "sync.closing",
        "sync.connection",
        "sync.core",
        "sync.keepalive",
        "sync.sending",
        "sync.pings",
        "sync.queueing",
        "sync.service",
        "sync.wait",
    ),
    "entry points": ("sync.", "sync"),
    "programs": ("cli", "__main__"),
    # The root gives out names of all layers, and how to load them.
    "root": ("", "_source_only"),
}
NAMES = list(LAYERS)

# What a layer must not know, as modules of the standard library.
THREADS_AND_SOCKETS = {"asyncio", "queue", "select", "selectors", "socket", "ssl", "threading"}
FORBIDDEN = {
    "vocabulary": THREADS_AND_SOCKETS | {"time"},
    "codec": THREADS_AND_SOCKETS | {"logging", "time"},
    "protocol": THREADS_AND_SOCKETS | {"time"},
}
# The Date header of a response is the only use of a clock.
ALLOWED = {("http11", "time")}


def layer_of(module: str) -> int:
    """Give the rank of a module's layer; exact names count before packages."""
    for exact in (True, False):
        for rank, name in enumerate(NAMES):
            for entry in LAYERS[name]:
                if module == entry if exact else entry.endswith(".") and module.startswith(entry):
                    return rank
    pytest.fail(f"{module} belongs to no layer: add it to LAYERS")


def package() -> Path:
    return Path(importlib.import_module("fullduplex").__file__ or "").parent


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_time_nodes(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Find the imports that happen at run time: not those for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield from run_time_nodes(ast.Module([other], []))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        else:
            yield from run_time_nodes(node)


def imports(path: Path, root: Path) -> Iterator[tuple[str, str, int]]:
    """Give (kind, module, line) for each import: kind is "own" or "other"."""
    name = module_name(path, root)
    parent = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in run_time_nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield "other", alias.name, node.lineno
        elif node.level == 0:
            yield "other", node.module or "", node.lineno
        else:
            kept = len([part for part in parent if part]) - (node.level - 1)
            base = [part for part in parent if part][:kept]
            target = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                inner = f"{target}.{alias.name}" if target else alias.name
                is_module = (root / Path(*inner.split("."))).with_suffix(".py").exists()
                yield "own", inner if is_module or not target else target, node.lineno


def violations(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        name = module_name(path, root)
        rank = layer_of(name)
        if NAMES[rank] == "root":
            continue
        forbidden = FORBIDDEN.get(NAMES[rank], set())
        for kind, target, line in imports(path, root):
            where = f"{path.relative_to(root)}:{line}"
            if kind == "own":
                if layer_of(target) > rank:
                    found.append(
                        f"{where} {NAMES[rank]} imports {target} of {NAMES[layer_of(target)]}"
                    )
            elif target.split(".")[0] == "fullduplex":
                found.append(f"{where} imports {target} absolutely, so two copies would mix")
            elif target.split(".")[0] in forbidden and (name, target) not in ALLOWED:
                found.append(f"{where} {NAMES[rank]} must not know {target}")
    return found


def test_imports_point_inwards_only() -> None:
    assert violations(package()) == []


def test_cython_imports_point_inwards_only() -> None:
    ext = Path(__file__).parent.parent / "ext" / "fullduplex"
    if not ext.is_dir():
        pytest.skip("the Cython sources are not here")
    pattern = re.compile(
        r"^\s*from\s+(fullduplex\b\.?|\.+)([\w.]*)\s+c?import\s+(.*)", re.MULTILINE
    )
    found, seen = [], 0
    for path in sorted([*ext.rglob("*.pyx"), *ext.rglob("*.pxd")]):
        name = module_name(path, ext)
        parent = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
        for prefix, target, what in pattern.findall(path.read_text(encoding="utf-8")):
            base = parent[: len(parent) - (len(prefix) - 1)] if prefix.startswith(".") else []
            module = ".".join([*base, *filter(None, target.split("."))])
            # From a package come modules, from a module the names in it.
            modules = [module]
            if (ext / Path(*module.split("."))).is_dir():
                modules = [f"{module}.{word}".strip(".") for word in re.findall(r"\w+", what)]
            for imported in modules:
                seen += 1
                if layer_of(imported) > layer_of(name):
                    found.append(f"{path.relative_to(ext)} imports {imported}")
    assert seen
    assert found == []


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("codec/pure.py", "from ..protocol import Protocol", "codec imports protocol"),
        ("codec/pure.py", "from .. import stream", "codec imports stream"),
        ("exceptions.py", "from .codec import pure", "vocabulary imports codec.pure"),
        ("protocol.py", "import socket", "must not know socket"),
        ("protocol.py", "def f():\n    from .sync import client", "protocol imports sync.client"),
        ("sync/client.py", "import fullduplex.protocol", "absolutely"),
        ("sync/client.py", "from fullduplex import protocol", "absolutely"),
        ("protocol.py", "if TYPE_CHECKING:\n    pass\nelse:\n    from . import cli", "imports cli"),
    ],
)
def test_the_check_sees_a_violation(tmp_path: Path, module: str, line: str, complaint: str) -> None:
    for name in ("protocol", "stream", "exceptions", "cli", "codec/pure", "sync/client"):
        path = (tmp_path / name).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text("from __future__ import annotations\n", encoding="utf-8")
    assert violations(tmp_path) == []
    (tmp_path / module).write_text(line + "\n", encoding="utf-8")
    (violation,) = violations(tmp_path)
    assert complaint in violation


def test_imports_for_type_checkers_are_free(tmp_path: Path) -> None:
    (tmp_path / "exceptions.py").write_text(
        "if TYPE_CHECKING:\n    from .http11 import Response\n", encoding="utf-8"
    )
    (tmp_path / "http11.py").write_text("import time\n", encoding="utf-8")
    assert violations(tmp_path) == []
