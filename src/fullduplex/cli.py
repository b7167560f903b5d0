"""The program ``fullduplex``: an interactive client.

Each line of input is sent as a text message, and messages that come are shown above the line that
is being typed. There are two user interfaces with the same behaviour: `Terminal`, on prompt_toolkit
and rich, when both are installed and input and output are a terminal; otherwise `Plain`, which
needs neither. Both use two threads: one reads input and sends, one receives and shows. The session
ends when input does, or when the connection is closed, also while the other thread waits for input.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import platform
import shutil
import ssl
import sys
import threading
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ._version import __version__
from .codec import IMPLEMENTATION
from .exceptions import ConnectionClosed, without_password
from .frames import Close, CloseCode
from .sync.client import connect

if TYPE_CHECKING:
    from .sync.connection import Connection
    from .typing import Data

__all__ = ["main"]

PROMPT: Final = "> "

SAVE_CURSOR: Final = "\x1b7"
RESTORE_CURSOR: Final = "\x1b8"
ERASE_TO_END_OF_LINE: Final = "\x1b[K"

_NAMED_ESCAPES: Final = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
# Not only control characters: line separators and changes of direction can forge output too.
_UNSAFE_CATEGORIES: Final = frozenset(["Cc", "Cs", "Zl", "Zp"])
_DIRECTIONS: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def escape(text: str) -> str:
    """Make text from the network safe to show: escapes stand for what could steer a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape_character(character) for character in text)


