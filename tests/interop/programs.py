"""Other programs: found, started on the loopback interface, spoken to in lines, ended."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import pytest

HERE = Path(__file__).parent
TIMEOUT = 30.0
"""Seconds after which something that should have happened has failed."""


def find_program(name: str) -> str:
    """Give the path of a program, or skip."""
    # Debian has servers where users do not look for programs.
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def program_version(name: str, *arguments: str) -> str:
    """Give the first thing that looks like a version in what a program prints, or skip."""
    result = subprocess.run(
        [find_program(name), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT,
        check=False,
    )
    found = re.search(r"\d+(\.\d+)+", result.stdout.decode(errors="replace"))
    return found[0] if found else ""


def package_version(name: str) -> str:
    """Give the version of a Python package, or skip."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the Python package {name} is not installed")


def node_package_version(name: str) -> str:
    """Give the version of a package of Node, or skip."""
    find_program("node")
    try:
        text = (HERE / "far/node/node_modules" / name / "package.json").read_text()
    except FileNotFoundError:
        pytest.skip(f"the Node package {name} is not installed: make interop-node")
    return str(json.loads(text)["version"])


def free_port() -> int:
    """Give a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def clean_environment() -> dict[str, str]:
    """Give an environment in which no program looks for a proxy of this machine."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}


class Program:
    """A program that runs until the end of a `with` block. What it says on stderr is kept."""

    def __init__(self, *command: str, directory: Path) -> None:
        self.lines: queue.Queue[str] = queue.Queue()
        self.log = directory / f"{Path(command[0]).name}-{id(self)}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env=clean_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.decode(errors="replace"))

    def hear(self) -> Any:
        """Wait for the next line of JSON."""
        try:
            return json.loads(self.lines.get(timeout=TIMEOUT))
        except queue.Empty:
            raise AssertionError(f"nothing heard of it; {self.last_words()}") from None

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def last_words(self) -> str:
        return f"{self.process.args!r} said {self.log.read_text(errors='replace')[-2000:]!r}"

    def wait_until_it_listens(self, port: int) -> None:
        deadline = time.monotonic() + TIMEOUT
        while True:
            assert self.process.poll() is None, self.last_words()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, self.last_words()
                time.sleep(0.01)
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.process.stdout.close()


def python(script: str, *arguments: str) -> list[str]:
    """Give the command that runs one of our scripts."""
    return [sys.executable, str(HERE / "far" / script), *arguments]
