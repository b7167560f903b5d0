"""The program with standard streams that are missing, damaged, or left by their readers."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from .sync.serving import TIMEOUT, echo, running
from .test_cli import environment, send, start, uri_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the shell is that of POSIX")


def run_in_shell(
    fd: ModuleType, uri: str, redirection: str, data: bytes = b"", **variables: str
) -> tuple[int, bytes, bytes]:
    """Run the program behind a redirection; give its status, output and errors."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "fullduplex", uri],
        input=data,
        capture_output=True,
        env={**environment(fd), **variables},
        timeout=TIMEOUT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_no_stdin_is_the_end_of_input(fd: ModuleType) -> None:
    with running(fd, echo) as run:
        status, output, errors = run_in_shell(fd, uri_of(run), "<&-")
    assert (status, errors) == (0, b"")
    assert output.endswith(b"Connection closed: 1000 (OK).\n")


def test_no_stdout(fd: ModuleType) -> None:
    got: list[Any] = []
    with running(fd, got.extend) as run:
        status, output, errors = run_in_shell(fd, uri_of(run), ">&-", b"one\n")
    assert (status, output, errors) == (0, b"", b"")
    assert got == ["one"]


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape", "ascii:strict"])
def test_invalid_bytes_are_replaced_and_lines_are_kept(fd: ModuleType, encoding: str) -> None:
    got: list[Any] = []
    with running(fd, got.extend) as run:
        data = b"one\nt\xffwo\nthr\xc3\xa9\n"
        status, _, errors = run_in_shell(fd, uri_of(run), "", data, PYTHONIOENCODING=encoding)
    assert (status, errors) == (0, b"")
    assert got == ["one", "t\ufffdwo", "thré"]


def test_characters_that_stdout_cannot_show(fd: ModuleType) -> None:
    pipe = subprocess.PIPE
    with running(fd, send("é漢")) as run:
        variables = {**environment(fd), "PYTHONIOENCODING": "ascii:strict"}
        # The server ends it: input does not.
        with start(fd, uri_of(run), stdin=pipe, stdout=pipe, stderr=pipe, env=variables) as process:
            status = process.wait(TIMEOUT)
            output, errors = process.communicate()
    assert (status, errors) == (0, b"")
    assert b"< \\xe9\\u6f22\n" in output


@pytest.mark.parametrize("connects", [True, False])
def test_the_reader_of_stdout_has_left(fd: ModuleType, connects: bool) -> None:
    with running(fd, echo) as run:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "fullduplex", uri_of(run) if connects else "ws://localhost:0"],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            env=environment(fd),
            timeout=TIMEOUT,
            check=False,
        )
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
