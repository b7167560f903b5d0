"""The documentation says what is true, as far as a program can tell."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .sync.peers import Peer, frame, read_frame, read_head, switching

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md"), *DOCS.glob("guide/*.md")])

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not here")


def python_blocks() -> Iterator[tuple[str, str]]:
    """Give each Python example, with where it stands."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{page.relative_to(ROOT)}:{line}", match[1]


BLOCKS = list(python_blocks()) if DOCS.is_dir() else []


def find(fd: ModuleType, module: str) -> ModuleType:
    """Find a module of the package by its public name."""
    found = fd
    for part in module.split(".")[1:]:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("code", [pytest.param(code, id=where) for where, code in BLOCKS])
def test_examples_use_what_there_is(fd: ModuleType, code: str) -> None:
    tree = ast.parse(code)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            if node.module.split(".")[0] == "fullduplex":
                module = find(fd, node.module)
                for alias in node.names:
                    imported[alias.name] = getattr(module, alias.name)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id in imported:
            signature = inspect.signature(imported[node.func.id])
            arguments = {keyword.arg: None for keyword in node.keywords}
            signature.bind(*[None for _ in node.args], **arguments)


def test_examples_have_the_right_types(tmp_path: Path) -> None:
    """As far as they can tell without what stands around them."""
    pytest.importorskip("mypy")
    for where, code in BLOCKS:
        (tmp_path / f"block_{re.sub('[^a-z0-9]', '_', where)}.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--check-untyped-defs", "--ignore-missing-imports"]
    found = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True)
    assert "checked" in found.stdout or "Found" in found.stdout, found.stdout + found.stderr
    kinds = r"\[(arg-type|call-arg|list-item|attr-defined|call-overload|dict-item)\]"
    assert not [line for line in found.stdout.splitlines() if re.search(kinds, line)]


def test_the_example_of_wait(fd: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """It goes on when a feed ends, and ends with the last one."""
    (code,) = (code for _, code in BLOCKS if "wait(feeds" in code)
    ends = {"one.example": close_normally, "two.example": hang_up}
    with contextlib.ExitStack() as stack:
        for host, end in ends.items():
            peer = stack.enter_context(Peer(end))
            assert f"wss://{host}" in code
            code = code.replace(f"wss://{host}", peer.uri)
        exec(code.replace("fullduplex", fd.__name__), {})
    assert sorted(capsys.readouterr().out.split()) == ["abrupt", "normal"]


def close_normally(sock: Any) -> None:
    close = frame(8, (1000).to_bytes(2, "big"))
    sock.sendall(switching(read_head(sock)) + frame(1, b"normal") + close)
    read_frame(sock)


def hang_up(sock: Any) -> None:
    sock.sendall(switching(read_head(sock)) + frame(1, b"abrupt"))


def test_there_are_examples() -> None:
    assert len(BLOCKS) > 20


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["threat-model.md", "needs.md"])
def test_tests_that_are_named_exist(name: str) -> None:
    """Each row of the tables names a test at least, and those that it names are there."""
    tests: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        tests.update(re.findall(r"^\s*def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
    page = (DOCS / name).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*) \|$", page, re.MULTILINE)
    for row in rows:
        if row.startswith(("rule |", "need |", "--- |")):
            continue
        held_by = set(re.findall(r"`(test_\w+)`", row.rpartition(" | ")[2]))
        assert held_by, row
        assert held_by <= tests, held_by - tests


def test_every_rule_and_need_is_there() -> None:
    threats = (DOCS / "threat-model.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| R(\d+) ", threats, re.MULTILINE) == [str(n) for n in range(1, 23)]
    needs = (DOCS / "needs.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+) ", needs, re.MULTILINE) == [str(n) for n in range(1, 37)]


def test_environment_variables_are_documented(fd: ModuleType) -> None:
    source = Path(fd.__file__ or "").parent
    used = set()
    for path in source.rglob("*.py"):
        used |= set(re.findall(r"[\"']([A-Z]*FULLDUPLEX_[A-Z_]+)[\"']", path.read_text("utf-8")))
    page = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(FULLDUPLEX_[A-Z_]+)` ", page, re.MULTILINE))
    assert documented == used


def test_the_server_guide_begins_with_origins() -> None:
    """R22: who may connect is the first thing that the guide shows."""
    guide = (DOCS / "guide" / "server.md").read_text(encoding="utf-8")
    first = re.search(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert first is not None
    assert "origins=" in first[1]
    # Every example that listens shows it, since examples are copied.
    for where, code in BLOCKS:
        for call in re.findall(r"(?<![.\w])(?:serve|unix_serve|route|accept_wsgi)\([^\n]*", code):
            assert "origins=" in call or "def " in call, f"{where}: {call}"


def test_every_page_is_in_the_contents() -> None:
    for folder in (DOCS, DOCS / "reference"):
        index = (folder / "index.md").read_text(encoding="utf-8")
        listed = {line.strip() for line in index.splitlines()}
        pages = {page.stem for page in folder.glob("*.md")} - {"index"}
        assert pages <= listed, pages - listed
    guides = {f"guide/{page.stem}" for page in DOCS.glob("guide/*.md")}
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert guides <= set(index.splitlines())
