"""The program: in this process with other standard streams, as a process, and on a terminal."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import pytest

from .sync.serving import TIMEOUT, certificates, echo, running

HAS_EXTRA = all(importlib.util.find_spec(name) for name in ("prompt_toolkit", "rich"))
BRACKETED_PASTE = "\x1b[?2004h"
VT100 = re.compile(r"\x1b\[\d*[A-Z]|\x1b[78]|\r")


class FakeInput:
    """Lines for the program; then the end, or silence until the test is over."""

    def __init__(self, lines: list[str | bytes], *, ends: bool = True) -> None:
        self.lines = lines
        self.reading = threading.Event()
        self.over = threading.Event()
        if ends:
            self.over.set()

    def readline(self) -> str | bytes:
        if self.lines:
            return self.lines.pop(0)
        self.reading.set()
        self.over.wait(TIMEOUT)
        return ""

    def isatty(self) -> bool:
        return False


@pytest.fixture
def session(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs the program in this process; gives its output without VT100 sequences."""
    inputs: list[FakeInput] = []

    def run(
        *argv: str, lines: list[str | bytes] | None = None, ends: bool = True, raw: bool = False
    ) -> str:
        stdin, stdout = FakeInput(lines or [], ends=ends), io.StringIO()
        inputs.append(stdin)
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        fd.cli.main(list(argv))
        return stdout.getvalue() if raw else VT100.sub("", stdout.getvalue())

    yield run
    for stdin in inputs:
        stdin.over.set()
    for thread in threading.enumerate():
        if thread.name == "fullduplex input":
            thread.join(TIMEOUT)
            assert not thread.is_alive()


def uri_of(run: Any) -> str:
    return f"ws://127.0.0.1:{run.address[1]}"


def send(message: Any) -> Any:
    """Make a handler that sends a message, and closes."""
    return lambda connection: connection.send(message)


# Without a server