def _escape_character(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE_CATEGORIES and character not in _DIRECTIONS:
        return character
    code = ord(character)
    return _NAMED_ESCAPES.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def describe(message: Data) -> str:
    """Give the line that shows a message."""
    if isinstance(message, str):
        return f"< {escape(message)}"
    return f"< (binary) {message.hex()}"


def describe_end(connection: Connection) -> str:
    """Give the line that tells how the connection ended."""
    code = connection.close_code or CloseCode.ABNORMAL_CLOSURE
    return f"Connection closed: {escape(str(Close(code, connection.close_reason or '')))}."


class Plain:
    """Interaction through ``sys.stdin`` and ``sys.stdout``, with VT100 sequences."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # Held while writing, so that the lines of the two threads don't mix.
        self._output = threading.Lock()

    def run(self) -> None:
        """Interact until the end of input or of the connection."""
        try:
            threading.Thread(target=self._send, name="fullduplex input", daemon=True).start()
            while True:
                self._receive()
        except ConnectionClosed:
            pass
        except KeyboardInterrupt:
            self.connection.close()
        self._write(f"\r{ERASE_TO_END_OF_LINE}{describe_end(self.connection)}\n")

    def _receive(self) -> None:
        # A signal that comes in the instant before the thread falls asleep does not wake it, and Python sees it only
        # when it wakes; so it does not sleep for ever.
        with contextlib.suppress(TimeoutError):
            self._show_above(describe(self.connection.recv(timeout=1.0)))

    def _send(self) -> None:
        """Send what is typed; in a thread that may never come back from reading."""
        try:
            while True:
                self._write(PROMPT)
                line = sys.stdin.readline() if sys.stdin is not None else ""
                if not line:
                    break
                self.connection.send(clean_line(line))
        except (ConnectionClosed, OSError, ValueError):
            pass  # the connection is gone, or stdin or stdout is
        self.connection.close()

    def _show_above(self, text: str) -> None:
        """Show text above the line where the cursor is, which keeps its place in that line."""
        rows = count_rows(text, shutil.get_terminal_size().columns)
        many = "" if rows == 1 else str(rows)
        self._write(
            # Line feeds make room below, by scrolling if need be; then the prompt is pushed down.
            f"{SAVE_CURSOR}{rows * chr(10)}\x1b[{many}A\x1b[{many}L\r{text}\n"
            f"{RESTORE_CURSOR}\x1b[{many}B"
        )

    def _write(self, text: str) -> None:
        with self._output:
            if sys.stdout is not None:
                sys.stdout.write(text)
                sys.stdout.flush()


class Terminal:
    """Interaction with editing, history and colours."""

    def __init__(self, connection: Connection) -> None:
        from prompt_toolkit import PromptSession

        self.connection = connection
        self.session: Any = PromptSession(PROMPT)
        self._ended = threading.Event()

    @staticmethod
    def usable() -> bool:
        """Tell whether there is a terminal, and what is needed to make use of it."""
        return (
            is_terminal(sys.stdin)
            and is_terminal(sys.stdout)
            and os.environ.get("TERM", "") not in ("", "dumb")
            and all(importlib.util.find_spec(name) for name in ("prompt_toolkit", "rich"))
        )

    def run(self) -> None:
        """Interact until the end of input or of the connection."""
        from prompt_toolkit.patch_stdout import patch_stdout
        from rich.console import Console

        with patch_stdout(raw=True):
            # Made here, so that it writes above the prompt.
            console = Console(force_terminal=True, highlight=False, markup=False, emoji=False)
            receiver = threading.Thread(target=self._receive, args=(console,), daemon=True)
            receiver.start()
            try:
                while not self._ended.is_set():
                    line = self.session.prompt(pre_run=self._leave_if_ended)
                    self.connection.send(clean_line(line))
            except (ConnectionClosed, EOFError, KeyboardInterrupt):
                pass
            self.connection.close()
            receiver.join()
            console.print(describe_end(self.connection), style="bold", soft_wrap=True)

    def _receive(self, console: Any) -> None:
        try:
            for message in self.connection:
                style = "green" if isinstance(message, str) else "cyan"
                console.print(describe(message), style=style, soft_wrap=True)
        except ConnectionClosed:
            pass
        finally:
            # Either the prompt runs, and is told to leave, or it looks when it begins to run.
            self._ended.set()
            loop = self.session.app.loop
            if loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(self._leave_if_ended)

    def _leave_if_ended(self) -> None:
        """End the prompt when the connection has ended; in the prompt's own thread."""
        future = self.session.app.future
        if self._ended.is_set() and future is not None and not future.done():
            self.session.app.exit(exception=EOFError())


def accept_all_characters() -> None:
    """Make the standard streams take what their encoding has no place for, instead of failing.

    `clean_line` sees to what comes in; what goes out is written as escapes.
    """
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        # A stream may be missing, be somebody's own, or have been read from already.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors=errors)  # type: ignore[union-attr]


def is_terminal(stream: Any) -> bool:
    """Tell whether a standard stream is a terminal; some are no streams, or closed."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def clean_line(line: str | bytes) -> str:
    """Give what a line of input says, without its end, and with valid characters only."""
    raw = line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line
    return raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")


def count_rows(text: str, columns: int) -> int:
    """Tell how many rows of a terminal a line of text takes."""
    width = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return max(1, -(-width // max(columns, 1)))


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="fullduplex",
        description="Interactive WebSocket client: sends each line of input, shows what comes.",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="don't check the server's certificate (wss://)"
    )
    parser.add_argument(
        "--version", action="store_true", help="show version and implementation, and exit"
    )
    parser.add_argument("uri", metavar="<uri>", nargs="?", help="ws:// or wss://")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program.

    Args:
        argv: its arguments; None for those of the process.

    Raises:
        SystemExit: with status 2 for wrong arguments, and 1 when it is not possible to connect.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.version:
        print(f"fullduplex {__version__}")
        print(f"{IMPLEMENTATION} implementation, Python {platform.python_version()}")
        return
    if args.uri is None:
        parser.print_usage(sys.stdout)
        sys.exit(2)
    accept_all_characters()
    connection: Connection | None = None
    try:
        connection = open_connection(args.uri, args.insecure)
        print(f"Connected to {escape(without_password(args.uri))}.", flush=True)
        (Terminal if Terminal.usable() else Plain)(connection).run()
    except BrokenPipeError:
        # Whoever read our output has left. What is still buffered must not fail again at exit.
        if connection is not None:
            connection.close()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def open_connection(uri: str, insecure: bool) -> Connection:
    """Connect, or say why that failed and leave."""
    context = None
    if insecure and uri.lower().startswith("wss:"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        return connect(uri, ssl=context)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as exc:
        target = escape(without_password(uri))
        print(f"Failed to connect to {target}: {escape(str(exc))}.", flush=True)
        sys.exit(1)
