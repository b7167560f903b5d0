"""Chromium without a window, as a client that is told what to do over a WebSocket of its own."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any, Self

from .ours import OurServer
from .programs import TIMEOUT, Program, find_program

FLAGS = [
    "--headless",
    "--no-sandbox",  # which it cannot have as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    # It talks to nobody but us.
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=OptimizationHints,MediaRouter,Translate",
    # A page that nobody sees is not slowed down.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
]


class Browser:
    """A browser with the page `far/page.html` open, for the time of a `with` block."""

    def __init__(self, server: OurServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        chromium = find_program("chromium")
        # It is still writing to its profile when it has been told to end.
        profile = self.stack.enter_context(
            tempfile.TemporaryDirectory(dir=self.directory, ignore_cleanup_errors=True)
        )
        self.program = self.stack.enter_context(
            Program(
                chromium,
                *FLAGS,
                f"--user-data-dir={profile}",
                "--remote-debugging-port=0",  # keeps it running without a window
                f"http://127.0.0.1:{self.server.port}/page",
                directory=self.directory,
            )
        )
        try:
            self.control = self.stack.enter_context(self.server.accept())
        except BaseException as exc:
            exc.add_note(self.program.last_words())
            self.stack.close()
            raise
        return self

    def tell(self, line: str) -> None:
        self.control.send(line)

    def hear(self) -> Any:
        return json.loads(self.control.recv(timeout=TIMEOUT))

    def __exit__(self, *_: object) -> None:
        self.stack.close()