def test_version(fd: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    fd.cli.main(["--version"])
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"fullduplex {fd.__version__}"
    assert fd.IMPLEMENTATION in second


def test_help(fd: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        fd.cli.main(["--help"])
    assert info.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith("usage: fullduplex ")
    assert all(word in output for word in ("--insecure", "--version", "<uri>"))


def test_no_uri(fd: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        fd.cli.main([])
    assert info.value.code == 2
    assert capsys.readouterr().out.startswith("usage: fullduplex ")


def test_the_arguments_of_the_process_are_the_default(
    fd: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fullduplex", "--version"])
    fd.cli.main()
    assert capsys.readouterr().out.startswith("fullduplex ")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ws://127.0.0.1:1", r"Failed to connect to ws://127\.0\.0\.1:1: .*refused.*\.\n"),
        ("http://localhost", r"Failed to connect to http://localhost: .*isn't a valid URI.*\.\n"),
        ("http://u:pw@localhost", r"Failed to connect to http://u:\*\*\*@localhost: (?!.*pw).*\n"),
        ("ws://\x1b[31m", r"Failed to connect to ws://\\x1b\[31m: .*\.\n"),
    ],
)
def test_failure_to_connect(
    fd: ModuleType, capsys: pytest.CaptureFixture[str], uri: str, message: str
) -> None:
    with pytest.raises(SystemExit) as info:
        fd.cli.main([uri])
    assert info.value.code == 1
    output = capsys.readouterr().out
    assert re.fullmatch(message, output)
    assert "\x1b" not in output


def test_an_interrupt_while_connecting(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fd.cli, "connect", interrupted)
    with pytest.raises(SystemExit) as info:
        fd.cli.main(["ws://127.0.0.1:1"])
    assert info.value.code == 130


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("äöü 漢字 😀", "äöü 漢字 😀"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x1b[2J\x00\x7f", r"\x1b[2J\x00\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("\u2028\u202e", r"\u2028\u202e"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(fd: ModuleType, text: str, shown: str) -> None:
    assert fd.cli.escape(text) == shown


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("one\n", "one"),
        ("one\r\n", "one"),
        ("\n", ""),
        (" one \n", " one "),
        ("no end", "no end"),
        (b"h\xc3\xa9\n", "hé"),
        ("bad \udcff\n", "bad \ufffd"),
    ],
)
def test_lines_of_input(fd: ModuleType, line: str | bytes, text: str) -> None:
    assert fd.cli.clean_line(line) == text


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [("", 80, 1), ("a" * 80, 80, 1), ("a" * 81, 80, 2), ("漢" * 41, 80, 2), ("ab", 0, 2)],
)
def test_rows_of_a_text(fd: ModuleType, text: str, columns: int, rows: int) -> None:
    assert fd.cli.count_rows(text, columns) == rows


@pytest.mark.parametrize("stream", [None, io.StringIO(), io.BytesIO()])
def test_no_terminals(fd: ModuleType, stream: Any) -> None:
    assert not fd.cli.is_terminal(stream)
    if stream is not None:
        stream.close()
        assert not fd.cli.is_terminal(stream)


# In this process


def test_messages_go_out_and_come_back(fd: ModuleType, session: Any) -> None:
    with running(fd, echo) as run:
        output = session(uri_of(run), lines=["one\n", b"h\xc3\xa9\n", "\n"])
    assert output.startswith(f"Connected to {uri_of(run)}.\n> ")
    assert re.findall("^< .*$|(?<=> )< .*$", output, re.MULTILINE) == ["< one", "< hé", "< "]
    assert output.endswith("Connection closed: 1000 (OK).\n")
    assert output.count("> ") == 4


def test_passwords_are_not_shown(fd: ModuleType, session: Any) -> None:
    with running(fd, echo) as run:
        output = session(uri_of(run).replace("://", "://user:secret@"), lines=[])
    assert output.startswith(f"Connected to ws://user:***@127.0.0.1:{run.address[1]}.\n")


def test_binary_messages_are_shown_as_hex(fd: ModuleType, session: Any) -> None:
    with running(fd, send(b"\x00\xffabc")) as run:
        assert "< (binary) 00ff616263\n" in session(uri_of(run), ends=False)


def test_messages_are_escaped(fd: ModuleType, session: Any) -> None:
    with running(fd, send("one\ntwo\x1b[2J")) as run:
        assert "< one\\ntwo\\x1b[2J\n" in session(uri_of(run), ends=False, raw=True)


def test_a_long_message_moves_the_prompt_down_by_its_rows(
    fd: ModuleType, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with running(fd, send("x" * 100)) as run:
        output = session(uri_of(run), ends=False, raw=True)
    assert "\x1b7\n\n\n\x1b[3A\x1b[3L\r< xxx" in output
    assert "x\n\x1b8\x1b[3B" in output


def test_it_ends_when_the_server_closes_while_stdin_blocks(fd: ModuleType, session: Any) -> None:
    def leave(connection: Any) -> None:
        connection.send("bye")
        connection.close(4000, "had\x1b enough")

    with running(fd, leave) as run:
        output = session(uri_of(run), ends=False)
    assert "< bye\n" in output
    assert output.endswith("Connection closed: 4000 (private use) had\\x1b enough.\n")


def test_it_ends_when_the_server_vanishes(fd: ModuleType, session: Any) -> None:
    with running(fd, lambda connection: connection.socket.shutdown(2)) as run:
        output = session(uri_of(run), ends=False)
    assert re.search(r"Connection closed: 1006 .*\.\n\Z", output)


def test_a_line_that_comes_too_late(fd: ModuleType, session: Any) -> None:
    gone = threading.Event()

    class Late(FakeInput):
        def readline(self) -> str | bytes:
            assert gone.wait(TIMEOUT)
            return super().readline()

    def main(connection: Any, original: Any = fd.cli.Plain.run) -> None:
        original(connection)
        gone.set()

    with pytest.MonkeyPatch.context() as patch, running(fd, send("bye")) as run:
        patch.setattr(fd.cli.Plain, "run", main)
        patch.setitem(globals(), "FakeInput", Late)
        output = session(uri_of(run), lines=["late\n"])
    assert output.endswith("Connection closed: 1000 (OK).\n")


def test_an_interrupt_closes_the_connection(
    fd: ModuleType, session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Any) -> Any:
        raise KeyboardInterrupt

    codes: list[int | None] = []

    def remember(connection: Any) -> None:
        list(connection)
        codes.append(connection.close_code)

    with running(fd, remember) as run:
        monkeypatch.setattr(fd.sync.client.ClientConnection, "__iter__", interrupt)
        output = session(uri_of(run), ends=False)
        monkeypatch.undo()
    assert output.endswith("Connection closed: 1000 (OK).\n")
    assert codes == [1000]


def test_insecure_connects_in_spite_of_the_certificate(fd: ModuleType, session: Any) -> None:
    with running(fd, send("safe"), ssl=certificates()[0]) as run:
        uri = f"wss://127.0.0.1:{run.address[1]}"
        with pytest.raises(SystemExit) as info:
            session(uri)
        assert info.value.code == 1
        assert "certificate" in sys.stdout.getvalue()  # type: ignore[attr-defined]
        assert "< safe\n" in session("--insecure", uri, ends=False)


def test_insecure_means_nothing_without_tls(fd: ModuleType, session: Any) -> None:
    with running(fd, send("bare")) as run:
        assert "< bare\n" in session("--insecure", uri_of(run), ends=False)


@pytest.mark.skipif(not HAS_EXTRA, reason="no extra")
def test_a_connection_that_ends_between_two_prompts(fd: ModuleType) -> None:
    with running(fd, echo) as run:
        connection = fd.connect(uri_of(run))
        terminal = fd.cli.Terminal.__new__(fd.cli.Terminal)
        terminal.connection = connection
        terminal._ended = threading.Event()
        lines = ["last"]

        def prompt(pre_run: Any) -> str:
            terminal._ended.set()
            return lines.pop()  # a second prompt would fail

        terminal.session = SimpleNamespace(
            prompt=prompt, app=SimpleNamespace(loop=None, future=None)
        )
        terminal.run()
    assert lines == []
    assert connection.close_code == 1000


# As a process


def test_main_module_does_nothing_when_imported(fd: ModuleType) -> None:
    module = importlib.import_module(f"{fd.__name__}.__main__")
    assert module.main is fd.cli.main


def environment(fd: ModuleType) -> dict[str, str]:
    """The same implementation, from the same place."""
    path = str(Path(fd.__file__ or "").parent.parent)
    pure = "1" if fd.IMPLEMENTATION == "pure" else "0"
    return {
        **os.environ,
        "FULLDUPLEX_PURE_PYTHON": pure,
        "PYTHONPATH": path,
        "PYTHONWARNINGS": "error",
        "PYTHONIOENCODING": "utf-8",
    }


def start(fd: ModuleType, *argv: str, **kwargs: Any) -> subprocess.Popen[Any]:
    kwargs.setdefault("env", environment(fd))
    command = [sys.executable, "-m", "fullduplex", *argv]
    return subprocess.Popen(command, **kwargs)


def test_process_version(fd: ModuleType) -> None:
    process = start(fd, "--version", stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert f"fullduplex {fd.__version__}\n{fd.IMPLEMENTATION} implementation" in output


def test_process_echo(fd: ModuleType) -> None:
    pipe = subprocess.PIPE
    with running(fd, echo) as run:
        process = start(fd, uri_of(run), stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8")
        output, errors = process.communicate("one\nzwölf\n", timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, "")
    assert "< one\n" in output
    assert "< zwölf\n" in output
    assert output.endswith("Connection closed: 1000 (OK).\n")


def test_process_ends_with_the_connection_while_stdin_blocks(fd: ModuleType) -> None:
    pipe = subprocess.PIPE
    with running(fd, send("bye")) as run:
        process = start(fd, uri_of(run), stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert process.wait(TIMEOUT) == 0  # nothing was written to stdin, and it is open
        output, errors = process.communicate()
    assert errors == ""
    assert "< bye\n" in output
    assert output.endswith("Connection closed: 1000 (OK).\n")


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_process_interrupted(fd: ModuleType) -> None:
    pipe = subprocess.PIPE
    with running(fd) as run:
        process = start(fd, uri_of(run), stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Connected")
        assert process.stdout.read(2) == "> "
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 0  # stdin is still open
        output, errors = process.communicate()
    assert errors == ""
    assert output.endswith("Connection closed: 1000 (OK).\n")


def test_process_whose_reader_leaves(fd: ModuleType) -> None:
    def talk(connection: Any) -> None:
        with contextlib.suppress(fd.exceptions.ConnectionClosed):
            while True:
                connection.send("on and on")

    pipe = subprocess.PIPE
    with running(fd, talk) as run:
        process = start(fd, uri_of(run), stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        # It closes the connection, whose end may lie behind more messages than are kept: close_timeout, then.
        assert process.wait(2 * TIMEOUT) == 1
        assert process.stdin is not None
        assert process.stderr is not None
        errors = process.stderr.read()
        process.stdin.close()
        process.stderr.close()
    assert errors == ""


# On a terminal


class Screen:
    """The other end of a pseudo-terminal on which the program runs."""

    def __init__(self, fd: ModuleType, *argv: str, **variables: str) -> None:
        import pty

        self.end, slave = pty.openpty()
        self.environ = {
            **environment(fd),
            "TERM": "xterm",
            "COLUMNS": "80",
            "LINES": "24",
            **variables,
        }
        # prompt_toolkit has its own worries with warnings.
        self.environ.pop("PYTHONWARNINGS")
        self.process = start(
            fd,
            *argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=self.environ,
            start_new_session=True,
        )
        os.close(slave)
        self.output = ""

    def expect(self, text: str, times: int = 1, *, key: str = "") -> None:
        """Read until some text has come.

        ``key`` is typed until it has, whenever the prompt has stood there for half a second: what is
        shown above the prompt takes it away for a moment, and what comes just then is nobody's.
        """
        deadline = time.monotonic() + TIMEOUT
        while self.output.count(text) < times:
            left = 0.5 if key else deadline - time.monotonic()
            readable = select.select([self.end], [], [], max(left, 0))[0]
            if not readable:
                if key and (self.environ["TERM"] == "dumb" or self.at_prompt()):
                    self.type(key)
                assert time.monotonic() < deadline, f"no {text!r} in {self.output!r}"
                continue
            try:
                data = os.read(self.end, 65536)
            except OSError:  # EIO: the program has ended
                data = b""
            assert data, f"no {text!r} in {self.output!r}"
            self.output += data.decode(errors="replace")
            # A terminal answers when asked for the position of the cursor.
            if b"\x1b[6n" in data:
                os.write(self.end, b"\x1b[1;1R")

    def at_prompt(self) -> bool:
        end = BRACKETED_PASTE.replace("h", "l")
        return self.output.rfind(BRACKETED_PASTE) > self.output.rfind(end)

    def expect_prompt(self, times: int) -> None:
        """Read until the prompt has come, and what is typed goes to it."""
        dumb = self.environ["TERM"] == "dumb"
        self.expect("> " if dumb else BRACKETED_PASTE, times)

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        if self.process.poll() is None and args[0] is not None:
            self.process.kill()
        try:
            self.process.wait(TIMEOUT)
        finally:
            os.close(self.end)


terminal = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are those of POSIX")
# "dumb" has the plain interface, whatever is installed.
TERMS = ["dumb", pytest.param("xterm", marks=pytest.mark.skipif(not HAS_EXTRA, reason="no extra"))]


@terminal
@pytest.mark.parametrize("term", TERMS)
def test_terminal_echo_and_end_of_input(fd: ModuleType, term: str) -> None:
    with running(fd, echo) as run, Screen(fd, uri_of(run), TERM=term) as screen:
        screen.expect_prompt(1)
        screen.type("hello\n")
        screen.expect("< hello")
        screen.type("again\n")
        screen.expect("< again")
        screen.expect_prompt(3)
        screen.expect("Connection closed: 1000 (OK).", key="\x04")
        assert screen.process.wait(TIMEOUT) == 0


@terminal
@pytest.mark.parametrize("term", TERMS)
def test_terminal_ends_with_the_connection(fd: ModuleType, term: str) -> None:
    leave = threading.Event()

    def handler(connection: Any) -> None:
        connection.send(b"\x01\x02")
        leave.wait(TIMEOUT)

    with running(fd, handler) as run, Screen(fd, uri_of(run), TERM=term) as screen:
        screen.expect("< (binary) 0102")
        screen.type("half a li")
        leave.set()
        screen.expect("Connection closed: 1000 (OK).")
        assert screen.process.wait(TIMEOUT) == 0


@terminal
@pytest.mark.parametrize("term", TERMS)
def test_terminal_and_a_server_that_vanishes(fd: ModuleType, term: str) -> None:
    def handler(connection: Any) -> None:
        connection.recv()
        connection.socket.shutdown(2)

    with running(fd, handler) as run, Screen(fd, uri_of(run), TERM=term) as screen:
        screen.expect_prompt(1)
        screen.type("hello\n")
        screen.expect("Connection closed: 1006 ")
        assert screen.process.wait(TIMEOUT) == 0


@terminal
@pytest.mark.parametrize("term", TERMS)
def test_terminal_interrupted(fd: ModuleType, term: str) -> None:
    with running(fd, echo) as run, Screen(fd, uri_of(run), TERM=term) as screen:
        screen.type("hello\n")
        screen.expect("< hello")
        screen.expect_prompt(2)
        if term == "dumb":
            screen.process.send_signal(signal.SIGINT)
        screen.expect("Connection closed: 1000 (OK).", key="" if term == "dumb" else "\x03")
        assert screen.process.wait(TIMEOUT) == 0
